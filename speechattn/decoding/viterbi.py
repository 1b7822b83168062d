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

from speechattn.decoding.kernels import advance, settled_frames, trace_back

__all__ = ["Graph", "PathStream", "best_path", "transcript_graph"]

SHORTEST_BLOCK = 1024  # frames between checkpoints: shorter blocks save little memory and cost more calls


@dataclass(frozen=True)
class Graph:
    """States, and the arcs between them from one frame to the next; create one with `Graph.of`.

    Attributes:
        classes: (S,) int, the column of the scores that each state reads.
        sources: (A,) int, the state that each arc leaves, in the order of the states that arcs lead to.
        weights: (A,) float, added when following an arc.
        first_arc: (S + 1,) int; the arcs into state s are first_arc[s] to first_arc[s + 1].
        initial: (S,) float, added when starting in each state; -inf where no path starts.
        final: (S,) float, added when ending in each state; -inf where no path ends.
    """

    classes: np.ndarray
    sources: np.ndarray
    weights: np.ndarray
    first_arc: np.ndarray
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
        entries = [entry for state in incoming for entry in state]
        sources = np.array([source for source, _ in entries], dtype=np.int64)
        weights = np.array([weight for _, weight in entries], dtype=np.float64)
        first_arc = np.cumsum([0, *map(len, incoming)])
        ends = np.full((2, size), -np.inf)
        for row, states in zip(ends, (initial, final), strict=True):
            row[list(states)] = list(states.values())
        return Graph(np.array(classes, dtype=np.int64), sources, weights, first_arc, ends[0], ends[1])

    def advance(self, totals: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Best totals (S,) n frames later, and the state before each state in each of these frames, (n, S) int32.

        Args:
            totals: (S,) float64, the best total of a path to each state.
            scores: (n, P) float.
        """
        choices = np.empty((len(scores), len(self.classes)), dtype=np.int32)
        scores = np.ascontiguousarray(scores, dtype=np.float64)
        totals = advance(totals, scores, self.classes, self.sources, self.weights, self.first_arc, choices)
        return totals, choices


def best_path(scores: np.ndarray, graph: Graph) -> tuple[np.ndarray, float]:
    """Find the sequence of states with the greatest total of scores and weights.

    The search is exact, without pruning, and deterministic between equal paths. It takes T x A time for A arcs,
    and sqrt(T) x S memory, or that of 1024 frames: it keeps the totals at checkpoints, and recomputes the choices
    between them while tracing back.

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
    block = max(math.isqrt(num_frames), SHORTEST_BLOCK)
    totals = graph.initial + scores[0, graph.classes]
    checkpoints = []
    for first in range(1, num_frames, block):
        checkpoints.append(totals)
        totals, _ = graph.advance(totals, scores[first : first + block])

    totals = totals + graph.final
    states = np.empty(num_frames, dtype=np.int64)
    states[-1] = totals.argmax()
    total = float(totals[states[-1]])
    if total == -np.inf:
        raise ValueError(f"no path through the graph has {num_frames} frames")
    for number, totals in reversed(list(enumerate(checkpoints))):
        first = 1 + number * block
        _, choices = graph.advance(totals, scores[first : first + block])
        last = first + len(choices) - 1
        states[first - 1 : last + 1] = trace_back(states[last], choices)
    return states, total


def _check_scores(scores: np.ndarray) -> None:
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise ValueError("scores must not be NaN or +inf")


class PathStream:
    """`best_path` for scores that arrive in pieces: returns states as soon as no later frame can change them.

    A frame is settled when the best paths to all states agree on it (partial traceback: Brown, Spohrer, Hochschild and
    Baker 1982). The delay depends on the scores; memory grows with the frames that are not settled.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._totals: np.ndarray | None = None
        self._choices = np.empty((0, len(graph.classes)), dtype=np.int32)  # of the unsettled frames but the first

    def push(self, scores: np.ndarray) -> np.ndarray:
        """New frames (n, P) -> the states of the frames that they settle, (m,) int64.

        Raises:
            ValueError: When a score is NaN or +inf.
        """
        _check_scores(scores)
        if len(scores) == 0:
            return np.empty(0, dtype=np.int64)
        if self._totals is None:
            self._totals, scores = self.graph.initial + scores[0, self.graph.classes], scores[1:]
        self._totals, choices = self.graph.advance(self._totals, scores)
        self._choices = np.concatenate([self._choices, choices])
        num_settled, last = settled_frames(self._totals > -np.inf, self._choices)
        if not num_settled:
            return np.empty(0, dtype=np.int64)
        states = trace_back(last, self._choices[: num_settled - 1])
        self._choices = self._choices[num_settled:]
        return states

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
        return trace_back(totals.argmax(), self._choices)


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
