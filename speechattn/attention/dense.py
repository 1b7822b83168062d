"""Reference: truncated attention by the full matrix of scores, with everything outside the band masked."""

import torch
from torch import Tensor
from torch.nn import functional as F

from speechattn.attention.weighting import Weighting, hidden_score, normalise, score

__all__ = ["attend", "band_mask", "dense"]


def dense(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, weighting: Weighting) -> Tensor:
    """(B, H, T, E) each, mask (B, T), True = real frame -> (B, H, T, E), in T² time and memory."""
    return attend(query, key, value, _offsets(query.shape[2], query.device), weighting, mask)


def attend(
    query: Tensor, key: Tensor, value: Tensor, offset: Tensor, weighting: Weighting, mask: Tensor | None = None
) -> Tensor:
    """Attention of some frames to others, by all their scores.

    Args:
        query: (B, H, T, E) float.
        key: (B, H, S, E).
        value: (B, H, S, F).
        offset: (T, S) int64, time of the key minus time of the query.
        weighting: Context, normaliser and position.
        mask: (B, S) bool, True = real key; None when all are.

    Returns:
        (B, H, T, F).
    """
    visible = weighting.sees(offset)
    if mask is not None:
        visible = visible & mask[:, None, None, :]
    additive = None if weighting.additive is None else weighting.additive[:, None, None, :]
    scores = score(query, key.transpose(-1, -2), additive, weighting.position.bias(offset))
    scores = scores.masked_fill(~visible, hidden_score(scores.dtype))
    count = None if weighting.normaliser == "softmax" else visible.sum(dim=-1, keepdim=True)
    weights = normalise(scores, weighting.normaliser, count)
    return (F.dropout(weights, weighting.dropout) if weighting.dropout else weights) @ value


def band_mask(num_frames: int, left: int | None, right: int | None, device: torch.device | None = None) -> Tensor:
    """The band, (T, T) bool: row t is True from column t - L to t + R.

    Example:
        >>> band_mask(4, left=1, right=0).int()
        tensor([[1, 0, 0, 0],
                [1, 1, 0, 0],
                [0, 1, 1, 0],
                [0, 0, 1, 1]], dtype=torch.int32)
    """
    return Weighting(left, right).sees(_offsets(num_frames, device))


def _offsets(num_frames: int, device: torch.device | None) -> Tensor:
    """(T, T): time of the column minus time of the row."""
    times = torch.arange(num_frames, device=device)
    return times[None, :] - times[:, None]
