"""The truncated self-attention encoder: frames to steps, positions, a stack of blocks, steps to frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.attention.positions import RelativeBias
from speechattn.frontend.execution import wide_device
from speechattn.frontend.masks import is_padded, zero_padding
from speechattn.model.block import EncoderBlock
from speechattn.model.config import INPUT_POSITIONS, EncoderConfig, exceeds

__all__ = ["Encoder", "sinusoidal_positions"]

SLOWEST_PERIOD = 1 << 16  # steps; the slowest sinusoid repeats after 2 pi * 10000


class Encoder(nn.Module):
    """A linear map to `dim`, positions, a stack of blocks, a final normalisation, a linear map from steps to frames.

    Args:
        input_dim: Features per frame.
        config: The shape.
    """

    def __init__(self, input_dim: int, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.output_dim = config.dim
        self.input = nn.Linear((config.stack + 2 * config.input_context) * input_dim, config.dim)
        self.positions: nn.Embedding | None = None
        if config.position == "learned":
            self.positions = nn.Embedding(config.max_positions, config.dim)
            nn.init.normal_(self.positions.weight, std=0.02)  # as in BERT; larger ones would drown the features
        self.blocks = nn.ModuleList(EncoderBlock(config, layer) for layer in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.unstack = nn.Linear(config.dim, config.stack * config.dim) if config.stack > 1 else None

    @property
    def left_context(self) -> int | None:
        """Left context of an output frame over all layers, in frames; None: unlimited."""
        return self._context(left for left, _ in self.config.layer_contexts)

    @property
    def right_context(self) -> int | None:
        """Right context of an output frame over all layers, in frames; None: unlimited."""
        return self._context(right for _, right in self.config.layer_contexts)

    @property
    def receptive_field(self) -> int | None:
        """Input frames that an output frame depends on, itself included; None: unlimited."""
        if self.left_context is None or self.right_context is None:
            return None
        return self.left_context + self.right_context + 2 - self.config.stack  # no frame has both maxima

    def _context(self, attention: Iterable[int | None]) -> int | None:
        total = 0
        for steps in attention:
            if steps is None:
                return None
            total += steps + self.config.conv_kernel // 2
        # The last frame of a step also depends on its first, and vice versa.
        return self.config.stack * (total + 1) - 1 + self.config.input_context

    def limit_right(self, right: int) -> None:
        """Limit the right context of every layer, which shortens the look-ahead of a trained model.

        Models trained with `EncoderConfig.rights` lose little accuracy; others lose more.

        Args:
            right: In steps.

        Raises:
            ValueError: When a layer's right context is smaller already.
        """
        contexts = self.config.layer_contexts
        if right < 0 or any(exceeds(right, limit) for _, limit in contexts):
            limits = [limit for _, limit in contexts]
            raise ValueError(f"right={right} must be 0 or more, and not above the layers' right contexts, {limits}")
        if self.config.context:
            self.config = replace(self.config, context=tuple((left, right) for left, _ in contexts), rights=())
        else:
            self.config = replace(self.config, right=right, rights=())
        self._set_right(right)
        for block in self.blocks:
            position = cast(EncoderBlock, block).attention.position
            if isinstance(position, RelativeBias):
                position.narrow(right)

    def train(self, mode: bool = True) -> Encoder:
        """Set the mode, and undo the right context that the last training step drew."""
        if self.config.rights:
            self._set_right(self.config.right)
        return super().train(mode)

    def _set_right(self, right: int | None) -> None:
        for block in self.blocks:
            cast(EncoderBlock, block).attention.right = right

    def forward(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, input_dim) and (B,) frames -> (B, T, dim). Padding never affects real frames."""
        if self.training and self.config.rights:
            self._set_right(self.config.rights[int(torch.randint(len(self.config.rights), ()))])
        if features.shape[1] == 0:  # convolutions refuse empty input
            return features.new_zeros(features.shape[0], 0, self.output_dim)
        x, step_lengths = self._steps(features, frame_lengths)
        for block in self.blocks:
            x = block(x, step_lengths)
        x, num_frames = self.frames(x), features.shape[1]
        if torch.compiler.is_exporting():  # torch.export would specialise a slice on whole steps
            return x.index_select(1, torch.arange(num_frames, device=x.device))
        return x[:, :num_frames]

    def attention_weights(self, features: Tensor, frame_lengths: Tensor, layer: int) -> Tensor:
        """Attention weights of one layer: (B, T, input_dim) and (B,) frames -> (B, H, S, S) over S steps."""
        x, step_lengths = self._steps(features, frame_lengths)
        *blocks, block = [cast(EncoderBlock, block) for block in self.blocks][: range(len(self.blocks))[layer] + 1]
        for earlier in blocks:
            x = earlier(x, step_lengths)
        return block.attention.weights(block.attention_norm(x), step_lengths)

    def _steps(self, features: Tensor, frame_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Input of the first block, (B, S, dim), and the number of steps per utterance, (B,)."""
        stack, context = self.config.stack, self.config.input_context
        steps = (features.shape[1] + stack - 1) // stack
        missing = steps * stack - features.shape[1]
        if is_padded(frame_lengths, features.shape[1]):
            features = zero_padding(features, frame_lengths)
        features = F.pad(features, (0, 0, context, context + missing))
        times = torch.arange(steps, device=features.device)
        if self.training and self.config.position in INPUT_POSITIONS:
            # A random start for each utterance: otherwise accuracy falls beyond the lengths seen in training.
            period = SLOWEST_PERIOD if self.positions is None else self.config.max_positions
            times = times + torch.randint(period, (len(features), 1)).to(times)
        return self.embed(features, times), (frame_lengths + stack - 1) // stack

    def embed(self, features: Tensor, times: Tensor) -> Tensor:
        """Frames of whole steps -> input of the first block.

        Args:
            features: (B, S * stack + 2 * input_context, input_dim).
            times: (S,) or (B, S) int, index of each step in the utterance.

        Returns:
            (B, S, dim).
        """
        stack, context = self.config.stack, self.config.input_context
        window = torch.arange(stack + 2 * context, device=features.device)
        if context:
            first = stack * torch.arange(times.shape[-1], device=features.device)
            features = features.index_select(1, (first[:, None] + window).flatten())
        x = self.input(features.unflatten(1, (times.shape[-1], len(window))).flatten(2))
        if self.positions is not None:
            return x + self.positions(times % self.config.max_positions)
        if self.config.position == "sinusoidal":
            return x + sinusoidal_positions(times, self.output_dim).to(x)
        return x

    def frames(self, x: Tensor) -> Tensor:
        """Output of the last block -> normalised frames: (B, S, dim) -> (B, S * stack, dim)."""
        x = self.norm(x)
        if self.unstack is None:
            return x
        return self.unstack(x).unflatten(2, (self.config.stack, self.output_dim)).flatten(1, 2)


def sinusoidal_positions(times: Tensor, dim: int) -> Tensor:
    """Sinusoidal positional encoding of times (..., T) int, (..., T, D) float64 (Vaswani et al. 2017, sec. 3.5).

    Column 2i holds sin(t / 10000^(2i/D)), column 2i + 1 the cosine.
    """
    # A constant: runtimes differ in the last digits of powers, which matter for large times.
    rates = torch.tensor([10000.0 ** (-column / dim) for column in range(0, dim, 2)], dtype=torch.float64)
    device = wide_device(times.device)
    angle = times.to(device)[..., None] * rates.to(device)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)[..., :dim]
