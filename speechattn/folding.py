"""A model's decisions and posteriors on another inventory of phones than its own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from speechattn.classifier import FrameClassifier
from speechattn.phones import IGNORED, PhoneSet

__all__ = ["Folding"]


class Folding:
    """From a model's classes to the ones that are scored.

    Args:
        own: The model's phones.
        scored: The Q phones to score on.

    Raises:
        ValueError: When these know not all of the model's.
    """

    def __init__(self, own: PhoneSet, scored: PhoneSet) -> None:
        ids = scored.ids(own.symbols)
        self.classes = np.array([ids[symbol] for symbol in own.symbols])
        self.ignored = torch.as_tensor(self.classes == IGNORED)
        self._sums = torch.as_tensor(np.eye(len(scored))[self.classes[self.classes != IGNORED]])

    def decide(self, logits: Tensor) -> np.ndarray:
        """(..., P) on the CPU -> (...) int64, the class in [0, Q) of the likeliest class that has a place there."""
        return self.classes[logits.masked_fill(self.ignored, -torch.inf).argmax(dim=-1).numpy()]

    def decide_smoothly(self, logits: Tensor, model: FrameClassifier) -> np.ndarray:
        """(T, P) on the CPU -> (T,) int64, the classes in [0, Q) on the model's best path, see `smoothing`.

        Where that goes through a class without a place, the likeliest one with a place is taken.
        """
        path = self.classes[model.smoothed((logits / model.config.temperature).softmax(dim=-1).numpy())]
        return np.where(path == IGNORED, self.decide(logits), path)

    def posteriors(self, logits: Tensor, temperature: float) -> np.ndarray:
        """(T, P) on the CPU -> (T, Q) float64, rows sum to 1; of classes without a place nothing is left."""
        return ((logits[:, ~self.ignored].double() / temperature).softmax(dim=-1) @ self._sums).numpy()
