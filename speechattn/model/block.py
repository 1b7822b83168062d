"""One encoder block: attention, convolution, feed-forward, each with a residual connection.

Pre-norm Transformer (Xiong et al. 2020) with the Conformer's depthwise convolution (Gulati et al. 2020, sec. 2.2), but
layer instead of batch normalisation, so that an utterance never depends on its batch.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.attention import TruncatedSelfAttention
from speechattn.attention.positions import POSITIONS
from speechattn.frontend.masks import is_padded, zero_padding
from speechattn.model.config import EncoderConfig
from speechattn.model.depthwise import depthwise_same

__all__ = ["ConvolutionModule", "EncoderBlock", "SwiGlu", "VariationalDropout"]


class EncoderBlock(nn.Module):
    """x + attention, x + convolution, x + feed-forward, each of normalised input.

    Args:
        config: The encoder's shape.
        layer: Index of the block.
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
        width = config.feed_forward
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(config.dim),
            nn.Linear(config.dim, 2 * width if config.activation == "swiglu" else width),
            {"silu": nn.SiLU(), "gelu": nn.GELU(), "swiglu": SwiGlu()}[config.activation],
            VariationalDropout(config.dropout),
            nn.Linear(width, config.dim),
        )
        self.dropout = VariationalDropout(config.dropout)

    def forward(self, x: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), frame_lengths))
        if self.convolution is not None:
            x = x + self.dropout(self.convolution(x, frame_lengths))
        return x + self.dropout(self.feed_forward(x))


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
        x = self.gated(x)
        if is_padded(frame_lengths, x.shape[1]):
            x = zero_padding(x, frame_lengths)
        return self.mixed(depthwise_same(self.depthwise, x))

    def gated(self, x: Tensor) -> Tensor:
        """Everything before the convolution, (..., D) -> (..., D)."""
        return F.glu(self.gate(self.norm(x)), dim=-1)

    def mixed(self, x: Tensor) -> Tensor:
        """Everything after the convolution, (..., D) -> (..., D)."""
        return self.output(F.silu(self.depthwise_norm(x)))


class SwiGlu(nn.Module):
    """SiLU(a) * b of the two halves [a, b] of the features.

    Between two linear maps it gives the feed-forward module (SiLU(xW) * xV) W2 of Shazeer (2020), eq. 6, with biases.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., 2D) -> (..., D)."""
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value


class VariationalDropout(nn.Module):
    """Dropout with one mask for all frames of an utterance (Gal & Ghahramani 2016).

    A mask per frame would cost a quarter of a training step on a CPU.

    Args:
        share: Share of features dropped in training, [0, 1).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        if not self.training or self.share == 0:
            return x
        keep = 1 - self.share
        mask = torch.empty(x.shape[0], 1, x.shape[2], dtype=x.dtype, device=x.device)
        return x * mask.bernoulli_(keep).div_(keep)
