"""A model's decisions as segments, against the reference's intervals: boundaries found, and errors in the sequence.

Segments are runs of frames decided alike. What the reference leaves unscored (label -100) never counts, for or
against: boundaries of either side within the tolerance of an unscored frame's centre are left out, and phones decided
in unscored frames are, too. The edges of an utterance are no boundaries.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby

import numpy as np

from speechattn.labels.intervals import Interval
from speechattn.phones import IGNORED

__all__ = ["count_phone_errors", "phone_sequence"]


def phone_sequence(symbols: Sequence[str | None], silences: Collection[str]) -> list[str]:
    """Runs of one symbol as one, without silence; None, for what is not scored, ends a run and is left out.

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
    """Compare the sequence of phones that a model decided for with the reference's, by edit distance.

    Both are collapsed: phones of one symbol that touch count as one, which is all that decisions by frame can tell.

    Args:
        intervals: As for `count_boundaries`.
        labels: (T,) int, -100 where a frame is not scored.
        decided: (T,) int, the class decided for.
        symbols: Name of each class.
        silences: The symbols that count as silence, left out on both sides.

    Returns:
        (4,) int64: substitutions, insertions, deletions, phones of the reference.
    """
    from kaldialign import edit_distance

    spoken: list[str | None] = []
    for number, interval in enumerate(intervals):
        if number and intervals[number - 1].end < interval.start:
            spoken.append(None)
        spoken.append(interval.symbol)
    heard = [None if label == IGNORED else symbols[index] for label, index in zip(labels, decided, strict=True)]
    reference, found = phone_sequence(spoken, silences), phone_sequence(heard, silences)
    if not reference:  # kaldialign may divide by its length
        return np.array([0, len(found), 0, 0])
    edits = edit_distance(reference, found)
    return np.array([edits["sub"], edits["ins"], edits["del"], len(reference)])
