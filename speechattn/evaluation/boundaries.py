"""Boundaries between phones: positions, one-to-one matching, precision, recall, F1 and R-value.

The start and the end of an utterance are not boundaries. The R-value follows Räsänen et al., "An improved speech
segmentation quality measure: the R-value" (Interspeech 2009); unlike recall, it does not reward inserting boundaries
at random.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np

from speechattn.geometry import Geometry
from speechattn.labels.intervals import Interval
from speechattn.phones import IGNORED

__all__ = ["TOLERANCE_MS", "boundaries", "boundary_figures", "count_boundaries", "match_boundaries", "snap_gaps"]

TOLERANCE_MS = 20


def boundaries(intervals: Sequence[Interval]) -> list[int]:
    """Positions in samples, ascending, where the label changes inside an utterance.

    The label also changes where a stretch without a label begins or ends, but not between adjacent intervals of the
    same symbol. The start of the first interval and the end of the last one are left out.

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
    """Pair boundaries one to one: the most pairs and, among equals, the smallest sum of distances.

    An optimal pairing without crossing pairs exists, so dynamic programming over both lists finds one: after i
    reference boundaries, cell j holds the best pairing of these with the first j hypothesis boundaries. The next
    reference boundary changes only cells within its tolerance, which makes the search linear.

    Args:
        reference: Positions in samples, ascending.
        hypothesis: Positions in samples, ascending.
        tolerance: Largest distance within a pair, in samples.

    Returns:
        Hypothesis minus reference of each pair, in order.

    Example:
        >>> match_boundaries([100, 200], [90, 110, 290], 20)
        [-10]
    """
    # A cell: (number of pairs, minus the sum of distances, displacements as a linked list). Larger is better.
    best: list[tuple[int, int, Any]] = [(0, 0, None)]
    first = 0  # the first hypothesis boundary within reach
    for place in reference:
        while first < len(hypothesis) and hypothesis[first] < place - tolerance:
            first += 1
        beyond = first
        while beyond < len(hypothesis) and hypothesis[beyond] <= place + tolerance:
            beyond += 1
        best += [best[-1]] * (beyond + 1 - len(best))
        above = best[first]  # previous row, previous column
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
    """Precision, recall, F1 and R-value of boundaries, as fractions of 1; None where the divisor is 0.

    Args:
        num_matched: Pairs within the tolerance.
        num_reference: Boundaries in the reference.
        num_hypothesis: Boundaries in the hypothesis.
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


def snap_gaps(intervals: Sequence[Interval], geometry: Geometry) -> list[Interval]:
    """Sort intervals and close gaps that contain no frame centre.

    Such gaps, of rounded times for example, leave no frame unscored: they are one boundary, not two.
    """
    closed: list[Interval] = []
    for interval in sorted(intervals):
        if closed and _first_centred(closed[-1].end, geometry) == _first_centred(interval.start, geometry):
            closed[-1] = closed[-1]._replace(end=interval.start)
        closed.append(interval)
    return closed


def _first_centred(place: int, geometry: Geometry) -> int:
    """Index of the first frame whose centre is at or after a sample."""
    return max(-((geometry.first_centre - place) // geometry.hop), 0)


def count_boundaries(
    intervals: Sequence[Interval], labels: np.ndarray, decided: np.ndarray, geometry: Geometry
) -> np.ndarray:
    """Match the boundaries of a model's segments, runs of one class, with the reference, within 20 ms.

    Boundaries of either side within 20 ms of the centre of an unscored frame are left out.

    Args:
        intervals: The reference, folded to the scored phones; from `snap_gaps`, in samples at the geometry's rate.
        labels: (T,) int, -100 where a frame is not scored.
        decided: (T,) int, the decided class.
        geometry: Of the frames.

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
    """The places that are farther than the tolerance from every unscored centre; both ascending."""
    near = np.searchsorted(unscored, places + tolerance, side="right") - np.searchsorted(unscored, places - tolerance)
    return places[near == 0].tolist()
