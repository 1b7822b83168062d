"""Fold a model's decisions and posteriors to another inventory of phones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from speechattn.labels.folding import merge_closures
from speechattn.labels.frames import runs_of_frames
from speechattn.labels.intervals import Interval
from speechattn.model.classifier import FrameClassifier
from speechattn.phones import IGNORED, PhoneSet

__all__ = ["ClassFolding"]


class ClassFolding:
    """Map a model's classes to the scored ones.

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
        """(T, P) on the CPU -> (T,) int64 in [0, Q): the scored class of the likeliest class that has one."""
        return self._fold(self._likeliest(logits))

    def decide_smoothly(self, logits: Tensor, model: FrameClassifier) -> np.ndarray:
        """(T, P) on the CPU -> (T,) int64 in [0, Q): the scored classes on the model's best path, see `smoothing`.

        In frames where the path goes through an ignored class, the likeliest other class is taken.
        """
        path = model.smoothed((logits / model.config.temperature).softmax(dim=-1).numpy())
        return self._fold(np.where(self.classes[path] == IGNORED, self._likeliest(logits), path))

    def _likeliest(self, logits: Tensor) -> np.ndarray:
        """(T, P) -> (T,) int64, the model's likeliest class in [0, P) that is not ignored."""
        return logits.masked_fill(self.ignored, -torch.inf).argmax(dim=-1).numpy()

    def _fold(self, decided: np.ndarray) -> np.ndarray:
        """(T,) classes of the model, none of them ignored -> (T,) int64 in [0, Q)."""
        if not self._closures_as_stops:
            return self.classes[decided]
        firsts, _ = runs_of_frames(decided, decided)
        bounds = pairwise([*firsts.tolist(), len(decided)])
        runs = merge_closures([Interval(start, end, self._own.symbols[decided[start]]) for start, end in bounds])
        folded = np.array([self._ids[run.symbol] for run in runs], dtype=np.int64)
        return np.repeat(folded, [run.end - run.start for run in runs])

    def posteriors(self, logits: Tensor, temperature: float) -> np.ndarray:
        """(T, P) on the CPU -> (T, Q) float64; rows sum to 1, ignored classes get no share."""
        return ((logits[:, ~self.ignored].double() / temperature).softmax(dim=-1) @ self._sums).numpy()
