"""A model's decisions and posteriors on another inventory of phones than its own."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from speechattn.agreement import merge_closures
from speechattn.alignment import Interval, runs_of_frames
from speechattn.classifier import FrameClassifier
from speechattn.phones import IGNORED, PhoneSet

__all__ = ["Folding"]


class Folding:
    """From a model's classes to the ones that are scored.

    Args:
        own: The model's phones.
        scored: The Q phones to score on.
        closures_as_stops: Merge the closures that the model decides for with their stops, as in the reference, see
            `merge_closures`. Posteriors of a closure go to the stop that it becomes on its own.

    Raises:
        ValueError: When `scored` does not know one of the model's phones.
    """

    def __init__(self, own: PhoneSet, scored: PhoneSet, *, closures_as_stops: bool = False) -> None:
        names = list(own.symbols)
        if closures_as_stops:
            names = [merge_closures([Interval(0, 1, name)])[0].symbol for name in names]
        self._own = own
        self._closures_as_stops = closures_as_stops
        self._ids = scored.ids(names)
        self.classes = np.array([self._ids[name] for name in names])
        self.ignored = torch.as_tensor(self.classes == IGNORED)
        self._sums = torch.as_tensor(np.eye(len(scored))[self.classes[self.classes != IGNORED]])

    def decide(self, logits: Tensor) -> np.ndarray:
        """(T, P) on the CPU -> (T,) int64, the class in [0, Q) of the likeliest class that has a place there."""
        return self._fold(self._likeliest(logits))

    def decide_smoothly(self, logits: Tensor, model: FrameClassifier) -> np.ndarray:
        """(T, P) on the CPU -> (T,) int64, the classes in [0, Q) on the model's best path, see `smoothing`.

        Where that goes through a class without a place, the likeliest one with a place is taken.
        """
        path = model.smoothed((logits / model.config.temperature).softmax(dim=-1).numpy())
        return self._fold(np.where(self.classes[path] == IGNORED, self._likeliest(logits), path))

    def _likeliest(self, logits: Tensor) -> np.ndarray:
        """(T, P) -> (T,) int64, the model's likeliest class in [0, P) that has a place."""
        return logits.masked_fill(self.ignored, -torch.inf).argmax(dim=-1).numpy()

    def _fold(self, decided: np.ndarray) -> np.ndarray:
        """(T,) the model's classes, all with a place -> (T,) int64 in [0, Q)."""
        if not self._closures_as_stops:
            return self.classes[decided]
        firsts, _ = runs_of_frames(decided, decided)
        bounds = pairwise([*firsts.tolist(), len(decided)])
        runs = merge_closures([Interval(start, end, self._own.symbols[decided[start]]) for start, end in bounds])
        folded = np.array([self._ids[run.symbol] for run in runs], dtype=np.int64)
        return np.repeat(folded, [run.end - run.start for run in runs])

    def posteriors(self, logits: Tensor, temperature: float) -> np.ndarray:
        """(T, P) on the CPU -> (T, Q) float64, rows sum to 1; of classes without a place nothing is left."""
        return ((logits[:, ~self.ignored].double() / temperature).softmax(dim=-1) @ self._sums).numpy()
