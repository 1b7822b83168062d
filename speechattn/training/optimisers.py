"""Optimisation steps: loss, gradients, AdamW or Muon with linear warm-up and cosine decay, averaged weights.

A step covers one or more batches from each process. Its loss is divided by the number of labels in the whole step, so
the result does not depend on how the batches are distributed.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from speechattn.batches.loader import Batch
from speechattn.batches.spec_augment import SpecAugment
from speechattn.model.classifier import FrameClassifier
from speechattn.phones import IGNORED
from speechattn.training.auxiliary_loss import WithAuxiliaryOutput, neighbour_labels
from speechattn.training.config import OptimConfig, TrainConfig
from speechattn.training.muon import Muon

__all__ = ["Learner", "frame_loss", "make_optimizer", "padded_with_idle", "schedule"]


class Learner:
    """A model in training, with its averaged weights and its optimiser.

    Args:
        model: The model, on the accelerator's device.
        config: The configuration.
        accelerator: Accelerate's `Accelerator`.
    """

    def __init__(self, model: FrameClassifier, config: TrainConfig, accelerator: Any) -> None:
        self.model, self.config, self.accelerator = model, config, accelerator
        self.average = AveragedModel(model, multi_avg_fn=partial(_update_average, config.optim.average))
        self.network = WithAuxiliaryOutput(model) if config.optim.context_weight else model
        self.wrapped, self.optimizer = accelerator.prepare(
            self.network, make_optimizer(self.network, model.body, config.optim)
        )

    @property
    def averaged(self) -> FrameClassifier:
        """The model with averaged weights, in eval mode."""
        return self.average.module.eval()  # type: ignore[return-value]

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes."""
        scaler = self.accelerator.scaler
        return {
            "task": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state, whose tensors may be on any device."""
        self.network.load_state_dict(state["task"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def backward(self, batches: Sequence[Batch], num_labels: int, epoch: int) -> tuple[float, int]:
        """Accumulate the gradient of this process's batches in a step.

        Args:
            batches: At least one.
            num_labels: Number of labels in the step, over all processes.
            epoch: From 0, for error messages.

        Returns:
            (loss, frames): the loss, without the auxiliary one, summed over the labels of these batches, and their
            number of frames.

        Raises:
            ValueError: If the loss is not finite or memory runs out; names the utterances.
        """
        scale = self.accelerator.num_processes / max(num_labels, 1)  # gradients are averaged over processes
        total, frames = 0.0, 0
        for number, batch in enumerate(batches, 1):
            sync = nullcontext() if number == len(batches) else self.accelerator.no_sync(self.wrapped)
            with sync, explain_out_of_memory(batch, self.config):
                loss, auxiliary, frame_lengths = self._losses(batch.to(self.accelerator.device))
                objective = loss + auxiliary
                if not torch.isfinite(objective):
                    value, cuts = objective.item(), " ".join(batch.ids)
                    raise ValueError(f"the loss is {value} in epoch {epoch + 1} on cuts {cuts}")
                self.accelerator.backward(objective * scale)
            total += loss.item()
            frames += int(frame_lengths[: len(batch.ids)].sum())
        return total, frames

    def update(self, fraction_done: float) -> None:
        """Make one optimiser step, when this fraction of the run is done, [0, 1]."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optim.learning_rate * schedule(fraction_done, self.config.optim.warmup)
        self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.config.optim.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.model)

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor | float, Tensor]:
        """The loss and the weighted auxiliary loss, both summed over the labels, and frame lengths."""
        frontend, optim = self.model.config.frontend, self.config.optim
        # Dropout, too, is a function of seed, epoch and cuts; `+ 1` keeps it independent of SpecAugment.
        torch.manual_seed(batch.seeds[0] + 1)
        augment = None if frontend is None else SpecAugment(self.config.spec_augment, batch.seeds, frontend)
        logits, *neighbours, frame_lengths = self.wrapped(batch.waveforms, batch.lengths, log_mel_transform=augment)
        loss = frame_loss(logits, batch.labels, optim.label_smoothing)
        auxiliary: Tensor | float = 0.0
        if neighbours:
            auxiliary = frame_loss(neighbours[0], neighbour_labels(batch.labels), optim.label_smoothing)
        return loss, optim.context_weight * auxiliary, frame_lengths


@contextmanager
def explain_out_of_memory(batch: Batch, config: TrainConfig) -> Iterator[None]:
    """Re-raise out-of-memory errors as a ValueError with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # CUDA raises a class of its own. Other allocators (CPU, Apple GPU) raise a RuntimeError with these words.
        words = ("DefaultCPUAllocator", "not enough memory", "out of memory")
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(w in str(error) for w in words):
            raise
        raise ValueError(
            f"out of memory on cuts {' '.join(batch.ids)}: lower data.batch_seconds, now "
            f"{config.data.batch_seconds:g} (optim.accumulate makes up for it: more batches per step), "
            "data.max_seconds for long utterances, or wave_augment.pause_s"
        ) from error


def padded_with_idle(batches: Iterator[Batch], idle: Batch, accelerator: Any) -> Iterator[Batch]:
    """This process's batches, followed by the idle batch until all processes have run out.

    Every step needs all processes, but some may have fewer batches. The idle batch has no labels, so it adds nothing
    to loss and gradient.
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
def _update_average(decay: float, averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor) -> None:
    """Update the exponential moving average; the decay starts low, so that the initial weights are soon forgotten."""
    step = int(num_averaged)
    torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + step) / (10 + step)))


def frame_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy summed over the labels: (..., P) logits and (...) labels, -100 where unlabelled, -> scalar."""
    return F.cross_entropy(
        logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum",
        label_smoothing=label_smoothing,
    )  # fmt: skip


def schedule(fraction_done: float, warmup: float) -> float:
    """Learning rate relative to its peak: linear rise over the fraction `warmup` of the run, then cosine decay to 0."""
    if fraction_done < warmup:
        return fraction_done / warmup
    return 0.5 * (1 + math.cos(math.pi * min((fraction_done - warmup) / (1 - warmup), 1.0)))


def make_optimizer(network: nn.Module, body: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser for all parameters of `network`, at the peak learning rate.

    With `muon`, Muon updates the weight matrices of `body`, and AdamW everything else. As usual, biases and
    normalisation parameters have no weight decay.
    """
    matrices = list(_matrices(body)) if config.optimizer == "muon" else []
    with_muon = {id(parameter) for parameter in matrices}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in with_muon]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    if not matrices:
        return adamw
    return _Both(Muon(matrices, lr=config.learning_rate, weight_decay=config.weight_decay), adamw)


def _matrices(body: nn.Module) -> Iterator[nn.Parameter]:
    """Weight matrices of linear layers and LSTMs."""
    for module in body.modules():
        if isinstance(module, nn.Linear | nn.LSTM):
            yield from (parameter for parameter in module.parameters() if parameter.ndim == 2)


class _Both(torch.optim.Optimizer):
    """Two optimisers with different parameters as one, because Accelerate's gradient scaler takes only one."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self.parts = (first, second)
        super().__init__([*first.param_groups, *second.param_groups], {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step both; `closure` is not called."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]  # loading replaced them
