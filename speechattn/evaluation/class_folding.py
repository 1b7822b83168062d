"""Fold a model's decisions and posteriors to another inventory of phones."""

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
    """Map a model's P classes to the Q scored phones.

    Args:
        model_phones: The model's phones.
        scored: The phones to score on.
        closures_as_stops: Merge decided closures with their stops, as in the reference, see `merge_closures`.
            Posteriors of a closure go to the stop that it becomes on its own.

    Raises:
        ValueError: If `scored` does not know one of the model's phones.
    """

    def __init__(self, model_phones: PhoneSet, scored: PhoneSet, *, closures_as_stops: bool = False) -> None:
        names = list(model_phones.symbols)
        if closures_as_stops:
            names = [merge_closures([Interval(0, 1, name)])[0].symbol for name in names]
        self._model_symbols = model_phones.symbols
        self._closures_as_stops = closures_as_stops
        self._ids = scored.ids(names)
        # (P,): the scored phone of each class, -100 where it has none.
        self._classes = np.array([self._ids[name] for name in names])
        self._ignored = torch.as_tensor(self._classes == IGNORED)
        self._sums = torch.as_tensor(np.eye(len(scored))[self._classes[self._classes != IGNORED]])

    def decide(self, logits: Tensor) -> np.ndarray:
        """(T, P) on the CPU -> (T,) int64 in [0, Q): the likeliest class that is scored, folded."""
        return self._fold(self._likeliest(logits))

    def decide_smoothly(self, logits: Tensor, model: FrameClassifier) -> np.ndarray:
        """(T, P) on the CPU -> (T,) int64 in [0, Q): the model's smoothed decisions, folded.

        A class that is not scored is replaced by the likeliest scored class of that frame.
        """
        path = model.smoothed((logits / model.config.temperature).softmax(dim=-1).numpy())
        return self._fold(np.where(self._classes[path] == IGNORED, self._likeliest(logits), path))

    def _likeliest(self, logits: Tensor) -> np.ndarray:
        """(T, P) -> (T,) int64 in [0, P): the likeliest class that is scored."""
        return logits.masked_fill(self._ignored, -torch.inf).argmax(dim=-1).numpy()

    def _fold(self, decided: np.ndarray) -> np.ndarray:
        """(T,) scored classes of the model -> (T,) int64 in [0, Q)."""
        if not self._closures_as_stops:
            return self._classes[decided]
        firsts, _ = runs_of_frames(decided, decided)
        bounds = pairwise([*firsts.tolist(), len(decided)])
        runs = merge_closures([Interval(start, end, self._model_symbols[decided[start]]) for start, end in bounds])
        folded = np.array([self._ids[run.symbol] for run in runs], dtype=np.int64)
        return np.repeat(folded, [run.end - run.start for run in runs])

    def posteriors(self, logits: Tensor, temperature: float) -> np.ndarray:
        """(T, P) on the CPU -> (T, Q) float64; rows sum to 1, classes that are not scored get no share."""
        return ((logits[:, ~self._ignored].double() / temperature).softmax(dim=-1) @ self._sums).numpy()
