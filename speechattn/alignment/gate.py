"""Which alignments to reject: those that fit their audio far worse than the others, and impossible durations.

A search finds an alignment for almost any transcript, right or wrong. The limits were chosen on the TIMIT sample, which
has hand labels, and on speechocean762, with correct and with exchanged transcripts: see docs/alignment.md.
"""

from collections.abc import Sequence

import numpy as np

from speechattn.audio import SAMPLE_RATE
from speechattn.labels.intervals import Interval

__all__ = ["implausible", "lowest_score"]

MAX_DEVIATION = 4.0  # below the median, in robust standard deviations: 1.4826 times the median absolute deviation
MIN_UTTERANCES = 20  # fewer scores do not define outliers
MAX_PHONE_S = 1.5  # the longest hand-labelled phone of the TIMIT sample lasts 0.33 s, but beginners drawl
MAX_RATE = 18.0  # phones per second of speech; at most 15.2 in hand labels
SHORT_S = 0.03  # phones that find no room get one frame for each of their model's three states
MAX_SHORT_SHARE = 0.35  # of the phones; at most 0.22 in hand labels
MIN_PHONES = 10  # fewer phones do not define a rate or a share
NOT_SPEECH = frozenset({"SIL", "SPN"})


def lowest_score(scores: Sequence[float]) -> float:
    """The score per speech frame below which an alignment is an outlier; -inf for fewer than 20 scores."""
    if len(scores) < MIN_UTTERANCES:
        return -np.inf
    median = float(np.median(scores))
    return median - MAX_DEVIATION * 1.4826 * float(np.median(np.abs(np.array(scores) - median)))


def implausible(intervals: Sequence[Interval]) -> str | None:
    """Why an alignment's durations are not those of speech; None if they are plausible.

    Refused are a phone longer than 1.5 s and, among 10 or more phones, more than 18 per second of speech, or more than
    35 % of 30 ms or less.

    Args:
        intervals: Phones of an utterance, in samples at 16 kHz.
    """
    phones = [interval for interval in intervals if interval.symbol not in NOT_SPEECH]
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
