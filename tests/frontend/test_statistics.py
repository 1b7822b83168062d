import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from normalisation_reference import EXACT, lengths_of_a_batch, random_batch

from speechattn.frontend.normalisation import (
    FeatureStatistics,
    scale_of,
    utterance_cmvn,
)


@given(batches=st.lists(lengths_of_a_batch, min_size=1, max_size=4), padding=st.sampled_from([0.0, 1e6, math.nan]))
def test_statistics_are_those_of_all_real_frames_together(batches: list[list[int]], padding: float) -> None:
    statistics, frames = FeatureStatistics(3), []
    for lengths in batches:
        features, frame_lengths = random_batch(lengths, extra=2, padding=padding)
        statistics.add(features, frame_lengths)
        for row, length in enumerate(lengths):
            frames.extend(features[row, :length].tolist())
    assert statistics.count.item() == len(frames)
    if not frames:
        with pytest.raises(ValueError, match="statistics of no frames"):
            _ = statistics.mean
        with pytest.raises(ValueError, match="statistics of no frames"):
            _ = statistics.variance
        return
    for d in range(3):
        mean = sum(frame[d] for frame in frames) / len(frames)
        variance = sum((frame[d] - mean) ** 2 for frame in frames) / len(frames)
        assert statistics.mean[d].item() == pytest.approx(mean, rel=1e-9, abs=1e-9)
        assert statistics.variance[d].item() == pytest.approx(variance, rel=1e-9, abs=1e-9)


def test_statistics_of_several_processes_add_up() -> None:
    whole, halves = FeatureStatistics(3), [FeatureStatistics(3), FeatureStatistics(3)]
    for half, lengths in zip(halves, ([10, 4, 7], [25, 1]), strict=True):
        for _ in range(3):
            batch = random_batch(lengths)
            half.add(*batch)
            whole.add(*batch)
    reduced = FeatureStatistics(3)
    reduced.count, reduced.total, reduced.squares = (
        getattr(halves[0], name) + getattr(halves[1], name) for name in ("count", "total", "squares")
    )
    torch.testing.assert_close(reduced.mean, whole.mean, **EXACT)
    torch.testing.assert_close(reduced.variance, whole.variance, **EXACT)
    assert not torch.allclose(halves[0].mean, whole.mean)


def test_statistics_of_float32_features_are_summed_in_float64() -> None:
    statistics = FeatureStatistics(3)
    features = torch.randn(8, 20_000, 3) + 100
    statistics.add(features.requires_grad_(), torch.full((8,), 20_000))
    exact = features.detach().double().flatten(0, 1)
    assert statistics.mean.dtype == torch.float64 and not statistics.mean.requires_grad
    torch.testing.assert_close(statistics.mean, exact.mean(0), **EXACT)
    torch.testing.assert_close(statistics.variance, exact.var(0, correction=0), **EXACT)


def test_variance_is_not_negative_after_rounding() -> None:
    statistics = FeatureStatistics(3)
    statistics.add(torch.full((1, 7, 3), 100.0), torch.tensor([7]))
    statistics.squares -= 1e-9
    assert not statistics.variance.any()


def test_statistics_normalise_what_they_were_learned_from() -> None:
    features, frame_lengths = random_batch([400])
    statistics = FeatureStatistics(3)
    statistics.add(features, frame_lengths)
    normalised = (features - statistics.mean) * scale_of(statistics.variance)
    torch.testing.assert_close(normalised, utterance_cmvn(features, frame_lengths, variance=True, ddof=0), **EXACT)


def test_scale_is_one_over_the_floored_deviation() -> None:
    variance = torch.tensor([4.0, 1e-3, 1e-9, 0.0], dtype=torch.float64)
    expected = torch.tensor([0.5, 1e3**0.5, 1e3**0.5, 1e3**0.5], dtype=torch.float64)
    torch.testing.assert_close(scale_of(variance), expected, **EXACT)
