"""Intervals to frame labels and back, against labelling every sample, on made and on real utterances."""

import io
import wave
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechattn.geometry import Geometry, num_frames
from speechattn.labels.files import read_phn
from speechattn.labels.frames import frame_labels, frames_to_segments
from speechattn.labels.intervals import Interval, Segment
from speechattn.phones import PhoneSet

SYMBOLS = ["a", "b", "c", "q"]
IDS = {"a": 0, "b": 1, "c": 2, "q": -100}
GEOMETRIES = [Geometry(), Geometry(window=512, hop=128), Geometry(sample_rate=8000, window=200, hop=80)]


def labels_by_sample(
    intervals: list[Interval],
    num_samples: int,
    ids: dict[str, int],
    geometry: Geometry,
    offset: int | None = None,
) -> np.ndarray:
    """A class for every sample, looked up at every window's centre (or at another `offset` in the window)."""
    of_sample = np.full(num_samples, -100)
    for start, end, symbol in intervals:
        of_sample[start:end] = ids[symbol]
    offset = geometry.window // 2 if offset is None else offset
    labels, start = [], 0
    while start + geometry.window <= num_samples:
        labels.append(of_sample[start + offset])
        start += geometry.hop
    return np.array(labels, dtype=np.int64)


@st.composite
def utterances(draw: st.DrawFn) -> tuple[list[Interval], int]:
    """Intervals with gaps, some shorter than a hop, the last perhaps past the end; and a sample count."""
    intervals, time = [], 0
    for _ in range(draw(st.integers(0, 12))):
        start = time + draw(st.sampled_from([0, 0, 0, 1, 40, 700]))
        # Lengths that make boundaries fall on centres (200, 360, 520 ...) are drawn often.
        time = start + draw(st.one_of(st.sampled_from([1, 160, 200, 320]), st.integers(1, 1500)))
        intervals.append(Interval(start, time, draw(st.sampled_from(SYMBOLS))))
    return intervals, max(time + draw(st.integers(-500, 900)), 0)


@settings(max_examples=300, deadline=None)
@given(utterances(), st.sampled_from(GEOMETRIES), st.randoms(use_true_random=False))
def test_labels_equal_labelling_every_sample(utterance, geometry, random) -> None:
    intervals, num_samples = utterance
    random.shuffle(intervals)
    if any(interval.start >= num_samples for interval in intervals):
        with pytest.raises(ValueError, match="starts after the end of the signal"):
            frame_labels(intervals, num_samples, IDS, geometry=geometry)
        return
    expected = labels_by_sample(intervals, num_samples, IDS, geometry)
    labels = frame_labels(intervals, num_samples, IDS, geometry=geometry)
    assert labels.dtype == np.int64 and labels.shape == expected.shape and np.array_equal(labels, expected)


def test_as_many_labels_as_frames_for_every_length() -> None:
    intervals = [Interval(0, 1234, "a"), Interval(1234, 20_000, "b")]
    windows = 0
    for num_samples in range(20_001):
        windows += num_samples >= 400 and (num_samples - 400) % 160 == 0  # one more window fits
        labels = frame_labels([i for i in intervals if i.start < num_samples], num_samples, IDS)
        assert len(labels) == num_frames(num_samples) == windows
        assert -100 not in labels  # the ends past the signal are clamped


@pytest.mark.parametrize("boundary, first", [(199, 1), (200, 1), (201, 0), (360, 0)])
def test_a_boundary_on_a_centre_belongs_to_what_follows(boundary: int, first: int) -> None:
    labels = frame_labels([Interval(0, boundary, "a"), Interval(boundary, 560, "b")], 560, IDS)
    assert labels.tolist() == [first, 1]


def test_gaps_ignored_symbols_and_uncovered_ends_are_ignored() -> None:
    intervals = [Interval(300, 400, "a"), Interval(500, 560, "q"), Interval(680, 700, "c")]
    assert frame_labels(intervals, 1200, IDS).tolist() == [-100, 0, -100, 2, -100, -100]
    assert frame_labels([], 560, IDS).tolist() == [-100, -100]
    assert frame_labels([], 399, IDS).shape == frame_labels(intervals[:1], 399, IDS).shape == (0,)
    assert frame_labels([Interval(0, 9000, "b")], 560, IDS).tolist() == [1, 1]


