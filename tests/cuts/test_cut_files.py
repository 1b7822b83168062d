"""Cuts: whole samples survive Lhotse's seconds, and speakers stay in their split."""

import gzip
import json

import numpy as np
import pytest
import soundfile
from lhotse import CutSet
from lhotse.supervision import AlignmentItem

from speechattn.cuts.files import phone_intervals, read_cuts, save_rejected, save_splits, utterance_cut, with_phones
from speechattn.labels.intervals import Interval


def audio_file(path, num_samples=16000, rate=16000):
    soundfile.write(path, np.zeros(num_samples), rate)
    return path


def three_splits(tmp_path):
    return {
        name: [
            utterance_cut(
                f"{name}-{number}",
                audio_file(tmp_path / f"{name}{number}.wav", 8000),
                speaker=f"{name} speaker",
                text="YES",
                intervals=[Interval(0, 3000, "SIL"), Interval(3000, 8000, "Y")],
            )
            for number in range(2)
        ]
        for name in ("train", "dev", "test")
    }


def test_every_sample_survives_seconds_and_json(tmp_path):
    generator = np.random.default_rng(0)
    bounds = [0, *sorted(generator.choice(np.arange(1, 2_000_000), 5000, replace=False).tolist())]
    intervals = [Interval(a, b, "AA") for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    cut = utterance_cut("u", audio_file(tmp_path / "a.wav"), speaker="s", text="t", intervals=intervals)
    CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl.gz")
    (again,) = CutSet.from_file(tmp_path / "cuts.jsonl.gz")
    assert phone_intervals(again) == intervals


def test_cut_is_the_whole_file_by_its_absolute_path(tmp_path, monkeypatch):
    audio_file(tmp_path / "a.wav", 12345)
    monkeypatch.chdir(tmp_path)
    cut = utterance_cut("u", (tmp_path / "a.wav").relative_to(tmp_path), speaker="s", text="Yes")
    assert cut.recording.sources[0].source == str(tmp_path / "a.wav")
    assert (cut.num_samples, cut.sampling_rate) == (12345, 16000)
    assert cut.supervisions[0].text == "Yes" and cut.supervisions[0].speaker == "s"
    assert cut.load_audio().shape == (1, 12345)
    with pytest.raises(ValueError, match=r"cut u: expected one supervision with phones"):
        phone_intervals(cut)


def test_missing_audio_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing.wav: no such file"):
        utterance_cut("u", tmp_path / "nothing.wav", speaker="s", text="t")


def test_ends_follow_starts_only_where_they_differ_by_rounding(tmp_path):
    cut = utterance_cut("u", audio_file(tmp_path / "a.wav"), speaker="s", text="t")
    seconds = 1 / 16000
    cut.supervisions[0].alignment = {
        "phone": [
            AlignmentItem("D", 5000 * seconds, 1000 * seconds),  # order does not matter
            AlignmentItem("A", 0.0, 1001 * seconds),  # one sample over the next start
            AlignmentItem("B", 1000 * seconds, 999 * seconds),  # one sample short of it
            AlignmentItem("C", 2000 * seconds, 2000 * seconds),  # a real gap follows
        ]
    }
    assert phone_intervals(cut) == [
        Interval(0, 1000, "A"),
        Interval(1000, 2000, "B"),
        Interval(2000, 4000, "C"),
        Interval(5000, 6000, "D"),
    ]


def test_phones_count_from_the_start_of_the_recording_as_in_lhotse(tmp_path):
    cut = three_splits(tmp_path)["train"][0]
    whole = phone_intervals(cut)
    for offset_s, duration_s in ((0.0, 0.2), (0.1, 0.2), (0.0125, 0.3)):
        part = cut.truncate(offset=offset_s, duration=duration_s, preserve_id=True)
        first, last = round(offset_s * 16000), round((offset_s + duration_s) * 16000)
        expected = [
            Interval(max(start, first) - first, min(end, last) - first, symbol)
            for start, end, symbol in whole
            if start < last and end > first
        ]
        assert phone_intervals(part) == expected
        again = with_phones(part, expected)
        assert phone_intervals(again) == expected
        for phone, piece in zip(
            expected, CutSet.from_cuts([again]).trim_to_alignments("phone", max_segment_duration=0), strict=True
        ):
            assert round(piece.start * 16000) == first + phone.start
            assert round(piece.duration * 16000) == phone.end - phone.start


@pytest.fixture
def record(tmp_path):
    cut = utterance_cut(
        "u", audio_file(tmp_path / "a.wav"), speaker="s", text="\u00e9", intervals=[Interval(0, 16000, "A")]
    )
    return cut.to_dict()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_cuts_in_any_encoding(tmp_path, record, encoding):
    (tmp_path / "cuts.jsonl").write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding=encoding)
    (cut,) = read_cuts(tmp_path / "cuts.jsonl")
    assert cut.supervisions[0].text == "\u00e9" and phone_intervals(cut) == [(0, 16000, "A")]


