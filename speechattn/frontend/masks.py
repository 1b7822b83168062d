"""Padded batches: the mask of real frames, zeroing the rest, picking frames."""

import torch
from torch import Tensor

from speechattn.frontend.execution import is_traced

__all__ = ["frame_mask", "is_padded", "take_frames", "zero_padding"]


def frame_mask(frame_lengths: Tensor, num_frames: int) -> Tensor:
    """The mask of a padded batch of T frames: lengths (B,) -> (B, T) bool, True = real frame."""
    return torch.arange(num_frames, device=frame_lengths.device) < frame_lengths[:, None]


def zero_padding(x: Tensor, frame_lengths: Tensor) -> Tensor:
    """(B, T, D) with 0 past each utterance's frames; a NaN there would reach the gradients of weights."""
    return x.masked_fill(~frame_mask(frame_lengths, x.shape[1])[..., None], 0.0)


def is_padded(frame_lengths: Tensor, num_frames: int) -> bool:
    """Whether any row of a batch of T frames may hold padding; always True in a graph and on other devices."""
    if is_traced() or frame_lengths.device.type != "cpu":
        return True
    return bool((frame_lengths < num_frames).any())


def take_frames(features: Tensor, times: Tensor) -> Tensor:
    """Pick frames of each utterance: (B, T, D) at times (B, M) int64, each in [0, T) -> (B, M, D).

    `index_select` on one flat table is four times as fast on CPU as `gather` or indexing by two tensors.
    """
    batch, num_frames, dim = features.shape
    starts = num_frames * torch.arange(batch, device=features.device)
    rows = features.flatten(0, 1).index_select(0, (starts[:, None] + times).flatten())
    return rows.view(batch, times.shape[1], dim)
