"""Depthwise convolution over time, several times as fast on a CPU as `conv1d`, forward and backward.

`conv1d` needs channels before time, and its gradient for the weights is slow. Here each tap is one multiplication with
shifted frames.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from speechattn.frontend.execution import is_traced, single_precision

__all__ = ["depthwise_same", "depthwise_valid"]


def depthwise_same(convolution: nn.Conv1d, x: Tensor) -> Tensor:
    """Convolve (B, T, D) with zeros around it -> (B, T, D).

    Args:
        convolution: One group per channel, an odd number of taps, and `padding` of half of them.
        x: (B, T, D).
    """
    if is_traced() or x.device.type != "cpu":
        return convolution(x.transpose(1, 2)).transpose(1, 2)
    y: Tensor = _Same.apply(x, convolution.weight, convolution.bias)
    return y


def depthwise_valid(convolution: nn.Conv1d, x: Tensor) -> Tensor:
    """Convolve rows (n + taps - 1, D) without padding -> (n, D); no gradients."""
    if is_traced() or x.device.type != "cpu":
        return F.conv1d(x.T[None], convolution.weight, convolution.bias, groups=convolution.groups)[0].T
    assert convolution.bias is not None
    return _sum_of_taps(x, convolution.weight, convolution.bias)


class _Same(torch.autograd.Function):
    """Computes in float32 at least: in bfloat16, every tap would be rounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, T, D), (D, 1, K) and (D,) -> (B, T, D)."""
        ctx.save_for_backward(x, weight)
        weight = single_precision(weight)
        return _sum_of_taps(_surrounded(x, weight), weight, single_precision(bias)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        reversed_taps = single_precision(weight).flip(2)
        of_x = _sum_of_taps(_surrounded(gradient, weight), reversed_taps, reversed_taps.new_zeros(len(weight)))
        gradient, around = single_precision(gradient), _surrounded(x, weight)
        size = x.shape[1]
        of_taps = [(gradient * around[:, tap : tap + size]).sum(dim=(0, 1)) for tap in range(weight.shape[2])]
        of_weight = torch.stack(of_taps, dim=1)[:, None]
        return of_x.to(x.dtype), of_weight.to(weight.dtype), gradient.sum(dim=(0, 1)).to(weight.dtype)


def _surrounded(x: Tensor, weight: Tensor) -> Tensor:
    """(B, T, D) in float32 at least, with zeros before and after -> (B, T + K - 1, D)."""
    reach = weight.shape[2] // 2
    return F.pad(single_precision(x), (0, 0, reach, reach))


def _sum_of_taps(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(..., n + K - 1, D), (D, 1, K) and (D,) -> (..., n, D)."""
    first, *taps = weight[:, 0].T.unbind()
    size = x.shape[-2] - len(taps)
    y = torch.addcmul(bias, x[..., :size, :], first)
    for number, tap in enumerate(taps, 1):
        y.addcmul_(x[..., number : number + size, :], tap)
    return y
