import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechattn.corpora.librispeech_labels import (
    cpc_intervals,
    find_textgrids,
    mfa_intervals,
    read_cpc_labels,
)
from speechattn.geometry import num_frames
from speechattn.labels.files import write_textgrid
from speechattn.labels.frames import frame_labels
from speechattn.labels.intervals import Interval


def grid(path: Path, *rows: tuple[str, float, float]) -> Path:
    from speechattn.labels.intervals import Segment

    write_textgrid(path, [Segment(phone, start, end) for phone, start, end in rows])
    return path


def test_marks_of_the_aligner_and_stress_are_folded(tmp_path):
    rows = [
        ("sil", 0, 0.1),
        ("sp", 0.1, 0.2),
        ("", 0.2, 0.3),
        ("AH0", 0.3, 0.4),
        ("spn", 0.4, 0.5),
        ("T", 0.5, 0.60001),
    ]
    path = grid(tmp_path / "a.TextGrid", *rows)
    expected = [(0, 4920, "SIL"), (4920, 6520, "AH"), (6520, 8120, "SPN"), (8120, 9600, "T")]  # 7.5 ms later
    assert mfa_intervals(path, 9600) == [Interval(*row) for row in expected]


@pytest.mark.parametrize(
    ("num_samples", "fits"), [(9600 - 1599, True), (9600 + 1599, True), (8000, False), (11200, False)]
)
def test_a_textgrid_must_end_where_its_audio_ends(tmp_path, num_samples, fits):
    path = grid(tmp_path / "a.TextGrid", ("AH0", 0, 0.6))
    if fits:
        assert mfa_intervals(path, num_samples) == [Interval(0, 9600, "AH")]
    else:
        with pytest.raises(ValueError, match=r"a.TextGrid: ends at 0.60 s, its audio at 0.[57]0 s"):
            mfa_intervals(path, num_samples)


def test_textgrids_are_found_in_any_folder_but_once(tmp_path):
    (tmp_path / "x/y").mkdir(parents=True)
    for name in ("x/y/a.TextGrid", "b.TextGrid", "x/._a.TextGrid"):
        (tmp_path / name).touch()
    assert find_textgrids(tmp_path) == {"a": tmp_path / "x/y/a.TextGrid", "b": tmp_path / "b.TextGrid"}
    (tmp_path / "a.TextGrid").touch()
    with pytest.raises(ValueError, match="there is another TextGrid of this utterance"):
        find_textgrids(tmp_path)
    with pytest.raises(ValueError, match="holds no TextGrids"):
        find_textgrids(tmp_path / "nowhere")


@given(labels=st.lists(st.integers(0, 40), min_size=1, max_size=30), spare=st.integers(0, 700))
def test_intervals_of_labels_give_these_labels_again(labels, spare):
    num_samples = 400 + 160 * (len(labels) - 1) + spare
    intervals = cpc_intervals(np.array(labels, dtype=np.uint8), num_samples)
    ids = {str(number): number for number in range(41)}
    none = [-100] * (num_frames(num_samples) - len(labels))
    assert frame_labels(intervals, num_samples, ids).tolist() == labels + none
    assert intervals[0].start == 0
    assert all(a.symbol != b.symbol and a.end == b.start for a, b in zip(intervals, intervals[1:], strict=False))


def test_more_labels_than_frames_are_refused():
    with pytest.raises(ValueError, match="99 labels for 98 frames"):
        cpc_intervals(np.zeros(99, dtype=np.uint8), 16000)


def test_cpc_labels_are_read_in_less_memory_than_the_file_takes_on_disk(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"1-2-{number} {'40 ' * 1000}\n" for number in range(200)))
    tracemalloc.start()
    try:
        labels = read_cpc_labels(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(labels) == 200 and all(values.tolist() == [40] * 1000 for values in labels.values())
    assert most < path.stat().st_size
    with pytest.raises(ValueError, match=r"absent\.txt: no such file"):
        read_cpc_labels(tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1-2-3 0 41\n", r"a.txt:1: expected .* found '1-2-3 0 41"),
        ("1-2-3 0 40\n1-2-4 -1\n", r"a.txt:2: "),
        ("1-2-3 0 x\n", r"a.txt:1: "),
        ("1-2-3\n", r"a.txt:1: "),
        ("1-2-3 0\n\n", r"a.txt:2: "),
        ("1-2-3 0\n1-2-3 0\n", r"a.txt:2: expected an utterance, once"),
        (b"1-2-3 0\n\xff\xfe 0 \xff\n", r"a.txt:2: "),
    ],
    ids=["class", "negative", "word", "no-labels", "empty", "twice", "no-text"],
)
def test_odd_lines_of_cpc_labels_are_refused_by_number(tmp_path, lines, message):
    (tmp_path / "a.txt").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    with pytest.raises(ValueError, match=message):
        read_cpc_labels(tmp_path / "a.txt")
