"""Depthwise convolution over time, several times as fast on a CPU as `conv1d` forward and backward.

`conv1d` wants channels before time, and its gradient for the weights is slow. Here each tap is one multiplication with
the shifted frames, which stay in place.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from speechattn.frontend.execution import is_traced, single_precision

__all__ = ["depthwise_inner", "depthwise_same"]


def depthwise_same(convolution: nn.Conv1d, x: Tensor) -> Tensor:
    """Convolve (B, T, D) with zeros around it -> (B, T, D).

    Args:
        convolution: With one group per channel and an odd number of taps.
        x: (B, T, D).
    """
    if is_traced() or x.device.type != "cpu":
        return convolution(x.transpose(1, 2)).transpose(1, 2)
    assert convolution.bias is not None
    y: Tensor = _Same.apply(x, convolution.weight, convolution.bias)
    return y


def depthwise_inner(convolution: nn.Conv1d, x: Tensor) -> Tensor:
    """Convolve rows (n + taps - 1, D) without padding -> (n, D)."""
    if is_traced() or x.device.type != "cpu":
        return F.conv1d(x.T[None], convolution.weight, convolution.bias, groups=convolution.groups)[0].T
    assert convolution.bias is not None
    first, *taps = convolution.weight[:, 0].T.unbind()
    size = len(x) - len(taps)
    y = torch.addcmul(convolution.bias, x[:size], first)
    for number, tap in enumerate(taps, 1):
        y.addcmul_(x[number : number + size], tap)
    return y


class _Same(torch.autograd.Function):
    """Computes in float32 at least, also under mixed precision, where it would round after each tap."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, T, D), (D, 1, K) and (D,) -> (B, T, D)."""
        ctx.save_for_backward(x, weight)
        return _sum_of_taps(single_precision(x), single_precision(weight), bias).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        gradient = single_precision(gradient)
        precise = single_precision(x)
        of_x = _sum_of_taps(gradient, single_precision(weight).flip(2), None)
        of_taps = [
            (gradient[:, out] * precise[:, into]).sum(dim=(0, 1)) for out, into in _shifts(x.shape[1], weight.shape[2])
        ]
        of_weight = torch.stack(of_taps, dim=1)[:, None]
        return of_x.to(x.dtype), of_weight.to(weight.dtype), gradient.sum(dim=(0, 1)).to(weight.dtype)


def _sum_of_taps(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    middle = weight.shape[2] // 2
    taps = weight[:, 0].T.contiguous()
    y = x * taps[middle] if bias is None else torch.addcmul(bias.to(x.dtype), x, taps[middle])
    for number, (out, into) in enumerate(_shifts(x.shape[1], weight.shape[2])):
        if number != middle:
            y[:, out].addcmul_(x[:, into], taps[number])
    return y


def _shifts(num_frames: int, num_taps: int) -> Iterator[tuple[slice, slice]]:
    """For each tap, the frames that receive something and those that it is taken from."""
    for offset in range(-(num_taps // 2), num_taps // 2 + 1):
        size = max(num_frames - abs(offset), 0)
        yield slice(max(-offset, 0), max(-offset, 0) + size), slice(max(offset, 0), max(offset, 0) + size)
