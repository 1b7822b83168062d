"""Truncated self-attention: frame t attends to frames t - L ... t + R and to nothing else.

Multi-head attention (Vaswani et al. 2017, eq. 1) restricted to a band, as in time-restricted self-attention
(Povey et al. 2018, sec. 2). Two paths over the same parameters: `dense` masks the full score matrix and is the
reference; `blocked` touches only the band, in time and memory linear in the number of frames.

Letters: B batch, T frames, D features, H heads, E features of a head, L frames of left context,
R frames of right context, K frames of a block. Masks: True = may attend / real frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.frontend.masks import frame_mask
from speechattn.positions import Position, position_of

__all__ = [
    "NORMALISERS",
    "PATHS",
    "SCORES",
    "TruncatedSelfAttention",
    "Weighting",
    "attend",
    "band_mask",
    "truncated_attention",
]

PATHS = ("auto", "dense", "blocked")
SCORES = ("dot", "additive")
NORMALISERS = ("softmax", "relu", "sigmoid")
BLOCK_FRAMES = 32  # queries that share one window of keys: enough for matmul, few beside L + R
CHUNK_BLOCKS = 64  # blocks at a time: their scores stay in the cache
SHORT_FRAMES = 192  # below this the dense score matrix is cheaper than cutting blocks


class TruncatedSelfAttention(nn.Module):
    """Multi-head self-attention over a window around each frame.

    For frame t and a head with queries q, keys k and values v,

        y_t = sum_s a_ts v_s,   s in [t - L, t + R], s a real frame,   n_t of them,

    followed by an output projection of the concatenated heads. The score of s for t is

        dot        e_ts = q_t . k_s / sqrt(E)           (Vaswani et al. 2017, eq. 1)
        additive   e_ts = w . tanh(q_t + k_s)           (Bahdanau et al. 2015, app. A.1.2)

    plus what the position adds, and the weights are

        softmax    a_ts = exp(e_ts) / sum_s' exp(e_ts')
        relu       a_ts = max(e_ts, 0) / n_t            (Wortsman et al. 2023, eq. 3)
        sigmoid    a_ts = 1 / (1 + exp(log n_t - e_ts)) (Ramapuram et al. 2024, eq. 3)

    Args:
        dim: Features D, in and out.
        heads: Heads H; must divide `dim`.
        left: Frames L to the left that a frame sees, 0 or more; None for all.
        right: Frames R to the right that a frame sees, 0 or more; None for all.
        dropout: Share of attention weights dropped in training, [0, 1).
        path: `dense`, `blocked`, or `auto`: the cheaper one for the length at hand. Never changes the
            result nor the parameters. With unlimited context there is no band, so every path is dense.
        score: `dot` or `additive`.
        normaliser: `softmax`, `relu` or `sigmoid`.
        position: `none`, `relative` (a bias per offset), `rotary`, or a `Position` module.

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
        score: str = "dot",
        normaliser: str = "softmax",
        position: str | Position = "none",
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads must divide dim, got dim={dim} and heads={heads}")
        for name, context in (("left", left), ("right", right)):
            if context is not None and context < 0:
                raise ValueError(f"{name} must be 0 or more frames, or None for all, got {name}={context}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got dropout={dropout}")
        choices = (("path", path, PATHS), ("score", score, SCORES), ("normaliser", normaliser, NORMALISERS))
        for name, value, known in choices:
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {name}={value!r}")
        self.heads, self.left, self.right, self.dropout, self.path = heads, left, right, dropout, path
        self.normaliser = normaliser
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.position = position_of(position, heads, dim // heads, left, right)
        self.additive: nn.Parameter | None = None
        if score == "additive":
            self.additive = nn.Parameter(torch.randn(heads, dim // heads) / math.sqrt(dim // heads))
        self.output = nn.Linear(dim, dim)

    def extra_repr(self) -> str:
        """What print() shows beside the submodules."""
        return f"heads={self.heads}, left={self.left}, right={self.right}, path={self.path}"

    @property
    def weighting(self) -> Weighting:
        """How this layer weighs frames, in training or not."""
        dropout = self.dropout if self.training else 0.0
        return Weighting(self.left, self.right, self.normaliser, self.additive, self.position, dropout)

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
        query, key, value = self.project(x, torch.arange(num_frames, device=x.device))
        y = truncated_attention(query, key, value, self.weighting, frame_lengths, path=self.path)
        y = self.output(y.transpose(1, 2).reshape(batch, num_frames, dim))
        return y.masked_fill(~real[..., None], 0.0)

    def weights(self, x: Tensor, frame_lengths: Tensor) -> Tensor:
        """What every frame listens to: (B, T, D) and (B,) frames -> (B, H, T, T), row t the weights of frame t.

        Rows and columns past an utterance's frames are 0.
        """
        num_frames = x.shape[1]
        real = frame_mask(frame_lengths, num_frames)
        query, key, _ = self.project(x, torch.arange(num_frames, device=x.device))
        each = torch.eye(num_frames, dtype=x.dtype, device=x.device).expand(len(x), self.heads, -1, -1)
        weights = _dense(query, key, each, real, self.weighting)
        return weights.masked_fill(~real[:, None, :, None], 0.0)

    def project(self, x: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of (B, T, D) at times (T,), each (B, H, T, E)."""
        batch, num_frames, dim = x.shape
        shape = (batch, num_frames, 3, self.heads, dim // self.heads)
        query, key, value = self.query_key_value(x).view(shape).permute(2, 0, 3, 1, 4)
        return self.position.encode(query, times), self.position.encode(key, times), value


@dataclass(frozen=True)
class Weighting:
    """Which frames a frame sees, and how it weighs them; equations in `TruncatedSelfAttention`.

    Args:
        left: L, frames; None for all.
        right: R, frames; None for all.
        normaliser: `softmax`, `relu` or `sigmoid`.
        additive: (H, E), the w of the additive score; None for the dot product.
        position: Adds its bias to the scores.
        dropout: Share of the weights dropped, [0, 1).
    """

    left: int | None
    right: int | None
    normaliser: str = "softmax"
    additive: Tensor | None = None
    position: Position = field(default_factory=Position)
    dropout: float = 0.0

    def sees(self, offset: Tensor) -> Tensor:
        """Whether a key is in sight, bool, by its time less the query's."""
        visible = torch.ones_like(offset, dtype=torch.bool)
        if self.left is not None:
            visible &= offset >= -self.left
        if self.right is not None:
            visible &= offset <= self.right
        return visible


def truncated_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weighting: Weighting,
    frame_lengths: Tensor | None = None,
    *,
    path: str = "auto",
) -> Tensor:
    """The attention itself, between the projections.

    Args:
        query: (B, H, T, E) float.
        key: (B, H, T, E).
        value: (B, H, T, E).
        weighting: Which frames are seen, and how they are weighed.
        frame_lengths: (B,) int, real frames of each row; None when all are.
        path: `dense`, `blocked` or `auto`.

    Returns:
        (B, H, T, E); rows past an utterance's frames have no meaning.
    """
    batch, _, num_frames, _ = query.shape
    if frame_lengths is None:
        frame_lengths = torch.full((batch,), num_frames, device=query.device)
    real = frame_mask(frame_lengths, num_frames)
    if weighting.left is None or weighting.right is None or path == "dense":
        return _dense(query, key, value, real, weighting)
    short = path == "auto" and num_frames <= SHORT_FRAMES + weighting.left + weighting.right
    empty = not torch.compiler.is_compiling() and query.numel() == 0
    return (_dense if short or empty else _blocked)(query, key, value, real, weighting)


def attend(query: Tensor, key: Tensor, value: Tensor, offset: Tensor, weighting: Weighting, real: Tensor) -> Tensor:
    """Attention of some frames to some frames, by way of all their scores.

    Args:
        query: (B, H, T, E) float.
        key: (B, H, S, E).
        value: (B, H, S, F).
        offset: (T, S) int64, each key's time less the query's.
        weighting: Which frames are seen, and how they are weighed.
        real: (B, S) bool, which keys are real frames.

    Returns:
        (B, H, T, F).
    """
    visible = weighting.sees(offset) & real[:, None, None, :]
    additive = None if weighting.additive is None else weighting.additive[:, None, None, :]
    score = _score(query, key.transpose(-1, -2), additive)
    weights = _normalise(score, weighting.position.bias(offset), visible, weighting.normaliser)
    return F.dropout(weights, weighting.dropout) @ value


def band_mask(num_frames: int, left: int | None, right: int | None, device: torch.device | None = None) -> Tensor:
    """Which frames a frame sees, (T, T) bool: row t is True from column t - L to t + R.

    Example:
        >>> band_mask(4, left=1, right=0).int()
        tensor([[1, 0, 0, 0],
                [1, 1, 0, 0],
                [0, 1, 1, 0],
                [0, 0, 1, 1]], dtype=torch.int32)
    """
    return Weighting(left, right).sees(_offsets(num_frames, device))


def _offsets(num_frames: int, device: torch.device | None) -> Tensor:
    """(T, T): the time of the column's frame less that of the row's."""
    times = torch.arange(num_frames, device=device)
    return times[None, :] - times[:, None]


def _dense(query: Tensor, key: Tensor, value: Tensor, real: Tensor, weighting: Weighting) -> Tensor:
    """Reference: (B, H, T, E) each, real (B, T) -> (B, H, T, E), by way of the (T, T) scores."""
    return attend(query, key, value, _offsets(query.shape[2], query.device), weighting, real)


def _blocked(query: Tensor, key: Tensor, value: Tensor, real: Tensor, weighting: Weighting) -> Tensor:
    """The same by blocks of K queries, each against the K + L + R keys that any of them may see.

    All heads of all utterances lie one behind the other in a single sequence, with gaps of max(L, R) frames that nobody
    attends to; so its blocks and their windows are strided views of one matrix, and chunks of them one batched product.
    """
    left, right, additive = weighting.left, weighting.right, weighting.additive
    assert left is not None and right is not None
    batch, heads, num_frames, head_dim = query.shape
    block, span = BLOCK_FRAMES, BLOCK_FRAMES + left + right
    per_head = -(-(num_frames + max(left, right)) // block)  # blocks of one head's frames and gap
    blocks = batch * heads * per_head
    # Traced graphs cannot loop over a number of chunks that depends on the length.
    chunk = blocks if torch.compiler.is_compiling() else min(CHUNK_BLOCKS, blocks)
    chunks = -(-blocks // chunk)

    def in_line(x: Tensor, before: int, after: int) -> Tensor:
        """(B, H, T, ...) -> (frames, ...) in a single sequence, each head's shifted by `before`."""
        line = x.new_empty(chunks * chunk * block + after, *x.shape[3:])
        rows = line[: blocks * block].view(batch, heads, per_head * block, *x.shape[3:])
        rows[:, :, before : before + num_frames] = x
        for gap in (rows[:, :, :before], rows[:, :, before + num_frames :], line[blocks * block :]):
            gap.zero_()
        return line

    def in_chunks(line: Tensor) -> tuple[Tensor, ...]:
        """(frames, ...) -> for every chunk its blocks' windows, (chunk, ..., span) each."""
        pieces = line.unfold(0, chunk * block + left + right, chunk * block)  # (chunks, ..., frames of a chunk)
        return tuple(piece.unfold(-1, span, block).movedim(-2, 0) for piece in pieces.unbind())

    # Unbound, not indexed: each index would fill a gradient of the whole length.
    queries = in_line(query, 0, 0).view(chunks, chunk, block, head_dim).unbind()
    keys, values = (in_chunks(in_line(x, left, left + right)) for x in (key, value))
    reals = in_chunks(in_line(real[:, None].expand(-1, heads, -1), left, left + right))
    offset = torch.arange(span, device=query.device) - left - torch.arange(block, device=query.device)[:, None]
    band, bias = weighting.sees(offset), weighting.position.bias(offset)
    head = (torch.arange(chunks * chunk, device=query.device) // per_head % heads).view(chunks, chunk)

    y = query.new_empty(chunks, chunk, block, head_dim)
    differentiate = torch.is_grad_enabled() and any(
        x.requires_grad for x in (query, key, value, additive, bias) if x is not None
    )
    parts = []
    for number in range(chunks):
        own = None if additive is None else additive[head[number], None, None, :]
        score = _score(queries[number], keys[number], own)
        visible = band & reals[number][:, None, :]
        weights = _normalise(score, None if bias is None else bias[head[number]], visible, weighting.normaliser)
        weights = F.dropout(weights, weighting.dropout)
        if differentiate:
            parts.append(torch.bmm(weights, values[number].transpose(1, 2)))
        else:
            torch.bmm(weights, values[number].transpose(1, 2), out=y[number])
    y = torch.stack(parts) if parts else y
    return y.flatten(0, 1)[:blocks].view(batch, heads, per_head * block, head_dim)[:, :, :num_frames]


def _score(query: Tensor, key: Tensor, additive: Tensor | None) -> Tensor:
    """(..., queries, E) and (..., E, keys) -> (..., queries, keys); `additive` (..., 1, 1, E) or None."""
    if additive is None:
        return (query / math.sqrt(query.shape[-1])) @ key
    return (torch.tanh(query[..., :, None, :] + key.transpose(-1, -2)[..., None, :, :]) * additive).sum(dim=-1)


def _normalise(score: Tensor, bias: Tensor | None, visible: Tensor, normaliser: str) -> Tensor:
    """Scores, which may be spoilt, -> attention weights, both (..., queries, keys); 0 where a key is not visible.

    Rows that see no key at all, those of padding, are finite.
    """
    if bias is not None:
        score = score + bias
    if normaliser == "softmax":
        # Finite, not -inf: a padded query may see no key at all, and its gradient must still not be NaN.
        return score.masked_fill_(~visible, torch.finfo(score.dtype).min).softmax(dim=-1)
    count = visible.sum(dim=-1, keepdim=True).clamp(min=1).to(score.dtype)
    weights = score.relu() / count if normaliser == "relu" else torch.sigmoid(score - count.log())
    return weights.masked_fill(~visible, 0.0)