@pytest.mark.parametrize(
    "intervals, message",
    [
        (
            [(0, 100, "a"), (100, 200, "x")],
            r"interval \[100, 200\) 'x' has an unknown symbol; known are a b c q",
        ),
        ([(0, 100, "a"), (99, 200, "b")], r"interval \[99, 200\) 'b' overlaps interval \[0, 100\) 'a'"),
        (
            [(0, 1000, "a"), (10, 20, "b"), (500, 600, "c")],
            r"\[10, 20\) 'b' overlaps interval \[0, 1000\) 'a'",
        ),
        ([(0, 100, "a"), (0, 100, "a")], r"\[0, 100\) 'a' overlaps"),
        ([(5, 5, "a")], r"interval \[5, 5\) 'a' is empty"),
        ([(5, 4, "a")], r"interval \[5, 4\) 'a' is empty"),
        ([(-1, 4, "a")], r"interval \[-1, 4\) 'a' starts before sample 0"),
        ([(0.0, 0.25, "a")], r"interval \[0.0, 0.25\) 'a' is not in whole samples"),
    ],
)
def test_bad_intervals_are_named(intervals: list, message: str) -> None:
    for order in (intervals, intervals[::-1]):
        with pytest.raises(ValueError, match=message):
            frame_labels([Interval(*interval) for interval in order], 16_000, IDS)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(GEOMETRIES))
def test_labels_to_segments_to_labels_is_the_identity(data, geometry) -> None:
    classes = np.array(data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=60)))
    rest = data.draw(st.integers(0, geometry.hop - 1))
    num_samples = geometry.window + (len(classes) - 1) * geometry.hop + rest
    confidences = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(classes), max_size=len(classes))))
    duration = num_samples / geometry.sample_rate
    segments = frames_to_segments(classes, confidences, SYMBOLS, duration, geometry=geometry)

    assert segments[0].start == 0 and segments[-1].end == duration
    assert all(left.end == right.start and left.phone != right.phone for left, right in pairwise(segments))
    to_samples = [(round(s.start * geometry.sample_rate), round(s.end * geometry.sample_rate)) for s in segments]
    intervals = [Interval(*times, s.phone) for times, s in zip(to_samples, segments, strict=True)]
    labels = frame_labels(intervals, num_samples, IDS, geometry=geometry)
    assert np.array_equal(labels, classes)
    for segment, interval in zip(segments, intervals, strict=True):  # confidence: the mean over the segment's frames
        centres = geometry.centres(num_samples)
        own = confidences[(interval.start <= centres) & (centres < interval.end)]
        assert segment.confidence == pytest.approx(own.mean(), abs=1e-12)


