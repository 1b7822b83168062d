"""Agreement of two alignments of the same speech: labels of frames, and positions of boundaries.

All functions are pure; intervals are in samples at 16 kHz.
"""

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

__all__ = ["agreement_figures", "frame_confusion"]

TOLERANCES_MS = (10, 20, 50)


def frame_confusion(
    reference: Sequence[Interval], hypothesis: Sequence[Interval], symbols: Sequence[str]
) -> np.ndarray:
    """Confusion matrix of two alignments; a frame (every 10 ms) takes the label at its centre.

    Args:
        reference: Its last interval ends the signal.
        hypothesis: Intervals of the same signal.
        symbols: The P symbols that occur.

    Returns:
        (P + 1, P + 1) counts, row = reference. Class P holds the frames without a label in the hypothesis; frames
        without a label in the reference are not counted.

    Raises:
        ValueError: If intervals of one alignment overlap or are empty.
    """
    ids = {symbol: index for index, symbol in enumerate(symbols)}
    num_samples = max((interval.end for interval in reference), default=0)
    within = [interval for interval in hypothesis if interval.start < num_samples]
    expected, found = (frame_labels(intervals, num_samples, ids) for intervals in (reference, within))
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
        phones: Fold both to this inventory; None compares symbols as they are.

    Returns:
        - `frame_agreement`, `frame_agreement_no_silence` (frames whose reference is not silence), `num_frames`,
          `num_utterances`;
        - `phones`: `agreement` and `num_frames` of each phone in the reference;
        - `num_boundaries` of `reference` and `hypothesis`;
        - `boundaries`: for each tolerance (10, 20, 50 ms) the result of `boundary_figures`;
        - `displacement_ms` of boundaries matched within 50 ms: `mean` (positive: the hypothesis is late),
          `mean_absolute`, `median_absolute`; None without a match.

    Raises:
        ValueError: If the utterances differ, there are no phones, a symbol is not in the inventory, or intervals
            overlap or are empty (the message names the utterance).
    """
    if reference.keys() != hypothesis.keys():
        raise ValueError(f"the alignments ({len(reference)} and {len(hypothesis)}) cover different utterances")
    if phones is None:
        tracks = [*reference.values(), *hypothesis.values()]
        occurring = sorted({interval.symbol for track in tracks for interval in track} - {""})
        if not occurring:
            raise ValueError("neither alignment has a phone")
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
