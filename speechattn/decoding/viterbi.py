"""The best path through frame scores: Viterbi's search over a sparse graph of states.

A graph says which state may follow which and which class's score each state reads; the search finds the sequence of
states, one a frame, of the greatest sum of scores and weights (Viterbi 1967; Rabiner, "A tutorial on hidden Markov
models", 1989, eqs. 32-35, in logarithms). `transcript_graph` makes the graph of a known sequence of words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["Graph", "PathStream", "TranscriptGraph", "best_path", "transcript_graph"]


@dataclass(frozen=True)
class Graph:
    """States, and the arcs by which one frame's state follows another's; make one with `Graph.of`.

    Attributes:
        classes: (S,) int, the column of the scores that each state reads.
        predecessors: (S, D) int, the states that each state may follow. D is the most that any has.
        weights: (S, D) float, what following them adds; -inf in entries that are not used.
        initial: (S,) float, what beginning in each state adds; -inf where no path begins.
        final: (S,) float, what ending in each state adds; -inf where no path ends.
    """

    classes: np.ndarray
    predecessors: np.ndarray
    weights: np.ndarray
    initial: np.ndarray
    final: np.ndarray

    @staticmethod
    def of(
        classes: Sequence[int],
        arcs: Iterable[tuple[int, int, float]],
        *,
        initial: Mapping[int, float],
        final: Mapping[int, float],
    ) -> Graph:
        """A graph from a list of its arcs.

        Args:
            classes: Of each state, the column of the scores that it reads; two states may share one.
            arcs: (source, target, weight), each pair of states at most once. A state that may last longer than a frame
                needs an arc to itself.
            initial: The states that a path may begin in, with what that adds.
            final: The states that a path may end in, with what that adds.

        Raises:
            ValueError: When there is no state, or an arc or end names one that does not exist.

        Example:
            >>> graph = Graph.of([0, 1], [(0, 0, 0.0), (0, 1, -1.0)], initial={0: 0.0}, final={1: 0.0})
            >>> best_path(np.array([[3.0, 0.0], [2.0, 1.0], [0.0, 4.0]]), graph)
            (array([0, 0, 1]), 8.0)
        """
        size = len(classes)
        incoming: list[list[tuple[int, float]]] = [[] for _ in classes]
        for source, target, weight in arcs:
            if not (0 <= source < size and 0 <= target < size):
                raise ValueError(f"the arc from state {source} to {target} leaves the graph of {size} states")
            incoming[target].append((source, weight))
        if not size or not all(0 <= state < size for state in (*initial, *final)):
            raise ValueError(f"a path must begin and end in one of the graph's {size} states")
        degree = max(1, *map(len, incoming))
        predecessors = np.zeros((size, degree), dtype=np.int64)
        weights = np.full((size, degree), -np.inf)
        for state, entries in enumerate(incoming):
            for column, (source, weight) in enumerate(entries):
                predecessors[state, column], weights[state, column] = source, weight
        ends = np.full((2, size), -np.inf)
        for row, states in zip(ends, (initial, final), strict=True):
            for state, weight in states.items():
                row[state] = weight
        return Graph(np.array(classes, dtype=np.int64), predecessors, weights, ends[0], ends[1])


def best_path(scores: np.ndarray, graph: Graph) -> tuple[np.ndarray, float]:
    """The sequence of states with the greatest total of scores and weights.

    Exact: nothing is pruned. Time is T x S x D. Memory is about sqrt(T) x S instead of the T x S of keeping every
    frame's choices: totals are kept at one frame in sqrt(T), and choices are made again between two of those while the
    path is traced back. Of several best paths it finds always the same.

    Args:
        scores: (T, P) float, T >= 1, log-scores of every class in every frame; -inf is allowed.
        graph: The states.

    Returns:
        (states, total): (T,) int64 and the total of their scores and weights.

    Raises:
        ValueError: When there is no frame, a score is NaN or +inf, or no path of T states leads from a beginning to an
            end of the graph.
    """
    num_frames = len(scores)
    if num_frames == 0:
        raise ValueError("no frames: there is no path of length 0")
    _check_scores(scores)
    block = math.isqrt(num_frames)
    totals = graph.initial + scores[0, graph.classes]
    checkpoints = [totals]
    for frame in range(1, num_frames):
        totals, _ = _step(totals, scores[frame], graph)
        if frame % block == 0:
            checkpoints.append(totals)

    totals = totals + graph.final
    states = np.empty(num_frames, dtype=np.int64)
    states[-1] = totals.argmax()
    total = float(totals[states[-1]])
    if total == -np.inf:
        raise ValueError(f"no path through the graph has {num_frames} frames")
    for number, totals in reversed(list(enumerate(checkpoints))):
        first, last = number * block, min((number + 1) * block, num_frames - 1)
        choices = []
        for frame in range(first + 1, last + 1):
            totals, previous = _step(totals, scores[frame], graph)
            choices.append(previous)
        for frame in range(last, first, -1):
            states[frame - 1] = choices.pop()[states[frame]]
    return states, total


def _check_scores(scores: np.ndarray) -> None:
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise ValueError("scores must not be NaN or +inf")


def _step(totals: np.ndarray, frame_scores: np.ndarray, graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """The best total of a path to each state one frame later, (S,), and which state it comes from, (S,)."""
    candidates = totals[graph.predecessors] + graph.weights
    states, columns = np.arange(len(candidates)), candidates.argmax(axis=1)
    return candidates[states, columns] + frame_scores[graph.classes], graph.predecessors[states, columns]


class PathStream:
    """`best_path` over scores that come in pieces: the states of a frame as soon as no later frame can change them.

    That is when the best paths to all states have it in common (partial traceback: Brown, Spohrer, Hochschild and
    Baker 1982). How long that takes depends on the scores; memory grows with what is still open.

    Args:
        graph: The states.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._totals: np.ndarray | None = None
        self._choices: list[np.ndarray] = []  # where a frame's states come from; of open frames but the first

    def push(self, scores: np.ndarray) -> np.ndarray:
        """New frames (n, P) -> the states of those that are settled now, (m,) int64.

        Raises:
            ValueError: When a score is NaN or +inf.
        """
        _check_scores(scores)
        for frame_scores in scores:
            if self._totals is None:
                self._totals = self.graph.initial + frame_scores[self.graph.classes]
            else:
                self._totals, previous = _step(self._totals, frame_scores, self.graph)
                self._choices.append(previous)
        if self._totals is None:
            return np.empty(0, dtype=np.int64)
        states = np.flatnonzero(self._totals > -np.inf)
        for age, previous in enumerate(reversed(self._choices), 1):
            states = np.unique(previous[states])
            if len(states) == 1:
                settled = len(self._choices) - age + 1  # frames
                found = self._traced(states[0], self._choices[: settled - 1])
                self._choices = self._choices[settled:]
                return found
        return np.empty(0, dtype=np.int64)

    def flush(self) -> np.ndarray:
        """End the sequence and give the states that are left, (m,) int64. Once.

        Raises:
            ValueError: When no path of so many states leads from a beginning to an end of the graph.
        """
        if self._totals is None:
            return np.empty(0, dtype=np.int64)
        totals = self._totals + self.graph.final
        if totals.max() == -np.inf:
            raise ValueError("no path through the graph has so many frames")
        return self._traced(totals.argmax(), self._choices)

    @staticmethod
    def _traced(last: np.integer, choices: list[np.ndarray]) -> np.ndarray:
        """The states that lead to the last one, and it."""
        states = [last]
        for previous in reversed(choices):
            states.append(previous[states[-1]])
        return np.array(states[::-1], dtype=np.int64)


