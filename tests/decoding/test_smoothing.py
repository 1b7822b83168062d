"""Smoothing by a hidden Markov model: counts by loops, paths by trying all."""

import itertools
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechattn.decoding.smoothing import (
    PRIOR_SCALE,
    PSEUDO_COUNT,
    Phonotactics,
    label_runs,
    phonotactics_of,
    smooth,
)

LABELS = st.lists(st.integers(0, 2) | st.just(-100), min_size=1, max_size=20)


@given(st.lists(LABELS, min_size=1, max_size=4))
def test_counts_equal_those_of_a_loop(utterances):
    counted = phonotactics_of([np.array(labels) for labels in utterances], 3)
    transitions, initial, frames = [[0] * 3 for _ in range(3)], [0] * 3, [0] * 3
    for labels in utterances:
        started = False
        for before, label in zip([None, *labels], labels, strict=False):
            if label < 0:
                continue
            frames[label] += 1
            initial[label] += not started
            started = True
            if before is not None and before >= 0 and before != label:
                transitions[before][label] += 1
    num_runs = [sum(c == label for labels in utterances for c, _ in itertools.groupby(labels)) for label in range(3)]
    assert counted == Phonotactics(transitions, initial, num_runs, frames, counted.minimum)


@given(LABELS)
def test_runs_put_together_are_the_labels(labels):
    found = list(label_runs(np.array(labels)))
    assert [label for label, frames, _ in found for _ in range(frames)] == [label for label in labels if label >= 0]
    assert all(before[0] != after[0] for before, after in itertools.pairwise(found) if after[2])


def test_the_minimum_duration_is_that_of_nearly_all_runs():
    runs_of_two = [np.repeat([0, 1], [length, 3]) for length in [2] + 30 * [4] + 9 * [9]]
    assert phonotactics_of(runs_of_two, 3).minimum == (4, 3, 1)
    assert phonotactics_of([np.zeros(80, dtype=int)], 1).minimum == (5,)


def log_probability(path, posteriors, known):
    """By the definition: a path of classes, run after run."""
    minimum, prior = known.minimum, np.array(known.durations) + PSEUDO_COUNT
    prior = prior / prior.sum()
    total = sum(math.log(posteriors[t, c]) - PRIOR_SCALE * math.log(prior[c]) for t, c in enumerate(path))
    pieces = [(c, len(list(group))) for c, group in itertools.groupby(path)]
    initial = np.array(known.initial) + PSEUDO_COUNT
    total += math.log(initial[pieces[0][0]] / initial.sum())
    for number, (c, frames) in enumerate(pieces):
        beyond = max(known.durations[c] / max(known.runs[c], 1) - minimum[c], 0) + PSEUDO_COUNT
        stay = beyond / (1 + beyond)
        last = number == len(pieces) - 1
        if frames < minimum[c]:
            if not last:
                return -math.inf
        else:
            total += (frames - minimum[c]) * math.log(stay)
        if not last:
            follow = np.array(known.transitions[c]) + PSEUDO_COUNT
            follow[c] = 0
            total += math.log(1 - stay) + math.log(follow[pieces[number + 1][0]] / follow.sum())
    return total


@pytest.mark.parametrize("seed", range(8))
def test_the_path_is_the_best_of_all(seed):
    generator = np.random.default_rng(seed)
    labels = np.repeat(generator.choice([-100, 0, 1, 2], 16), generator.integers(1, 5, 16))
    known = phonotactics_of([labels], 3)
    posteriors = generator.dirichlet(np.full(3, 0.5), 7)
    everything = {path: log_probability(path, posteriors, known) for path in itertools.product(range(3), repeat=7)}
    best = max(everything, key=everything.get)
    assert sorted(everything.values())[-2] < everything[best] - 1e-9  # a tie would prove nothing
    assert tuple(smooth(posteriors, known)) == best


def test_a_frame_of_doubt_is_smoothed_away_and_clear_phones_stay():
    known = phonotactics_of([np.repeat([0, 1, 0, 1], 8)], 2)
    clear = np.repeat([0, 1, 0], 10)
    posteriors = np.where(np.arange(2) == clear[:, None], 0.95, 0.05)
    assert (smooth(posteriors, known) == clear).all()
    posteriors[4] = 0.3, 0.7
    assert posteriors.argmax(axis=1)[4] == 1 and (smooth(posteriors, known) == clear).all()


def test_one_class_and_json():
    known = phonotactics_of([np.zeros(10, dtype=int)], 1)
    assert (smooth(np.ones((4, 1)), known) == 0).all()
    many = phonotactics_of([np.repeat([0, 1, 2], [3, 2, 9])], 3)
    assert Phonotactics(**json.loads(json.dumps(asdict(many)))) == many


def test_a_run_after_a_gap_is_one_with_its_own_duration():
    """Class 2 is met only behind gaps, for 4 frames each time: that is how long it lasts."""
    known = phonotactics_of([np.repeat([0, -100, 2, -100, 2, -100, 1], [9, 2, 4, 2, 4, 2, 9])], 3)
    assert known.runs == (1, 1, 2) and known.durations == (9, 9, 8) and known.minimum[2] == 4
    assert sum(map(sum, known.transitions)) == 0 and known.initial == (1, 0, 0)


def test_counts_of_different_classes_are_refused():
    known = asdict(phonotactics_of([np.array([0, 1, 1])], 2))
    for name in known:
        with pytest.raises(ValueError, match=r"every field of phonotactics must have \d classes"):
            Phonotactics(**{**known, name: known[name][:1]})
    with pytest.raises(ValueError, match=r"every field of phonotactics must have \d classes"):
        Phonotactics(**{**known, "transitions": ((0, 1), (0,))})
