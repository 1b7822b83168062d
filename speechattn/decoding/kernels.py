"""Inner loops of the search, compiled by Numba on first use and kept in its cache.

States and arcs are those of `viterbi.Graph`, whose arcs into state s are `first_arc[s]` to `first_arc[s + 1]`.
"""

import numpy as np

from speechattn.jobs.compilation import compiled

__all__ = ["advance", "settled_frames", "trace_back"]


@compiled()
def advance(
    totals: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    sources: np.ndarray,
    weights: np.ndarray,
    first_arc: np.ndarray,
    choices: np.ndarray,
) -> np.ndarray:
    """Extend the best paths to all states by n frames; the first of equal arcs wins.

    Args:
        totals: (S,) float64, the best total of a path to each state.
        scores: (n, P) float64.
        classes: (S,) int64.
        sources: (A,) int64.
        weights: (A,) float64.
        first_arc: (S + 1,) int64.
        choices: (n, S) int32, receives the state before each state.

    Returns:
        (S,) float64, the totals after the last frame.
    """
    num_states = len(classes)
    for frame in range(len(scores)):
        longer = np.empty(num_states)
        for state in range(num_states):
            best, choice = -np.inf, 0
            for arc in range(first_arc[state], first_arc[state + 1]):
                total = totals[sources[arc]] + weights[arc]
                if total > best:
                    best, choice = total, sources[arc]
            longer[state] = best + scores[frame, classes[state]]
            choices[frame, state] = choice
        totals = longer
    return totals


@compiled()
def trace_back(last: int, choices: np.ndarray) -> np.ndarray:
    """The path that ends in state `last`: (n, S) choices -> (n + 1,) int64 states."""
    states = np.empty(len(choices) + 1, dtype=np.int64)
    states[-1] = last
    for frame in range(len(choices) - 1, -1, -1):
        states[frame] = choices[frame, states[frame + 1]]
    return states


@compiled()
def settled_frames(possible: np.ndarray, choices: np.ndarray) -> tuple[int, int]:
    """Count the frames on which the paths to all possible states agree.

    Args:
        possible: (S,) bool, the states that the path may be in now.
        choices: (n, S) int32, of n + 1 frames.

    Returns:
        (frames, state): their number, and the state of the last one; (0, 0) if there is none.
    """
    for frame in range(len(choices) - 1, -1, -1):
        earlier = np.zeros_like(possible)
        count, only = 0, 0
        for state in range(len(possible)):
            if possible[state] and not earlier[choices[frame, state]]:
                only = choices[frame, state]
                earlier[only] = True
                count += 1
        if count == 1:
            return frame + 1, only
        possible = earlier
    return 0, 0
