"""How far a figure depends on who happens to be in the test set: the bootstrap over speakers.

Frames of one speaker resemble each other, so that whole speakers are drawn, with replacement, as many as there are
(Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004, who draw
speakers or utterances). Two systems are compared on the same draws. Intervals are percentiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["SpeakerCounts", "accuracy_interval", "paired_difference"]

CONFIDENCE = 0.95
NUM_DRAWS = 1000
NUM_PAIRED_DRAWS = 10_000  # a p-value is no smaller than 2 / (draws + 1)
SEED = 0


class SpeakerCounts:
    """Counts of utterances, summed up for each speaker.

    Args:
        num_counts: K, counts of an utterance.

    Attributes:
        sums: Speaker -> (K,) int64; those of nobody in particular under an empty name.
        all_known: Whether every utterance names its speaker.
    """

    def __init__(self, num_counts: int) -> None:
        self._zeros = np.zeros(num_counts, dtype=np.int64)
        self.sums: dict[str, np.ndarray] = {}
        self.all_known = True

    def add(self, speaker: str | int | None, counts: Sequence[int]) -> None:
        """Count an utterance: its K counts. A speaker may be a number, as in some manifests."""
        name = "" if speaker is None else str(speaker)
        self.all_known &= bool(name)
        self.sums[name] = self.sums.get(name, self._zeros) + counts

    def table(self) -> np.ndarray:
        """(S, K) int64, a row for each speaker; a single one, of all, where somebody is not known."""
        rows = np.array([*self.sums.values()]).reshape(-1, len(self._zeros))
        return rows if self.all_known else rows.sum(axis=0, keepdims=True)


def _drawn_shares(parts: np.ndarray, wholes: np.ndarray, num_draws: int) -> np.ndarray:
    """Sum of parts over sum of wholes, (S,) each, in every draw of S speakers; draws with nothing to divide by go."""
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
        right: (S,) int, each speaker's frames decided rightly.
        scored: (S,) int, each speaker's frames.

    Returns:
        [low, high], fractions of 1; None with fewer than two speakers who have a frame.
    """
    if np.count_nonzero(scored) < 2:
        return None
    return _interval(_drawn_shares(right, scored, NUM_DRAWS))


def paired_difference(right_a: np.ndarray, right_b: np.ndarray, scored: np.ndarray) -> dict[str, Any]:
    """Accuracy of system B minus that of A on the same frames, and whether it could be chance.

    Args:
        right_a: (S,) int, each speaker's frames that A decided rightly.
        right_b: (S,) int, likewise.
        scored: (S,) int, each speaker's frames.

    Returns:
        `difference`, a fraction of 1, positive where B is better, None without a frame; `interval`, its 95 %
        confidence interval, and the two-sided `p_value`: twice the share of draws, of 10,000, that leave the
        difference at 0 or on the other side of it, the observed one counted in (Davison and Hinkley, "Bootstrap
        methods and their application", 1997, eq. 4.11). Both are None with fewer than two speakers who have a frame.
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
