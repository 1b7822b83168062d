"""Intervals in another phone inventory, and TIMIT's stop closures merged into their stops."""

from __future__ import annotations

from collections.abc import Sequence

from speechattn.labels.intervals import Interval
from speechattn.phones import PhoneSet

__all__ = ["CLOSURES", "fold_intervals", "merge_closures"]


STOPS_OF_CLOSURE = {
    "bcl": ("b",),
    "dcl": ("d", "jh"),
    "gcl": ("g",),
    "pcl": ("p",),
    "tcl": ("t", "ch"),
    "kcl": ("k",),
}


CLOSURES = frozenset({*STOPS_OF_CLOSURE, "cl", "vcl"})  # of TIMIT's 61 symbols, and of the 48


def merge_closures(intervals: Sequence[Interval]) -> list[Interval]:
    """Count TIMIT's closures as their stops: most other inventories, and CMUdict, know only the whole stop.

    A closure before its own stop or affricate becomes part of it; any other (an unreleased stop) becomes its stop.

    Args:
        intervals: With TIMIT's 61 symbols, in order.

    Returns:
        The same stretches under other symbols, a closure and its release as one interval.

    Example:
        >>> merge_closures([Interval(0, 5, "tcl"), Interval(5, 9, "ch"), Interval(9, 12, "kcl")])
        [Interval(start=0, end=9, symbol='ch'), Interval(start=9, end=12, symbol='k')]
    """
    merged: list[Interval] = []
    closure: Interval | None = None  # the interval before this one, when it is a closure
    for interval in intervals:
        if closure and closure.end == interval.start and interval.symbol in STOPS_OF_CLOSURE[closure.symbol]:
            merged[-1] = Interval(closure.start, interval.end, interval.symbol)
        else:
            stop = STOPS_OF_CLOSURE.get(interval.symbol, (interval.symbol,))[0]
            merged.append(interval._replace(symbol=stop))
        closure = interval if interval.symbol in STOPS_OF_CLOSURE else None
    return merged


def fold_intervals(intervals: Sequence[Interval], phones: PhoneSet) -> list[Interval]:
    """Intervals with the symbols of one inventory; those that it ignores are left out, and so is what has no label.

    A TIMIT set also takes ARPAbet, see `PhoneSet.accepting_arpabet`. An empty mark that the inventory does not know
    counts as no label.

    Args:
        intervals: In any order.
        phones: The inventory.

    Raises:
        ValueError: When the inventory does not know a symbol.
    """
    phones = phones.accepting_arpabet()
    marks = [interval for interval in intervals if interval.symbol or "" in phones.folding]
    folded = [(interval, phones.fold(interval.symbol)) for interval in marks]
    return [interval._replace(symbol=symbol) for interval, symbol in folded if symbol]
