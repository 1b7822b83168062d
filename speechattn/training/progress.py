"""The state of a training run: totals of the current epoch, the log so far, and the best model."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from speechattn.model.classifier import FrameClassifier

__all__ = ["RunState", "Tally", "timed"]

T = TypeVar("T")


@dataclass
class Tally:
    """Totals of one epoch so far, over all processes.

    Attributes:
        batches: Batches that each process has trained on.
        utterances: Utterances; a chunk of a long one counts as a fraction.
        labels: Labelled frames, or labelled utterances with pooling.
        loss: Loss summed over the labels.
        frames: Frames, labelled or not.
        seconds: Wall time.
        waiting: Part of `seconds` spent waiting for data, averaged over the processes.
    """

    batches: int = 0
    utterances: float = 0.0
    labels: int = 0
    loss: float = 0.0
    frames: int = 0
    seconds: float = 0.0
    waiting: float = 0.0

    def add(self, **amounts: float) -> None:
        """Add the amounts of one step to the attributes of the same names."""
        for name, amount in amounts.items():
            setattr(self, name, getattr(self, name) + amount)

    @property
    def mean_loss(self) -> float:
        """Loss per label."""
        return self.loss / max(self.labels, 1)

    def throughput(self) -> dict[str, float]:
        """Frames per second, and the fraction of the time spent waiting for data."""
        seconds = self.seconds or float("inf")  # the epoch had no data
        return {"frames_per_s": round(self.frames / seconds), "data_wait": round(self.waiting / seconds, 3)}


@dataclass
class RunState:
    """Everything to resume a run, besides model weights and optimiser.

    Attributes:
        epoch: The current epoch, from 0.
        tally: Its totals so far.
        rows: Log rows of the finished epochs.
        best_accuracy: Best accuracy on dev; negative before the first score.
        best_weights: Weights of the best model, on the CPU.
    """

    epoch: int = 0
    tally: Tally = field(default_factory=Tally)
    rows: list[dict[str, float]] = field(default_factory=list)
    best_accuracy: float = -1.0
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def fraction_done(self, epochs: int, num_cuts: int, utterances: float = 0.0) -> float:
        """Fraction of the run done, [0, 1], in the middle of a step: `epochs` over `num_cuts` cuts each.

        The middle, so that neither the first nor the last step has a learning rate of 0.
        """
        return (self.epoch * num_cuts + self.tally.utterances + utterances / 2) / (epochs * num_cuts)

    def close_epoch(self, accuracy: float, model: FrameClassifier) -> bool:
        """Move on to the next epoch; returns whether this model is the best so far."""
        better = accuracy > self.best_accuracy
        if better:
            self.best_accuracy = accuracy
            self.best_weights = {name: value.to("cpu", copy=True) for name, value in model.state_dict().items()}
        self.epoch, self.tally = self.epoch + 1, Tally()
        return better

    def state_dict(self) -> dict[str, Any]:
        """All attributes, in the types that a checkpoint can hold."""
        return {**vars(self), "tally": asdict(self.tally)}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> RunState:
        """The inverse of `state_dict`."""
        return cls(**{**state, "tally": Tally(**state["tally"])})


def timed(items: Iterable[T], seconds: list[float]) -> Iterator[T]:
    """Pass on the items, and append to `seconds` how long each, and then the end, took to arrive."""
    iterator, end = iter(items), object()
    while True:
        started = time.monotonic()
        item = next(iterator, end)
        seconds.append(time.monotonic() - started)
        if item is end:
            return
        yield item  # type: ignore[misc]
