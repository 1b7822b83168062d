"""Confidence intervals and significance by the bootstrap over speakers.

Frames of one speaker are correlated, so whole speakers are drawn, with replacement (Bisani and Ney, "Bootstrap
estimates for confidence intervals in ASR performance evaluation", ICASSP 2004). Two systems are compared on the same
draws. Intervals are percentile intervals.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["SpeakerCounts", "accuracy_interval", "paired_difference"]

CONFIDENCE = 0.95
NUM_DRAWS = 1000
NUM_PAIRED_DRAWS = 10_000  # the smallest possible p-value is 2 / (draws + 1)
SEED = 0


class SpeakerCounts:
    """Sum the counts of utterances per speaker.

    Args:
        num_counts: K, the number of counts per utterance.

    Attributes:
        sums: Speaker -> (K,) int64; utterances without a speaker are under "".
        all_known: Whether every utterance names its speaker.
    """

    def __init__(self, num_counts: int) -> None:
        self._zeros = np.zeros(num_counts, dtype=np.int64)
        self.sums: dict[str, np.ndarray] = {}
        self.all_known = True

    def add(self, speaker: str | int | None, counts: Sequence[int]) -> None:
        """Add the K counts of one utterance. A speaker may be a number, as in some manifests."""
        name = "" if speaker is None else str(speaker)
        self.all_known &= bool(name)
        self.sums[name] = self.sums.get(name, self._zeros) + counts

    def table(self) -> np.ndarray:
        """(S, K) int64, one row per speaker; a single row of totals if a speaker is unknown."""
        rows = np.array([*self.sums.values()]).reshape(-1, len(self._zeros))
        return rows if self.all_known else rows.sum(axis=0, keepdims=True)


def _drawn_shares(parts: np.ndarray, wholes: np.ndarray, num_draws: int) -> np.ndarray:
    """sum(parts) / sum(wholes), (S,) each, for every draw of S speakers; draws with a zero divisor are left out."""
    generator = np.random.default_rng(SEED)
    num_speakers = len(wholes)
    sums = np.empty((num_draws, 2))
    for row in sums:
        times = np.bincount(generator.integers(num_speakers, size=num_speakers), minlength=num_speakers)
        row[:] = times @ parts, times @ wholes
    sums = sums[sums[:, 1] > 0]
    return sums[:, 0] / sums[:, 1]


def _interval(values: np.ndarray) -> list[float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    return np.percentile(values, [tail, 100 - tail]).tolist()


def accuracy_interval(right: np.ndarray, scored: np.ndarray) -> list[float] | None:
    """95 % confidence interval of an accuracy, from 1000 draws with a fixed seed.

    Args:
        right: (S,) int, correct frames per speaker.
        scored: (S,) int, frames per speaker.

    Returns:
        [low, high], fractions of 1; None if fewer than two speakers have frames.
    """
    if np.count_nonzero(scored) < 2:
        return None
    return _interval(_drawn_shares(right, scored, NUM_DRAWS))


def paired_difference(right_a: np.ndarray, right_b: np.ndarray, scored: np.ndarray) -> dict[str, Any]:
    """Accuracy of system B minus accuracy of A on the same frames, with interval and p-value.

    Args:
        right_a: (S,) int, frames per speaker that A gets right.
        right_b: (S,) int, the same for B.
        scored: (S,) int, frames per speaker.

    Returns:
        - `difference`: a fraction of 1, positive if B is better; None without a frame;
        - `interval`: its 95 % confidence interval;
        - `p_value`, two-sided: twice the share of 10,000 draws in which the difference is 0 or has the other sign,
          with the observed difference counted in (Davison and Hinkley, "Bootstrap methods and their application",
          1997, eq. 4.11).

        Interval and p-value are None if fewer than two speakers have frames.
    """
    if not scored.any():
        return {"difference": None, "interval": None, "p_value": None}
    difference = float((right_b - right_a).sum() / scored.sum())
    if np.count_nonzero(scored) < 2:
        return {"difference": difference, "interval": None, "p_value": None}
    drawn = _drawn_shares(right_b - right_a, scored, NUM_PAIRED_DRAWS)
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p_value = min(1.0, float(2 * (beyond + 1) / (len(drawn) + 1)))
    return {"difference": difference, "interval": _interval(drawn), "p_value": p_value}
