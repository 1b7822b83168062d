"""Viterbi search for the best path through frame scores, over a sparse graph of states.

A graph holds which state may follow which, and which class's score each state reads. The search finds the sequence of
states, one per frame, with the greatest sum of scores and weights (Viterbi 1967; Rabiner, "A tutorial on hidden Markov
models", 1989, eqs. 32-35, in logarithms). `transcript_graph` builds the graph of a known sequence of words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Graph", "PathStream", "best_path", "transcript_graph"]


@dataclass(frozen=True)
class Graph:
    """States, and the arcs between them from one frame to the next; create one with `Graph.of`.

    Attributes:
        classes: (S,) int, the column of the scores that each state reads.
        predecessors: (S, D) int, the states that each state may follow; D is the greatest number of them.
        weights: (S, D) float, added when following them; -inf in unused entries.
        initial: (S,) float, added when starting in each state; -inf where no path starts.
        final: (S,) float, added when ending in each state; -inf where no path ends.
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
        """Build a graph from a list of arcs.

        Args:
            classes: For each state, the column of the scores that it reads; states may share one.
            arcs: (source, target, weight), at most one per pair. A state that may repeat needs an arc to itself.
            initial: The states that a path may start in -> weight.
            final: The states that a path may end in -> weight.

        Raises:
            ValueError: When there is no state, or an arc or end refers to a state that does not exist.

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
            raise ValueError(f"a path must start and end in one of the graph's {size} states")
        degree = max(1, *map(len, incoming))
        predecessors = np.zeros((size, degree), dtype=np.int64)
        weights = np.full((size, degree), -np.inf)
        for state, entries in enumerate(incoming):
            for column, (source, weight) in enumerate(entries):
                predecessors[state, column], weights[state, column] = source, weight
        ends = np.full((2, size), -np.inf)
        for row, states in zip(ends, (initial, final), strict=True):
            row[list(states)] = list(states.values())
        return Graph(np.array(classes, dtype=np.int64), predecessors, weights, ends[0], ends[1])


def best_path(scores: np.ndarray, graph: Graph) -> tuple[np.ndarray, float]:
    """Find the sequence of states with the greatest total of scores and weights.

    The search is exact, without pruning, and deterministic between equal paths. It takes T x S x D time, and about
    sqrt(T) x S memory: it keeps the totals of one frame in sqrt(T), and recomputes choices while tracing back.

    Args:
        scores: (T, P) float, T >= 1, log-scores of every class in every frame; -inf is allowed.
        graph: The states.

    Returns:
        (states, total): (T,) int64, and the sum of their scores and weights.

    Raises:
        ValueError: When there is no frame, a score is NaN or +inf, or no path of T states leads from start to end.
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
    """The best total of a path to each state one frame later, (S,), and the state before it, (S,)."""
    candidates = totals[graph.predecessors] + graph.weights
    states, columns = np.arange(len(candidates)), candidates.argmax(axis=1)
    return candidates[states, columns] + frame_scores[graph.classes], graph.predecessors[states, columns]


class PathStream:
    """`best_path` for scores that arrive in pieces: returns states as soon as no later frame can change them.

    A frame is settled when the best paths to all states agree on it (partial traceback: Brown, Spohrer, Hochschild and
    Baker 1982). The delay depends on the scores; memory grows with the frames that are not settled.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._totals: np.ndarray | None = None
        self._choices: list[np.ndarray] = []  # predecessors of the states of each unsettled frame except the first

    def push(self, scores: np.ndarray) -> np.ndarray:
        """New frames (n, P) -> the states of the frames that they settle, (m,) int64.

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
        if self._totals is not None:
            states = np.flatnonzero(self._totals > -np.inf)
            for age, previous in enumerate(reversed(self._choices), 1):
                states = np.unique(previous[states])
                if len(states) == 1:
                    num_settled = len(self._choices) - age + 1
                    settled = self._trace_back(states[0], self._choices[: num_settled - 1])
                    self._choices = self._choices[num_settled:]
                    return settled
        return np.empty(0, dtype=np.int64)

    def flush(self) -> np.ndarray:
        """End the stream, once, and return the states of the remaining frames, (m,) int64.

        Raises:
            ValueError: When no path of so many states leads from start to end of the graph.
        """
        if self._totals is None:
            return np.empty(0, dtype=np.int64)
        totals = self._totals + self.graph.final
        if totals.max() == -np.inf:
            raise ValueError("no path through the graph has so many frames")
        return self._trace_back(totals.argmax(), self._choices)

    @staticmethod
    def _trace_back(last: np.integer, choices: list[np.ndarray]) -> np.ndarray:
        states = [last]
        for previous in reversed(choices):
            states.append(previous[states[-1]])
        return np.array(states[::-1], dtype=np.int64)


def transcript_graph(
    words: Sequence[Sequence[Sequence[int]]], silence: int, *, durations: Sequence[Sequence[float]] | None = None
) -> tuple[Graph, np.ndarray]:
    """Build the left-to-right graph of a transcript.

    The pronunciations of a word are parallel branches. Pauses are optional before, between and after words. A phone
    whose weight depends on its duration is a chain of states: a path that enters it n states before its end, at the
    weight of n frames, stays for n frames.

    Args:
        words: The pronunciations of each word, each one or more classes.
        silence: The class of pauses.
        durations: For every class, the weights of a phone that lasts 1, 2, ... frames, -inf if impossible; the last
            entry applies to all longer ones. None: 0 for all.

    Returns:
        (graph, units): the graph, and the index of each state's phone or pause, counted from the left, (S,) int. It
        tells apart two phones of one class in a row; a path never returns to a unit that it has left.

    Raises:
        ValueError: When there is no word, or a word, pronunciation or class has no pronunciation, phone or duration.
    """
    if not words or not all(words) or not all(phones for word in words for phones in word):
        raise ValueError("a transcript needs words, each with a pronunciation of at least one phone")
    if durations is not None and not all(map(len, durations)):
        raise ValueError("every class needs at least one duration")
    classes: list[int] = []
    units: list[int] = []
    arcs: list[tuple[int, int, float]] = []
    start = -1  # stands for the beginning, which is not a state

    def append(phone: int, before: Sequence[int]) -> int:
        """Add a phone that may follow any of the states `before`; returns its last state."""
        weights = [0.0] if durations is None else durations[phone]
        first, last = len(classes), len(classes) + len(weights) - 1
        units.extend([units[-1] + 1 if units else 0] * len(weights))
        classes.extend([phone] * len(weights))
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
    initial = {target: weight for source, target, weight in arcs if source == start}
    inner = [arc for arc in arcs if arc[0] != start]
    return Graph.of(classes, inner, initial=initial, final=dict.fromkeys(ends, 0.0)), np.array(units)
