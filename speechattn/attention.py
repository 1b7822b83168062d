"""Truncated self-attention: frame t attends to frames t - L ... t + R and to nothing else.

Multi-head scaled dot-product attention (Vaswani et al. 2017, eq. 1) restricted to a band, as in
time-restricted self-attention (Povey et al. 2018, sec. 2). Two paths over the same parameters: `dense`
masks the full score matrix and is the reference; `blocked` touches only the band, in time and memory
linear in the number of frames.

Letters: B batch, T frames, D features, H heads, E features of a head, L frames of left context,
R frames of right context. Masks: True = may attend / real frame.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.frontend import frame_mask

__all__ = ["PATHS", "TruncatedSelfAttention", "band_mask"]

PATHS = ("auto", "dense", "blocked")
BLOCK_FRAMES = 64  # queries that share one window of keys: large enough for matmul, small beside L + R
SHORT_FRAMES = 192  # below this the dense score matrix is cheaper than cutting blocks


class TruncatedSelfAttention(nn.Module):
    """Multi-head self-attention over a window around each frame.

    For frame t and a head with queries q, keys k and values v,

        y_t = sum_s a_ts v_s,   a_ts = softmax_s(q_t . k_s / sqrt(E)),   s in [t - L, t + R], s a real frame

    followed by an output projection of the concatenated heads.

    Args:
        dim: Features D, in and out.
        heads: Heads H; must divide `dim`.
        left: Frames L to the left that a frame sees, 0 or more; None for all.
        right: Frames R to the right that a frame sees, 0 or more; None for all.
        dropout: Share of attention weights dropped in training, [0, 1).
        path: `dense`, `blocked`, or `auto`: the cheaper one for the length at hand. Never changes the
            result nor the parameters. With unlimited context there is no band, so every path is dense.

    Raises:
        ValueError: When an argument is out of its range.

    Example:
        >>> attention = TruncatedSelfAttention(64, 4, left=16, right=16)
        >>> attention(torch.randn(2, 100, 64), torch.tensor([100, 80])).shape
        torch.Size([2, 100, 64])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        left: int | None = 16,
        right: int | None = 16,
        dropout: float = 0.0,
        path: str = "auto",
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads must divide dim, got dim={dim} and heads={heads}")
        for name, context in (("left", left), ("right", right)):
            if context is not None and context < 0:
                raise ValueError(f"{name} must be 0 or more frames, or None for all, got {name}={context}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got dropout={dropout}")
        if path not in PATHS:
            raise ValueError(f"path must be one of {', '.join(PATHS)}, got path={path!r}")
        self.heads, self.left, self.right, self.dropout, self.path = heads, left, right, dropout, path
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def extra_repr(self) -> str:
        """What print() shows beside the submodules."""
        return f"heads={self.heads}, left={self.left}, right={self.right}, path={self.path}"

    def forward(self, x: Tensor, frame_lengths: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: (B, T, D) float.
            frame_lengths: (B,) int, real frames of each row; None when all are. Frames past it are
                neither attended to nor computed.

        Returns:
            (B, T, D) float; rows past an utterance's frames are 0.

        Raises:
            ValueError: When `x` is not (B, T, D).
        """
        if x.ndim != 3 or x.shape[2] != self.output.in_features:
            raise ValueError(f"x must be (B, T, {self.output.in_features}), got {tuple(x.shape)}")
        batch, num_frames, dim = x.shape
        if frame_lengths is None:
            frame_lengths = torch.full((batch,), num_frames, device=x.device)
        real = frame_mask(frame_lengths, num_frames)
        x = x.masked_fill(~real[..., None], 0.0)  # a weight of 0 would not silence a NaN
        shape = (batch, num_frames, 3, self.heads, dim // self.heads)
        query, key, value = self.query_key_value(x).view(shape).permute(2, 0, 3, 1, 4)  # three of (B, H, T, E)
        dropout = self.dropout if self.training else 0.0
        attend = _blocked if self._takes_blocks(num_frames) else _dense
        y = attend(query, key, value, real, self.left, self.right, dropout)
        y = self.output(y.transpose(1, 2).reshape(batch, num_frames, dim))
        return y.masked_fill(~real[..., None], 0.0)

    def _takes_blocks(self, num_frames: int) -> bool:
        if self.left is None or self.right is None or num_frames == 0:
            return False
        return self.path == "blocked" or (self.path == "auto" and num_frames > SHORT_FRAMES + self.left + self.right)


def band_mask(num_frames: int, left: int | None, right: int | None, device: torch.device | None = None) -> Tensor:
    """Which frames a frame sees, (T, T) bool: row t is True from column t - L to t + R.

    Example:
        >>> band_mask(4, left=1, right=0).int()
        tensor([[1, 0, 0, 0],
                [1, 1, 0, 0],
                [0, 1, 1, 0],
                [0, 0, 1, 1]], dtype=torch.int32)
    """
    times = torch.arange(num_frames, device=device)
    offset = times[None, :] - times[:, None]  # key's time minus query's
    return _within(offset, left, right)


def _within(offset: Tensor, left: int | None, right: int | None) -> Tensor:
    visible = torch.ones_like(offset, dtype=torch.bool)
    if left is not None:
        visible &= offset >= -left
    if right is not None:
        visible &= offset <= right
    return visible


def _dense(
    query: Tensor, key: Tensor, value: Tensor, real: Tensor, left: int | None, right: int | None, dropout: float
) -> Tensor:
    """Reference: (B, H, T, E) each, real (B, T) -> (B, H, T, E), by way of the (T, T) scores."""
    visible = band_mask(query.shape[2], left, right, query.device) & real[:, None, None, :]
    return _attend(query, key, value, visible, dropout)


def _blocked(
    query: Tensor, key: Tensor, value: Tensor, real: Tensor, left: int | None, right: int | None, dropout: float
) -> Tensor:
    """The same by blocks of K queries, each against the K + L + R keys that any of them may see."""
    assert left is not None and right is not None
    num_frames = query.shape[2]
    block, span = BLOCK_FRAMES, BLOCK_FRAMES + left + right
    tail = -num_frames % block
    query = F.pad(query, (0, 0, 0, tail)).unflatten(2, (-1, block))  # (B, H, T/K, K, E)
    key = F.pad(key, (0, 0, left, right + tail)).unfold(2, span, block).transpose(3, 4)
    value = F.pad(value, (0, 0, left, right + tail)).unfold(2, span, block).transpose(3, 4)
    real = F.pad(real, (left, right + tail)).unfold(1, span, block)  # (B, T/K, span)
    offset = torch.arange(span, device=query.device) - left - torch.arange(block, device=query.device)[:, None]
    visible = _within(offset, left, right) & real[:, None, :, None, :]
    return _attend(query, key, value, visible, dropout).flatten(2, 3)[:, :, :num_frames]


def _attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor, dropout: float) -> Tensor:
    """Softmax attention over (..., queries, E) and (..., keys, E)."""
    score = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
    # Finite, not -inf: a padded query may see no key at all, and its gradient must still not be NaN.
    score = score.masked_fill(~visible, torch.finfo(score.dtype).min)
    return F.dropout(score.softmax(dim=-1), dropout) @ value