def test_frame_t_owns_the_hop_around_its_centre() -> None:
    classes = np.array([0, 1, 1, 0, 2])
    segments = frames_to_segments(classes, np.array([0.5, 0.2, 0.4, 1.0, 0.9]), SYMBOLS, 1040 / 16000)
    assert [(s.phone, s.start * 16000, s.end * 16000) for s in segments] == [
        ("a", 0, 280), ("b", 280, 600), ("a", 600, 760), ("c", 760, 1040),
    ]  # fmt: skip
    assert [s.confidence for s in segments] == pytest.approx([0.5, 0.3, 1.0, 0.9])
    assert all(type(value) is float for segment in segments for value in segment[1:])


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 44101])
@pytest.mark.parametrize("length", [2001, 4410, 12_345, 44_101, 99_999])
def test_segments_end_at_the_files_own_end_at_any_rate(rate: int, length: int) -> None:
    resampled = -(-length * 16000 // rate)  # as a resampler gives
    classes = np.arange(num_frames(resampled)) // 3 % 3
    segments = frames_to_segments(classes, np.ones(len(classes)), SYMBOLS, length / rate)
    assert segments[0].start == 0 and segments[-1].end == length / rate
    assert all(left.end == right.start for left, right in pairwise(segments))
    assert all(segment.start < segment.end for segment in segments)


@pytest.mark.parametrize(
    "classes, confidences, duration, message",
    [
        ([], [], 1.0, "no frames"),
        ([0, 1], [1.0], 1.0, "2 classes but 1 confidences"),
        ([0, -100], [1.0, 1.0], 1.0, "class -100 of a frame has no symbol; there are 4 symbols"),
        ([0, 4], [1.0, 1.0], 1.0, "class 4 of a frame has no symbol"),
        (
            [0, 1],
            [1.0, 1.0],
            0.0175,
            "duration=0.0175 s ends before the last segment, which starts at 0.0175 s",
        ),
        ([0], [1.0], 0.0, "duration=0.0 s"),
    ],
)
def test_frames_that_make_no_segments_are_refused(classes, confidences, duration, message) -> None:
    with pytest.raises(ValueError, match=message):
        frames_to_segments(np.array(classes, dtype=np.int64), np.array(confidences), SYMBOLS, duration)


def test_segment_confidence_defaults_to_certain() -> None:
    assert Segment("a", 0.0, 1.0).confidence == 1.0


# ----------------------------------------------------------------------- the hand-labelled sample of TIMIT


@pytest.fixture(scope="module")
def timit(timit_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Interval], int]]:
    """Utterance -> hand-labelled intervals and number of samples, the last interval extended to the end."""
    folder = tmp_path_factory.mktemp("timit")
    return dict(read_timit(timit_archive, folder))


def read_timit(archive: Path, folder: Path) -> Iterator[tuple[str, tuple[list[Interval], int]]]:
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            if name.endswith(".phn"):
                with wave.open(io.BytesIO(file.read(name.removesuffix("phn") + "wav"))) as audio:
                    num_samples = audio.getnframes()
                intervals = read_phn(file.extract(name, folder))
                intervals[-1] = intervals[-1]._replace(end=num_samples)
                yield name, (intervals, num_samples)


def test_timit_sample_is_what_it_should_be(timit) -> None:
    symbols = {interval.symbol for intervals, _ in timit.values() for interval in intervals}
    assert len(timit) == 160 and symbols == set(PhoneSet.load("timit61").symbols)
    assert sum(len(intervals) for intervals, _ in timit.values()) == 6185
    assert sum(num_frames(num_samples) for _, num_samples in timit.values()) == 48_695
    assert sum(num_samples for _, num_samples in timit.values()) / 16000 / 60 == pytest.approx(8.17, abs=0.005)


@pytest.mark.parametrize("name", ["timit61", "timit48", "timit39"])
def test_timit_labels_equal_labelling_every_sample(timit, name: str) -> None:
    phones = PhoneSet.load(name)
    ids = phones.ids(PhoneSet.load("timit61").symbols)
    total = ignored = 0
    for intervals, num_samples in timit.values():
        labels = frame_labels(intervals, num_samples, ids)
        assert np.array_equal(labels, labels_by_sample(intervals, num_samples, ids, Geometry()))
        total, ignored = total + len(labels), ignored + int((labels == -100).sum())
    assert total == 48_695
    assert ignored == 0 if name == "timit61" else 0.015 < ignored / total < 0.025  # `q`, 2.0 %


@pytest.mark.parametrize("offset, share", [(80, 0.098), (0, 0.159)])
def test_a_wrong_time_origin_changes_as_many_timit_labels_as_measured(timit, offset: int, share: float) -> None:
    """The agreement above is not vacuous: 7.5 or 12.5 ms earlier, 9.8 or 15.9 % of the labels differ."""
    ids = PhoneSet.load("timit61").ids(PhoneSet.load("timit61").symbols)
    differing = [
        frame_labels(intervals, num_samples, ids)
        != labels_by_sample(intervals, num_samples, ids, Geometry(), offset=offset)
        for intervals, num_samples in timit.values()
    ]
    assert np.concatenate(differing).mean() == pytest.approx(share, abs=0.0005)
