"""The truncated self-attention encoder: steps of frames, positions, a stack of blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.attention.positions import POSITIONS, RelativeBias
from speechattn.frontend.masks import zero_padding
from speechattn.model.block import EncoderBlock

__all__ = ["ENCODER_PRESETS", "Encoder", "EncoderConfig", "sinusoidal_positions"]

INPUT_POSITIONS = ("sinusoidal", "learned")  # added to the encoder's input; the others are each layer's own
ACTIVATIONS = ("silu", "gelu", "swiglu")


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of an `Encoder`.

    Args:
        dim: Features D of every layer.
        layers: Number of blocks.
        heads: Attention heads; must divide `dim`.
        stack: Neighbouring frames that make one step (Sak et al. 2015): the blocks work on steps, and each
            step gives as many frames again. Contexts, `conv_kernel` and `max_positions` count steps; with 1, frames.
        input_context: Frames to either side of a step that go into its input along with its own; in every case frames.
        left: Frames of left context of each layer's attention; null for all.
        right: Frames of right context of each layer's attention; null for all.
        context: (left, right) of each layer, first layer first, in place of `left` and `right`; empty: those.
        rights: Right contexts that training draws from, one a batch for all layers, so that one model has them all
            to choose from afterwards, see `Encoder.limit_right`; none may exceed `right`. Empty: `right` alone.
        score: See `TruncatedSelfAttention`.
        normaliser: See `TruncatedSelfAttention`.
        position: `none`; `sinusoidal` or `learned`: added to the encoder's input; `relative` or `rotary`: in
            the attention of each layer, see `TruncatedSelfAttention`.
        max_positions: Rows of the table of learned positions. Frame t takes row t mod `max_positions`, so that
            input of any length has positions; beyond that many frames they repeat.
        feed_forward: Width of the feed-forward module between its two linear maps.
        activation: `silu`, `gelu`, or `swiglu`, which is gated: half as many parameters again at the same width.
        conv_kernel: Taps of the depthwise convolution, odd; 0 leaves the module out.
        dropout: Share of features dropped in training, [0, 1).
        attention_dropout: Share of attention weights dropped in training, [0, 1).
        layer_drop: Probability that training skips a branch of the last block for an utterance, [0, 1); in
            block l of L it is l / L of that. See `StochasticDepth`.

    Raises:
        ValueError: When a field is out of its range.
    """

    dim: int = 144
    layers: int = 4
    heads: int = 4
    stack: int = 1
    input_context: int = 0
    left: int | None = 16
    right: int | None = 16
    context: tuple[tuple[int | None, int | None], ...] = ()
    rights: tuple[int | None, ...] = ()
    score: str = "dot"
    normaliser: str = "softmax"
    position: str = "sinusoidal"
    max_positions: int = 1000
    feed_forward: int = 576
    activation: str = "silu"
    conv_kernel: int = 15
    dropout: float = 0.1
    attention_dropout: float = 0.0
    layer_drop: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "stack", "max_positions", "feed_forward"):
            if getattr(self, name) < 1:
                raise ValueError(f"encoder.{name} must be at least 1, got {getattr(self, name)}")
        if self.input_context < 0:
            raise ValueError(f"encoder.input_context must be 0 or more frames, got {self.input_context}")
        object.__setattr__(self, "context", _pairs(self.context))  # lists, when they come from YAML or JSON
        if self.context and len(self.context) != self.layers:
            raise ValueError(
                f"encoder.context must have a pair for each of the {self.layers} layers, got {len(self.context)} pairs"
            )
        object.__setattr__(self, "rights", tuple(self.rights))
        if self.rights and self.context:
            raise ValueError("encoder.rights goes with encoder.right, not with encoder.context")
        for right in self.rights:
            if _exceeds(right, self.right) or (right is not None and right < 0):
                raise ValueError(f"encoder.rights must lie in 0..{self.right}, encoder.right, got {list(self.rights)}")
        if self.conv_kernel < 0 or (self.conv_kernel and self.conv_kernel % 2 == 0):
            raise ValueError(f"encoder.conv_kernel must be odd, or 0 for none, got {self.conv_kernel}")
        for name, choices in (("position", POSITIONS + INPUT_POSITIONS), ("activation", ACTIVATIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"encoder.{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("dropout", "layer_drop"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"encoder.{name} must lie in [0, 1), got {getattr(self, name)}")

    @classmethod
    def preset(cls, name: str) -> EncoderConfig:
        """A configuration of a usual size; change it with `dataclasses.replace`.

        | name    | dim | layers | heads | feed_forward | parameters with 39 inputs |
        |---------|-----|--------|-------|--------------|---------------------------|
        | `tiny`  |  48 |      3 |     4 |          144 |                   96,912 |
        | `small` |  96 |      4 |     4 |          288 |                  496,704 |
        | `base`  | 160 |      5 |     4 |          480 |                1,698,720 |
        | `large` | 256 |      7 |     8 |          768 |                6,037,248 |

        Raises:
            ValueError: When there is no preset of that name.
        """
        if name not in ENCODER_PRESETS:
            raise ValueError(f"an encoder preset must be one of {', '.join(ENCODER_PRESETS)}, got {name!r}")
        return ENCODER_PRESETS[name]

    @property
    def layer_contexts(self) -> tuple[tuple[int | None, int | None], ...]:
        """(left, right) of each layer's attention."""
        return self.context or ((self.left, self.right),) * self.layers


def _pairs(context: Iterable[Iterable[int | None]]) -> tuple[tuple[int | None, int | None], ...]:
    try:
        return tuple((left, right) for left, right in context)
    except (TypeError, ValueError):
        raise ValueError(f"encoder.context must be pairs of left and right, got {context!r}") from None


def _exceeds(context: int | None, limit: int | None) -> bool:
    """Whether one context is wider than another; None is unlimited."""
    return limit is not None and (context is None or context > limit)


ENCODER_PRESETS = {
    "tiny": EncoderConfig(dim=48, layers=3, heads=4, feed_forward=144),
    "small": EncoderConfig(dim=96, layers=4, heads=4, feed_forward=288),
    "base": EncoderConfig(dim=160, layers=5, heads=4, feed_forward=480),
    "large": EncoderConfig(dim=256, layers=7, heads=8, feed_forward=768),
}


class Encoder(nn.Module):
    """A linear map to `dim`, positions, a stack of blocks, a last normalisation; from steps a linear map to frames.

    Args:
        input_dim: Features of a frame.
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
            nn.init.normal_(self.positions.weight, std=0.02)  # as BERT's: too small to drown the features
        self.blocks = nn.ModuleList(EncoderBlock(config, layer) for layer in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.unstack = nn.Linear(config.dim, config.stack * config.dim) if config.stack > 1 else None

    @property
    def left_context(self) -> int | None:
        """Frames to the left that an output frame depends on, over all layers; None for all."""
        return self._context(left for left, _ in self.config.layer_contexts)

    @property
    def right_context(self) -> int | None:
        """Frames to the right that an output frame depends on, over all layers; None for all."""
        return self._context(right for _, right in self.config.layer_contexts)

    @property
    def receptive_field(self) -> int | None:
        """Input frames that an output frame depends on, itself included; None for all."""
        if self.left_context is None or self.right_context is None:
            return None
        return self.left_context + self.right_context + 2 - self.config.stack  # no frame has the most on both sides

    def _context(self, attention: Iterable[int | None]) -> int | None:
        total = 0
        for steps in attention:
            if steps is None:
                return None
            total += steps + self.config.conv_kernel // 2
        # A step's last frame has its first to the left, and so on.
        return self.config.stack * (total + 1) - 1 + self.config.input_context

    def limit_right(self, right: int) -> None:
        """Let every layer see at most so many frames to the right: less look-ahead from a trained model.

        Made for `EncoderConfig.rights`; other models lose more by it.

        Raises:
            ValueError: When a layer sees fewer as it is.
        """
        contexts = self.config.layer_contexts
        if right < 0 or any(_exceeds(right, own) for _, own in contexts):
            own = [own for _, own in contexts]
            raise ValueError(f"right={right} must be 0 or more, and not above what the layers see, {own}")
        narrower = (
            {"context": tuple((left, right) for left, _ in contexts)} if self.config.context else {"right": right}
        )
        self.config = replace(self.config, **narrower, rights=())
        self._see(right)
        for block in self.blocks:
            position = cast(EncoderBlock, block).attention.position
            if isinstance(position, RelativeBias):
                position.narrow(right)

    def train(self, mode: bool = True) -> Encoder:
        """As for every module; what a last training step drew does not stay."""
        if self.config.rights:
            self._see(self.config.right)
        return super().train(mode)

    def _see(self, right: int | None) -> None:
        for block in self.blocks:
            cast(EncoderBlock, block).attention.right = right

    def forward(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, input_dim) and (B,) frames -> (B, T, dim). Padded frames never reach real ones."""
        if self.training and self.config.rights:
            self._see(self.config.rights[int(torch.randint(len(self.config.rights), ()))])
        if features.shape[1] == 0:  # shorter than one frame: nothing that a convolution would take
            return features.new_zeros(features.shape[0], 0, self.output_dim)
        x, step_lengths = self._embedded(features, frame_lengths)
        for block in self.blocks:
            x = block(x, step_lengths)
        x, num_frames = self.frames(x), features.shape[1]
        if torch.compiler.is_compiling():  # a graph with a slice would be for whole steps alone, or for all others
            return x.index_select(1, torch.arange(num_frames, device=x.device))
        return x[:, :num_frames]

    def attention_weights(self, features: Tensor, frame_lengths: Tensor, layer: int) -> Tensor:
        """What every step listens to in one layer: (B, T, input_dim) and (B,) frames -> (B, H, S, S), S steps."""
        x, step_lengths = self._embedded(features, frame_lengths)
        blocks = [cast(EncoderBlock, block) for block in self.blocks][: range(len(self.blocks))[layer] + 1]
        for block in blocks[:-1]:
            x = block(x, step_lengths)
        return blocks[-1].attention.weights(blocks[-1].attention_norm(x), step_lengths)

    def _embedded(self, features: Tensor, frame_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the first block, and each utterance's number of steps."""
        stack, around = self.config.stack, self.config.input_context
        steps = (features.shape[1] + stack - 1) // stack
        features = F.pad(
            zero_padding(features, frame_lengths), (0, 0, around, around + steps * stack - features.shape[1])
        )
        times = torch.arange(steps, device=features.device)
        return self.embed(features, times), (frame_lengths + stack - 1) // stack

    def embed(self, features: Tensor, times: Tensor) -> Tensor:
        """What enters the first block.

        Args:
            features: (B, S * stack + 2 * input_context, input_dim), whole steps with what lies around them.
            times: (S,) int, of the steps.

        Returns:
            (B, S, dim).
        """
        stack, around = self.config.stack, self.config.input_context
        window = torch.arange(stack + 2 * around, device=features.device)
        if around:
            first = stack * torch.arange(times.shape[0], device=features.device)
            features = features.index_select(1, (first[:, None] + window).flatten())
        x = self.input(features.unflatten(1, (times.shape[0], len(window))).flatten(2))
        if self.positions is not None:
            return x + self.positions(times % self.config.max_positions)
        if self.config.position == "sinusoidal":
            return x + sinusoidal_positions(times, self.output_dim).to(x)
        return x

    def frames(self, x: Tensor) -> Tensor:
        """What comes of the last block's steps, normalised: (B, S, dim) -> (B, S * stack, dim)."""
        x = self.norm(x)
        return (
            x
            if self.unstack is None
            else self.unstack(x).unflatten(2, (self.config.stack, self.output_dim)).flatten(1, 2)
        )


def sinusoidal_positions(times: Tensor, dim: int) -> Tensor:
    """Sinusoidal positional encoding of times (T,) int, (T, D) float64 (Vaswani et al. 2017, sec. 3.5).

    Column 2i holds sin(t / 10000^(2i/D)), column 2i + 1 the cosine.
    """
    # A constant, since runtimes do not agree on the last digits of powers; and those count where times are long.
    rates = [10000.0 ** (-column / dim) for column in range(0, dim, 2)]
    angle = times[:, None] * torch.tensor(rates, dtype=torch.float64, device=times.device)
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :dim]
