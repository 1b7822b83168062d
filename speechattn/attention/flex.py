"""Truncated attention by PyTorch's FlexAttention (Dong et al. 2024), for GPUs: a kernel that skips empty tiles."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from speechattn.attention.weighting import Weighting

__all__ = ["check_flex", "flex"]


def check_flex(weighting: Weighting) -> None:
    """Raise ValueError when FlexAttention cannot weigh like this."""
    if weighting.additive is not None or weighting.normaliser != "softmax" or weighting.dropout:
        raise ValueError("path 'flex' has the dot product and softmax only, and no dropout of attention weights")


def flex(query: Tensor, key: Tensor, value: Tensor, frame_lengths: Tensor, weighting: Weighting) -> Tensor:
    """Truncated attention, (B, H, T, E) each.

    On a GPU it is compiled. Elsewhere it runs as plain operations on the full score matrix, forward only.

    Raises:
        ValueError: When FlexAttention cannot weigh like this, see `check_flex`, or has no gradient here.
    """
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    check_flex(weighting)
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    if query.device.type == "cpu" and wanted:
        raise ValueError("path 'flex' has no gradient on a CPU; take 'auto' there")
    batch, _, num_frames, _ = query.shape
    if query.numel() == 0:
        return torch.zeros_like(query)
    left = num_frames - 1 if weighting.left is None else weighting.left
    right = num_frames - 1 if weighting.right is None else weighting.right

    def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k - q >= -left) & (k - q <= right) & (k < frame_lengths[b])

    biases = weighting.position.bias(torch.arange(-left, right + 1, device=query.device)[None])  # (H, 1, L + R + 1)

    def with_bias(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        assert biases is not None
        return score + biases[h, 0, (k - q + left).clamp(0, left + right)]

    mask = create_block_mask(visible, batch, None, num_frames, num_frames, device=query.device)
    attention: Any = _compiled() if query.is_cuda else flex_attention
    return attention(query, key, value, score_mod=None if biases is None else with_bias, block_mask=mask)


@cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)
