"""Where frames lie, against loops over windows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechattn.geometry import Geometry, num_frames


def windows_by_loop(num_samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    windows, start = [], 0
    while start + window <= num_samples:
        windows.append((start, start + window))
        start += hop
    return windows


def test_count_equals_windows_for_every_length() -> None:
    ends = {start + 400: index for index, (start, _) in enumerate(windows_by_loop(20_000, 400, 160))}
    expected = 0
    for num_samples in range(20_001):
        expected += num_samples in ends
        assert num_frames(num_samples) == expected
    assert expected == 123


@pytest.mark.parametrize("num_samples, frames", [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16_000, 98)])
def test_known_counts(num_samples: int, frames: int) -> None:
    assert num_frames(num_samples) == frames


@pytest.mark.parametrize("window, hop", [(400, 160), (512, 128), (401, 7), (3, 5), (1, 1)])
@pytest.mark.parametrize("num_samples", [0, 1, 2, 3, 400, 511, 512, 1999])
def test_other_geometries(window: int, hop: int, num_samples: int) -> None:
    geometry = Geometry(window=window, hop=hop)
    windows = windows_by_loop(num_samples, window, hop)
    assert num_frames(num_samples, geometry=geometry) == len(windows)
    assert geometry.centres(num_samples).tolist() == [start + window // 2 for start, _ in windows]


@given(
    num_samples=st.integers(0, 300),
    window=st.integers(1, 40),
    hop=st.integers(1, 60),
    left=st.integers(0, 50),
    right=st.integers(0, 50),
)
def test_padding_adds_the_windows_that_reach_into_it(
    num_samples: int, window: int, hop: int, left: int, right: int
) -> None:
    geometry = Geometry(window=window, hop=hop, left=left, right=right)
    fitting = windows_by_loop(left + num_samples + right, window, hop) if num_samples >= window else []
    assert geometry.num_frames(num_samples) == len(fitting)
    assert geometry.centres(num_samples).tolist() == [start - left + window // 2 for start, _ in fitting]
    assert geometry.first_centre == window // 2 - left
    many = geometry.num_frames(torch.arange(num_samples + 1))
    assert many.tolist() == [geometry.num_frames(n) for n in range(num_samples + 1)]


@pytest.mark.parametrize("num_samples, frames", [(0, 0), (399, 0), (400, 3), (479, 3), (480, 4), (16_000, 101)])
def test_known_counts_of_centred_frames(num_samples: int, frames: int) -> None:
    geometry = Geometry(left=200, right=200)  # as librosa's and torchaudio's at 400/160
    assert geometry.num_frames(num_samples) == frames and geometry.first_centre == 0


@given(
    num_frames=st.integers(0, 12), window=st.integers(1, 30), hop=st.integers(1, 20), left=st.integers(0, 20),
    right=st.integers(0, 20),
)  # fmt: skip
def test_the_shortest_signal_of_so_many_frames(num_frames: int, window: int, hop: int, left: int, right: int) -> None:
    geometry = Geometry(16_000, window, hop, left, right)
    lengths = [n for n in range(400) if geometry.num_frames(n) == num_frames]
    if lengths:  # else a signal of one window has more frames already
        assert geometry.num_samples(num_frames) == lengths[0]


def test_counts_of_arrays_and_tensors_keep_their_type() -> None:
    lengths = [0, 399, 400, 16_000]
    counts = Geometry().num_frames(torch.tensor(lengths))
    assert counts.tolist() == [0, 0, 1, 98] and counts.dtype == torch.int64
    counts = Geometry().num_frames(np.array(lengths))
    assert counts.tolist() == [0, 0, 1, 98] and isinstance(counts, np.ndarray)


def test_centres_are_int64_and_inside_the_signal() -> None:
    centres = Geometry().centres(16_000)
    assert centres.dtype == np.int64 and centres[0] == 200 and np.all(np.diff(centres) == 160)
    assert centres[-1] < 16_000 and Geometry().centres(399).shape == (0,)


@pytest.mark.parametrize("field", ["sample_rate", "window", "hop"])
def test_a_field_that_is_not_positive_is_named(field: str) -> None:
    with pytest.raises(ValueError, match=f"geometry.{field} must be positive, got {field}=0"):
        Geometry(**{field: 0})


@pytest.mark.parametrize("field", ["left", "right"])
def test_a_negative_padding_is_named(field: str) -> None:
    with pytest.raises(ValueError, match=f"geometry.{field} must not be negative, got {field}=-1"):
        Geometry(**{field: -1})
