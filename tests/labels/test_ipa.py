"""Other names for segments: IPA, speech and silence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechattn.labels.intervals import Segment
from speechattn.labels.ipa import in_ipa, ipa_symbols, speech_and_silence
from speechattn.phones import PHONETIC_SETS, PhoneSet


def follow(*parts):
    """Segments of these (phone, seconds, confidence) one after the other."""
    segments, time = [], 0.0
    for phone, seconds, *confidence in parts:
        segments.append(Segment(phone, time, time + seconds, *confidence))
        time += seconds
    return segments


@pytest.mark.parametrize("name", PHONETIC_SETS)
def test_every_phone_of_every_set_has_a_symbol(name):
    symbols = ipa_symbols(PhoneSet.load(name).symbols)
    assert all(symbols.values()) and not any("\t" in symbol or " " in symbol for symbol in symbols.values())
    speech = [symbol for symbol in symbols if symbol not in ("cl", "vcl") and symbols[symbol] not in ("sil", "spn")]
    # Where a set keeps phones apart, so does IPA.
    assert len({symbols[symbol] for symbol in speech}) == len(speech)


def test_a_few_symbols_by_hand():
    expected = {"TH": "θ", "DH": "ð", "ZH": "ʒ", "NG": "ŋ", "AY": "aɪ", "q": "ʔ", "dx": "ɾ", "axr": "ɚ", "SIL": "sil"}
    assert ipa_symbols(expected) == expected
    assert in_ipa(follow(("SH", 0.1, 0.5))) == [Segment("ʃ", 0.0, 0.1, 0.5)]
    with pytest.raises(ValueError, match="no IPA symbol for 17 xx"):
        ipa_symbols(["AA", "xx", "17"])


def test_short_pauses_are_speech_and_then_short_speech_is_silence():
    segments = follow(
        ("SIL", 0.3, 0.9), ("B", 0.1, 0.5), ("SIL", 0.19, 0.7), ("AA", 0.2, 1.0), ("SIL", 0.25), ("T", 0.05)
    )
    segments += [
        segment._replace(start=segment.start + 1.09, end=segment.end + 1.09) for segment in follow(("SIL", 1.0))
    ]
    turns = speech_and_silence(segments, {"SIL"})
    assert [turn.phone for turn in turns] == ["silence", "speech", "silence"]
    assert [turn.end for turn in turns] == pytest.approx([0.3, 0.79, 2.09])
    assert turns[1].confidence == pytest.approx((0.1 * 0.5 + 0.19 * 0.7 + 0.2 * 1.0) / 0.49)
    # At the edges short ones stay: what comes before or after is not known.
    assert [turn.phone for turn in speech_and_silence(follow(("T", 0.05), ("SIL", 0.1)), {"SIL"})] == [
        "speech",
        "silence",
    ]


@given(st.lists(st.tuples(st.sampled_from(["SIL", "A", "B"]), st.floats(0.01, 0.5), st.floats(0, 1)), min_size=1))
def test_turns_cover_the_same_time_and_alternate(parts):
    segments = follow(*parts)
    turns = speech_and_silence(segments, {"SIL"})
    assert (turns[0].start, turns[-1].end) == (segments[0].start, segments[-1].end)
    for before, after in zip(turns, turns[1:], strict=False):
        assert before.end == after.start and before.phone != after.phone
    for turn in turns[1:-1]:
        assert turn.phone == "speech" or turn.end - turn.start > 0.2 - 1e-9
    assert all(0 <= turn.confidence <= 1 + 1e-9 for turn in turns)
