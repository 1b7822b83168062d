"""Phone errors: edit distance between the decided phone sequence and the reference."""

from collections.abc import Collection, Sequence
from itertools import groupby

import numpy as np

from speechattn.labels.intervals import Interval
from speechattn.phones import IGNORED

__all__ = ["count_phone_errors", "phone_error_rate", "phone_sequence"]


def phone_error_rate(counts: np.ndarray) -> float | None:
    """Errors per phone of the reference, from `count_phone_errors`; None without phones."""
    *errors, num_phones = counts.tolist()
    return sum(errors) / num_phones if num_phones else None


def phone_sequence(symbols: Sequence[str | None], silences: Collection[str]) -> list[str]:
    """Collapse runs of one symbol and drop silence. None (not scored) ends a run and is dropped.

    Example:
        >>> phone_sequence(["SIL", "a", "a", "SIL", "a", "b", None, "b"], {"SIL"})
        ['a', 'a', 'b', 'b']
    """
    return [symbol for symbol, _ in groupby(symbols) if symbol is not None and symbol not in silences]


def count_phone_errors(
    intervals: Sequence[Interval],
    labels: np.ndarray,
    decided: np.ndarray,
    symbols: Sequence[str],
    silences: Collection[str],
) -> np.ndarray:
    """Edit distance between the decided phone sequence and the reference.

    Adjacent phones of the same symbol count as one on both sides, since frame decisions cannot tell them apart.
    Decisions in unscored frames do not count.

    Args:
        intervals: As for `count_boundaries`.
        labels: (T,) int, -100 where a frame is not scored.
        decided: (T,) int, the decided class.
        symbols: Name of each class.
        silences: The symbols that count as silence; left out on both sides.

    Returns:
        (4,) int64: substitutions, insertions, deletions, phones in the reference.
    """
    from kaldialign import edit_distance

    spoken: list[str | None] = []
    for index, interval in enumerate(intervals):
        if index and intervals[index - 1].end < interval.start:
            spoken.append(None)
        spoken.append(interval.symbol)
    by_frame = [None if label == IGNORED else symbols[index] for label, index in zip(labels, decided, strict=True)]
    reference, hypothesis = phone_sequence(spoken, silences), phone_sequence(by_frame, silences)
    if not reference:  # kaldialign may divide by its length
        return np.array([0, len(hypothesis), 0, 0])
    edits = edit_distance(reference, hypothesis)
    return np.array([edits["sub"], edits["ins"], edits["del"], len(reference)])
