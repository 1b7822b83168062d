"""Boundaries and phone errors of decisions against slow references: sample by sample, and Levenshtein's recursion."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechattn.evaluation.boundaries import boundary_figures, count_boundaries, match_boundaries, snap_gaps
from speechattn.evaluation.phone_errors import count_phone_errors, phone_sequence
from speechattn.geometry import Geometry
from speechattn.labels.frames import frame_labels, frames_to_segments
from speechattn.labels.intervals import Interval

SYMBOLS, SILENCES = ("a", "b", "SIL"), {"SIL"}
IDS = {symbol: index for index, symbol in enumerate(SYMBOLS)}
GEOMETRY = Geometry()


def intervals_of(stretches: list[tuple[int, str | None]]) -> list[Interval]:
    ends = np.cumsum([length for length, _ in stretches]).tolist()
    starts = [0, *ends[:-1]]
    return [Interval(*row) for row in zip(starts, ends, (s for _, s in stretches), strict=True) if row[2] is not None]


@st.composite
def decided_utterances(draw):
    """(intervals, labels, decided): a reference with gaps of all lengths, and an answer for every frame."""
    stretches = draw(
        st.lists(st.tuples(st.integers(1, 1500), st.sampled_from([*SYMBOLS, None])), min_size=1, max_size=9)
    )
    num_samples = 400 + sum(length for length, _ in stretches)
    intervals = snap_gaps(intervals_of(stretches), GEOMETRY)
    labels = frame_labels(intervals, num_samples, IDS)
    runs = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2)), min_size=len(labels), max_size=len(labels)))
    decided = np.repeat([index for _, index in runs], [length for length, _ in runs])[: len(labels)]
    return intervals, labels, decided


def changes_by_sample(intervals: list[Interval]) -> list[int]:
    first, last = min(i.start for i in intervals), max(i.end for i in intervals)
    label = {t: interval.symbol for interval in intervals for t in range(interval.start, interval.end)}
    return [t for t in range(first + 1, last) if label.get(t) != label.get(t - 1)]


@given(decided_utterances())
def test_boundaries_count_away_from_what_is_not_scored(utterance) -> None:
    intervals, labels, decided = utterance
    reference = changes_by_sample(intervals) if intervals else []
    segments = frames_to_segments(decided, np.ones(len(decided)), SYMBOLS, 10.0)
    found = [round(16000 * segment.start) for segment in segments[1:]]
    unscored = [160 * t + 200 for t, label in enumerate(labels) if label == -100]
    sides = [[p for p in places if all(abs(p - c) > 320 for c in unscored)] for places in (reference, found)]
    expected = [len(match_boundaries(*sides, 320)), len(sides[0]), len(sides[1])]
    assert count_boundaries(intervals, labels, decided, GEOMETRY).tolist() == expected


def edits(reference: list[str], found: list[str]) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        change = distance(i - 1, j - 1) + (reference[i - 1] != found[j - 1])
        return min(change, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(reference), len(found))


def sequence_by_loops(labels: list[str | None]) -> list[str]:
    phones, before = [], None
    for label in labels:
        if label is not None and label != before and label not in SILENCES:
            phones.append(label)
        before = label
    return phones


@given(decided_utterances())
def test_phone_errors_are_the_edit_distance_of_the_collapsed_sequences(utterance) -> None:
    intervals, labels, decided = utterance
    by_sample: list[str | None] = []
    for interval in intervals:
        by_sample += [None] * (interval.start - len(by_sample)) + [interval.symbol] * (interval.end - interval.start)
    reference = sequence_by_loops(by_sample)
    found = sequence_by_loops([None if y < 0 else SYMBOLS[d] for y, d in zip(labels, decided, strict=True)])
    *errors, num_phones = count_phone_errors(intervals, labels, decided, SYMBOLS, SILENCES).tolist()
    assert sum(errors) == edits(reference, found) and num_phones == len(reference)
    assert errors[1] - errors[2] == len(found) - len(reference)


@given(decided_utterances(), st.lists(st.integers(0, 2), min_size=200, max_size=200))
def test_what_is_decided_where_nothing_is_scored_never_counts(utterance, answers) -> None:
    intervals, labels, decided = utterance
    other = np.where(labels < 0, np.resize(answers, len(labels)), decided)
    for count in (
        lambda classes: count_boundaries(intervals, labels, classes, GEOMETRY),
        lambda classes: count_phone_errors(intervals, labels, classes, SYMBOLS, SILENCES),
    ):
        assert (count(decided) == count(other)).all()


def test_a_gap_without_a_frame_is_one_boundary() -> None:
    slit = [Interval(0, 700, "a"), Interval(716, 1600, "b"), Interval(1700, 2000, "b")]  # centres: ... 680, 840, ...
    assert snap_gaps(slit[::-1], GEOMETRY) == [
        Interval(0, 716, "a"),
        Interval(716, 1600, "b"),
        Interval(1700, 2000, "b"),
    ]
    labels = frame_labels(slit[:2], 1600, IDS)
    decided = np.where(np.arange(len(labels)) < 4, 0, 1)  # from sample 760 on
    assert count_boundaries(snap_gaps(slit[:2], GEOMETRY), labels, decided, GEOMETRY).tolist() == [1, 1, 1]


def test_a_case_by_hand() -> None:
    """a from 0, silence from 1600, b from 3200, nothing from 4800, b from 6400 to 8000."""
    stretches = [(1600, "a"), (1600, "SIL"), (1600, "b"), (1600, None), (1600, "b")]
    intervals = intervals_of(stretches)
    labels = frame_labels(intervals, 8000, IDS)
    decided = np.where(labels < 0, 2, labels)
    # Two boundaries; those of the gap, which the decisions have, too, are nobody's. a, b and b again.
    assert count_boundaries(intervals, labels, decided, GEOMETRY).tolist() == [2, 2, 2]
    assert count_phone_errors(intervals, labels, decided, SYMBOLS, SILENCES).tolist() == [0, 0, 0, 3]
    decided[:] = 0
    assert count_boundaries(intervals, labels, decided, GEOMETRY).tolist() == [0, 2, 0]
    # The gap parts what was decided, too: a a against a b b.
    *errors, num_phones = count_phone_errors(intervals, labels, decided, SYMBOLS, SILENCES).tolist()
    assert sum(errors) == 2 and num_phones == 3
    assert phone_sequence(["a", "a", "SIL", "a", None, "a", "b"], SILENCES) == ["a", "a", "a", "b"]


def test_random_boundaries_do_not_raise_the_r_value() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(800, 2400, 150)
    intervals = intervals_of([(int(length), SYMBOLS[k % 2]) for k, length in enumerate(lengths)])
    labels = frame_labels(intervals, int(lengths.sum()), IDS)
    r_values, recalls = [], []
    for share in (0.0, 0.02, 0.1, 0.3):
        decided = np.where(rng.random(len(labels)) < share, 2, labels)
        figures = boundary_figures(*count_boundaries(intervals, labels, decided, GEOMETRY).tolist())
        r_values.append(figures["r_value"])
        recalls.append(figures["recall"])
    assert r_values == sorted(r_values, reverse=True) and r_values[0] == pytest.approx(1) and r_values[-1] < 0.5
    assert min(recalls) > 0.9
