"""Steps of learning: loss, gradient, AdamW or Muon with warm-up and cosine decay, averaged weights.

A step is made of one or more batches of each of one or more processes, and is the same however they are shared out: its
loss is normalised by the number of its labels, wherever these are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from speechattn.batches.loader import Batch
from speechattn.batches.spec_augment import SpecAugment
from speechattn.model.classifier import FrameClassifier
from speechattn.phones import IGNORED
from speechattn.training.config import OptimConfig, TrainConfig
from speechattn.training.muon import Muon
from speechattn.training.neighbours import WithNeighbours, neighbour_labels

__all__ = ["Learner", "frame_loss", "grouped", "padded_with_idle", "optimizer_of", "schedule"]


class Learner:
    """A model that learns, its averaged weights, and its optimiser.

    Args:
        model: On the accelerator's device.
        config: How to learn.
        accelerator: Accelerate's; says which processes learn together.
    """

    def __init__(self, model: FrameClassifier, config: TrainConfig, accelerator: Any) -> None:
        self.model, self.config, self.accelerator = model, config, accelerator
        self.average = AveragedModel(model, multi_avg_fn=partial(_average, config.optim.average))
        self.task = WithNeighbours(model) if config.optim.context_weight else model
        self.wrapped, self.optimizer = accelerator.prepare(self.task, optimizer_of(self.task, model.body, config.optim))

    @property
    def averaged(self) -> FrameClassifier:
        """The model with averaged weights, in eval mode."""
        return self.average.module.eval()  # type: ignore[return-value]

    def state_dict(self) -> dict[str, Any]:
        """All that learning changes."""
        scaler = self.accelerator.scaler
        return {
            "task": self.task.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, wherever its tensors lie."""
        self.task.load_state_dict(state["task"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def backward(self, batches: Sequence[Batch], num_labels: int, epoch: int) -> tuple[float, int]:
        """Add the gradient of this process's part of a step.

        Args:
            batches: One at least.
            num_labels: In the whole step, of all processes.
            epoch: From 0; for messages.

        Returns:
            (loss, frames): the loss summed over the labels of these batches, and their frames.

        Raises:
            ValueError: When the loss is not finite, or memory runs out; names the utterances.
        """
        # Gradients of processes are averaged, and here is to be their sum.
        scale = self.accelerator.num_processes / max(num_labels, 1)
        total, frames = 0.0, 0
        for number, batch in enumerate(batches, 1):
            together = nullcontext() if number == len(batches) else self.accelerator.no_sync(self.wrapped)
            with together, explain_out_of_memory(batch, self.config):
                loss, further, frame_lengths = self._loss(batch.to(self.accelerator.device))
                whole = loss + further
                if not torch.isfinite(whole):
                    raise ValueError(f"the loss is {whole.item()} in epoch {epoch + 1} on cuts {' '.join(batch.ids)}")
                self.accelerator.backward(whole * scale)
            total += loss.item()
            frames += int(frame_lengths[: len(batch.ids)].sum())
        return total, frames

    def update(self, share: float) -> None:
        """Make the step that the gradients ask for, after a share of the training."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optim.learning_rate * schedule(share, self.config.optim.warmup)
        self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.config.optim.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.model)

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor | float, Tensor]:
        """The loss, what a second task adds to it, both summed over the labels, and frame lengths."""
        frontend, optim = self.model.config.frontend, self.config.optim
        torch.manual_seed(batch.seeds[0])  # dropout, too, is a function of seed, epoch and cuts
        augment = None if frontend is None else SpecAugment(self.config.spec_augment, batch.seeds, frontend)
        logits, *neighbours, frame_lengths = self.wrapped(batch.waveforms, batch.lengths, log_mel_transform=augment)
        loss = frame_loss(logits, batch.labels, optim.label_smoothing)
        further: Tensor | float = 0.0
        if neighbours:
            further = frame_loss(neighbours[0], neighbour_labels(batch.labels), optim.label_smoothing)
        return loss, optim.context_weight * further, frame_lengths


@contextmanager
def explain_out_of_memory(batch: Batch, config: TrainConfig) -> Iterator[None]:
    """Turn what PyTorch says when memory runs out into what can be done."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        seconds = config.data.batch_seconds
        raise ValueError(
            f"out of memory on cuts {' '.join(batch.ids)}: lower data.batch_seconds, now {seconds:g} "
            "(optim.accumulate makes up for it: as many batches to a step), data.max_seconds for long utterances, or "
            "wave_augment.pause_s"
        ) from error


def _out_of_memory(error: Exception) -> bool:
    """CUDA has an exception of its own; the allocators of CPUs (Linux, Windows) and of Apple's GPUs only words."""
    words = ("DefaultCPUAllocator", "not enough memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words)


def grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """So many batches at a time; the last time what is left."""
    while group := list(islice(batches, size)):
        yield group


def padded_with_idle(batches: Iterator[Batch], idle: Batch, accelerator: Any) -> Iterator[Batch]:
    """The batches of this process; and while another still has some, one without labels instead.

    A step needs all processes, and they may have different numbers of batches. What has no labels adds nothing to loss
    and gradient.
    """
    if accelerator.num_processes == 1:
        yield from batches
        return
    while True:
        batch = next(batches, None)
        if not accelerator.reduce(torch.tensor(int(batch is not None), device=accelerator.device)):
            return
        yield batch or idle


@torch.no_grad()
def _average(decay: float, averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor) -> None:
    """One step of the moving average; early steps forget faster, so that the first weights leave no trace."""
    step = int(num_averaged)
    torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + step) / (10 + step)))


def frame_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy summed over the labels, (..., P) and (...) with -100 for none -> scalar."""
    return F.cross_entropy(
        logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum",
        label_smoothing=label_smoothing,
    )  # fmt: skip


def schedule(share: float, warmup: float) -> float:
    """Learning rate relative to its peak, after a share of the training in [0, 1]: linear rise, cosine fall."""
    if share < warmup:
        return share / warmup
    return 0.5 * (1 + math.cos(math.pi * min((share - warmup) / (1 - warmup), 1.0)))


def optimizer_of(task: nn.Module, body: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """What `config.optimizer` says, at the peak of the learning rate, for all parameters of `task`.

    Muon is for the body's matrices. Weight decay is for matrices and filters only, as is usual: not for biases and
    normalisations.
    """
    matrices = list(_matrices(body)) if config.optimizer == "muon" else []
    taken = {id(parameter) for parameter in matrices}
    rest = [parameter for parameter in task.parameters() if id(parameter) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate)
    if not matrices:
        return adamw
    return _Both(Muon(matrices, lr=config.learning_rate, weight_decay=config.weight_decay), adamw)


def _matrices(body: nn.Module) -> Iterator[nn.Parameter]:
    """The weights of linear maps and LSTMs; an output layer's are rather a vector a class."""
    for module in body.modules():
        if isinstance(module, nn.Linear | nn.LSTM):
            yield from (parameter for parameter in module.parameters() if parameter.ndim == 2)


class _Both(torch.optim.Optimizer):
    """Two optimisers of different parameters as one: Accelerate's gradient scaler takes one for each step."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self.parts = (first, second)
        super().__init__([*first.param_groups, *second.param_groups], {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """A step of each; `closure` is not called."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """That of each, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from such a state."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]  # loading makes new ones
