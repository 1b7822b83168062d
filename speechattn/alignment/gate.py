"""Which alignments not to believe: those that fit their audio far worse than the others, and impossible durations.

A search finds an alignment for almost any transcript, right or wrong. The limits here were chosen on the TIMIT sample,
where hand labels tell the truth, and on speechocean762, with right and with exchanged transcripts: docs/alignment.md
has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speechattn.audio import SAMPLE_RATE
from speechattn.labels.intervals import Interval

__all__ = ["implausible", "lowest_score"]

MAX_DEVIATION = 4.0  # robust standard deviations, 1.4826 times the median absolute deviation, below the median
MIN_POPULATION = 20  # among fewer utterances a median says nothing about outliers
MAX_PHONE_S = 1.5  # the longest in the TIMIT sample's hand labels is 0.33 s; beginners who read aloud drawl
MAX_RATE = 18.0  # phones a second of speech; by hand at most 15.2
SHORT_S = 0.03  # a phone model has three states, and needs a frame for each: so long are phones that have no room
MAX_SHORT_SHARE = 0.35  # of the phones; by hand at most 0.22
MIN_PHONES = 10  # fewer have no rate and no shares to speak of
SILENCES = frozenset({"SIL", "SPN"})


def lowest_score(scores: Sequence[float]) -> float:
    """The score below which an alignment is an outlier among these.

    Args:
        scores: Acoustic score per speech frame of every aligned utterance.

    Returns:
        4 robust standard deviations below the median; -inf for fewer than 20 scores, of which none can be called an
        outlier.
    """
    if len(scores) < MIN_POPULATION:
        return -np.inf
    median = float(np.median(scores))
    return median - MAX_DEVIATION * 1.4826 * float(np.median(np.abs(np.array(scores) - median)))


def implausible(intervals: Sequence[Interval]) -> str | None:
    """Why nobody speaks with these durations.

    Args:
        intervals: Phones of an utterance, in samples at 16 kHz.

    Returns:
        A phone of more than 1.5 s; or, in 10 phones or more, over 18 phones a second of speech, or over 35 % of them
        30 ms or shorter. None when all is well.
    """
    phones = [interval for interval in intervals if interval.symbol not in SILENCES]
    if not phones:
        return "implausible: nothing but silence"
    durations = np.array([phone.end - phone.start for phone in phones]) / SAMPLE_RATE
    longest = int(durations.argmax())
    if durations[longest] > MAX_PHONE_S:
        return f"implausible: {phones[longest].symbol} lasts {durations[longest]:.2f} s"
    if len(phones) < MIN_PHONES:
        return None
    rate = len(phones) / durations.sum()
    if rate > MAX_RATE:
        return f"implausible: {rate:.1f} phones a second of speech"
    share = float((durations <= SHORT_S).mean())
    if share > MAX_SHORT_SHARE:
        return f"implausible: {100 * share:.0f} % of the phones last {1000 * SHORT_S:.0f} ms or less"
    return None
