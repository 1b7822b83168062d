"""Fold intervals to another phone inventory, and merge TIMIT's stop closures with their releases."""

from collections.abc import Sequence

from speechattn.labels.intervals import Interval
from speechattn.phones import PhoneSet

__all__ = ["CLOSURES", "fold_intervals", "merge_closures"]

STOPS_OF_CLOSURE = {
    "bcl": ("b",), "dcl": ("d", "jh"), "gcl": ("g",), "pcl": ("p",), "tcl": ("t", "ch"), "kcl": ("k",)
}  # fmt: skip
CLOSURES = frozenset({*STOPS_OF_CLOSURE, "cl", "vcl"})  # in TIMIT's 61 symbols, and in the 48


def merge_closures(intervals: Sequence[Interval]) -> list[Interval]:
    """Count TIMIT's closures as their stops, since most other inventories, like CMUdict, know only the whole stop.

    Intervals have TIMIT's 61 symbols and are in order. A closure followed by its own stop or affricate is merged with
    it. Any other one (an unreleased stop) is relabelled as its stop.

    Example:
        >>> merge_closures([Interval(0, 5, "tcl"), Interval(5, 9, "ch"), Interval(9, 12, "kcl")])
        [Interval(start=0, end=9, symbol='ch'), Interval(start=9, end=12, symbol='k')]
    """
    merged: list[Interval] = []
    closure: Interval | None = None  # the previous interval, if it is a closure
    for interval in intervals:
        if closure and closure.end == interval.start and interval.symbol in STOPS_OF_CLOSURE[closure.symbol]:
            merged[-1] = Interval(closure.start, interval.end, interval.symbol)
        else:
            stop = STOPS_OF_CLOSURE.get(interval.symbol, (interval.symbol,))[0]
            merged.append(interval._replace(symbol=stop))
        closure = interval if interval.symbol in STOPS_OF_CLOSURE else None
    return merged


def fold_intervals(intervals: Sequence[Interval], phones: PhoneSet) -> list[Interval]:
    """Fold symbols to an inventory, and leave out intervals that it ignores or that have no label.

    A TIMIT set also accepts ARPAbet, see `PhoneSet.accepting_arpabet`. An empty symbol means no label, unless the
    inventory accepts it.

    Raises:
        ValueError: When the inventory does not accept a symbol.
    """
    phones = phones.accepting_arpabet()
    labelled = [interval for interval in intervals if interval.symbol or "" in phones.folding]
    folded = [(interval, phones.fold(interval.symbol)) for interval in labelled]
    return [interval._replace(symbol=symbol) for interval, symbol in folded if symbol]
