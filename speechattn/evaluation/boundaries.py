"""Boundaries between phones: where they are, matched one to one, and the figures of a match.

The start and the end of an utterance are not boundaries. The R-value follows Räsänen et al., "An improved speech
segmentation quality measure: the R-value" (Interspeech 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np

from speechattn.geometry import Geometry
from speechattn.labels.intervals import Interval
from speechattn.phones import IGNORED

__all__ = ["TOLERANCE_MS", "boundaries", "boundary_figures", "snap_gaps", "count_boundaries", "match_boundaries"]


def boundaries(intervals: Sequence[Interval]) -> list[int]:
    """Where the label changes inside an utterance, in samples, ascending.

    Where a stretch without a label begins or ends, the label changes, too; between two intervals of one symbol that
    touch it does not. The start of the first interval and the end of the last one are left out.

    Example:
        >>> boundaries([Interval(0, 4, "a"), Interval(4, 6, "a"), Interval(6, 9, "b"), Interval(10, 12, "c")])
        [6, 9, 10]
    """
    ordered = sorted(intervals)
    places: set[int] = set()
    for before, after in zip(ordered, ordered[1:], strict=False):
        if before.end != after.start or before.symbol != after.symbol:
            places |= {before.end, after.start}
    return sorted(places)


def match_boundaries(reference: Sequence[int], hypothesis: Sequence[int], tolerance: int) -> list[int]:
    """Pair boundaries one to one: as many pairs as possible and, among such, the smallest sum of distances.

    Some best pairing has no two pairs that cross, so one walk over both lists finds it: after i boundaries of the
    reference, cell j holds the best pairing of these with the first j of the hypothesis. One more changes only cells
    within its tolerance, which makes the walk linear.

    Args:
        reference: Ascending, in samples.
        hypothesis: Ascending, in samples.
        tolerance: The largest distance of a pair, in samples.

    Returns:
        Of each pair, hypothesis minus reference, in order.

    Example:
        >>> match_boundaries([100, 200], [90, 110, 290], 20)
        [-10]
    """
    # A cell: (pairs, minus their distances, the pairs as a linked list); of its first two, more is better.
    best: list[tuple[int, int, Any]] = [(0, 0, None)]
    first = 0  # of the hypothesis, not before reach
    for place in reference:
        while first < len(hypothesis) and hypothesis[first] < place - tolerance:
            first += 1
        beyond = first
        while beyond < len(hypothesis) and hypothesis[beyond] <= place + tolerance:
            beyond += 1
        best += [best[-1]] * (beyond + 1 - len(best))
        above = best[first]  # of the row before, one column to the left
        for column in range(first, beyond):
            displacement = hypothesis[column] - place
            pairs, closeness, chain = above
            candidate = (pairs + 1, closeness - abs(displacement), (displacement, chain))
            above = best[column + 1]
            best[column + 1] = max(above, best[column], candidate, key=lambda cell: cell[:2])
    displacements = []
    chain = best[-1][2]
    while chain is not None:
        displacement, chain = chain
        displacements.append(displacement)
    return displacements[::-1]


def boundary_figures(num_matched: int, num_reference: int, num_hypothesis: int) -> dict[str, float | None]:
    """Precision, recall, F1 and R-value of boundaries, as fractions of 1; None where there is nothing to divide by.

    Args:
        num_matched: Pairs within the tolerance.
        num_reference: Boundaries of the reference.
        num_hypothesis: Boundaries of the hypothesis.
    """
    precision = num_matched / num_hypothesis if num_hypothesis else None
    recall = num_matched / num_reference if num_reference else None
    total = num_reference + num_hypothesis
    r_value = None
    if recall is not None:
        over = num_hypothesis / num_reference - 1  # Räsänen's OS
        r_value = 1 - (sqrt((1 - recall) ** 2 + over**2) + abs(recall - 1 - over) / sqrt(2)) / 2
    f1 = 2 * num_matched / total if total else None
    return {"precision": precision, "recall": recall, "f1": f1, "r_value": r_value}


TOLERANCE_MS = 20


def snap_gaps(intervals: Sequence[Interval], geometry: Geometry) -> list[Interval]:
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
            `snap_gaps`, in samples at the geometry's rate.
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
