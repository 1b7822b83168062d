"""One step over rows that arrive in pieces: the mathematics that streams and the exported streaming graph share.

Each step takes n new rows and returns n rows, delayed by its right context. A memory holds the earlier rows that it
needs. Rows before the recording's first and after its last are computed like the others, and masked like padding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from speechattn.attention import TruncatedSelfAttention, attend
from speechattn.attention.blocked import blocked
from speechattn.model.block import ConvolutionModule, EncoderBlock
from speechattn.model.depthwise import depthwise_valid

__all__ = ["Memory", "Rows", "Window", "attention_step", "block_step", "window_step"]

MANY_ROWS = 128  # from here on, blocks are cheaper than the full matrix of scores


class Rows(NamedTuple):
    """Consecutive rows of a recording: frames, or steps of several frames.

    `first` and `end` are ints in a stream and () int64 tensors in a graph.
    """

    values: Tensor  # (n, D)
    first: Any  # index of the first row; rows before 0 do not exist
    end: Any  # number of rows of the recording; a huge number until it is known

    @property
    def times(self) -> Tensor:
        """(n,) int64, index of each row."""
        return self.first + torch.arange(self.values.shape[0], device=self.values.device)

    def exist(self, first: Any, count: int) -> Tensor | None:
        """Whether rows `first` to `first + count` exist, (count,) bool; None if all are known to."""
        if isinstance(first, int) and isinstance(self.end, int) and first >= 0 and first + count <= self.end:
            return None
        times = first + torch.arange(count, device=self.values.device)
        return (times >= 0) & (times < self.end)

    def masked(self) -> Rows:
        """0 where the recording has no row."""
        exist = self.exist(self.first, self.values.shape[0])
        return self if exist is None else self._replace(values=self.values.masked_fill(~exist[:, None], 0.0))


class Memory(Protocol):
    """Earlier rows, which the steps of a model read and replace in a fixed order."""

    def extended(self, rows: Tensor, count: int | None, *, dim: int = 0) -> Tensor:
        """Put the last `count` earlier rows in front of n new ones, along `dim`; None for all earlier rows.

        The last `count` rows of the result are kept for the next call. Before the first call they are zeros.
        """


class Window(NamedTuple):
    """A function of rows (1, T, D) and lengths (1,), which sees `left` and `right` rows around each; zeros beyond."""

    function: Callable[[Tensor, Tensor], Tensor]
    left: int = 0
    right: int = 0


def window_step(window: Window, rows: Rows, memory: Memory) -> Rows:
    """Apply a function of a window of rows."""
    size = rows.values.shape[0]
    values = memory.extended(rows.masked().values, window.left + window.right)
    lengths = torch.full((1,), values.shape[0], device=values.device)
    values = window.function(values[None], lengths)[0, window.left : window.left + size]
    return Rows(values, rows.first - window.right, rows.end)


def attention_step(attention: TruncatedSelfAttention, rows: Rows, memory: Memory) -> Rows:
    """Truncated self-attention, whose right context must be limited."""
    left, right, size = attention.left, attention.right, rows.values.shape[0]
    assert right is not None
    query, key, value = (x[0] for x in attention.project(rows.values[None], rows.times))  # (H, n, E)
    query = memory.extended(query, right, dim=1)
    earlier = None if left is None else left + right
    key, value = memory.extended(key, earlier, dim=1), memory.extended(value, earlier, dim=1)
    before = key.shape[1] - size  # keys before the new ones
    exist = rows.exist(rows.first - before, key.shape[1])
    mask = None if exist is None else exist[None]
    exporting = torch.compiler.is_exporting()
    if not exporting and left is not None and size >= MANY_ROWS:
        query = F.pad(query, (0, 0, left, 0))  # aligns each query with its key; the zeros in front are not used
        y = blocked(query[None], key[None], value[None], mask, attention.weighting)[0, :, left : left + size]
    else:
        offset = (_offsets if exporting else _cached_offsets)(key.shape[1], before - right, size, key.device)
        y = attend(query[None, :, :size], key[None], value[None], offset, attention.weighting, mask)[0]
    return Rows(attention.output(y.transpose(0, 1).flatten(1)), rows.first - right, rows.end)


def _offsets(num_keys: int, before: int, num_queries: int, device: torch.device) -> Tensor:
    """(queries, keys): time of the key minus time of the query, which is key number `before` for the first query."""
    keys = torch.arange(-before, num_keys - before, device=device)
    return keys - torch.arange(num_queries, device=device)[:, None]


_cached_offsets = lru_cache(maxsize=32)(_offsets)  # pieces of one size need the same few again and again


def convolution_step(convolution: ConvolutionModule, rows: Rows, memory: Memory) -> Rows:
    """The convolution module."""
    reach = convolution.depthwise.kernel_size[0] // 2
    gated = rows._replace(values=convolution.gated(rows.values)).masked().values
    y = depthwise_valid(convolution.depthwise, memory.extended(gated, 2 * reach))
    return Rows(convolution.mixed(y), rows.first - reach, rows.end)


def block_step(block: EncoderBlock, rows: Rows, memory: Memory) -> Rows:
    """A block of the encoder."""
    normed = rows._replace(values=block.attention_norm(rows.values))
    rows = _sum(rows, attention_step(block.attention, normed, memory), block.attention.right, memory)
    if block.convolution is not None:
        branch = convolution_step(block.convolution, rows, memory)
        rows = _sum(rows, branch, block.convolution.depthwise.kernel_size[0] // 2, memory)
    return rows._replace(values=rows.values + block.feed_forward(rows.values))


def _sum(rows: Rows, branch: Rows, delay: int | None, memory: Memory) -> Rows:
    """Residual connection around a branch whose rows are delayed."""
    return branch._replace(values=memory.extended(rows.values, delay)[: rows.values.shape[0]] + branch.values)
