"""Pooling over frames: one vector per utterance, for classifiers of whole utterances."""

import torch
from torch import Tensor, nn

from speechattn.frontend.masks import frame_mask, zero_padding

__all__ = ["AttentionPooling", "MeanPooling"]


class MeanPooling(nn.Module):
    """Mean over the real frames."""

    def forward(self, x: Tensor, frame_lengths: Tensor) -> Tensor:
        """Pool a batch.

        Args:
            x: (B, T, D) float; padding is ignored.
            frame_lengths: (B,) int, real frames per utterance.

        Returns:
            (B, D); 0 for an utterance without a frame.
        """
        return zero_padding(x, frame_lengths).sum(dim=1) / frame_lengths.clamp(min=1)[:, None]


class AttentionPooling(nn.Module):
    """Weighted mean over the real frames, with weights a_t = softmax_t(v . tanh(W x_t + b)).

    Okabe, Koshinaka & Shinoda, "Attentive statistics pooling for deep speaker embedding", 2018, eq. 3 to 5, without
    the constant k, which the softmax cancels, and without the standard deviation.

    Args:
        dim: Features D per frame, also the hidden units.
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
        # Not -inf: an utterance without frames then has equal weights instead of NaN.
        weights = scores.masked_fill(padding, torch.finfo(scores.dtype).min).softmax(dim=1)
        return (weights * x).sum(dim=1)
