"""A block of the encoder: attention, convolution, feed-forward.

It follows the Transformer with normalisation in front (Xiong et al. 2020); the optional depthwise convolution is the
Conformer's module (Gulati et al. 2020, sec. 2.2) with layer instead of batch normalisation, so that an utterance never
depends on its neighbours in a batch. The feed-forward module may be gated (Shazeer 2020), and training may skip
branches at random (Huang et al. 2016).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.attention import TruncatedSelfAttention
from speechattn.attention.positions import POSITIONS
from speechattn.frontend.masks import zero_padding

if TYPE_CHECKING:
    from speechattn.model.encoder import EncoderConfig

__all__ = ["EncoderBlock", "SharedDropout", "StochasticDepth", "SwiGlu"]


class EncoderBlock(nn.Module):
    """x + attention, x + convolution, x + feed-forward, each on normalised input.

    Args:
        config: The encoder's shape.
        layer: Which of its blocks this is, from 0.
    """

    def __init__(self, config: EncoderConfig, layer: int) -> None:
        super().__init__()
        left, right = config.layer_contexts[layer]
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = TruncatedSelfAttention(
            config.dim,
            config.heads,
            left=left,
            right=right,
            dropout=config.attention_dropout,
            score=config.score,
            normaliser=config.normaliser,
            position=config.position if config.position in POSITIONS else "none",
        )
        self.convolution = ConvolutionModule(config.dim, config.conv_kernel) if config.conv_kernel else None
        self.feed_forward = _feed_forward(config)
        self.dropout = SharedDropout(config.dropout)
        self.layer_drop = StochasticDepth(config.layer_drop * (layer + 1) / config.layers)

    def forward(self, x: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self._regularised(self.attention(self.attention_norm(x), frame_lengths))
        if self.convolution is not None:
            x = x + self._regularised(self.convolution(x, frame_lengths))
        return x + self._regularised(self.feed_forward(x))

    def _regularised(self, branch: Tensor) -> Tensor:
        return self.layer_drop(self.dropout(branch))


def _feed_forward(config: EncoderConfig) -> nn.Sequential:
    """Normalisation, linear map, activation, dropout, linear map."""
    width = config.feed_forward
    activation = {"silu": nn.SiLU(), "gelu": nn.GELU(), "swiglu": SwiGlu()}[config.activation]
    return nn.Sequential(
        nn.LayerNorm(config.dim),
        nn.Linear(config.dim, 2 * width if config.activation == "swiglu" else width),
        activation,
        SharedDropout(config.dropout),
        nn.Linear(width, config.dim),
    )


class SwiGlu(nn.Module):
    """SiLU(a) * b of the two halves [a, b] of the features.

    With a = xW and b = xV from one linear map in front, and one behind, this is the feed-forward module
    (SiLU(xW) * xV) W2 of Shazeer (2020), eq. 6, here with biases.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., 2D) -> (..., D)."""
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value


class ConvolutionModule(nn.Module):
    """Gated linear unit, depthwise convolution over time, normalisation, SiLU, linear map."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.gate = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.depthwise_norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = zero_padding(self.gated(x), frame_lengths)
        return self.mixed(self.depthwise(x.transpose(1, 2)).transpose(1, 2))

    def gated(self, x: Tensor) -> Tensor:
        """What comes before the convolution, (B, T, D) -> (B, T, D)."""
        return F.glu(self.gate(self.norm(x)), dim=-1)

    def mixed(self, x: Tensor) -> Tensor:
        """What comes after the convolution, (B, T, D) -> (B, T, D)."""
        return self.output(F.silu(self.depthwise_norm(x)))


class SharedDropout(nn.Module):
    """Dropout with one mask for all frames of an utterance (Gal & Ghahramani 2016).

    Drawing a mask for every frame costs a quarter of a training step on a CPU; this costs nothing.

    Args:
        share: Share of features dropped in training, [0, 1).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return _thinned(x, (x.shape[0], 1, x.shape[2]), self.share) if self.training else x


class StochasticDepth(nn.Module):
    """Skips a residual branch for some utterances of a batch in training (Huang et al. 2016, sec. 3).

    Each call draws once for an utterance. What is kept is scaled by 1 / (1 - p) in training, where the paper
    scales by 1 - p at inference: the mean is the same, and inference needs nothing.

    Args:
        probability: That an utterance goes without the branch, [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """(B, T, D), what the branch would add -> (B, T, D), what it adds."""
        return _thinned(branch, (branch.shape[0], 1, 1), self.probability) if self.training else branch


def _thinned(x: Tensor, shape: tuple[int, ...], share: float) -> Tensor:
    """Multiply by 0 with probability `share`, else by 1 / (1 - share), drawn anew for each place of `shape`."""
    if share == 0:
        return x
    return x * torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - share).div_(1 - share)
