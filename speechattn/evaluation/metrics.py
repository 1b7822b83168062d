"""Accuracies from a confusion matrix.

A confusion matrix is (P, P) int64, row = reference class, column = predicted class. It counts frames or utterances
that have a reference label.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

__all__ = ["confusion_matrix", "frame_figures", "percent", "top_k_hits", "utterance_figures"]


def confusion_matrix(reference: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Count frames or utterances by reference and prediction.

    Args:
        reference: (...) int, negative where a frame is not scored.
        predicted: (...) int in [0, P).
        num_classes: P.

    Returns:
        (P, P) int64.

    Raises:
        ValueError: If the shapes differ.
    """
    if reference.shape != predicted.shape:
        raise ValueError(f"{reference.shape} reference labels but {predicted.shape} predictions")
    scored = reference >= 0
    cells = num_classes * reference[scored] + predicted[scored]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def top_k_hits(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether each frame's reference is among its k highest scores; ties go to the lower class index.

    Args:
        scores: (T, P) float.
        labels: (T,) int in [0, P).
        k: Number of classes.

    Returns:
        (T,) bool.
    """
    reference = np.take_along_axis(scores, labels[:, None], axis=1)
    lower = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > reference) | ((scores == reference) & lower)).sum(axis=1) < k


def frame_figures(confusion: np.ndarray, symbols: Sequence[str], silences: Collection[str]) -> dict[str, Any]:
    """Frame accuracies as fractions of 1.

    Args:
        confusion: (P, P) counts.
        symbols: Name of each class.
        silences: The symbols that count as silence.

    Returns:
        - `frame_accuracy` over the `num_frames` scored frames; `frame_accuracy_no_silence` over those whose reference
          is not silence;
        - `macro_accuracy`: mean accuracy of the phones that occur;
        - `silence_share` of the reference;
        - `majority`: the most frequent phone and the accuracy of always predicting it, with and without silence;
        - `phones`: `accuracy` (recall) and `num_frames` of each phone that occurs.

        An accuracy over no frames is None.
    """
    correct, total = confusion.diagonal(), confusion.sum(axis=1)
    speech = np.array([symbol not in silences for symbol in symbols])
    majority, majority_speech = int(total.argmax()), int(np.where(speech, total, -1).argmax())
    return {
        "frame_accuracy": _share(correct.sum(), total.sum()),
        "frame_accuracy_no_silence": _share(correct[speech].sum(), total[speech].sum()),
        "macro_accuracy": float((correct[total > 0] / total[total > 0]).mean()) if total.any() else None,
        "num_frames": int(total.sum()),
        "silence_share": _share(total[~speech].sum(), total.sum()),
        "majority": {
            "phone": symbols[majority],
            "frame_accuracy": _share(total[majority], total.sum()),
            "phone_no_silence": symbols[majority_speech] if total[speech].any() else None,
            "frame_accuracy_no_silence": _share(total[majority_speech], total[speech].sum()),
        },
        "phones": {
            symbol: {"accuracy": _share(correct[index], total[index]), "num_frames": int(total[index])}
            for index, symbol in enumerate(symbols)
            if total[index]
        },
    }


def utterance_figures(confusion: np.ndarray, symbols: Sequence[str]) -> dict[str, Any]:
    """Accuracies over utterances as fractions of 1.

    Args:
        confusion: (P, P) counts of utterances.
        symbols: Name of each class.

    Returns:
        `accuracy` over the `num_utterances`; `majority`: the most frequent label and the accuracy of always predicting
        it; `labels`: `accuracy` (recall) and `num_utterances` of each label that occurs. An accuracy over no utterances
        is None.
    """
    correct, total = confusion.diagonal(), confusion.sum(axis=1)
    majority = int(total.argmax())
    return {
        "accuracy": _share(correct.sum(), total.sum()),
        "num_utterances": int(total.sum()),
        "majority": {"label": symbols[majority], "accuracy": _share(total[majority], total.sum())},
        "labels": {
            symbol: {"accuracy": _share(correct[index], total[index]), "num_utterances": int(total[index])}
            for index, symbol in enumerate(symbols)
            if total[index]
        },
    }


def percent(share: float | None, digits: int = 2) -> str:
    """Format a fraction as a percentage; `-` for None.

    Example:
        >>> percent(0.12345), percent(None)
        ('12.35 %', '-')
    """
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def _share(part: np.integer, whole: np.integer) -> float | None:
    return float(part / whole) if whole else None
