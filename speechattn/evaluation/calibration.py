"""How far a model's confidence can be believed, and the one number that corrects it.

Guo et al., "On calibration of modern neural networks", ICML 2017: expected calibration error (sec. 2, eq. 3) and
temperature scaling (sec. 4.2).
"""

from __future__ import annotations

from math import exp, log

import numpy as np

__all__ = ["NUM_BINS", "calibration_error", "fit_temperature", "reliability_counts"]

NUM_BINS = 15
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 10.0
PRECISION = 1e-6  # of the temperature's logarithm


def reliability_counts(confidences: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Count decisions by their confidence; counts of several sets of frames may be added up.

    Args:
        confidences: (T,) float in [0, 1], the posterior of the decided class.
        right: (T,) bool, whether it is the reference.

    Returns:
        (15, 3) float64: of each bin ((m - 1) / 15, m / 15] of confidence (the first one also holds 0) the number of
        decisions, the number of right ones, and the sum of the confidences.
    """
    bins = np.clip(np.ceil(confidences * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    columns = (np.ones(len(bins)), right, confidences)
    return np.stack([np.bincount(bins, weights=column, minlength=NUM_BINS) for column in columns], axis=1)


def calibration_error(counts: np.ndarray) -> float | None:
    """Expected calibration error: how far, on average, a bin's share of right decisions is from its mean confidence.

    Args:
        counts: (bins, 3), from `reliability_counts`.

    Returns:
        In [0, 1], each bin weighing as much as it has decisions; None without any.
    """
    number, right, confidence = counts.T
    return float(np.abs(right - confidence).sum() / number.sum()) if number.any() else None


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T in [0.1, 10] that makes softmax(logits / T) likeliest to give the labels.

    The negative log-likelihood is convex in 1 / T, with the slope sum_t (E[z_t] - z_t,label) of the logits z under the
    softmax; where the slope changes sign is found by bisection, in float64.

    Args:
        logits: (T, P) float, finite.
        labels: (T,) int in [0, P).

    Raises:
        ValueError: When there is no label.
    """
    if not len(labels):
        raise ValueError("a temperature cannot be fitted without labels")
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)  # no exp overflows; slope and softmax stay as they are
    reference = np.take_along_axis(scores, labels[:, None], axis=1).sum()
    low, high = log(LOWEST_TEMPERATURE), log(HIGHEST_TEMPERATURE)
    while high - low > PRECISION:
        middle = (low + high) / 2
        weights = np.exp(scores / exp(middle))
        expected = ((weights * scores).sum(axis=1) / weights.sum(axis=1)).sum()
        if expected > reference:  # too sure of itself: hotter
            low = middle
        else:
            high = middle
    return exp((low + high) / 2)
