"""The encoder: how far it sees, frame by frame, and that no utterance sees its neighbours in a batch."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from speechattn.encoder import Encoder, EncoderConfig, SharedDropout, sinusoidal_positions

SMALL = EncoderConfig(dim=12, layers=2, heads=3, left=3, right=1, feed_forward=16, conv_kernel=5)
INPUT_DIM = 7


def encoder(**changes: object) -> Encoder:
    return Encoder(INPUT_DIM, dataclasses.replace(SMALL, **changes)).eval()


def reach(body: Encoder, num_frames: int) -> list[list[int]]:
    """For every output frame, the input frames that its gradient touches."""
    body = body.double()
    features = torch.randn(1, num_frames, INPUT_DIM, dtype=torch.float64, requires_grad=True)
    output = body(features, torch.tensor([num_frames]))
    reached = []
    for t in range(num_frames):
        (gradient,) = torch.autograd.grad(output[0, t].square().sin().sum(), features, retain_graph=True)
        reached.append(gradient[0].any(dim=1).nonzero().flatten().tolist())
    return reached


@pytest.mark.parametrize(
    "changes, left, right",
    [
        ({}, 10, 6),  # 2 * (3 + 2), 2 * (1 + 2)
        ({"conv_kernel": 0}, 6, 2),
        ({"conv_kernel": 1}, 6, 2),
        ({"layers": 1}, 5, 3),
        ({"layers": 3, "right": 0, "conv_kernel": 0}, 9, 0),
        ({"left": 0, "right": 0}, 4, 4),
        ({"left": 0, "right": 0, "conv_kernel": 0}, 0, 0),
        ({"position": "none"}, 10, 6),
        ({"left": None}, None, 6),
        ({"right": None}, 10, None),
        ({"left": None, "right": None, "conv_kernel": 0}, None, None),
    ],
    ids=str,
)
def test_context_is_exactly_what_gradients_reach(changes: dict, left: int | None, right: int | None) -> None:
    body, num_frames = encoder(**changes), 30
    assert (body.left_context, body.right_context) == (left, right)
    for t, reached in enumerate(reach(body, num_frames)):
        # Unlimited attention on one side still comes after a convolution that sees both.
        first = 0 if left is None else max(0, t - left)
        end = num_frames if right is None else min(num_frames, t + right + 1)
        assert reached == list(range(first, end))


@given(lengths=st.lists(st.integers(0, 90), min_size=1, max_size=4), changes=st.sampled_from([
    {}, {"conv_kernel": 0}, {"left": None, "right": None}, {"position": "none"},
]), extra=st.integers(0, 200))  # fmt: skip
def test_batch_equals_alone(lengths: list[int], changes: dict, extra: int) -> None:
    body = encoder(**changes)
    features = 1e3 * torch.randn(len(lengths), max(lengths) + extra, INPUT_DIM)
    for row, length in enumerate(lengths):
        features[row, :length] /= 1e3
    output = body(features, torch.tensor(lengths))
    assert output.shape == (*features.shape[:2], SMALL.dim) and output.isfinite().all()
    for row, length in enumerate(lengths):
        alone = body(features[row : row + 1, :length], torch.tensor([length]))[0]
        torch.testing.assert_close(output[row, :length], alone, rtol=1e-4, atol=1e-4)


def test_padding_takes_no_part_in_the_gradient() -> None:
    body, lengths = encoder(), torch.tensor([40, 13, 0])
    features = torch.randn(3, 40, INPUT_DIM, requires_grad=True)
    real = torch.arange(40) < lengths[:, None]
    weight = torch.randn(3, 40, SMALL.dim)
    (body(features, lengths) * weight)[real].sum().backward()
    assert not features.grad[~real].any() and features.grad[real].all()
    in_batch = [parameter.grad.clone() for parameter in body.parameters()]
    body.zero_grad()
    for row, length in enumerate([40, 13]):
        alone = body(features[row : row + 1, :length].detach(), torch.tensor([length]))[0]
        (alone * weight[row, :length]).sum().backward()
    for slope, parameter in zip(in_batch, body.parameters(), strict=True):
        torch.testing.assert_close(slope, parameter.grad, rtol=1e-3, atol=1e-3)


def test_no_frames_in_no_frames_out() -> None:
    for conv_kernel in (0, 15):
        output = encoder(conv_kernel=conv_kernel)(torch.zeros(2, 0, INPUT_DIM), torch.tensor([0, 0]))
        assert output.shape == (2, 0, SMALL.dim)


# ----------------------------------------------------------------------------------------------- positions


@pytest.mark.parametrize("num_frames, dim", [(1, 2), (50, 8), (50, 7), (3, 1), (1500, 16)])
def test_positions_equal_the_formula(num_frames: int, dim: int) -> None:
    positions = sinusoidal_positions(num_frames, dim)
    assert positions.shape == (num_frames, dim) and positions.dtype == torch.float32
    for t in range(num_frames):
        for d in range(dim):
            angle = t / 10000 ** (2 * (d // 2) / dim)
            expected = math.sin(angle) if d % 2 == 0 else math.cos(angle)
            # float32 holds an angle of t radians to t * 6e-8.
            assert abs(float(positions[t, d]) - expected) < 1e-5 + 2e-7 * t


def test_without_positions_a_shift_shifts_the_output_and_with_them_it_does_not() -> None:
    features, shift = torch.randn(1, 80, INPUT_DIM), 9
    for position, alike in (("none", True), ("sinusoidal", False)):
        body = encoder(position=position)
        whole = body(features, torch.tensor([80]))[0, shift + body.left_context :]
        part = body(features[:, shift:], torch.tensor([80 - shift]))[0, body.left_context :]
        assert torch.allclose(whole, part, atol=1e-4) == alike


# ------------------------------------------------------------------------------------------------- dropout


def test_shared_dropout_has_one_mask_for_all_frames() -> None:
    dropout, x = SharedDropout(0.25).train(), torch.randn(6, 40, 500)
    y = dropout(x)
    mask = y / x
    torch.testing.assert_close(mask, mask[:, :1].expand_as(mask))
    values = mask[:, 0]
    kept = values > 0.5
    torch.testing.assert_close(values, kept / 0.75)  # zero, or made up for what is dropped
    assert kept.float().mean() == pytest.approx(0.75, abs=0.03)
    assert not torch.equal(kept[0], kept[1])  # utterances differ, and so does the next call
    assert not torch.equal(y, dropout(x))


def test_shared_dropout_is_off_in_eval_and_at_zero() -> None:
    x = torch.randn(2, 5, 8)
    assert torch.equal(SharedDropout(0.5).eval()(x), x)
    assert torch.equal(SharedDropout(0.0).train()(x), x)


def test_only_training_is_random() -> None:
    body = encoder(dropout=0.3, attention_dropout=0.3)
    features, lengths = torch.randn(1, 30, INPUT_DIM), torch.tensor([30])
    assert torch.equal(body(features, lengths), body(features, lengths))
    body.train()
    assert not torch.allclose(body(features, lengths), body(features, lengths), atol=1e-2)


def test_float64_stays_float64() -> None:
    def output(body: Encoder, dtype: torch.dtype) -> Tensor:
        return body.to(dtype)(torch.linspace(-1, 1, 30 * INPUT_DIM).view(1, 30, -1).to(dtype), torch.tensor([30]))

    body = encoder()
    single, double = output(body, torch.float32), output(body, torch.float64)
    assert double.dtype == torch.float64
    np.testing.assert_allclose(single.detach(), double.detach(), atol=1e-4)


# -------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dim": 0}, "encoder.dim must be at least 1, got 0"),
        ({"layers": 0}, "encoder.layers must be at least 1, got 0"),
        ({"feed_forward": -1}, "encoder.feed_forward must be at least 1, got -1"),
        ({"conv_kernel": 4}, "encoder.conv_kernel must be odd, or 0 for none, got 4"),
        ({"conv_kernel": -1}, "encoder.conv_kernel must be odd, or 0 for none, got -1"),
        ({"position": "rotary"}, "encoder.position must be one of sinusoidal, none, got 'rotary'"),
        ({"dropout": 1.0}, r"encoder.dropout must lie in \[0, 1\), got 1.0"),
        ({"heads": 5}, "heads must divide dim, got dim=12 and heads=5"),
        ({"left": -1}, "left must be 0 or more frames"),
        ({"attention_dropout": -0.1}, r"dropout must lie in \[0, 1\)"),
    ],
)
def test_a_setting_out_of_range_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder(**changes)
