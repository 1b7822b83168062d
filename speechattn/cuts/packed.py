"""Alignments in a tenth of the memory of Lhotse's lists of items."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from lhotse.supervision import AlignmentItem

__all__ = ["PackedItems", "packed"]


class PackedItems(Sequence[AlignmentItem]):
    """A sequence of items without scores, stored as symbols and times.

    Args:
        symbols: Of n items.
        times: (n, 2) float64, start and duration (s).
    """

    __slots__ = ("_symbols", "_times")

    def __init__(self, symbols: tuple[str, ...], times: np.ndarray) -> None:
        self._symbols, self._times = symbols, times

    def __len__(self) -> int:
        return len(self._symbols)

    @overload
    def __getitem__(self, index: int) -> AlignmentItem: ...

    @overload
    def __getitem__(self, index: slice) -> list[AlignmentItem]: ...

    def __getitem__(self, index: int | slice) -> AlignmentItem | list[AlignmentItem]:
        if isinstance(index, slice):
            return list(self)[index]
        return AlignmentItem(self._symbols[index], *self._times[index].tolist())

    def __iter__(self) -> Any:
        for symbol, (start, duration) in zip(self._symbols, self._times.tolist(), strict=True):
            yield AlignmentItem(symbol, start, duration)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedItems, (self._symbols, self._times)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[AlignmentItem]:
        """A list: Lhotse writes deep copies as JSON."""
        return list(self)


def packed(cut: Any) -> Any:
    """Pack the alignments of a Lhotse cut, in place, except those that would lose something. Returns the cut."""
    for supervision in getattr(cut, "supervisions", ()):
        for kind, items in (supervision.alignment or {}).items():
            if all(isinstance(item.symbol, str) and _is_plain(item) for item in items):
                times = np.array([item[1:3] for item in items], dtype=np.float64).reshape(-1, 2)
                supervision.alignment[kind] = PackedItems(tuple(sys.intern(item.symbol) for item in items), times)
    return cut


def _is_plain(item: AlignmentItem) -> bool:
    return item.score is None and type(item.start) is float and type(item.duration) is float
