"""How far two alignments of the same speech agree: in their frames, and in where they put boundaries.

Everything here is a pure function of intervals in samples, at 16 kHz where frames or milliseconds are counted.
Boundaries are matched one to one, so that none is found twice; the two edges of an utterance, which nobody has to
find, are no boundaries. The R-value is that of Räsänen et al., "An improved speech segmentation quality measure: the
R-value", Interspeech 2009: unlike recall and F1 it does not reward putting in many boundaries at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from speechattn.alignment import Interval, frame_labels
from speechattn.audio import SAMPLE_RATE
from speechattn.metrics import confusion_matrix, frame_figures
from speechattn.phones import PhoneSet

__all__ = [
    "CLOSURES",
    "agreement_figures",
    "boundaries",
    "boundary_figures",
    "fold_intervals",
    "frame_confusion",
    "match_boundaries",
    "merge_closures",
]

TOLERANCES_MS = (10, 20, 50)
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


def frame_confusion(
    reference: Sequence[Interval], hypothesis: Sequence[Interval], symbols: Sequence[str]
) -> np.ndarray:
    """Count the frames, every 10 ms, by the two labels at their centres.

    Args:
        reference: The frames are those of a signal that ends with its last interval.
        hypothesis: Of the same signal.
        symbols: All symbols that occur.

    Returns:
        (P + 1, P + 1) counts, row = reference. Class P, after those of the symbols, stands for frames that only the
        hypothesis leaves without a label; those without one in the reference do not count.

    Raises:
        ValueError: When intervals of one alignment overlap, or are empty.
    """
    ids = {symbol: number for number, symbol in enumerate(symbols)}
    num_samples = max((interval.end for interval in reference), default=0)
    expected, found = (frame_labels(intervals, num_samples, ids) for intervals in (reference, hypothesis))
    return confusion_matrix(expected, np.where(found < 0, len(symbols), found), len(symbols) + 1)


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


def agreement_figures(
    reference: Mapping[str, Sequence[Interval]],
    hypothesis: Mapping[str, Sequence[Interval]],
    phones: PhoneSet | None = None,
) -> dict[str, Any]:
    """Compare two alignments of the same utterances.

    Args:
        reference: Utterance -> intervals.
        hypothesis: Utterance -> intervals, of the same utterances.
        phones: Both are folded to this inventory; None compares symbols as they are.

    Returns:
        `frame_agreement`, `frame_agreement_no_silence` (frames whose reference is not silence), `num_frames`,
        `num_utterances`; `phones`: per phone of the reference `agreement` and `num_frames`; `num_boundaries` of both;
        `boundaries`: per tolerance in ms what `boundary_figures` gives; `displacement_ms` over the pairs within the
        widest tolerance: `mean` (positive: the hypothesis is late), `mean_absolute`, `median_absolute`.

    Raises:
        ValueError: When the utterances differ, there are no phones at all, a symbol is not of the inventory, or
            intervals overlap or are empty (names the utterance).
    """
    if reference.keys() != hypothesis.keys():
        raise ValueError(f"two alignments of {len(reference)} and {len(hypothesis)} utterances that differ")
    if phones is None:
        tracks = [*reference.values(), *hypothesis.values()]
        occurring = sorted({interval.symbol for track in tracks for interval in track} - {""})
        if not occurring:
            raise ValueError("there is nothing to compare: neither alignment has a phone")
        phones = PhoneSet.of(occurring)
    symbols = phones.symbols
    confusion = np.zeros((len(symbols) + 1,) * 2, dtype=np.int64)
    num_boundaries = np.zeros(2, dtype=np.int64)
    displacements: dict[int, list[int]] = {tolerance: [] for tolerance in TOLERANCES_MS}
    for name in reference:
        try:
            expected, found = (fold_intervals(side[name], phones) for side in (reference, hypothesis))
            confusion += frame_confusion(expected, found, symbols)
        except ValueError as error:
            raise ValueError(f"utterance {name}: {error}") from error
        places, found_places = boundaries(expected), boundaries(found)
        num_boundaries += [len(places), len(found_places)]
        for tolerance, matched in displacements.items():
            matched += match_boundaries(places, found_places, tolerance * SAMPLE_RATE // 1000)
    frames = frame_figures(confusion, [*symbols, "(none)"], phones.silences)
    widest = np.array(displacements[max(TOLERANCES_MS)]) * 1000 / SAMPLE_RATE
    return {
        "frame_agreement": frames["frame_accuracy"],
        "frame_agreement_no_silence": frames["frame_accuracy_no_silence"],
        "num_frames": frames["num_frames"],
        "num_utterances": len(reference),
        "num_boundaries": dict(zip(("reference", "hypothesis"), num_boundaries.tolist(), strict=True)),
        "boundaries": {
            f"{tolerance}": boundary_figures(len(matched), *num_boundaries.tolist())
            for tolerance, matched in displacements.items()
        },
        "displacement_ms": {
            "mean": float(widest.mean()) if len(widest) else None,
            "mean_absolute": float(np.abs(widest).mean()) if len(widest) else None,
            "median_absolute": float(np.median(np.abs(widest))) if len(widest) else None,
        },
        "phones": {
            symbol: {"agreement": score["accuracy"], "num_frames": score["num_frames"]}
            for symbol, score in frames["phones"].items()
        },
    }
