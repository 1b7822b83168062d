"""Truncated attention in linear time and memory: blocks of K queries against the K + L + R keys in their reach.

Input is processed in pieces of about `PIECE_FRAMES` queries, whose scores fit into the processor's cache. The backward
pass recomputes the scores of each piece, so that only inputs and outputs grow with the length. In training on short
utterances the scores are kept instead, which is faster.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from speechattn.attention.weighting import Weighting, hidden_score, normalise, score

__all__ = ["PIECE_FRAMES", "block_frames", "blocked"]

SHORT_CONTEXT = 40  # frames L + R, up to which blocks are of 16 queries; beyond, 32 waste less on windows
PIECE_FRAMES = 2048  # queries per piece, over all heads and utterances


def blocked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, weighting: Weighting) -> Tensor:
    """Truncated attention with limited context on both sides.

    Args:
        query: (B, H, T, E) float, with at least one element.
        key: (B, H, T, E).
        value: (B, H, T, E).
        mask: (B, T) bool, True = real frame; None when all are.
        weighting: Context, normaliser and position.

    Returns:
        (B, H, T, E). Cannot be differentiated twice.
    """
    left, right = _context(weighting)
    block = block_frames(left, right)
    keys, queries = (torch.arange(size, device=query.device) for size in (block + left + right, block))
    offset = keys - left - queries[:, None]
    visible = weighting.sees(offset)
    # The band mask is folded into the bias, so baddbmm applies it for free.
    bias = torch.zeros(1, *offset.shape, dtype=query.dtype, device=query.device)
    bias = bias.masked_fill_(~visible, hidden_score(query.dtype))
    if (position_bias := weighting.position.bias(offset)) is not None:
        bias = bias + position_bias
    tensors = (query, key, value, weighting.additive, bias)
    keep_scores = query.requires_grad and query.shape[2] <= PIECE_FRAMES
    if torch.compiler.is_compiling() or keep_scores:  # a graph cannot loop a data-dependent number of times
        return _attend(*tensors, mask, 0, visible, weighting, None)
    y: Tensor = _InPieces.apply(*tensors, mask, visible, weighting)
    return y


def block_frames(left: int, right: int) -> int:
    """Queries per block, which share one window of keys."""
    return 16 if left + right <= SHORT_CONTEXT else 32


def _context(weighting: Weighting) -> tuple[int, int]:
    assert weighting.left is not None and weighting.right is not None
    return weighting.left, weighting.right


class _InPieces(torch.autograd.Function):
    """Piece by piece; the backward pass recomputes the scores of each piece."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        """Arguments of `_attend` except `before` and `random`."""
        *tensors, mask, visible, weighting = arguments
        query = tensors[0]
        ctx.save_for_backward(*tensors, mask, visible)
        device = query.device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None
        ctx.seed = int(torch.randint(2**62, ())) if weighting.dropout else 0
        ctx.weighting = weighting
        random = torch.Generator(query.device).manual_seed(ctx.seed)
        y = torch.empty_like(query)
        for piece in _pieces(weighting, *query.shape[:3]):
            parts = piece.of(tensors)
            y[piece.queries] = _attend(*parts, piece.mask_of(mask), piece.before, visible, weighting, random)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *saved, mask, visible = ctx.saved_tensors
        tensors = [x if x is None else x.detach() for x in saved]
        wanted = ctx.needs_input_grad[: len(tensors)]
        # Zero the q/k/v gradients piece by piece, just before first use, to save a pass over memory.
        makers = [torch.empty_like] * 3 + [torch.zeros_like] * 2
        totals = [make(x) if want else None for make, x, want in zip(makers, saved, wanted, strict=True)]
        random = torch.Generator(gradient.device).manual_seed(ctx.seed)  # draws the same dropout again
        autocast = torch.autocast(*ctx.autocast) if ctx.autocast else nullcontext()
        for piece in _pieces(ctx.weighting, *gradient.shape[:3]):
            parts = piece.of(tensors)
            leaves = [x.requires_grad_() for x, want in zip(parts, wanted, strict=True) if want]
            with torch.enable_grad(), autocast:
                y = _attend(*parts, piece.mask_of(mask), piece.before, visible, ctx.weighting, random)
            gradients = torch.autograd.grad(y, leaves, gradient[piece.queries].to(y.dtype))
            for total, new in zip(totals[:3], (piece.queries, piece.new_keys, piece.new_keys), strict=True):
                if total is not None:
                    total[new] = 0
            for total, part in zip((x for x in piece.of(totals) if x is not None), gradients, strict=True):
                total += part
        return *totals, None, None, None


class _Piece(NamedTuple):
    """Some queries of some heads of some utterances, and the keys in their reach; slices of (B, H, T)."""

    queries: tuple[slice, slice, slice]
    keys: tuple[slice, slice, slice]
    new_keys: tuple[slice, slice, slice]  # keys that no earlier piece had

    @property
    def before(self) -> int:
        """Frames from the first key to the first query."""
        return self.queries[2].start - self.keys[2].start

    def mask_of(self, mask: Tensor | None) -> Tensor | None:
        """The piece's keys in a (B, T) mask."""
        return None if mask is None else mask[self.keys[0], self.keys[2]]

    def of(self, tensors: Sequence[Any]) -> tuple[Any, Any, Any, Any, Any]:
        """Views of query, key, value, additive (H, E) and bias (H or 1, K, S); None stays None."""
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
    """Many short utterances per piece, or some heads of a longer one, or part of a head of a long one."""
    left, right = _context(weighting)
    parts = -(-num_frames // PIECE_FRAMES)
    block = block_frames(left, right)
    frames = -(-num_frames // (parts * block)) * block
    rows = -(-PIECE_FRAMES // frames) if parts == 1 else 1
    some_heads = -(-heads // -(-heads // rows))  # pieces of equal size, if possible
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
    mask: Tensor | None,
    before: int,
    visible: Tensor,
    weighting: Weighting,
    random: torch.Generator | None,
) -> Tensor:
    """Attention of one piece by blocks; the keys begin `before` frames earlier than the queries.

    All heads are laid out one after the other in a single sequence, with masked gaps of max(L, R) frames, so that the
    blocks and their windows are strided views of one matrix and the scores one batched product.
    """
    left, right = _context(weighting)
    batch, heads, num_frames, head_dim = query.shape
    block, span = visible.shape
    exporting = torch.compiler.is_exporting()
    alone = not exporting and batch * heads == 1
    per_row = -(-(num_frames if alone else num_frames + max(left, right)) // block)  # blocks per head, gap included
    per_row += exporting  # never one: torch.export would specialise on it
    blocks = batch * heads * per_row

    def in_line(x: Tensor, shift: int, more: int) -> Tensor:
        """(B, H, T, ...) -> (frames, ...): one sequence, each head shifted, `more` frames added at the end."""
        length = blocks * block + more
        if alone and shift == 0 and x.shape[2] == length:
            return x[0, 0]
        line = x.new_zeros(length, *x.shape[3:])
        rows = line[None, None] if alone else line[: blocks * block].view(batch, heads, -1, *x.shape[3:])
        rows[:, :, shift : shift + x.shape[2]] = x
        return line

    def windows(x: Tensor) -> Tensor:
        """(B, H, T, E) -> (blocks, span, E): the keys in reach of each block."""
        line = in_line(x, left - before, left + right)
        return line.unfold(0, span, block).transpose(1, 2) if exporting else _Windows.apply(line, span, block)

    queries = in_line(query, 0, 0).view(blocks, block, head_dim)
    if not alone:
        head = torch.arange(blocks, device=query.device) // per_row % heads
        additive = None if additive is None else additive[head]
        bias = bias if len(bias) == 1 else bias[head]
    scores = score(queries, windows(key).transpose(1, 2), None if additive is None else additive[:, None, None], bias)
    if mask is not None or not alone or key.shape[2] != blocks * block + left + right:  # gaps or padding to mask
        mask = key.new_ones(batch, key.shape[2], dtype=torch.bool) if mask is None else mask
        mask = in_line(mask[:, None].expand(-1, heads, -1), left - before, left + right).unfold(0, span, block)
        scores = scores.masked_fill_(~mask[:, None, :], hidden_score(scores.dtype))
        if weighting.normaliser != "softmax":
            visible = visible & mask[:, None, :]
    count = None if weighting.normaliser == "softmax" else visible.sum(dim=-1, keepdim=True)
    weights = _drop(normalise(scores, weighting.normaliser, count), weighting.dropout, random)
    y = torch.bmm(weights, windows(value))
    return y.view(batch, heads, per_row * block, head_dim)[:, :, :num_frames]


class _Windows(torch.autograd.Function):
    """(frames, E) -> (blocks, span, E): one window per block, with a gradient twice as fast as unfold's."""

    @staticmethod
    def forward(ctx: Any, line: Tensor, span: int, block: int) -> Tensor:
        ctx.num_frames, ctx.span, ctx.block = len(line), span, block
        return line.unfold(0, span, block).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        blocks, span, head_dim = gradient.shape
        total = gradient.new_zeros((blocks - 1) * ctx.block + -(-span // ctx.block) * ctx.block, head_dim)
        for first in range(0, span, ctx.block):  # slices of one block's width do not overlap
            part = gradient[:, first : first + ctx.block]
            total[first : first + blocks * ctx.block].view(blocks, ctx.block, -1)[:, : part.shape[1]] += part
        return total[: ctx.num_frames], None, None


def _drop(weights: Tensor, dropout: float, random: torch.Generator | None) -> Tensor:
    """Dropout, drawn from `random` if given."""
    if random is None or not dropout:
        return F.dropout(weights, dropout)
    return weights * torch.empty_like(weights).bernoulli_(1 - dropout, generator=random).div_(1 - dropout)
