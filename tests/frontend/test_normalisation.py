"""Normalisation against loops and torchaudio: any lengths, windows and flags; padding never enters a statistic."""

import math
from collections.abc import Callable

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from normalisation_reference import (
    EXACT,
    assert_rows,
    kaldi_window,
    lengths_of_a_batch,
    online_by_loops,
    random_batch,
    sliding_by_loops,
    utterance_by_loops,
)
from torch import Tensor

from speechattn.frontend.masks import frame_mask
from speechattn.frontend.normalisation import (
    FeatureStatistics,
    online_cmvn,
    sliding_cmvn,
    sliding_reach,
    utterance_cmvn,
)

Normalisation = Callable[[Tensor, Tensor], Tensor]


# -------------------------------------------------------------------------------------------- same numbers


@settings(max_examples=60)
@given(
    lengths=lengths_of_a_batch,
    extra=st.integers(0, 5),
    padding=st.sampled_from([0.0, 1e6, math.nan, math.inf]),
    variance=st.booleans(),
    ddof=st.sampled_from([0, 1]),
)
def test_utterance_cmvn_equals_loops(lengths: list[int], extra: int, padding: float, variance: bool, ddof: int) -> None:
    features, frame_lengths = random_batch(lengths, extra, padding)
    normalised = utterance_cmvn(features, frame_lengths, variance=variance, ddof=ddof)
    assert normalised.shape == features.shape
    expected = [utterance_by_loops(features[row, :length], variance, ddof) for row, length in enumerate(lengths)]
    assert_rows(normalised, expected)


def test_unbiased_utterance_cmvn_equals_torch_std() -> None:
    features, frame_lengths = random_batch([5])
    expected = (features - features.mean(1, keepdim=True)) / features.std(1, keepdim=True)
    torch.testing.assert_close(utterance_cmvn(features, frame_lengths, variance=True, ddof=1), expected, **EXACT)
    assert not torch.allclose(utterance_cmvn(features, frame_lengths, variance=True, ddof=0), expected, rtol=1e-2)


windows = {"window": st.integers(1, 50), "min_window": st.integers(1, 50), "center": st.booleans()}


