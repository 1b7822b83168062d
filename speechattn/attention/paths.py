"""The paths by which truncated attention is computed: `dense` is the reference, the others equal it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from speechattn.attention.blocked import blocked
from speechattn.attention.flex import flex
from speechattn.attention.weighting import Weighting, hidden_score, normalise, score
from speechattn.frontend.masks import frame_mask, is_padded

__all__ = ["PATHS", "attend", "band_mask", "dense", "truncated_attention"]

PATHS = ("auto", "dense", "blocked", "flex")
SHORT_FRAMES = 192  # below this the dense score matrix is cheaper than cutting blocks


def truncated_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weighting: Weighting,
    frame_lengths: Tensor | None = None,
    *,
    path: str = "auto",
) -> Tensor:
    """The attention itself, between the projections.

    Args:
        query: (B, H, T, E) float.
        key: (B, H, T, E).
        value: (B, H, T, E).
        weighting: Which frames are seen, and how they are weighed.
        frame_lengths: (B,) int, real frames of each row; None when all are.
        path: See `TruncatedSelfAttention`.

    Returns:
        (B, H, T, E); rows past an utterance's frames have no meaning.

    Raises:
        ValueError: When the path is `flex` and the weighting is beyond it.
    """
    batch, _, num_frames, _ = query.shape
    if frame_lengths is None:
        frame_lengths = torch.full((batch,), num_frames, device=query.device)
    if path == "flex":
        return flex(query, key, value, frame_lengths, weighting)
    real = frame_mask(frame_lengths, num_frames)
    if path == "dense" or weighting.left is None or weighting.right is None:
        return dense(query, key, value, real, weighting)
    if not torch.compiler.is_compiling():  # a graph must do for all lengths
        short = path == "auto" and num_frames <= SHORT_FRAMES + weighting.left + weighting.right
        if short or query.numel() == 0:
            return dense(query, key, value, real, weighting)
    return blocked(query, key, value, real if is_padded(frame_lengths, num_frames) else None, weighting)


def dense(query: Tensor, key: Tensor, value: Tensor, real: Tensor, weighting: Weighting) -> Tensor:
    """Reference: (B, H, T, E) each, real (B, T) -> (B, H, T, E), by way of the (T, T) scores."""
    return attend(query, key, value, _offsets(query.shape[2], query.device), weighting, real)


def attend(
    query: Tensor, key: Tensor, value: Tensor, offset: Tensor, weighting: Weighting, real: Tensor | None = None
) -> Tensor:
    """Attention of some frames to some frames, by way of all their scores.

    Args:
        query: (B, H, T, E) float.
        key: (B, H, S, E).
        value: (B, H, S, F).
        offset: (T, S) int64, each key's time less the query's.
        weighting: Which frames are seen, and how they are weighed.
        real: (B, S) bool, which keys are real frames; None when all are.

    Returns:
        (B, H, T, F).
    """
    visible = weighting.sees(offset)
    if real is not None:
        visible = visible & real[:, None, None, :]
    additive = None if weighting.additive is None else weighting.additive[:, None, None, :]
    scores = score(query, key.transpose(-1, -2), additive, weighting.position.bias(offset))
    scores = scores.masked_fill(~visible, hidden_score(scores.dtype))
    count = None if weighting.normaliser == "softmax" else visible.sum(dim=-1, keepdim=True)
    weights = normalise(scores, weighting.normaliser, count)
    return (F.dropout(weights, weighting.dropout) if weighting.dropout else weights) @ value


def band_mask(num_frames: int, left: int | None, right: int | None, device: torch.device | None = None) -> Tensor:
    """Which frames a frame sees, (T, T) bool: row t is True from column t - L to t + R.

    Example:
        >>> band_mask(4, left=1, right=0).int()
        tensor([[1, 0, 0, 0],
                [1, 1, 0, 0],
                [0, 1, 1, 0],
                [0, 0, 1, 1]], dtype=torch.int32)
    """
    return Weighting(left, right).sees(_offsets(num_frames, device))


def _offsets(num_frames: int, device: torch.device | None) -> Tensor:
    """(T, T): the time of the column's frame less that of the row's."""
    times = torch.arange(num_frames, device=device)
    return times[None, :] - times[:, None]
