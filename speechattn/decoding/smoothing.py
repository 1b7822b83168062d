"""Smoothing of frame decisions: the best path through phones that follow each other and last as those of training did.

A classifier decides for every frame alone, and so changes its mind in the middle of a phone. Here its posteriors,
divided by the priors, are the likelihoods of a hidden Markov model (Bourlard and Morgan, "Connectionist Speech
Recognition", 1994, ch. 7) whose states are the phones, with a least duration each and a geometric tail (Rabiner 1989,
sec. IV-D), and whose transitions are counted in the training labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from speechattn.decoding.viterbi import Graph, PathStream, best_path

__all__ = ["Phonotactics", "SmoothingStream", "phonotactics_of", "runs", "smooth"]

SHORTEST_SHARE = 0.05  # of a phone's runs that are shorter than its least duration
LONGEST_MINIMUM = 5  # frames: states cost time
PSEUDO_COUNT = 0.5  # of every transition, and of every class
# Both chosen on dev, docs/evaluation.md has the figures.
SMOOTHING_ACOUSTIC_SCALE = 1.0  # what a frame counts against a transition
PRIOR_SCALE = 0.1  # how much of the prior is divided out; with more, what is rare is found too often


@dataclass(frozen=True)
class Phonotactics:
    """How phones follow each other, and how long they last, counted in labels.

    Attributes:
        transitions: (P, P) runs of the row's class that one of the column's follows.
        initial: (P,) utterances that begin with a class.
        runs: (P,) runs of a class, wherever they stand.
        durations: (P,) total frames of a class.
        minimum: (P,) least frames of a run, 1 to 5.

    Raises:
        ValueError: When the fields are not of one number of classes.
    """

    transitions: tuple[tuple[int, ...], ...]
    initial: tuple[int, ...]
    runs: tuple[int, ...]
    durations: tuple[int, ...]
    minimum: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "transitions", tuple(map(tuple, self.transitions)))  # lists, when they come from JSON
        for name in ("initial", "runs", "durations", "minimum"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        rows = (*self.transitions, self.initial, self.runs, self.durations, self.minimum)
        if any(len(row) != len(self.transitions) for row in rows):
            raise ValueError(
                f"phonotactics must count as many classes everywhere as in transitions, {len(self.transitions)}"
            )


def runs(labels: np.ndarray) -> Iterator[tuple[int, int, bool]]:
    """The runs of equal labels: (class, frames, whether it follows the run before), those that are ignored left out.

    Example:
        >>> list(runs(np.array([3, 3, -100, 3, 1])))
        [(3, 2, False), (3, 1, False), (1, 1, True)]
    """
    starts = np.flatnonzero(np.diff(labels, prepend=labels[:1] - 1))
    follows = False
    for start, end in zip(starts, [*starts[1:], len(labels)], strict=True):
        label = int(labels[start])
        if label >= 0:
            yield label, int(end - start), follows
        follows = label >= 0


def phonotactics_of(labels: Iterable[np.ndarray], num_classes: int) -> Phonotactics:
    """Count labels.

    Args:
        labels: Of each utterance the class of every frame, (T,) int, negative where there is none.
        num_classes: P.
    """
    transitions = np.zeros((num_classes, num_classes), dtype=np.int64)
    initial = np.zeros(num_classes, dtype=np.int64)
    lengths: list[list[int]] = [[] for _ in range(num_classes)]
    for utterance in labels:
        before = -1
        for label, frames, follows in runs(np.asarray(utterance)):
            if follows:
                transitions[before, label] += 1
            elif before < 0:
                initial[label] += 1
            lengths[label].append(frames)
            before = label
    minimum = [int(np.quantile(some, SHORTEST_SHARE, method="lower")) if some else 1 for some in lengths]
    return Phonotactics(
        tuple(map(tuple, transitions.tolist())),
        tuple(initial.tolist()),
        tuple(len(some) for some in lengths),
        tuple(sum(some) for some in lengths),
        tuple(min(frames, LONGEST_MINIMUM) for frames in minimum),
    )


@lru_cache(maxsize=4)  # of a model: it takes longer than an utterance
def smoothing_graph(phonotactics: Phonotactics) -> Graph:
    """The hidden Markov model of these counts.

    A class is a chain of as many states as it lasts at least; the last may repeat. A path may end in any state: the end
    of a recording may cut a phone short.
    """
    transitions = np.array(phonotactics.transitions, dtype=float) + PSEUDO_COUNT
    np.fill_diagonal(transitions, 0.0)
    num_classes = len(transitions)
    if num_classes == 1:
        transitions[:] = 1.0  # there is nowhere else to go
    initial = np.array(phonotactics.initial) + PSEUDO_COUNT
    minimum = np.array(phonotactics.minimum)
    # Frames beyond the minimum follow a geometric distribution of their mean.
    beyond = np.array(phonotactics.durations) / np.maximum(phonotactics.runs, 1) - minimum
    beyond = np.maximum(beyond, 0.0) + PSEUDO_COUNT
    stay = beyond / (1 + beyond)
    log_next = np.log(np.maximum(transitions, 1e-300)) - np.log(transitions.sum(axis=1, keepdims=True))
    firsts = np.cumsum(minimum) - minimum
    lasts = firsts + minimum - 1
    classes = np.repeat(np.arange(num_classes), minimum)
    arcs = [(state, state + 1, 0.0) for state in range(len(classes) - 1) if classes[state] == classes[state + 1]]
    arcs += [(int(last), int(last), float(np.log(share))) for last, share in zip(lasts, stay, strict=True)]
    arcs += [
        (int(lasts[source]), int(firsts[target]), float(np.log(1 - stay[source]) + log_next[source, target]))
        for source in range(num_classes)
        for target in range(num_classes)
        if source != target
    ]
    log_initial = np.log(initial / initial.sum())
    return Graph.of(
        classes.tolist(),
        arcs,
        initial={int(first): float(weight) for first, weight in zip(firsts, log_initial, strict=True)},
        final=dict.fromkeys(range(len(classes)), 0.0),
    )


def smooth(posteriors: np.ndarray, phonotactics: Phonotactics) -> np.ndarray:
    """The classes of the best path.

    Args:
        posteriors: (T, P) float, T >= 1, rows sum to 1.
        phonotactics: Of the model's training labels.

    Returns:
        (T,) int64.
    """
    graph = smoothing_graph(phonotactics)
    states, _ = best_path(_scores(posteriors, phonotactics), graph)
    return graph.classes[states]


class SmoothingStream:
    """`smooth` over posteriors that come in pieces: a frame's class as soon as no later frame can change it.

    Args:
        phonotactics: Of the model's training labels.
    """

    def __init__(self, phonotactics: Phonotactics) -> None:
        self._phonotactics = phonotactics
        self._path = PathStream(smoothing_graph(phonotactics))

    def push(self, posteriors: np.ndarray) -> np.ndarray:
        """New frames (n, P) -> the classes of those that are settled now, (m,) int64."""
        return self._path.graph.classes[self._path.push(_scores(posteriors, self._phonotactics))]

    def flush(self) -> np.ndarray:
        """The classes of the frames that are left, (m,) int64. Once."""
        return self._path.graph.classes[self._path.flush()]


def _scores(posteriors: np.ndarray, phonotactics: Phonotactics) -> np.ndarray:
    """Scaled log-likelihoods, (T, P), up to what all classes of a frame share."""
    tiny = np.finfo(np.float32).tiny  # never log 0: there must be some path
    frames = np.array(phonotactics.durations) + PSEUDO_COUNT
    log_prior = np.log(frames / frames.sum())
    return SMOOTHING_ACOUSTIC_SCALE * (np.log(np.maximum(posteriors, tiny)) - PRIOR_SCALE * log_prior)
