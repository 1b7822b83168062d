"""Deltas against loops and torchaudio: any order, window, lengths; padding never read."""

import math

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speechattn.frontend.config import DELTA_RULES
from speechattn.frontend.deltas import add_deltas
from speechattn.frontend.masks import frame_mask

EXACT = {"rtol": 1e-9, "atol": 1e-9}
RULES = pytest.mark.parametrize("rule", DELTA_RULES)


def random_batch(lengths: list[int], extra: int = 0, dim: int = 3, padding: float = 0.0) -> tuple[Tensor, Tensor]:
    """Features (B, max(lengths) + extra, dim) float64 and their lengths."""
    features = torch.full((len(lengths), max(lengths) + extra, dim), padding, dtype=torch.float64)
    for row, length in enumerate(lengths):
        features[row, :length] = torch.randn(length, dim, dtype=torch.float64) + 3
    return features, torch.tensor(lengths)


# ---------------------------------------------------------------------------------------------- references


def kaldi_by_loops(static: Tensor, order: int, window: int) -> Tensor:
    """Kaldi's DeltaFeatures: scales by recursion, frame indices clamped to the utterance. (T, C) -> (T, C * ...)."""
    scales = [[1.0]]
    for _ in range(order):
        previous = scales[-1]
        current = [0.0] * (len(previous) + 2 * window)
        for j in range(-window, window + 1):
            for k, weight in enumerate(previous):
                current[j + window + k] += j * weight
        normaliser = sum(j * j for j in range(-window, window + 1))
        scales.append([weight / normaliser for weight in current])
    num_frames, dim = static.shape
    output = torch.zeros(num_frames, dim * (1 + order), dtype=static.dtype)
    for t in range(num_frames):
        for i, scale in enumerate(scales):
            for c in range(dim):
                for k, weight in enumerate(scale):
                    neighbour = min(max(t + k - len(scale) // 2, 0), num_frames - 1)
                    output[t, i * dim + c] += weight * static[neighbour, c]
    return output


def torchaudio_by_loops(static: Tensor, order: int, window: int) -> Tensor:
    """The slope sum_n n (c[t + n] - c[t - n]) / (2 sum_n n^2), of the order before, whose edges are repeated."""
    orders = [static]
    num_frames, dim = static.shape
    for _ in range(order):
        source, slopes = orders[-1], torch.zeros_like(static)
        for t in range(num_frames):
            for c in range(dim):
                rise = 0.0
                for n in range(1, window + 1):
                    rise += n * (source[min(t + n, num_frames - 1), c] - source[max(t - n, 0), c])
                slopes[t, c] = rise / (2 * sum(n * n for n in range(1, window + 1)))
        orders.append(slopes)
    return torch.cat(orders, dim=1)


BY_LOOPS = {"kaldi": kaldi_by_loops, "torchaudio": torchaudio_by_loops}

# -------------------------------------------------------------------------------------------- same numbers


def test_slopes_of_an_impulse_are_the_known_filters() -> None:
    static, frame_lengths = torch.zeros(1, 17, 1, dtype=torch.float64), torch.tensor([17])
    static[0, 8] = 1.0
    _, first, second = add_deltas(static, frame_lengths, order=2, window=2, rule="kaldi")[0].T
    assert first[6:11].tolist() == pytest.approx([0.2, 0.1, 0.0, -0.1, -0.2])
    assert second[4:13].tolist() == pytest.approx([0.04, 0.04, 0.01, -0.04, -0.1, -0.04, 0.01, 0.04, 0.04])


@given(order=st.integers(1, 4), window=st.integers(1, 4))
def test_deltas_differentiate_polynomials(order: int, window: int) -> None:
    reach = order * window
    times = torch.arange(-reach, reach + 1, dtype=torch.float64)
    for power in range(order + 1):
        static = (times**power)[None, :, None]
        deltas = add_deltas(static, torch.tensor([len(times)]), order=order, window=window, rule="kaldi")[0, reach]
        for i in range(power, order + 1):  # the i-th derivative of t^power at 0
            expected = float(math.factorial(i)) if power == i else 0.0
            assert deltas[i].item() == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    extra=st.integers(0, 5),
    order=st.integers(0, 3),
    window=st.integers(1, 4),
    rule=st.sampled_from(DELTA_RULES),
)
def test_any_batch_equals_loops(lengths: list[int], extra: int, order: int, window: int, rule: str) -> None:
    static, frame_lengths = random_batch(lengths, extra)
    features = add_deltas(static, frame_lengths, order=order, window=window, rule=rule)
    assert features.shape == (*static.shape[:2], 3 * (1 + order))
    assert not features[~frame_mask(frame_lengths, static.shape[1])].any()
    for row, length in enumerate(lengths):
        expected = BY_LOOPS[rule](static[row, :length], order, window)
        torch.testing.assert_close(features[row, :length], expected, **EXACT)


@settings(max_examples=60)
@given(length=st.integers(1, 40), order=st.integers(1, 3), window=st.integers(1, 4))
def test_torchaudio_rule_equals_torchaudio(length: int, order: int, window: int) -> None:
    static, frame_lengths = random_batch([length])
    features = add_deltas(static, frame_lengths, order=order, window=window, rule="torchaudio")
    expected = static.transpose(1, 2)
    for i in range(1, order + 1):
        expected = torchaudio.functional.compute_deltas(expected, 2 * window + 1)
        torch.testing.assert_close(features[..., 3 * i : 3 * i + 3], expected.transpose(1, 2), **EXACT)


def test_rules_differ_only_near_the_edges_of_higher_orders() -> None:
    static, frame_lengths = random_batch([30])
    kaldi, torchaudio_ = (add_deltas(static, frame_lengths, order=2, window=2, rule=rule) for rule in DELTA_RULES)
    torch.testing.assert_close(kaldi[..., :6], torchaudio_[..., :6], **EXACT)
    differs = ~torch.isclose(kaldi[0], torchaudio_[0], **EXACT).all(dim=1)
    assert differs.nonzero().flatten().tolist() == [0, 1, 28, 29]


@RULES
def test_float32_equals_float64(rule: str) -> None:
    static, frame_lengths = random_batch([200])
    exact = add_deltas(static, frame_lengths, order=2, window=2, rule=rule)
    features = add_deltas(static.float(), frame_lengths, order=2, window=2, rule=rule)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.double(), exact, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------ padding and gradients


@RULES
@pytest.mark.parametrize("order", [0, 2])
@pytest.mark.parametrize("padding", [1e6, math.nan, math.inf])
def test_padding_is_never_read(rule: str, order: int, padding: float) -> None:
    lengths = [7, 0, 1, 12]
    clean, frame_lengths = random_batch(lengths, extra=3)
    dirty = clean.masked_fill(~frame_mask(frame_lengths, 15)[..., None], padding)
    weights = torch.randn(4, 15, 3 * (1 + order), dtype=torch.float64)
    results = []
    for static in (clean, dirty):
        static.requires_grad_()
        features = add_deltas(static, frame_lengths, order=order, window=2, rule=rule)
        (gradient,) = torch.autograd.grad((features * weights).sum(), static)
        results.append((features, gradient))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert not results[1][1][~frame_mask(frame_lengths, 15)].any()


@RULES
@pytest.mark.parametrize("order", [0, 1, 2])
def test_gradients_are_those_of_finite_differences(rule: str, order: int) -> None:
    static, frame_lengths = random_batch([3, 6, 1, 0])
    static.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: add_deltas(x, frame_lengths, order=order, window=2, rule=rule), static)


