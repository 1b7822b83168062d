"""Where a frame is, told to an attention layer: nothing, a bias per offset, or a rotation; or a module of one's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["POSITIONS", "Position", "RelativeBias", "Rotary", "position_of"]

POSITIONS = ("none", "relative", "rotary")


class Position(nn.Module):
    """How attention learns of time. This one tells nothing; others override either method."""

    def encode(self, x: Tensor, times: Tensor) -> Tensor:
        """Change queries or keys.

        Args:
            x: (B, H, T, E) float.
            times: (T,) int64, the frames' times since the beginning of the utterance or stream.

        Returns:
            (B, H, T, E).
        """
        return x

    def bias(self, offsets: Tensor) -> Tensor | None:
        """What to add to the scores.

        Args:
            offsets: (queries, keys) int64, the key's time less the query's; of those outside the context the
                result does not matter.

        Returns:
            (H, queries, keys) float, or None for nothing.
        """
        return None


class RelativeBias(Position):
    """A learned bias for every head and offset in the context: a truncated window has only L + R + 1 of them.

    As Shaw et al. 2018 and T5 (Raffel et al. 2020, sec. 2.1), without clipping or buckets.

    Args:
        heads: H.
        left: L, frames.
        right: R, frames.
    """

    def __init__(self, heads: int, left: int, right: int) -> None:
        super().__init__()
        self.left, self.right = left, right
        self.offset_bias = nn.Parameter(torch.zeros(heads, left + right + 1))

    def bias(self, offsets: Tensor) -> Tensor:
        """See `Position.bias`."""
        index = (offsets + self.left).clamp(0, self.left + self.right)
        return self.offset_bias[:, index]

    def narrow(self, right: int) -> None:
        """Forget the biases of offsets beyond `right`, which must not be above R."""
        self.right = right
        self.offset_bias = nn.Parameter(self.offset_bias.detach()[:, : self.left + right + 1].clone())


class Rotary(Position):
    """Rotates pairs of features by angles that grow with time, so that a score depends on the offset alone.

    RoPE (Su et al. 2021, eq. 34): features 2i and 2i + 1 turn by t / 10000^(2i / E).

    Args:
        head_dim: E, even.

    Raises:
        ValueError: When `head_dim` is odd.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"rotary positions need an even number of features in a head, got {head_dim}")
        rates = 10000.0 ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        self.register_buffer("rates", rates, persistent=False)

    rates: Tensor

    def encode(self, x: Tensor, times: Tensor) -> Tensor:
        """See `Position.encode`."""
        # Angles of hours need more digits than float32 has.
        angles = times[:, None].double() * self.rates.double()
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def position_of(name: str | Position, heads: int, head_dim: int, left: int | None, right: int | None) -> Position:
    """The module of a name in `POSITIONS`; a module is returned as it is.

    Raises:
        ValueError: When there is no such name, or it does not fit the layer.
    """
    if isinstance(name, Position):
        return name
    if name == "none":
        return Position()
    if name == "rotary":
        return Rotary(head_dim)
    if name == "relative":
        if left is None or right is None:
            raise ValueError("position 'relative' needs a limited context on both sides")
        return RelativeBias(heads, left, right)
    raise ValueError(f"position must be one of {', '.join(POSITIONS)} or a Position module, got {name!r}")