class TranscriptGraph(NamedTuple):
    """The graph of a transcript.

    Attributes:
        graph: Its states.
        units: (S,) int, which phone or pause each state is of, counted from the left. Two phones of one class in a row
            differ in it, and no path comes back to one that it has left.
    """

    graph: Graph
    units: np.ndarray


def transcript_graph(
    words: Sequence[Sequence[Sequence[int]]], silence: int, *, durations: Sequence[Sequence[float]] | None = None
) -> TranscriptGraph:
    """The graph of a transcript, left to right.

    The pronunciations of a word are parallel branches; before the first word, between words and after the last there
    may be a pause. A phone whose weight depends on how long it lasts is a chain of states: entered as many states
    before its end as it shall last frames, at that duration's weight.

    Args:
        words: Of each word its pronunciations, each one or more classes.
        silence: The class of pauses.
        durations: Of every class, what a phone of it adds that lasts 1, 2, ... frames; the last entry holds for all
            longer ones, -inf for durations that must not be. None: 0 for all.

    Raises:
        ValueError: When there is no word, a word has no pronunciation, a pronunciation no phone, or a class no
            duration.
    """
    if not words or not all(words) or not all(phones for word in words for phones in word):
        raise ValueError("a transcript needs words, each of them a pronunciation, and those at least one phone each")
    if durations is not None and not all(map(len, durations)):
        raise ValueError("durations of a class need at least one entry, for one frame and more")
    classes: list[int] = []
    units: list[int] = []
    arcs: list[tuple[int, int, float]] = []
    start = -1  # stands for the beginning, which is no state

    def append(phone: int, before: Sequence[int]) -> int:
        """Add a phone that may follow any of the states `before`; returns its last state."""
        weights = [0.0] if durations is None else durations[phone]
        unit = units[-1] + 1 if units else 0
        first, last = len(classes), len(classes) + len(weights) - 1
        classes.extend([phone] * len(weights))
        units.extend([unit] * len(weights))
        arcs.append((first, first, 0.0))
        arcs.extend((state, state + 1, 0.0) for state in range(first, last))
        arcs.extend((source, last - n, weight) for source in before for n, weight in enumerate(weights))
        return last

    ends = [start, append(silence, [start])]
    for word in words:
        word_ends = []
        for pronunciation in word:
            before = ends
            for phone in pronunciation:
                before = [append(phone, before)]
            word_ends += before
        ends = [*word_ends, append(silence, word_ends)]
    graph = Graph.of(
        classes,
        [arc for arc in arcs if arc[0] != start],
        initial={target: weight for source, target, weight in arcs if source == start},
        final=dict.fromkeys(ends, 0.0),
    )
    return TranscriptGraph(graph, np.array(units))
