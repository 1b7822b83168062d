"""Smoothing of frame decisions: the best path through phones with realistic order and durations.

A classifier decides every frame alone, so its decisions may flicker within a phone. Smoothing divides its posteriors by
the priors to get the likelihoods of a hidden Markov model (Bourlard and Morgan, "Connectionist Speech Recognition",
1994, ch. 7). Its states are the phones, with a minimum duration and a geometric tail (Rabiner 1989, sec. IV-D); its
transitions are counted in the training labels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from speechattn.decoding.viterbi import Graph, PathStream, best_path

__all__ = ["Phonotactics", "SmoothingStream", "label_runs", "phonotactics_of", "smooth"]

SHORTER_SHARE = 0.05  # share of a phone's runs that may be shorter than its minimum duration
MAX_MINIMUM = 5  # frames; every frame costs a state
PSEUDO_COUNT = 0.5  # added to the count of every transition and class
# Chosen on dev, see docs/evaluation.md. The acoustic scale is 1.
PRIOR_SCALE = 0.1  # exponent of the prior; a greater one inserts too many rare phones


@dataclass(frozen=True)
class Phonotactics:
    """Order and durations of phones, counted in labels.

    Attributes:
        transitions: (P, P) number of runs of the row's class that are followed by the column's.
        initial: (P,) number of utterances that start with each class.
        runs: (P,) number of runs of each class.
        durations: (P,) total number of frames of each class.
        minimum: (P,) minimum number of frames of a run, 1 to 5.

    Raises:
        ValueError: When the fields do not have the same number of classes.
    """

    transitions: tuple[tuple[int, ...], ...]
    initial: tuple[int, ...]
    runs: tuple[int, ...]
    durations: tuple[int, ...]
    minimum: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "transitions", tuple(map(tuple, self.transitions)))  # JSON gives lists
        for name in ("initial", "runs", "durations", "minimum"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        rows = (*self.transitions, self.initial, self.runs, self.durations, self.minimum)
        if any(len(row) != len(self.transitions) for row in rows):
            raise ValueError(f"every field of phonotactics must have {len(self.transitions)} classes")


def label_runs(labels: np.ndarray) -> Iterator[tuple[int, int, bool]]:
    """The runs of equal labels except ignored ones: (class, frames, whether another run directly precedes it)."""
    starts = np.flatnonzero(np.diff(labels, prepend=labels[:1] - 1))
    follows = False
    for start, end in zip(starts, [*starts[1:], len(labels)], strict=True):
        label = int(labels[start])
        if label >= 0:
            yield label, int(end - start), follows
        follows = label >= 0


def phonotactics_of(labels: Iterable[np.ndarray], num_classes: int) -> Phonotactics:
    """Count transitions and durations in labels.

    Args:
        labels: For each utterance the class of every frame, (T,) int, negative where there is none.
        num_classes: P.
    """
    transitions = np.zeros((num_classes, num_classes), dtype=np.int64)
    initial = np.zeros(num_classes, dtype=np.int64)
    lengths: list[list[int]] = [[] for _ in range(num_classes)]
    for utterance in labels:
        previous = -1
        for label, num_frames, follows in label_runs(np.asarray(utterance)):
            if follows:
                transitions[previous, label] += 1
            elif previous < 0:
                initial[label] += 1
            lengths[label].append(num_frames)
            previous = label
    minimum = [int(np.quantile(some, SHORTER_SHARE, method="lower")) if some else 1 for some in lengths]
    return Phonotactics(
        tuple(map(tuple, transitions.tolist())),
        tuple(initial.tolist()),
        tuple(map(len, lengths)),
        tuple(map(sum, lengths)),
        tuple(min(num_frames, MAX_MINIMUM) for num_frames in minimum),
    )


@lru_cache(maxsize=4)  # one per model: building it takes longer than decoding an utterance
def smoothing_graph(phonotactics: Phonotactics) -> Graph:
    """Build the hidden Markov model of these counts.

    A class is a chain of as many states as its minimum duration; the last may repeat. A path may end in any state,
    since the end of a recording may cut a phone short.
    """
    transitions = np.array(phonotactics.transitions, dtype=float) + PSEUDO_COUNT
    np.fill_diagonal(transitions, 0.0)
    num_classes = len(transitions)
    if num_classes == 1:
        transitions[:] = 1.0  # there is no other class to go to
    initial = np.array(phonotactics.initial) + PSEUDO_COUNT
    minimum = np.array(phonotactics.minimum)
    # Frames beyond the minimum have a geometric distribution with their mean.
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
    log_initial = dict(zip(firsts.tolist(), np.log(initial / initial.sum()).tolist(), strict=True))
    return Graph.of(classes.tolist(), arcs, initial=log_initial, final=dict.fromkeys(range(len(classes)), 0.0))


def smooth(posteriors: np.ndarray, phonotactics: Phonotactics) -> np.ndarray:
    """Smooth a recording's decisions.

    Args:
        posteriors: (T, P) float, T >= 1, rows sum to 1.
        phonotactics: Counted in the model's training labels.

    Returns:
        (T,) int64, the classes of the best path.
    """
    graph = smoothing_graph(phonotactics)
    states, _ = best_path(_scores(posteriors, phonotactics), graph)
    return graph.classes[states]


class SmoothingStream:
    """`smooth` for posteriors that arrive in pieces: returns classes as soon as no later frame can change them."""

    def __init__(self, phonotactics: Phonotactics) -> None:
        self._phonotactics = phonotactics
        self._path = PathStream(smoothing_graph(phonotactics))

    def push(self, posteriors: np.ndarray) -> np.ndarray:
        """New frames (n, P) -> the classes of the frames that they settle, (m,) int64."""
        return self._path.graph.classes[self._path.push(_scores(posteriors, self._phonotactics))]

    def flush(self) -> np.ndarray:
        """End the stream, once, and return the classes of the remaining frames, (m,) int64."""
        return self._path.graph.classes[self._path.flush()]


def _scores(posteriors: np.ndarray, phonotactics: Phonotactics) -> np.ndarray:
    """Scaled log-likelihoods, (T, P), up to a constant per frame."""
    tiny = np.finfo(np.float32).tiny  # no log 0: some path must exist
    frames = np.array(phonotactics.durations) + PSEUDO_COUNT
    log_prior = np.log(frames / frames.sum())
    return np.log(np.maximum(posteriors, tiny)) - PRIOR_SCALE * log_prior