def test_a_malformed_cut_is_named_by_line_and_field(tmp_path, record):
    def message(**changes):
        (tmp_path / "cuts.jsonl").write_text(f"{json.dumps(record)}\n{json.dumps(record | {'id': 'v'} | changes)}\n")
        with pytest.raises(ValueError) as caught:
            for cut in read_cuts(tmp_path / "cuts.jsonl"):
                phone_intervals(cut)
        return str(caught.value)

    (supervision,) = record["supervisions"]
    assert "cuts.jsonl:2: not a cut: missing 1 required positional argument: 'start'" in message(
        supervisions=[{key: value for key, value in supervision.items() if key != "start"}]
    )
    assert "cut v: start and duration must be numbers" in message(duration="1")
    phones = {"alignment": {"phone": [["A", "0", 1.0, None]]}}
    assert "cut v: the start and duration of a phone must be numbers" in message(supervisions=[supervision | phones])
    text = json.dumps(record)
    for content, expected in (
        (f"{text}\n{text[:50]}".encode(), "cuts.jsonl:2: not JSON: "),
        (gzip.compress(text.encode())[:-20], "cuts.jsonl.gz:1: cannot be read: Compressed file ended"),
    ):
        path = tmp_path / ("cuts.jsonl.gz" if content[0] == 0x1F else "cuts.jsonl")
        path.write_bytes(content)
        with pytest.raises(ValueError, match=expected):
            read_cuts(path)


def test_splits_are_written_whole_and_reproducibly(tmp_path, capsys):
    splits = three_splits(tmp_path)
    save_splits(tmp_path / "a", splits)
    save_splits(tmp_path / "b", splits)
    names = ["dev.jsonl.gz", "test.jsonl.gz", "train.jsonl.gz"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert list(CutSet.from_file(tmp_path / "a" / name)) == splits[name.split(".")[0]]
    assert "train: 2 utterances, 1 speakers, 0.0 min, 96 frames" in capsys.readouterr().out


def test_speakers_and_utterances_may_not_cross_splits(tmp_path):
    splits = three_splits(tmp_path)
    crossing = utterance_cut("new", tmp_path / "dev0.wav", speaker="train speaker", text="YES")
    with pytest.raises(ValueError, match="speaker train speaker is in two splits: train and test"):
        save_splits(tmp_path / "out", splits | {"test": [*splits["test"], crossing]})
    again = utterance_cut("dev-0", tmp_path / "dev0.wav", speaker="other", text="YES")
    with pytest.raises(ValueError, match="utterance dev-0 is in two splits: dev and test"):
        save_splits(tmp_path / "out", splits | {"test": [*splits["test"], again]})
    with pytest.raises(ValueError, match="the dev split has no utterances"):
        save_splits(tmp_path / "out", splits | {"dev": []})
    assert not (tmp_path / "out").exists()


def test_rejected_are_one_line_each(tmp_path, capsys):
    save_rejected(tmp_path / "rejected.tsv", [("u1", "train", "not in\nthe\tlexicon: x"), ("u2", "dev", "too short")])
    assert (tmp_path / "rejected.tsv").read_text() == "u1\ttrain\tnot in the lexicon: x\nu2\tdev\ttoo short\n"
    assert capsys.readouterr().out.startswith("left out: 2 utterances")
    save_rejected(tmp_path / "rejected.tsv", [])
    assert (tmp_path / "rejected.tsv").read_text() == ""
