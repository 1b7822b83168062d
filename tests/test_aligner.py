"""Forced alignment: times against hand labels, and results that depend on nothing but the utterance."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechattn import aligner
from speechattn.aligner import Utterance, align_cuts, align_utterances, default_lexicon, read_lexicon
from speechattn.alignment import Interval, frame_labels
from speechattn.corpora.manifest import phone_intervals, utterance_cut
from speechattn.phones import PhoneSet

# Utterances of the TIMIT sample whose alignments tell a boundary at 160 e + 120 from one at 160 e.
CLEAR = {
    "dr1-mcpm0": ("sa1", "sa2", "si564", "sx114"),
    "dr8-mbcg0": ("si486", "sx147", "sx417"),
}
SMALL = {
    "yes": [("Y", "EH", "S")],
    "no": [("N", "OW")],
    "on": [("AA", "N"), ("AO", "N")],
    "x-ray": [("EH", "K", "S", "R", "EY")],
}


@pytest.fixture(scope="module")
def timit(timit_archive, tmp_path_factory):
    """The utterances of CLEAR: id -> (Utterance, hand labels, number of samples)."""
    folder = tmp_path_factory.mktemp("timit")
    utterances = {}
    with zipfile.ZipFile(timit_archive) as file:
        for name in (f"{folder}/{stem}" for folder, stems in CLEAR.items() for stem in stems):
            for suffix in ("wav", "phn", "txt"):
                file.extract(f"timit/{name}.{suffix}", folder)
            path = folder / "timit" / name
            num_samples = soundfile.info(f"{path}.wav").frames
            rows = [line.split() for line in Path(f"{path}.phn").read_text().splitlines()]
            hand = [Interval(int(start), int(end), symbol) for start, end, symbol in rows]
            text = Path(f"{path}.txt").read_text().split(maxsplit=2)[2]
            utterance_id = name.replace("/", "-")
            utterances[utterance_id] = Utterance(utterance_id, Path(f"{path}.wav"), text), hand, num_samples
    return utterances


@pytest.fixture(scope="module")
def lexicon():
    return default_lexicon()


@pytest.fixture(scope="module")
def alignments(timit, lexicon):
    """id -> intervals, aligned one after the other in this process."""
    aligned, rejected = align_utterances([utterance for utterance, _, _ in timit.values()], lexicon)
    assert rejected == []
    return aligned


def test_intervals_are_contiguous_arpabet_from_0_to_the_end(timit, alignments):
    symbols = set(PhoneSet.load("arpabet41").symbols)
    for name, intervals in alignments.items():
        assert intervals[0].start == 0
        assert intervals[-1].end == timit[name][2]
        assert all(a.end == b.start and a.start < a.end for a, b in zip(intervals, intervals[1:], strict=False))
        assert {interval.symbol for interval in intervals} <= symbols
        assert all((interval.start - 120) % 160 == 0 for interval in intervals[1:])


def test_agrees_with_hand_labels_and_a_wrong_time_origin_would_not(timit, alignments):
    phones = PhoneSet.load("timit39")

    def agreement(shift: int) -> float:
        """Share of frames on which the alignment, moved by some samples, agrees with the hand labels."""
        agree = total = 0
        for name, intervals in alignments.items():
            _, hand, num_samples = timit[name]
            ours = [
                Interval(max(start + shift, 0), end + shift, symbol.lower().replace("sil", "h#"))
                for start, end, symbol in intervals
            ]
            ids = phones.ids(interval.symbol for interval in ours + hand)
            theirs = frame_labels(hand, num_samples, ids)
            scored = theirs >= 0
            agree += (frame_labels(ours, num_samples, ids) == theirs)[scored].sum()
            total += scored.sum()
        return agree / total

    floor = 0.66
    assert agreement(0) > floor
    assert agreement(-120) < floor - 0.01  # boundaries at 160 e, the start of the aligner's window


def test_result_depends_neither_on_order_nor_on_processes(timit, lexicon, alignments):
    backwards = [utterance for utterance, _, _ in reversed(timit.values())]
    aligned, rejected = align_utterances(backwards, lexicon, num_jobs=2)
    assert rejected == []
    assert list(aligned) == [utterance.id for utterance in backwards]
    assert aligned == alignments


def test_failures_have_reasons_and_do_not_disturb_the_others(timit, lexicon, alignments):
    name, (good, _, _) = next(iter(timit.items()))
    utterances = [
        Utterance("unknown", good.audio, "she had zzqx and zzqx vrumph"),
        Utterance("long", good.audio, "unmistakable characteristics " * 40),
        Utterance("empty", good.audio, "..."),
        Utterance("misfit", good.audio, "we " * 50),
        Utterance("missing", good.audio.with_name("nothing.wav"), "she"),
        good,
    ]
    aligned, rejected = align_utterances(utterances, lexicon)
    assert aligned == {name: alignments[name]}
    reasons = dict(rejected)
    assert list(reasons) == ["unknown", "long", "empty", "misfit", "missing"]
    assert reasons["unknown"] == "not in the lexicon: zzqx, vrumph"
    assert reasons["long"].startswith("audio too short: 3.")
    assert reasons["empty"] == "empty transcript"
    assert reasons["misfit"] == "alignment failed: the transcript does not fit the audio"
    assert "nothing.wav: no such file" in reasons["missing"]


def test_align_cuts_adds_phones_and_keeps_the_rest(timit, lexicon, alignments):
    name, (good, _, num_samples) = next(iter(timit.items()))
    plain = utterance_cut(name, good.audio, speaker="mcpm0", text=good.text)
    unknown = utterance_cut("unknown", good.audio, speaker="mcpm0", text="zzqx")
    cuts, rejected = align_cuts([unknown, plain], lexicon)
    (cut,) = cuts
    assert phone_intervals(cut) == alignments[name]
    assert (cut.id, cut.supervisions[0].text, cut.num_samples) == (name, good.text, num_samples)
    assert plain.supervisions[0].alignment is None
    assert rejected == [("unknown", "not in the lexicon: zzqx")]


def test_align_cuts_refuses_what_it_cannot_align(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    cut = utterance_cut("a", tmp_path / "a.wav", speaker="s", text="yes")
    with pytest.raises(ValueError, match="cut a: a whole recording is needed"):
        align_cuts([cut.truncate(duration=0.5, preserve_id=True)], SMALL)
    with pytest.raises(ValueError, match="cut a: alignment needs one supervision with a text"):
        align_cuts([utterance_cut("a", tmp_path / "a.wav", speaker="s", text="")], SMALL)


@pytest.mark.parametrize("num_jobs", [1, 2])
def test_audio_too_short_or_unreadable_is_a_reason(tmp_path, num_jobs):
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16000)
    (tmp_path / "text.wav").write_text("no audio")
    utterances = [Utterance(name, tmp_path / f"{name}.wav", "yes") for name in ("short", "text")]
    aligned, rejected = align_utterances(utterances, SMALL, num_jobs=num_jobs)
    assert aligned == {}
    assert rejected[0] == ("short", "audio too short: 0.01 s for at least 3 phones")
    assert rejected[1].id == "text" and "not an audio file" in rejected[1].reason


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_jobs must be at least 1, got 0"):
        align_utterances([], SMALL, num_jobs=0)
    with pytest.raises(ValueError, match="two utterances have the same id"):
        align_utterances([Utterance("a", Path("a.wav"), "yes"), Utterance("a", Path("b.wav"), "no")], SMALL)
    assert align_utterances([], SMALL) == ({}, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("YES no", "yes no"),
        ("Yes, on -- 'on'!", "yes on on"),
        ("\u201cNo\u201d x-ray yes-no", "no x-ray yes no"),
    ],
)
def test_words_of_a_transcript(text, words):
    assert aligner._words(text, SMALL) == words.split()


def test_boundary_before_frame_e_lies_at_160_e_plus_120():
    entries = [("SIL", 0), ("SIL", 3), ("AA", 10), ("N", 14), ("+SPN+", 20), ("+NSN+", 30), ("SIL", 35)]
    assert aligner._to_intervals(entries, 7000) == [
        Interval(0, 1720, "SIL"),
        Interval(1720, 2360, "AA"),
        Interval(2360, 3320, "N"),
        Interval(3320, 4920, "SPN"),
        Interval(4920, 7000, "SIL"),
    ]


def test_outliers_are_measured_against_median_and_mad():
    scores = [-20.0 - abs(number - 50) % 7 for number in range(100)]
    deviations = sorted(abs(score + 23) for score in scores)  # the median is -23
    mad = (deviations[49] + deviations[50]) / 2
    assert aligner._lowest_score(scores, 4.0) == pytest.approx(-23 - 4 * 1.4826 * mad)
    assert aligner._lowest_score([*scores[::-1]], 4.0) == aligner._lowest_score(scores, 4.0)
    assert aligner._lowest_score(scores[:19], 4.0) == -np.inf


def test_an_outlier_is_rejected_with_its_score(monkeypatch):
    scores = {f"u{number}": -20.0 - number % 5 for number in range(30)} | {"bad": -90.0}

    def align(self, utterance):
        return aligner._Aligned([Interval(0, 160, "SIL")], scores[utterance.id], None)

    monkeypatch.setattr(aligner._Aligner, "align", align)
    aligned, rejected = align_utterances([Utterance(name, Path(), "yes") for name in scores], SMALL)
    assert list(aligned) == [f"u{number}" for number in range(30)]
    (rejection,) = rejected
    assert rejection.id == "bad"
    assert rejection.reason.startswith("poor fit: score per speech frame -90.0 is below -")


def test_read_lexicon(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text(
        ";;; comment\nYOUR\tY AO1 R\nYOUR\tY UH0 R\nYOUR\tY AO0 R\nRead R EH1 D # past\nread(2) R IY1 D\n\n"
    )
    assert read_lexicon(path) == {
        "your": [("Y", "AO", "R"), ("Y", "UH", "R")],
        "read": [("R", "EH", "D"), ("R", "IY", "D")],
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("yes Y QQ S", "2: unknown phone 'QQ' in the entry of 'yes'"),
        ("yes", "2: no phones in the entry of 'yes'"),
    ],
)
def test_read_lexicon_names_the_bad_line(tmp_path, line, message):
    path = tmp_path / "lexicon.txt"
    path.write_text(f"no N OW1\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_lexicon(path)


def test_default_lexicon_is_cmudict(lexicon):
    assert len(lexicon) > 120_000
    assert lexicon["read"] == [("R", "EH", "D"), ("R", "IY", "D")]