@settings(max_examples=80)
@given(
    lengths=lengths_of_a_batch,
    extra=st.integers(0, 5),
    padding=st.sampled_from([0.0, 1e6, math.nan, math.inf]),
    variance=st.booleans(),
    window=st.integers(1, 50),
    global_frames=st.integers(0, 60),
)
def test_online_cmvn_equals_loops(
    lengths: list[int], extra: int, padding: float, variance: bool, window: int, global_frames: int
) -> None:
    features, frame_lengths = random_batch(lengths, extra, padding)
    normalised = online_cmvn(features, frame_lengths, window=window, global_frames=global_frames, variance=variance)
    expected = [
        online_by_loops(features[row, :length], window, global_frames, variance) for row, length in enumerate(lengths)
    ]
    assert_rows(normalised, expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 260), min_size=1, max_size=3),
    before=st.integers(0, 5),
    padding=st.sampled_from([0.0, math.nan]),
    variance=st.booleans(),
    window=st.integers(1, 150),
    global_frames=st.integers(0, 60),
    level=st.sampled_from([slice(1), slice(2, 3), slice(3)]),
)
def test_online_cmvn_near_speech_equals_loops(
    lengths: list[int], before: int, padding: float, variance: bool, window: int, global_frames: int, level: slice
) -> None:
    features, frame_lengths = random_batch(lengths, 2, padding)
    generator = torch.Generator().manual_seed(sum(lengths))
    for row, length in enumerate(lengths):  # steady, then varied, then steady
        values = torch.randn(length, 3, dtype=torch.float64, generator=generator)
        third = max(length // 3, 1)
        values[:third] *= 0.01
        values[2 * third :] *= 0.01
        features[row, :length] = values
    options = {"window": window, "global_frames": global_frames, "variance": variance, "min_range": 1.0, "level": level}
    normalised = online_cmvn(features, frame_lengths, **options)
    expected = [
        online_by_loops(features[row, :length], window, global_frames, variance, 1.0, level)
        for row, length in enumerate(lengths)
    ]
    assert_rows(normalised, expected, rtol=1e-6, atol=1e-6)
    rows = torch.nn.functional.pad(features, (0, 0, before, 0))
    shifted = online_cmvn(rows, frame_lengths + before, before=-before, **options)
    assert_rows(shifted[:, before:], expected, rtol=1e-6, atol=1e-6)


def test_online_cmvn_near_speech_learns_from_speech_only() -> None:
    noise, speech = 0.1 * torch.randn(1, 1000, 3) - 2, 2 * torch.randn(1, 500, 3)
    features, lengths = torch.cat([speech, noise, speech], dim=1), torch.tensor([2000])
    alone = online_cmvn(torch.cat([speech, speech], dim=1), torch.tensor([1000]), window=3000, variance=True)
    for min_range, close in ((1.0, True), (0.0, False)):
        normalised = online_cmvn(features, lengths, window=3000, variance=True, min_range=min_range)
        assert torch.allclose(normalised[0, 1600:], alone[0, 600:], atol=0.3) == close
        assert (normalised[0, 1000:1500].mean() < -0.8) == close


def test_online_cmvn_begins_as_global_and_ends_as_the_window() -> None:
    features = torch.randn(1, 500, 3, dtype=torch.float64) + torch.tensor([-2.0, 0.0, 1.0])
    normalised = online_cmvn(features, torch.tensor([500]), window=100, global_frames=50, variance=True)[0]
    first = features[0, 0] - features[0, 0] / 51
    assert (normalised[0].sign() == first.sign()).all() and not normalised[0].isclose(torch.zeros(3).double()).any()
    tail = features[0, 300:400]
    expected = (features[0, 399] - tail.mean(0)) / tail.std(0, correction=0)
    torch.testing.assert_close(normalised[399], expected)


@settings(max_examples=150)
@given(
    lengths=lengths_of_a_batch,
    extra=st.integers(0, 5),
    padding=st.sampled_from([0.0, 1e6, math.nan, math.inf]),
    variance=st.booleans(),
    **windows,
)
def test_sliding_cmvn_equals_loops(
    lengths: list[int], extra: int, padding: float, variance: bool, window: int, min_window: int, center: bool
) -> None:
    features, frame_lengths = random_batch(lengths, extra, padding)
    normalised = sliding_cmvn(
        features, frame_lengths, window=window, min_window=min_window, center=center, variance=variance
    )
    expected = [
        sliding_by_loops(features[row, :length], window, min_window, center, variance)
        for row, length in enumerate(lengths)
    ]
    assert_rows(normalised, expected)


@settings(max_examples=150)
@given(length=st.integers(1, 40), variance=st.booleans(), **windows)
def test_sliding_cmvn_equals_torchaudio(
    length: int, variance: bool, window: int, min_window: int, center: bool
) -> None:
    features, frame_lengths = random_batch([length])
    normalised = sliding_cmvn(
        features, frame_lengths, window=window, min_window=min_window, center=center, variance=variance
    )
    if center and window == 1 and variance:
        expected = torch.zeros_like(features)  # windows of one frame: its running sums may leave a negative variance
    else:
        expected = torchaudio.functional.sliding_window_cmn(features, window, min_window, center, variance)
    torch.testing.assert_close(normalised, expected, rtol=1e-8, atol=1e-8)  # its running sums round differently


@pytest.mark.parametrize("center", [False, True], ids=["trailing", "centred"])
def test_sliding_cmvn_defaults_equal_torchaudio(center: bool) -> None:
    features, frame_lengths = random_batch([1500])
    expected = torchaudio.functional.sliding_window_cmn(features, center=center, norm_vars=True)
    normalised = sliding_cmvn(features, frame_lengths, center=center, variance=True)
    torch.testing.assert_close(normalised, expected, rtol=1e-8, atol=1e-8)


def test_sliding_sums_do_not_drift_in_float32() -> None:
    features = torch.randn(1, 60_000, 2) + 100
    normalised = sliding_cmvn(features, torch.tensor([60_000]), window=50, center=True, variance=True)
    assert normalised.dtype == torch.float32
    last = sliding_by_loops(features[0, -100:].double(), 50, 1, True, True)[50:].float()
    torch.testing.assert_close(normalised[0, -50:], last, rtol=1e-5, atol=1e-5)


def test_sliding_variance_is_floored_at_kaldis_value() -> None:
    wobble = torch.ones(1, 20, 1, dtype=torch.float64)
    wobble[:, ::2] = -1
    for size, expected in ((1e-3, 1.0), (1e-6, 1e-6 / math.sqrt(1e-10))):
        normalised = sliding_cmvn(size * wobble, torch.tensor([20]), window=4, center=True, variance=True)
        torch.testing.assert_close(normalised, expected * wobble, **EXACT)


def test_sliding_windows_of_a_single_frame_give_zeros() -> None:
    features = 1e3 * torch.randn(1, 1000, 3, dtype=torch.float64)  # so large that the sums' rounding would show
    assert not sliding_cmvn(features, torch.tensor([1000]), window=1, center=True, variance=True).any()


def test_sliding_sums_bear_a_large_offset() -> None:
    features, frame_lengths = random_batch([40, 13])
    features = features + 2.0**20
    normalised = sliding_cmvn(features, frame_lengths, window=5, min_window=2, variance=True)
    for row, length in enumerate(frame_lengths.tolist()):
        expected = sliding_by_loops(features[row, :length] - 2.0**20, 5, 2, False, True)
        torch.testing.assert_close(normalised[row, :length], expected, rtol=1e-7, atol=1e-7)


@given(**windows)
def test_sliding_reach_is_the_furthest_of_any_window(window: int, min_window: int, center: bool) -> None:
    left = right = 0
    for num_frames in range(1, 2 * (window + min_window)):
        for t in range(num_frames):
            start, end = kaldi_window(t, num_frames, window, min_window, center)
            left, right = max(left, t - start), max(right, end - 1 - t)
    assert sliding_reach(window, min_window, center) == (left, right)


# ------------------------------------------------------------------------------------ padding and gradients


def utterance(variance: bool, ddof: int) -> Normalisation:
    return lambda features, frame_lengths: utterance_cmvn(features, frame_lengths, variance=variance, ddof=ddof)


def sliding(variance: bool, center: bool, window: int = 4, min_window: int = 3) -> Normalisation:
    return lambda features, frame_lengths: sliding_cmvn(
        features, frame_lengths, window=window, min_window=min_window, center=center, variance=variance
    )


def online(variance: bool, global_frames: int) -> Normalisation:
    return lambda features, frame_lengths: online_cmvn(
        features, frame_lengths, window=4, global_frames=global_frames, variance=variance
    )


NORMALISATIONS = {
    "utterance mean": utterance(False, 0),
    "utterance, population": utterance(True, 0),
    "utterance, unbiased": utterance(True, 1),
    "sliding mean": sliding(False, False),
    "sliding": sliding(True, False),
    "sliding, from one frame": sliding(True, False, min_window=1),
    "sliding, centred": sliding(True, True),
    "online mean": online(False, 0),
    "online": online(True, 2),
}
EACH = pytest.mark.parametrize("name", NORMALISATIONS)


@EACH
@pytest.mark.parametrize("padding", [1e6, math.nan, math.inf])
def test_padding_leaks_neither_forward_nor_backward(name: str, padding: float) -> None:
    clean, frame_lengths = random_batch([7, 0, 1, 12], extra=3)
    mask = frame_mask(frame_lengths, 15)
    weights = torch.randn(clean.shape, dtype=torch.float64)
    results = []
    for features in (clean, clean.masked_fill(~mask[..., None], padding)):
        features.requires_grad_()
        normalised = NORMALISATIONS[name](features, frame_lengths)
        (gradient,) = torch.autograd.grad((normalised * weights).sum(), features)
        results.append((normalised, gradient))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert not results[1][1][~mask].any() and results[1][1][mask].any()


@EACH
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    features, frame_lengths = random_batch([6, 2, 1, 0], extra=1)
    features = features - torch.tensor([-70.0, 0.0, 5.0])  # finite differences need small values
    assert torch.autograd.gradcheck(
        lambda x: NORMALISATIONS[name](x, frame_lengths), features.requires_grad_(), atol=1e-4
    )


@pytest.mark.parametrize("name", [name for name in NORMALISATIONS if name != "online"])  # 0 is not what it expects
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [0, 1, 2, 30])
def test_constant_features_give_zeros_and_finite_gradients(name: str, dtype: torch.dtype, length: int) -> None:
    features = torch.full((2, 30, 3), 77.7, dtype=dtype, requires_grad=True)
    normalised = NORMALISATIONS[name](features, torch.tensor([length, 30]))
    normalised.square().sum().backward()
    assert normalised.dtype == dtype and normalised.abs().max() < 1e-2
    assert features.grad.isfinite().all()


