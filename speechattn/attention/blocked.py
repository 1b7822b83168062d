"""Truncated attention in linear time and memory: blocks of K queries against the K + L + R keys that they may see.

Long input is gone through in pieces of about `PIECE_FRAMES` queries, whose scores stay in the processor's cache and
are made again for the gradient, so that nothing but inputs and outputs grows with the length. So is all input without
a gradient; of utterances up to that length the scores are kept for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from speechattn.attention.weighting import Weighting, hidden_score, normalise, score

__all__ = ["BLOCK_FRAMES", "PIECE_FRAMES", "blocked"]

BLOCK_FRAMES = 32  # queries that share one window of keys: enough for matmul, few beside L + R
PIECE_FRAMES = 2048  # queries of all heads and utterances in a piece


def blocked(query: Tensor, key: Tensor, value: Tensor, real: Tensor | None, weighting: Weighting) -> Tensor:
    """Truncated attention with limited context on both sides.

    Args:
        query: (B, H, T, E) float, with at least one element.
        key: (B, H, T, E).
        value: (B, H, T, E).
        real: (B, T) bool; None when all frames are real: of a long recording, which comes alone, nothing is hidden.
        weighting: Which frames are seen, and how they are weighed.

    Returns:
        (B, H, T, E). It cannot be differentiated twice.
    """
    left, right = _context(weighting)
    span = BLOCK_FRAMES + left + right
    offset = torch.arange(span, device=query.device) - left - torch.arange(BLOCK_FRAMES, device=query.device)[:, None]
    visible = weighting.sees(offset)
    # What is outside the band is hidden by the bias, which the scores are made with, in no time of its own.
    bias = torch.zeros(1, *offset.shape, dtype=query.dtype, device=query.device)
    bias = bias.masked_fill_(~visible, hidden_score(query.dtype))
    if (own := weighting.position.bias(offset)) is not None:
        bias = bias + own
    tensors = (query, key, value, weighting.additive, bias)
    # In a training on short utterances keeping the scores saves time, and their memory is like that of any other layer.
    kept = query.requires_grad and query.shape[2] <= PIECE_FRAMES
    if torch.compiler.is_compiling() or kept:  # a graph cannot loop over a number of pieces that depends on the length
        return _attend(*tensors, real, 0, visible, weighting, None)
    y: Tensor = _InPieces.apply(*tensors, real, visible, weighting)
    return y


def _context(weighting: Weighting) -> tuple[int, int]:
    assert weighting.left is not None and weighting.right is not None
    return weighting.left, weighting.right


class _InPieces(torch.autograd.Function):
    """Piece after piece; the backward pass makes each piece's scores again instead of keeping them."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        """The arguments of `_attend` but `before` and `random`."""
        *tensors, real, visible, weighting = arguments
        query = tensors[0]
        ctx.save_for_backward(*tensors, real, visible)
        device = query.device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None
        ctx.seed = int(torch.randint(2**62, ())) if weighting.dropout else 0
        ctx.weighting = weighting
        random = torch.Generator(query.device).manual_seed(ctx.seed)
        y = torch.empty_like(query)
        for piece in _pieces(weighting, *query.shape[:3]):
            own = piece.of(tensors)  # query, key, value, additive, bias
            y[piece.queries] = _attend(*own, piece.real_of(real), piece.before, visible, weighting, random)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *saved, real, visible = ctx.saved_tensors
        tensors = [x if x is None else x.detach() for x in saved]
        wanted = ctx.needs_input_grad[: len(tensors)]
        # Of the first three, which grow with the length, a piece's new rows are zeroed as it comes: no pass of its own.
        makers = [torch.empty_like] * 3 + [torch.zeros_like] * 2
        totals = [make(x) if want else None for make, x, want in zip(makers, saved, wanted, strict=True)]
        random = torch.Generator(gradient.device).manual_seed(ctx.seed)  # the same weights drop out again
        autocast = torch.autocast(*ctx.autocast) if ctx.autocast else nullcontext()
        for piece in _pieces(ctx.weighting, *gradient.shape[:3]):
            own = piece.of(tensors)  # leaves of a graph of their own
            leaves = [x.requires_grad_() for x, want in zip(own, wanted, strict=True) if want]
            with torch.enable_grad(), autocast:
                y = _attend(*own, piece.real_of(real), piece.before, visible, ctx.weighting, random)
            slopes = torch.autograd.grad(y, leaves, gradient[piece.queries].to(y.dtype))
            for total, new in zip(totals[:3], (piece.queries, piece.new_keys, piece.new_keys), strict=True):
                if total is not None:
                    total[new] = 0
            for total, slope in zip((x for x in piece.of(totals) if x is not None), slopes, strict=True):
                total += slope
        return *totals, None, None, None


class _Piece(NamedTuple):
    """Some queries of some heads of some utterances, and the keys that they may see; slices of (B, H, T)."""

    queries: tuple[slice, slice, slice]
    keys: tuple[slice, slice, slice]
    new_keys: tuple[slice, slice, slice]  # those that no earlier piece had

    @property
    def before(self) -> int:
        """Frames from the first key to the first query."""
        return self.queries[2].start - self.keys[2].start

    def real_of(self, real: Tensor | None) -> Tensor | None:
        """Which of the piece's keys are real, of (B, T) bool; None, if all are, stays None."""
        return None if real is None else real[self.keys[0], self.keys[2]]

    def of(self, tensors: Sequence[Any]) -> tuple[Any, Any, Any, Any, Any]:
        """The piece's part of query, key, value, additive (H, E) and bias (H or 1, K, S), as views; of None, None."""
        query, key, value, additive, bias = tensors
        heads = self.queries[1]

        def part(x: Tensor | None, index: Any) -> Tensor | None:
            return None if x is None else x[index]

        return (
            part(query, self.queries),
            part(key, self.keys),
            part(value, self.keys),
            part(additive, heads),
            bias if bias is None or len(bias) == 1 else bias[heads],
        )


