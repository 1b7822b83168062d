"""How far two alignments of the same speech agree: in their frames, and in where they put boundaries.

Everything here is a pure function of intervals in samples, at 16 kHz where frames or milliseconds are counted.
Boundaries are matched one to one, so that none is found twice; the two edges of an utterance, which nobody has to
find, are no boundaries. The R-value is that of Räsänen et al., "An improved speech segmentation quality measure: the
R-value", Interspeech 2009: unlike recall and F1 it does not reward putting in many boundaries at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from speechattn.audio import SAMPLE_RATE
from speechattn.evaluation.boundaries import boundaries, boundary_figures, match_boundaries
from speechattn.evaluation.metrics import confusion_matrix, frame_figures
from speechattn.labels.folding import fold_intervals
from speechattn.labels.frames import frame_labels
from speechattn.labels.intervals import Interval
from speechattn.phones import PhoneSet

__all__ = [
    "agreement_figures",
    "frame_confusion",
]

TOLERANCES_MS = (10, 20, 50)


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
