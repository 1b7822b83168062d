"""Expected calibration error and temperature scaling.

Guo et al., "On calibration of modern neural networks", ICML 2017: expected calibration error (sec. 2, eq. 3) and
temperature scaling (sec. 4.2).
"""

from math import exp, log

import numpy as np

__all__ = ["NUM_BINS", "calibration_error", "fit_temperature", "reliability_counts"]

NUM_BINS = 15
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 10.0
PRECISION = 1e-6  # of log(temperature)


def reliability_counts(confidences: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Counts of decisions in bins of confidence; counts of disjoint sets of frames add up.

    Args:
        confidences: (T,) float in [0, 1], posterior of the decided class.
        right: (T,) bool, whether the decision is correct.

    Returns:
        (15, 3) float64: for each bin ((m - 1) / 15, m / 15] of confidence (0 belongs to the first) the number of
        decisions, the number of correct decisions, and the sum of the confidences.
    """
    bins = np.clip(np.ceil(confidences * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    columns = (np.ones(len(bins)), right, confidences)
    return np.stack([np.bincount(bins, weights=column, minlength=NUM_BINS) for column in columns], axis=1)


def calibration_error(counts: np.ndarray) -> float | None:
    """Expected calibration error: mean distance between a bin's accuracy and its mean confidence.

    Args:
        counts: (bins, 3), from `reliability_counts`.

    Returns:
        In [0, 1], bins weighted by their number of decisions; None without any.
    """
    number, right, confidence = counts.T
    return float(np.abs(right - confidence).sum() / number.sum()) if number.any() else None


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T in [0.1, 10] that maximises the likelihood of the labels under softmax(logits / T).

    The negative log-likelihood is convex in 1 / T, with slope sum_t (E[z_t] - z_t,label), where z are the logits and
    E is the expectation under the softmax. Bisection, in float64, finds the zero of the slope.

    Args:
        logits: (T, P) float, finite.
        labels: (T,) int in [0, P).

    Raises:
        ValueError: If there is no label.
    """
    if not len(labels):
        raise ValueError("a temperature cannot be fitted without labels")
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)  # exp cannot overflow; softmax and slope are unchanged
    reference = np.take_along_axis(scores, labels[:, None], axis=1).sum()
    low, high = log(LOWEST_TEMPERATURE), log(HIGHEST_TEMPERATURE)
    while high - low > PRECISION:
        middle = (low + high) / 2
        weights = np.exp(scores / exp(middle))
        expected = ((weights * scores).sum(axis=1) / weights.sum(axis=1)).sum()
        if expected > reference:  # overconfident: raise the temperature
            low = middle
        else:
            high = middle
    return exp((low + high) / 2)
