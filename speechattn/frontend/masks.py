"""Padded batches: which rows are real frames, and picking rows."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["frame_mask", "is_padded", "take_frames", "zero_padding"]


def frame_mask(frame_lengths: Tensor, num_frames: int) -> Tensor:
    """The mask of a padded batch.

    Args:
        frame_lengths: (B,) integer, frames of each utterance.
        num_frames: T, rows of the batch.

    Returns:
        (B, T) bool, True = real frame.
    """
    return torch.arange(num_frames, device=frame_lengths.device) < frame_lengths[:, None]


def zero_padding(x: Tensor, frame_lengths: Tensor) -> Tensor:
    """(B, T, D), 0 past each utterance's frames. A NaN there would reach the gradients of weights, though no result."""
    return x.masked_fill(~frame_mask(frame_lengths, x.shape[1])[..., None], 0.0)


def is_padded(frame_lengths: Tensor, num_frames: int) -> bool:
    """Whether any row of a batch of `num_frames` may hold padding: surely so in a graph and on other devices."""
    if torch.compiler.is_compiling() or frame_lengths.device.type != "cpu":
        return True
    return bool((frame_lengths < num_frames).any())


def take_frames(features: Tensor, times: Tensor) -> Tensor:
    """Pick frames of each utterance, in any order and as often as wanted.

    Whole rows of one flat table: four times as fast on CPU as `gather` or indexing by two tensors.

    Args:
        features: (B, T, D).
        times: (B, M) int64, each in [0, T).

    Returns:
        (B, M, D).
    """
    batch, num_frames, dim = features.shape
    starts = num_frames * torch.arange(batch, device=features.device)
    rows = features.flatten(0, 1).index_select(0, (starts[:, None] + times).flatten())
    return rows.view(batch, times.shape[1], dim)