@RULES
@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 5, 3), (0, 0, 3)])
def test_empty_batches_stay_empty(rule: str, shape: tuple[int, int, int]) -> None:
    static, frame_lengths = torch.zeros(shape), torch.zeros(shape[0], dtype=torch.int64)
    features = add_deltas(static, frame_lengths, order=2, window=2, rule=rule)
    assert features.shape == (*shape[:2], 9)


@RULES
def test_exports_with_any_batch_and_length(rule: str) -> None:
    class Deltas(torch.nn.Module):
        def forward(self, static: Tensor, frame_lengths: Tensor) -> Tensor:
            return add_deltas(static, frame_lengths, order=2, window=2, rule=rule)

    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    example = random_batch([20, 9])
    program = torch.export.export(Deltas(), example, dynamic_shapes=({0: batch, 1: time}, {0: batch}))
    for lengths in ([20, 9], [3, 2, 0], [61, 1, 60, 7, 2]):
        inputs = random_batch(lengths, extra=2)
        torch.testing.assert_close(program.module()(*inputs), Deltas()(*inputs), **EXACT)


# -------------------------------------------------------------------------------------------------- errors


def test_bad_arguments_are_named() -> None:
    arguments = {"order": 2, "window": 2, "rule": "kaldi"}
    for wrong, message in (
        ({"order": -1}, "order must be at least 0, got order=-1"),
        ({"window": 0}, "window must be at least 1, got window=0"),
        ({"rule": "htk"}, "rule must be one of kaldi, torchaudio, got rule='htk'"),
    ):
        with pytest.raises(ValueError, match=message):
            add_deltas(torch.zeros(1, 3, 2), torch.tensor([3]), **{**arguments, **wrong})