def _pieces(weighting: Weighting, batch: int, heads: int, num_frames: int) -> Iterator[_Piece]:
    """Many short utterances to a piece, all or some heads of a longer one, a part of a head of a long one."""
    left, right = _context(weighting)
    parts = -(-num_frames // PIECE_FRAMES)
    frames = -(-num_frames // (parts * BLOCK_FRAMES)) * BLOCK_FRAMES
    rows = -(-PIECE_FRAMES // frames) if parts == 1 else 1
    some_heads = -(-heads // -(-heads // rows))  # as equal as can be
    some_utterances = max(1, rows // heads)
    for utterance, head, first in product(
        range(0, batch, some_utterances), range(0, heads, some_heads), range(0, num_frames, frames)
    ):
        last = min(first + frames, num_frames)
        rows_of = slice(utterance, utterance + some_utterances), slice(head, head + some_heads)
        end = min(last + right, num_frames)
        keys, new = slice(max(0, first - left), end), slice(min(first + right, num_frames) if first else 0, end)
        yield _Piece((*rows_of, slice(first, last)), (*rows_of, keys), (*rows_of, new))


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    additive: Tensor | None,
    bias: Tensor,
    real: Tensor | None,
    before: int,
    visible: Tensor,
    weighting: Weighting,
    random: torch.Generator | None,
) -> Tensor:
    """A piece by blocks; the keys begin `before` frames earlier than the queries.

    All its heads lie one behind the other in a single sequence, with gaps of max(L, R) frames that nobody attends
    to; so the blocks and their windows are strided views of one matrix, and the scores one batched product.
    """
    left, right = _context(weighting)
    batch, heads, num_frames, head_dim = query.shape
    block, span = visible.shape
    exporting = torch.compiler.is_exporting()
    alone = not exporting and batch * heads == 1
    per_row = -(-(num_frames if alone else num_frames + max(left, right)) // block)  # blocks of a head and its gap
    per_row += exporting  # never one: torch.export would specialise on it
    blocks = batch * heads * per_row

    def in_line(x: Tensor, shift: int, more: int) -> Tensor:
        """(B, H, T, ...) -> (frames, ...) in a single sequence, each head's shifted, `more` frames behind the last."""
        length = blocks * block + more
        if alone and shift == 0 and x.shape[2] == length:
            return x[0, 0]
        line = x.new_zeros(length, *x.shape[3:])
        rows = line[None, None] if alone else line[: blocks * block].view(batch, heads, -1, *x.shape[3:])
        rows[:, :, shift : shift + x.shape[2]] = x
        return line

    def windows(x: Tensor) -> Tensor:
        """(B, H, T, E) -> (blocks, span, E): the keys that each block may see."""
        line = in_line(x, left - before, left + right)
        return line.unfold(0, span, block).transpose(1, 2) if exporting else _Windows.apply(line, span, block)

    queries = in_line(query, 0, 0).view(blocks, block, head_dim)
    if not alone:  # each block's own head
        head = torch.arange(blocks, device=query.device) // per_row % heads
        additive = None if additive is None else additive[head]
        bias = bias if len(bias) == 1 else bias[head]
    scores = score(queries, windows(key).transpose(1, 2), None if additive is None else additive[:, None, None], bias)
    seen = visible
    if real is not None or not alone or key.shape[2] != blocks * block + left + right:  # there are frames to hide
        real = key.new_ones(batch, key.shape[2], dtype=torch.bool) if real is None else real
        real = in_line(real[:, None].expand(-1, heads, -1), left - before, left + right).unfold(0, span, block)
        scores = scores.masked_fill_(~real[:, None, :], hidden_score(scores.dtype))
        if weighting.normaliser != "softmax":
            seen = visible & real[:, None, :]
    count = None if weighting.normaliser == "softmax" else seen.sum(dim=-1, keepdim=True)
    weights = _drop(normalise(scores, weighting.normaliser, count), weighting.dropout, random)
    y = torch.bmm(weights, windows(value))
    return y.view(batch, heads, per_row * block, head_dim)[:, :, :num_frames]


class _Windows(torch.autograd.Function):
    """(frames, E) -> (blocks, span, E): a window every `block` frames. PyTorch's own gradient takes twice as long."""

    @staticmethod
    def forward(ctx: Any, line: Tensor, span: int, block: int) -> Tensor:
        ctx.num_frames, ctx.span, ctx.block = len(line), span, block
        return line.unfold(0, span, block).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        blocks, span, head_dim = gradient.shape
        total = gradient.new_zeros((blocks - 1) * ctx.block + -(-span // ctx.block) * ctx.block, head_dim)
        for first in range(0, span, ctx.block):  # a block's width of all windows: these do not overlap
            part = gradient[:, first : first + ctx.block]
            total[first : first + blocks * ctx.block].view(blocks, ctx.block, -1)[:, : part.shape[1]] += part
        return total[: ctx.num_frames], None, None


def _drop(weights: Tensor, dropout: float, random: torch.Generator | None) -> Tensor:
    """Dropout by a generator of one's own."""
    if random is None or not dropout:
        return F.dropout(weights, dropout)
    return weights * torch.empty_like(weights).bernoulli_(1 - dropout, generator=random).div_(1 - dropout)
