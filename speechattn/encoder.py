"""The truncated self-attention encoder: sinusoidal positions and a stack of pre-norm blocks.

Blocks follow the Transformer with normalisation in front (Xiong et al. 2020); the optional depthwise
convolution is the Conformer's module (Gulati et al. 2020, sec. 2.2) with layer instead of batch
normalisation, so that an utterance never depends on its neighbours in a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.attention import TruncatedSelfAttention
from speechattn.frontend import frame_mask

__all__ = ["Encoder", "EncoderConfig", "SharedDropout", "sinusoidal_positions"]

POSITIONS = ("sinusoidal", "none")


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of an `Encoder`.

    Args:
        dim: Features D of every layer.
        layers: Number of blocks.
        heads: Attention heads; must divide `dim`.
        left: Frames of left context of each layer's attention; null for all.
        right: Frames of right context of each layer's attention; null for all.
        feed_forward: Width of the feed-forward module.
        conv_kernel: Taps of the depthwise convolution, odd; 0 leaves the module out.
        position: `sinusoidal` or `none`.
        dropout: Share of features dropped in training, [0, 1).
        attention_dropout: Share of attention weights dropped in training, [0, 1).

    Raises:
        ValueError: When a field is out of its range.
    """

    dim: int = 144
    layers: int = 4
    heads: int = 4
    left: int | None = 16
    right: int | None = 16
    feed_forward: int = 576
    conv_kernel: int = 15
    position: str = "sinusoidal"
    dropout: float = 0.1
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "feed_forward"):
            if getattr(self, name) < 1:
                raise ValueError(f"encoder.{name} must be at least 1, got {getattr(self, name)}")
        if self.conv_kernel < 0 or (self.conv_kernel and self.conv_kernel % 2 == 0):
            raise ValueError(f"encoder.conv_kernel must be odd, or 0 for none, got {self.conv_kernel}")
        if self.position not in POSITIONS:
            raise ValueError(f"encoder.position must be one of {', '.join(POSITIONS)}, got {self.position!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"encoder.dropout must lie in [0, 1), got {self.dropout}")


class Encoder(nn.Module):
    """A linear map to `dim`, sinusoidal positions, a stack of blocks, a last normalisation.

    Args:
        input_dim: Features of a frame.
        config: The shape.
    """

    def __init__(self, input_dim: int, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.output_dim = config.dim
        self.input = nn.Linear(input_dim, config.dim)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)

    @property
    def left_context(self) -> int | None:
        """Frames to the left that an output frame depends on, over all layers; None for all."""
        return self._context(self.config.left)

    @property
    def right_context(self) -> int | None:
        """Frames to the right that an output frame depends on, over all layers; None for all."""
        return self._context(self.config.right)

    def _context(self, attention: int | None) -> int | None:
        if attention is None:
            return None
        return self.config.layers * (attention + self.config.conv_kernel // 2)

    def forward(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, input_dim) and (B,) frames -> (B, T, dim). Padded frames never reach real ones."""
        if features.shape[1] == 0:  # shorter than one frame: nothing that a convolution would take
            return features.new_zeros(features.shape[0], 0, self.output_dim)
        x = self.input(features)
        if self.config.position == "sinusoidal":
            x = x + sinusoidal_positions(x.shape[1], x.shape[2]).to(x)
        for block in self.blocks:
            x = block(x, frame_lengths)
        return self.norm(x)


class EncoderBlock(nn.Module):
    """x + attention, x + convolution, x + feed-forward, each on normalised input."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim = config.dim
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = TruncatedSelfAttention(
            dim, config.heads, left=config.left, right=config.right, dropout=config.attention_dropout
        )
        self.convolution = ConvolutionModule(dim, config.conv_kernel) if config.conv_kernel else None
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, config.feed_forward),
            nn.SiLU(),
            SharedDropout(config.dropout),
            nn.Linear(config.feed_forward, dim),
        )
        self.dropout = SharedDropout(config.dropout)

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
        x = F.glu(self.gate(self.norm(x)), dim=-1)
        x = x.masked_fill(~frame_mask(frame_lengths, x.shape[1])[..., None], 0.0)
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
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
        if not self.training or self.share == 0:
            return x
        mask = torch.empty(x.shape[0], 1, x.shape[2], dtype=x.dtype, device=x.device)
        return x * mask.bernoulli_(1 - self.share).div_(1 - self.share)


def sinusoidal_positions(num_frames: int, dim: int) -> Tensor:
    """Sinusoidal positional encoding, (T, D) float32 (Vaswani et al. 2017, sec. 3.5).

    Column 2i holds sin(t / 10000^(2i/D)), column 2i + 1 the cosine.
    """
    rate = torch.exp(-math.log(10000.0) / dim * torch.arange(0, dim, 2))
    angle = torch.arange(num_frames)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :dim]
