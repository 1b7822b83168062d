"""Positions of an attention layer: none, a bias per offset, a rotation, or your own module."""

from functools import lru_cache

import torch
from torch import Tensor, nn

from speechattn.frontend.execution import is_traced, single_precision, wide_device

__all__ = ["POSITIONS", "Position", "RelativeBias", "Rotary", "position_of"]

POSITIONS = ("none", "relative", "rotary")
TABLE_FRAMES = 4096


class Position(nn.Module):
    """No position. Subclasses override either method."""

    def encode(self, x: Tensor, times: Tensor) -> Tensor:
        """Encode time into queries or keys.

        Args:
            x: (B, H, T, E) float.
            times: (T,) int64, frame index from the start of the utterance or stream.

        Returns:
            (B, H, T, E).
        """
        return x

    def bias(self, offsets: Tensor) -> Tensor | None:
        """Bias of the scores.

        Args:
            offsets: (queries, keys) int64, the key's time minus the query's; results outside the context are not used.

        Returns:
            (H, queries, keys) float, or None for none.
        """
        return None


class RelativeBias(Position):
    """A learned bias per head and offset: a truncated window has only L + R + 1 offsets.

    As in Shaw et al. 2018 and T5 (Raffel et al. 2020, sec. 2.1), without clipping or buckets.

    Args:
        heads: H.
        left: Left context L in frames.
        right: Right context R in frames.
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
        """Drop the biases of offsets beyond `right`, which must be at most R."""
        self.right = right
        self.offset_bias = nn.Parameter(self.offset_bias.detach()[:, : self.left + right + 1].clone())


class Rotary(Position):
    """Rotates pairs of features by angles proportional to time, so that a score depends on the offset only.

    RoPE (Su et al. 2021, eq. 34): features 2i and 2i + 1 are rotated by t / 10000^(2i / E).

    Args:
        head_dim: Features E per head, even.

    Raises:
        ValueError: When `head_dim` is odd.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"rotary positions need an even number of features per head, got {head_dim}")
        self.head_dim = head_dim

    def encode(self, x: Tensor, times: Tensor) -> Tensor:
        """See `Position.encode`."""
        if is_traced() or x.device.type != "cpu":  # exported graphs have no complex numbers
            angles = _angles(times, self.head_dim)
            cos, sin = angles.cos().to(x), angles.sin().to(x)
            even, odd = x[..., 0::2], x[..., 1::2]
            return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
        precise = single_precision(x)
        pairs = torch.view_as_complex(precise.unflatten(-1, (-1, 2)))
        rotated = pairs * _rotations(times, self.head_dim, pairs.dtype)
        return torch.view_as_real(rotated).flatten(-2).to(x.dtype)


def _angles(times: Tensor, head_dim: int) -> Tensor:
    """(T, E / 2) angles at times (T,). In float64: float32 lacks the digits for angles after hours."""
    device = wide_device(times.device)
    rates = 10000.0 ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim)
    return times.to(device)[:, None].double() * rates


def _rotations(times: Tensor, head_dim: int, dtype: torch.dtype) -> Tensor:
    """exp(i * angle) at times (T,), (T, E / 2) complex. Consecutive times are rows of cached tables."""
    if len(times):
        first, end = int(times[0]), int(times[-1]) + 1
        if end - first == len(times):
            starts = range(first // TABLE_FRAMES * TABLE_FRAMES, end, TABLE_FRAMES)
            rows = [_table(start, head_dim, dtype)[max(first - start, 0) : end - start] for start in starts]
            return rows[0] if len(rows) == 1 else torch.cat(rows)
    angles = _angles(times, head_dim)
    return torch.polar(torch.ones_like(angles), angles).to(dtype)


@lru_cache(maxsize=8)
def _table(start: int, head_dim: int, dtype: torch.dtype) -> Tensor:
    """Rotations at the `TABLE_FRAMES` times from `start`."""
    with torch.inference_mode(False):
        angles = _angles(start + torch.arange(TABLE_FRAMES), head_dim)
        return torch.polar(torch.ones_like(angles), angles).to(dtype)


def position_of(name: str | Position, heads: int, head_dim: int, left: int | None, right: int | None) -> Position:
    """Make the position that `name` names in `POSITIONS`; a module is returned unchanged.

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