@EACH
@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 5, 3), (0, 0, 3)])
def test_empty_batches_stay_empty(name: str, shape: tuple[int, int, int]) -> None:
    normalised = NORMALISATIONS[name](torch.zeros(shape), torch.zeros(shape[0], dtype=torch.int64))
    assert normalised.shape == shape


@EACH
def test_exports_with_any_batch_and_length(name: str) -> None:
    class Normalised(torch.nn.Module):
        def forward(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
            return NORMALISATIONS[name](features, frame_lengths)

    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    program = torch.export.export(Normalised(), random_batch([20, 9]), dynamic_shapes=({0: batch, 1: time}, {0: batch}))
    for lengths in ([20, 9], [3, 2, 0], [61, 1, 60, 7, 2]):
        inputs = random_batch(lengths, extra=2)
        torch.testing.assert_close(program.module()(*inputs), Normalised()(*inputs), **EXACT)


# -------------------------------------------------------------------------------------------------- errors


def test_bad_arguments_are_named() -> None:
    features, frame_lengths = random_batch([4])
    with pytest.raises(ValueError, match="ddof must be 0 or 1, got ddof=2"):
        utterance_cmvn(features, frame_lengths, variance=True, ddof=2)
    with pytest.raises(ValueError, match="window must be at least 1 frame, got window=0"):
        sliding_cmvn(features, frame_lengths, window=0, variance=True)
    with pytest.raises(ValueError, match="global_frames must not be negative, got global_frames=-1"):
        online_cmvn(features, frame_lengths, global_frames=-1, variance=True)
    with pytest.raises(ValueError, match="min_window must be at least 1 frame, got min_window=0"):
        sliding_reach(5, 0, True)
    with pytest.raises(ValueError, match=r"features must be \(B, T, 3\), got \(1, 4, 2\)"):
        FeatureStatistics(3).add(features[..., :2], frame_lengths)
