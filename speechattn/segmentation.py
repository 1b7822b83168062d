"""A model's decisions as segments, against the reference's intervals: boundaries found, and errors in the sequence.

Segments are runs of frames decided alike. What the reference leaves unscored (label -100) never counts, for or
against: boundaries of either side within the tolerance of an unscored frame's centre are left out, and phones decided
in unscored frames are, too. The edges of an utterance are no boundaries.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby

import numpy as np

from speechattn.agreement import boundaries, match_boundaries
from speechattn.alignment import Interval
from speechattn.geometry import Geometry
from speechattn.phones import IGNORED

__all__ = ["TOLERANCE_MS", "close_slits", "count_boundaries", "count_phone_errors", "phone_sequence"]

TOLERANCE_MS = 20


def close_slits(intervals: Sequence[Interval], geometry: Geometry) -> list[Interval]:
    """The intervals in order, each moved up to the next one where no frame is centred in the gap between them.

    Such a gap, of rounded times say, leaves no frame unscored: it is one boundary, not two.
    """
    closed: list[Interval] = []
    for interval in sorted(intervals):
        if closed and _first_centred(closed[-1].end, geometry) == _first_centred(interval.start, geometry):
            closed[-1] = closed[-1]._replace(end=interval.start)
        closed.append(interval)
    return closed


def _first_centred(place: int, geometry: Geometry) -> int:
    """The first frame whose centre is not before a sample."""
    return max(-((geometry.first_centre - place) // geometry.hop), 0)


def count_boundaries(
    intervals: Sequence[Interval], labels: np.ndarray, decided: np.ndarray, geometry: Geometry
) -> np.ndarray:
    """Match the boundaries of a model's segments with those of the reference, one to one, within 20 ms.

    Args:
        intervals: The reference, folded to the scored phones and without those that have no place among them; from
            `close_slits`, in samples at the geometry's rate.
        labels: (T,) int, -100 where a frame is not scored.
        decided: (T,) int, the class decided for.
        geometry: Where the frames lie.

    Returns:
        (3,) int64: pairs, boundaries of the reference, boundaries of the model, as `boundary_figures` takes them.
    """
    tolerance = TOLERANCE_MS * geometry.sample_rate // 1000
    unscored = geometry.first_centre + geometry.hop * np.flatnonzero(labels == IGNORED)
    changes = geometry.first_owned(np.flatnonzero(np.diff(decided)) + 1)
    reference = _counted(np.array(boundaries(intervals), dtype=np.int64), unscored, tolerance)
    found = _counted(changes, unscored, tolerance)
    return np.array([len(match_boundaries(reference, found, tolerance)), len(reference), len(found)])


def _counted(places: np.ndarray, unscored: np.ndarray, tolerance: int) -> list[int]:
    """The places, ascending, that are farther than the tolerance from every unscored centre, ascending."""
    near = np.searchsorted(unscored, places + tolerance, side="right") - np.searchsorted(unscored, places - tolerance)
    return places[near == 0].tolist()


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
