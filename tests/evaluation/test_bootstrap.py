"""The bootstrap against all draws there are, counted by hand, and against what must hold."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechattn.evaluation.bootstrap import SpeakerCounts, accuracy_interval, paired_difference

RIGHT, SCORED = np.array([30, 80, 45, 10]), np.array([50, 100, 90, 40])


def every_draw(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """The share in each of the S^S draws of S speakers, all equally likely."""
    shares = []
    for speakers in product(range(len(wholes)), repeat=len(wholes)):
        whole = sum(int(wholes[speaker]) for speaker in speakers)
        shares.append(sum(int(parts[speaker]) for speaker in speakers) / whole)
    return np.array(shares)


def test_interval_is_that_of_all_draws() -> None:
    low, high = accuracy_interval(RIGHT, SCORED)
    expected = np.percentile(every_draw(RIGHT, SCORED), [2.5, 97.5])
    assert [low, high] == pytest.approx(expected, abs=0.02)
    assert low < RIGHT.sum() / SCORED.sum() < high
    assert accuracy_interval(RIGHT, SCORED) == [low, high]  # the seed is fixed
    order = [2, 0, 3, 1]
    assert accuracy_interval(RIGHT[order], SCORED[order]) == pytest.approx([low, high], abs=0.03)


def test_frames_of_one_speaker_are_drawn_together() -> None:
    """As many frames, but of more speakers: a narrower interval, by the square root of their number."""
    few, many = (np.tile([40, 60], n) * 20 // n for n in (4, 100))
    widths = [
        np.diff(accuracy_interval(right, np.full(len(right), 2000 // (len(right) // 2))))[0] for right in (few, many)
    ]
    assert widths[0] / widths[1] == pytest.approx(5, rel=0.2)


def test_no_interval_from_one_speaker_or_from_nothing() -> None:
    assert accuracy_interval(RIGHT[:1], SCORED[:1]) is None
    assert accuracy_interval(np.zeros(3, dtype=int), np.zeros(3, dtype=int)) is None
    silent = np.array([10, 0])  # the second speaker has no speech
    assert accuracy_interval(np.array([5, 0]), silent) is None
    assert paired_difference(np.array([5, 0]), np.array([6, 0]), silent)["p_value"] is None
    one = paired_difference(RIGHT[:1], RIGHT[:1] - 3, SCORED[:1])
    assert one == {"difference": pytest.approx(-3 / 50), "interval": None, "p_value": None}
    nothing = np.zeros(2, dtype=int)
    assert set(paired_difference(nothing, nothing, nothing).values()) == {None}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=2, max_size=5))
def test_identical_models_do_not_differ(rows: list[tuple[int, int]]) -> None:
    right, scored = np.array(rows).T
    assert paired_difference(right, right, scored) == {"difference": 0, "interval": [0, 0], "p_value": 1}


def test_difference_and_p_value_are_those_of_all_draws() -> None:
    other = RIGHT + [4, 9, -2, 5]
    figures = paired_difference(RIGHT, other, SCORED)
    draws = every_draw(other - RIGHT, SCORED)
    assert figures["difference"] == pytest.approx(16 / 280)
    assert figures["interval"] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.01)
    assert 0.01 < figures["p_value"] == pytest.approx(2 * min((draws <= 0).mean(), (draws >= 0).mean()), abs=0.005)
    swapped = paired_difference(other, RIGHT, SCORED)
    assert swapped["difference"] == -figures["difference"] and swapped["p_value"] == figures["p_value"]
    assert swapped["interval"] == pytest.approx([-end for end in figures["interval"][::-1]])
    always = paired_difference(RIGHT, RIGHT + 1, SCORED)  # better for every speaker
    assert always["p_value"] == pytest.approx(2 / 10_001) and always["interval"][0] > 0


def test_counts_are_summed_by_speaker() -> None:
    counts = SpeakerCounts(2)
    assert counts.table().shape == (0, 2)
    for speaker, pair in (("anna", [1, 2]), ("ben", [3, 4]), ("anna", [10, 20])):
        counts.add(speaker, pair)
    assert counts.all_known and counts.table().tolist() == [[11, 22], [3, 4]]
    counts.add(None, [100, 200])
    assert not counts.all_known and counts.table().tolist() == [[114, 226]]
