"""From a vector per frame to one per utterance: what turns a frame classifier into one of whole utterances."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechattn.frontend import frame_mask

__all__ = ["AttentionPooling", "MeanPooling"]


class MeanPooling(nn.Module):
    """The mean over the real frames."""

    def forward(self, x: Tensor, frame_lengths: Tensor) -> Tensor:
        """Pool a batch.

        Args:
            x: (B, T, D) float; what stands past an utterance's frames is not looked at.
            frame_lengths: (B,) int, real frames of each utterance.

        Returns:
            (B, D); 0 for an utterance without a frame.
        """
        real = frame_mask(frame_lengths, x.shape[1])[..., None]
        return x.masked_fill(~real, 0.0).sum(dim=1) / frame_lengths.clamp(min=1)[:, None]


class AttentionPooling(nn.Module):
    """A mean over the real frames with learned weights, a_t = softmax_t(v . tanh(W x_t + b)).

    Okabe, Koshinaka & Shinoda, "Attentive statistics pooling for deep speaker embedding", 2018, eq. 3 to 5,
    without their k, which the softmax cancels, and without the deviation.

    Args:
        dim: D, features of a frame, and units of the hidden layer.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, dim)
        self.score = nn.Linear(dim, 1, bias=False)

    def forward(self, x: Tensor, frame_lengths: Tensor) -> Tensor:
        """Pool a batch; shapes as for `MeanPooling`."""
        padding = ~frame_mask(frame_lengths, x.shape[1])[..., None]
        x = x.masked_fill(padding, 0.0)
        scores = self.score(self.hidden(x).tanh())
        # The least number instead of -inf: an utterance without a frame gets even weights over zeros, not NaN.
        weights = scores.masked_fill(padding, torch.finfo(scores.dtype).min).softmax(dim=1)
        return (weights * x).sum(dim=1)
