"""What is written can be read by its reader, by Praat and by plain parsing, with exact times."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import parselmouth
import pytest
from parselmouth.praat import call

from speechattn import alignment_files as files
from speechattn.alignment import Interval, Segment, frames_to_segments
from speechattn.geometry import num_frames

WRITERS = {
    "TextGrid": files.write_textgrid,
    "ctm": files.write_ctm,
    "json": files.write_json,
    "csv": files.write_csv,
}
SYMBOLS = ["SIL", "AH", "ɪ̃"]


def segments_of(length: int, rate: int) -> list[Segment]:
    """Made segments of a file of `length` samples at `rate`, as a model would give them."""
    random = np.random.default_rng(length + rate)
    classes = random.integers(0, 3, num_frames(-(-length * 16000 // rate)))
    return frames_to_segments(classes, random.uniform(0.3, 1, len(classes)), SYMBOLS, length / rate)


def read(path: Path) -> list[Segment]:
    if path.suffix == ".ctm":
        return files.read_ctm(path)[path.stem]
    return {".TextGrid": files.read_textgrid, ".json": files.read_json, ".csv": files.read_csv}[path.suffix](path)


@pytest.mark.parametrize("length, rate", [(16_000, 16_000), (49_999, 44_100), (12_347, 8000), (160_001, 44_101)])
@pytest.mark.parametrize("suffix", WRITERS)
def test_written_segments_come_back(tmp_path: Path, suffix: str, length: int, rate: int) -> None:
    segments = segments_of(length, rate)
    path = tmp_path / f"a.{suffix}"
    WRITERS[suffix](path, segments)
    back = read(path)
    assert [segment.phone for segment in back] == [segment.phone for segment in segments]
    assert all(left.end == right.start for left, right in pairwise(back)) and back[0].start == 0
    assert round(back[-1].end * rate) == length
    if suffix == "ctm":  # a text format of fixed decimals
        np.testing.assert_allclose([s[1:] for s in back], [s[1:] for s in segments], atol=6e-5)
        np.testing.assert_allclose([s[1:3] for s in back], [s[1:3] for s in segments], rtol=0, atol=5.1e-8)
    elif suffix == "TextGrid":  # has no place for a confidence
        assert [segment[:3] for segment in back] == [segment[:3] for segment in segments]
    else:
        assert back == segments
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{suffix}"]


@pytest.mark.parametrize("length, rate", [(16_000, 16_000), (49_999, 44_100), (12_347, 8000)])
def test_praat_opens_a_textgrid_that_is_as_long_as_the_sound(tmp_path: Path, length: int, rate: int) -> None:
    segments = segments_of(length, rate)
    files.write_textgrid(tmp_path / "a.TextGrid", segments)
    grid = parselmouth.read(str(tmp_path / "a.TextGrid"))
    sound = parselmouth.Sound(np.zeros(length), sampling_frequency=rate)
    assert grid.xmin == 0 and grid.xmax == segments[-1].end == length / rate
    assert grid.xmax == pytest.approx(sound.xmax, abs=1e-12)
    assert call(grid, "Get number of tiers") == 1 and call(grid, "Get tier name", 1) == "phones"
    assert call(grid, "Get number of intervals", 1) == len(segments)
    for number, segment in enumerate(segments, 1):
        assert call(grid, "Get label of interval", 1, number) == segment.phone
        assert call(grid, "Get start time of interval", 1, number) == segment.start
        assert call(grid, "Get end time of interval", 1, number) == segment.end


def test_files_are_plain_to_other_programs(tmp_path: Path) -> None:
    segments = [Segment("SIL", 0.0, 0.1075, 0.98765), Segment("AH", 0.1075, 0.25, 0.5)]
    for suffix, write in WRITERS.items():
        write(tmp_path / f"spk-1.{suffix}", segments)
    assert (tmp_path / "spk-1.ctm").read_text().splitlines() == [
        "spk-1 1 0.0000000 0.1075000 SIL 0.9877",
        "spk-1 1 0.1075000 0.1425000 AH 0.5000",
    ]
    objects = json.loads((tmp_path / "spk-1.json").read_text())
    assert objects[1] == {"phone": "AH", "start": 0.1075, "end": 0.25, "confidence": 0.5} and len(objects) == 2
    with open(tmp_path / "spk-1.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["start", "end", "phone", "confidence"] and rows[2] == ["0.1075", "0.25", "AH", "0.5"]


def test_gaps_become_empty_intervals_of_a_textgrid(tmp_path: Path) -> None:
    files.write_textgrid(tmp_path / "a.TextGrid", [Segment("a", 0.1, 0.2), Segment('say "b"', 0.3, 0.4)])
    assert [tuple(s[:3]) for s in files.read_textgrid(tmp_path / "a.TextGrid")] == [
        ("", 0.0, 0.1), ("a", 0.1, 0.2), ("", 0.2, 0.3), ('say "b"', 0.3, 0.4),
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["long", "short"])
def test_textgrids_that_praat_writes_are_read(tmp_path: Path, encoding: str, form: str) -> None:
    grid = call("Create TextGrid", 0, 1.0000625, "words phones marks", "marks")
    call(grid, "Insert boundary", 2, 0.30625)
    call(grid, "Set interval text", 2, 1, "ɪ̃")
    path = tmp_path / "praat.TextGrid"
    call(grid, "Save as short text file" if form == "short" else "Save as text file", str(path))
    text = path.read_bytes().decode("utf-16" if path.read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
    path.write_bytes(text.encode(encoding))
    assert files.read_textgrid(path) == [Segment("ɪ̃", 0.0, 0.30625), Segment("", 0.30625, 1.0000625)]
    with pytest.raises(ValueError, match="no interval tier 'marks'; its interval tiers: words, phones"):
        files.read_textgrid(path, "marks")


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    "segments, message",
    [
        ([], "there are no segments"),
        ([Segment("a", 0.0, 0.0)], "'a' from 0.0 to 0.0 s is empty"),
        (
            [Segment("a", 0.0, 0.2), Segment("b", 0.1, 0.3)],
            "'b' from 0.1 to 0.3 s .* before the end of the one before it, 0.2",
        ),
        ([Segment("a", -0.1, 0.2)], "'a' from -0.1"),
        ([Segment("a", 0.0, float("nan"))], "'a' from 0.0 to nan"),
    ],
)
def test_bad_segments_are_refused_and_leave_no_file(tmp_path: Path, suffix: str, segments: list, message: str) -> None:
    with pytest.raises(ValueError, match=f"a.{suffix}: .*{message}"):
        WRITERS[suffix](tmp_path / f"a.{suffix}", segments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("phone", ["x y", ""])
def test_ctm_refuses_phones_that_would_shift_its_fields(tmp_path: Path, phone: str) -> None:
    with pytest.raises(ValueError, match="is empty or has white space"):
        files.write_ctm(tmp_path / "a.ctm", [Segment(phone, 0.0, 1.0)])


def test_ctm_names_an_utterance_without_white_space(tmp_path: Path) -> None:
    files.write_ctm(tmp_path / "my file.ctm", [Segment("x", 0.0, 1.0)])
    assert list(files.read_ctm(tmp_path / "my file.ctm")) == ["my_file"]


def test_read_ctm_of_several_utterances(tmp_path: Path) -> None:
    (tmp_path / "a.ctm").write_text(";; comment\nu1 1 0 0.5 a\n\nu2 A 0.1 0.2 b 0.75\nu1 1 0.5 0.25 c 1\n")
    assert files.read_ctm(tmp_path / "a.ctm") == {
        "u1": [Segment("a", 0.0, 0.5, 1.0), Segment("c", 0.5, 0.75, 1.0)],
        "u2": [Segment("b", 0.1, 0.3, 0.75)],
    }


def test_read_phn(tmp_path: Path) -> None:
    (tmp_path / "a.phn").write_text("0 2260 h#\r\n2260 4149 sh\n\n")
    assert files.read_phn(tmp_path / "a.phn") == [Interval(0, 2260, "h#"), Interval(2260, 4149, "sh")]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.phn", b"0 10 a\n10 b\n", r"a.phn:2: expected samples `start end phone`, got '10 b'"),
        ("a.phn", b"0 0.5 a\n", r"a.phn:1: expected samples"),
        ("a.phn", b"\xff\xfe\x00", "a.phn: not a text file in UTF-8"),
        ("a.ctm", b"u 1 0.0 0.5\n", r"a.ctm:1: expected `utterance channel start duration phone"),
        ("a.ctm", b"u 1 0.0 x a\n", r"a.ctm:1: expected"),
        ("a.json", b"[{}]", "a.json: expected a list of phone, start, end, confidence"),
        ("a.json", b"[", "a.json: expected a list"),
        ("a.json", b"3", "a.json: expected a list"),
        ("a.csv", b"start,end\n0,1\n", "a.csv: expected columns start, end, phone, confidence"),
        ("a.csv", b"start,end,phone,confidence\n0,1\n", "a.csv: expected columns"),
        ("a.TextGrid", b"", "a.TextGrid: not a TextGrid"),
        ("a.TextGrid", b"hello\n", "a.TextGrid: not a TextGrid"),
        ("a.TextGrid", "é".encode("latin-1") * 50, "a.TextGrid: not a TextGrid"),
        ("a.TextGrid", None, "a.TextGrid: no such file"),
        ("a.ctm", None, "a.ctm: no such file"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        (files.read_phn if name.endswith("phn") else read)(tmp_path / name)
    assert "\n" not in str(caught.value)
