"""Written files are read back with exact times, by our readers and by plain parsing; one function reads all formats."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from speechattn.geometry import num_frames
from speechattn.labels import files
from speechattn.labels.frames import frames_to_segments
from speechattn.labels.intervals import Segment

WRITERS = {
    "TextGrid": files.write_textgrid,
    "ctm": files.write_ctm,
    "json": files.write_json,
    "csv": files.write_csv,
}
SYMBOLS = ["SIL", "AH", "ɪ̃"]


def segments_of(length: int, rate: int) -> list[Segment]:
    """Random segments of a file of `length` samples at `rate`, like those of a model."""
    random = np.random.default_rng(length + rate)
    classes = random.integers(0, 3, num_frames(-(-length * 16000 // rate)))
    return frames_to_segments(classes, random.uniform(0.3, 1, len(classes)), SYMBOLS, length / rate)


def read(path: Path) -> list[Segment]:
    (name, segments), *others = files.read_alignments(path).items()
    assert name == path.stem and not others
    return segments


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


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    "segments, message",
    [
        ([], "there are no segments"),
        ([Segment("a", 0.0, 0.0)], "'a' from 0.0 to 0.0 s is empty"),
        (
            [Segment("a", 0.0, 0.2), Segment("b", 0.1, 0.3)],
            "'b' from 0.1 to 0.3 s .* before the end of the previous one, 0.2",
        ),
        ([Segment("a", -0.1, 0.2)], "'a' from -0.1"),
        ([Segment("a", 0.0, float("nan"))], "'a' from 0.0 to nan"),
    ],
)
def test_bad_segments_are_refused_and_leave_no_file(tmp_path: Path, suffix: str, segments: list, message: str) -> None:
    with pytest.raises(ValueError, match=f"a.{suffix}: .*{message}"):
        WRITERS[suffix](tmp_path / f"a.{suffix}", segments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.json", b"[{}]", "a.json: record 1: field start must be a number, is missing"),
        ("a.json", b"[", "a.json:1: not JSON: Expecting value"),
        ("a.json", b"3", "a.json: expected a list"),
        ("a.csv", b"start,end\n0,1\n", "a.csv:2: field confidence must be a number, is missing"),
        ("a.csv", b"start,end,phone,confidence\n0,x,a,1\n", "a.csv:2: field end must be a number, got 'x'"),
        ("a.json", b'[{"phone": "a", "start": 0, "end": 0, "confidence": 1}]', "a.json:2: phone 'a' from 0.0 to 0.0"),
        ("a.csv", b"start,end,confidence,phone\n0,1,1\n", "a.csv:2: field phone is missing"),
        ("a.json", b"\xff", "a.json:1: not text in UTF-8 or UTF-16"),
        ("a.json", None, "a.json: no such file"),
        ("a.csv", b"start,end,phone,confidence\n0,1,a,1\n0.5,2,b,1\n", "a.csv:3: phone 'b' from 0.5 to 2.0 overlaps"),
        ("a.doc", b"", "a.doc: not a file of phones: its suffix is none of .textgrid .ctm"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        files.read_alignments(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_one_function_reads_every_format(tmp_path: Path) -> None:
    expected = [Segment("a", 0.0, 0.25), Segment("b", 0.25, 1.0)]
    files.write_textgrid(tmp_path / "u.TextGrid", expected)
    files.write_ctm(tmp_path / "u.ctm", expected)
    files.write_json(tmp_path / "u.json", expected)
    files.write_csv(tmp_path / "u.csv", expected)
    (tmp_path / "u.PHN").write_text("0 2000 a\n2000 8000 b\n")
    (tmp_path / "u.lab").write_text("0 2500000 a\n2500000 10000000 b\n")
    (tmp_path / "u.txt").write_text("0.0\t0.25\ta\n0.25\t1.0\tb\n")
    assert {path.suffix.lower() for path in tmp_path.iterdir()} == set(files.SUFFIXES)
    for path in tmp_path.iterdir():
        assert files.read_alignments(path, sample_rate=8000) == {"u": expected}, path
    with pytest.raises(ValueError, match="no interval tier 'words'; its interval tiers: phones"):
        files.read_alignments(tmp_path / "u.TextGrid", tier="words")


def test_praatio_reads_the_textgrids_that_we_write(tmp_path: Path) -> None:
    from praatio import textgrid

    segments = segments_of(49_999, 44_100)
    files.write_textgrid(tmp_path / "a.TextGrid", segments)
    grid = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=True)
    assert [(label, start, end) for start, end, label in grid.getTier("phones").entries] == [s[:3] for s in segments]
