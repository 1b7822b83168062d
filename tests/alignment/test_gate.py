"""The gate: outliers of the score, and durations that nobody speaks with, each at its very limit."""

import numpy as np
import pytest

from speechattn.alignment.gate import implausible, lowest_score
from speechattn.labels.intervals import Interval


def spoken(*durations, symbol="AH"):
    """Phones of these samples between two pauses of two seconds."""
    bounds = np.cumsum([32000, *durations]).tolist()
    phones = [Interval(start, end, symbol) for start, end in zip(bounds, bounds[1:], strict=False)]
    return [Interval(0, 32000, "SIL"), *phones, Interval(bounds[-1], bounds[-1] + 32000, "SIL")]


def test_outliers_are_measured_against_median_and_mad():
    scores = [-20.0 - abs(number - 50) % 7 for number in range(100)]
    deviations = sorted(abs(score + 23) for score in scores)  # the median is -23
    mad = (deviations[49] + deviations[50]) / 2
    assert lowest_score(scores) == pytest.approx(-23 - 4 * 1.4826 * mad)
    assert lowest_score([*scores[::-1]]) == lowest_score(scores)
    assert lowest_score(scores[:19]) == -np.inf
    assert np.isfinite(lowest_score(scores[:20]))


def test_ordinary_speech_passes():
    assert implausible(spoken(*[1200] * 30)) is None
    assert implausible(spoken(480, 480, 1200)) is None  # too few to judge by


@pytest.mark.parametrize(("samples", "reason"), [(24000, None), (24001, "implausible: AH lasts 1.50 s")])
def test_a_phone_may_last_a_second_and_a_half(samples, reason):
    assert implausible(spoken(1200, samples, 1200)) == reason


def test_a_pause_may_last_long_but_cannot_be_all():
    assert implausible([Interval(0, 90000, "SPN"), *spoken(1200)]) is None
    assert implausible([Interval(0, 90000, "SIL")]) == "implausible: nothing but silence"


@pytest.mark.parametrize("count", [9, 10])
def test_many_phones_a_second_are_too_many(count):
    assert implausible(spoken(*[890] * count)) is None  # 17.98
    fast = implausible(spoken(*[880] * count))
    assert fast == ("implausible: 18.2 phones a second of speech" if count == 10 else None)


def test_phones_without_room_are_too_many():
    long = [1600] * 13
    assert implausible(spoken(*[480] * 7, *long)) is None  # 35 %
    assert implausible(spoken(*[480] * 8, *long[1:])) == "implausible: 40 % of the phones last 30 ms or less"
    assert implausible(spoken(*[481] * 8, *long[1:])) is None
