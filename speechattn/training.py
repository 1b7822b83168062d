"""Train a `FrameClassifier` on cuts: AdamW, warm-up and cosine decay, SpecAugment, averaged weights.

The model kept is the one that scores best on dev, with a temperature that is learned there. Devices, mixed precision
and processes are Accelerate's: the same command runs under `torchrun`.
"""

from __future__ import annotations

import csv
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from speechattn.augmentation import SpecAugment, SpecAugmentConfig
from speechattn.classifier import CONFIG_FILE, WEIGHTS_FILE, ClassifierConfig, FrameClassifier, model_files
from speechattn.corpora.shards import Shards, checksum_or_path
from speechattn.cuts import check_labels, long_enough
from speechattn.data import Batch, Batches
from speechattn.evaluation import count_confusions, learn_temperature
from speechattn.frontend import FeatureStatistics, Mfcc, ReadyFeatures
from speechattn.metrics import frame_figures, utterance_figures
from speechattn.phones import IGNORED
from speechattn.plots import plot_curves, save_figure
from speechattn.realignment import refuse_realigned
from speechattn.stages import is_done, mark_done, save_json
from speechattn.training_log import EpochLog, Progress
from speechattn.wave_augmentation import WaveAugmentConfig

__all__ = ["DataConfig", "OptimConfig", "TrainConfig", "train"]

log = logging.getLogger("speechattn")

STAMP, LOG_FILE = "train.done.json", "log.csv"
UNFINISHED = "unfinished"  # holds the best model so far while a training goes on, and when it was stopped


@dataclass(frozen=True)
class DataConfig:
    """What to train on.

    Args:
        train: Cuts to learn from: a file, or shards, by their folder, list or address.
        dev: Cuts to choose the best epoch by, likewise.
        batch_seconds: Most seconds in a batch, padding included.
        num_workers: Data-loading processes.

    Raises:
        ValueError: When a field is out of its range.
    """

    train: str = "data/train.jsonl.gz"
    dev: str = "data/dev.jsonl.gz"
    batch_seconds: float = 100.0
    num_workers: int = 1

    def __post_init__(self) -> None:
        if self.batch_seconds <= 0:
            raise ValueError(f"data.batch_seconds must be positive, got {self.batch_seconds}")


@dataclass(frozen=True)
class OptimConfig:
    """How to learn.

    Args:
        epochs: Passes over the training cuts.
        learning_rate: Peak of the schedule.
        warmup: Share of the training in which the learning rate rises from 0; then it falls as a cosine.
        weight_decay: AdamW's, on matrices only.
        clip: Greatest norm of the gradient.
        label_smoothing: Share of the target spread over all classes, [0, 1).
        average: Decay per step of the exponential moving average of the weights, which is what is scored
            and kept; 0 for none.
        mixed_precision: `no`, `bf16` or `fp16`; front end and loss stay in float32.

    Raises:
        ValueError: When a field is out of its range.
    """

    epochs: int = 20
    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    label_smoothing: float = 0.0
    average: float = 0.99
    mixed_precision: str = "no"

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"optim.epochs must be at least 1, got {self.epochs}")
        if self.clip <= 0:
            raise ValueError(f"optim.clip must be positive, got {self.clip}")
        for name in ("learning_rate", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"optim.{name} must not be negative, got {getattr(self, name)}")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise ValueError(f"optim.mixed_precision must be no, bf16 or fp16, got {self.mixed_precision!r}")
        for name in ("warmup", "label_smoothing", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optim.{name} must lie in [0, 1), got {getattr(self, name)}")


@dataclass(frozen=True)
class TrainConfig:
    """A whole training.

    Args:
        output: Folder for the model: config.json, model.safetensors and the log.
        seed: Of the initial weights, the order of the data and the augmentation.
        data: What to train on.
        model: What to train.
        wave_augment: What to make of each training utterance's waveform.
        spec_augment: What to hide of each training utterance's log-mel energies.
        optim: How to learn.
    """

    output: str = "exp/model"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    model: ClassifierConfig = field(default_factory=ClassifierConfig)
    wave_augment: WaveAugmentConfig = field(default_factory=WaveAugmentConfig)
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)


def train(config: TrainConfig, *, init: str | Path | None = None) -> Path:
    """Train, and keep the epoch that is best on dev. A training that has ended already is not repeated.

    The temperature of the model's posteriors is learned on dev at the end, see `learn_temperature`.

    Args:
        config: The whole training.
        init: A model to start from instead of fresh weights; its shape replaces `config.model`.

    Returns:
        The model's folder.

    Raises:
        ValueError: When the cuts cannot be read or labelled, or the loss stops being finite. What was in the
            folder is then gone, unless the data were refused before the training began; `unfinished/` in it
            holds the best model so far.
    """
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    output, unfinished = Path(config.output), Path(config.output) / UNFINISHED
    options, inputs = _what_matters(config, init)
    if is_done(output / STAMP, options, inputs):
        log.info("%s: trained already with these options and data", output)
        return output
    processes = int(os.environ.get("WORLD_SIZE", 1))  # set by torchrun; on a CPU Accelerate heeds it only when told
    accelerator = Accelerator(
        cpu=processes > 1 and not torch.cuda.is_available(), mixed_precision=config.optim.mixed_precision
    )
    if config.optim.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("optim.mixed_precision fp16 needs a GPU; a CPU can do bf16")
    set_seed(config.seed)
    model = FrameClassifier.from_pretrained(init) if init else FrameClassifier(config.model)
    batches, dev = _batches(config, model, accelerator)
    if accelerator.is_main_process:
        for stale in (output / STAMP, output / CONFIG_FILE, output / WEIGHTS_FILE):
            stale.unlink(missing_ok=True)
        for stale in (unfinished, output / "tensorboard"):
            shutil.rmtree(stale, ignore_errors=True)
        unfinished.mkdir(parents=True)
        log.info(
            "%d parameters, %d training and %d dev utterances, %d process(es) on %s, %d threads",
            sum(p.numel() for p in model.parameters()), batches.num_cuts, dev.num_cuts,
            accelerator.num_processes, accelerator.device.type, torch.get_num_threads(),
        )  # fmt: skip
    model.to(accelerator.device)
    if isinstance(model.frontend, ReadyFeatures):
        log.info("no front end, no log-mel energies: spec_augment does nothing")
    elif model.frontend.config.normalisation == "global" and init is None:
        _learn_statistics(model.frontend, batches.epoch(), accelerator)
    average = AveragedModel(model, multi_avg_fn=partial(_average, config.optim.average))
    optimizer = torch.optim.AdamW(_parameter_groups(model, config.optim), lr=0.0)
    wrapped, optimizer = accelerator.prepare(model, optimizer)

    best, progress = -1.0, Progress(config.optim.epochs, batches.num_cuts)
    with EpochLog(output / LOG_FILE, enabled=accelerator.is_main_process) as table:
        for epoch in range(config.optim.epochs):
            started = time.monotonic()
            average_loss = _train_epoch(wrapped, average, optimizer, accelerator, batches, epoch, config, progress)
            scored: FrameClassifier = average.module.eval()  # type: ignore[assignment]
            confusion = count_confusions(scored, dev, accelerator.device)
            confusion = accelerator.reduce(torch.from_numpy(confusion).to(accelerator.device)).cpu().numpy()
            scores = _dev_scores(model, confusion)
            accuracy = scores["dev_accuracy"]
            if accuracy is None:
                raise ValueError(f"{config.data.dev}: no frame has a label that can be scored")
            if accelerator.is_main_process and accuracy > best:
                scored.save_pretrained(unfinished)
            best = max(best, accuracy)
            table.write(
                epoch=epoch + 1,
                train_loss=round(average_loss, 5),
                **{name: round(score or 0.0, 5) for name, score in scores.items()},
                seconds=round(time.monotonic() - started, 1),
            )
    if accelerator.is_main_process:
        with open(output / LOG_FILE, encoding="utf-8", newline="") as file:
            save_figure(plot_curves(list(csv.DictReader(file))), output / "curves.png")
        kept = FrameClassifier.from_pretrained(unfinished).to(accelerator.device)
        kept.config = replace(kept.config, temperature=learn_temperature(kept, config.data.dev))
        save_json(unfinished / CONFIG_FILE, asdict(kept.config))
        log.info("temperature %.3f, learned on dev", kept.config.temperature)
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            os.replace(unfinished / name, output / name)
        unfinished.rmdir()
        mark_done(output / STAMP, options, inputs, [output / name for name in (CONFIG_FILE, WEIGHTS_FILE, LOG_FILE)])
    accelerator.wait_for_everyone()
    return output


def _what_matters(config: TrainConfig, init: str | Path | None) -> tuple[dict[str, Any], dict[str, Path | str]]:
    """What a training's result depends on, for its stamp: options, and files by role. Not where things lie."""
    options = asdict(config) | {"init": None if init is None else str(init)}
    del options["output"], options["model"]["temperature"]  # which is learned
    for name in ("train", "dev", "num_workers"):
        del options["data"][name]
    inputs = {"train": checksum_or_path(config.data.train), "dev": checksum_or_path(config.data.dev)}
    return options, {**inputs, **(model_files(init) if init is not None else {})}


def _batches(config: TrainConfig, model: FrameClassifier, accelerator: Any) -> tuple[Batches, Batches]:
    phones, geometry, per_utterance = model.phones, model.frontend.geometry, model.pooling is not None
    ready_features = model.feature_dim is not None
    if ready_features and config.wave_augment != WaveAugmentConfig():
        raise ValueError("wave_augment needs a front end: a model of ready features hears no waveforms")
    training, dev = (
        long_enough(path, geometry, feature_dim=model.feature_dim) for path in (config.data.train, config.data.dev)
    )
    for cuts in (training, dev):
        check_labels(cuts, phones, geometry, per_utterance=per_utterance)
    if not per_utterance:
        refuse_realigned(dev, config.data.dev)  # which scores every epoch
    if isinstance(training, Shards) and len(training.shards) < accelerator.num_processes:
        raise ValueError(
            f"{training.location}: {len(training.shards)} shards are too few for {accelerator.num_processes} processes"
        )
    share = dict(
        batch_seconds=config.data.batch_seconds, per_utterance=per_utterance, ready_features=ready_features,
        rank=accelerator.process_index, world_size=accelerator.num_processes,
    )  # fmt: skip
    return (
        Batches(
            training, phones, geometry,
            shuffle=True, seed=config.seed,
            wave_augment=config.wave_augment, num_workers=config.data.num_workers, **share,
        ),
        Batches(dev, phones, geometry, shuffle=False, **share),
    )  # fmt: skip


def _dev_scores(model: FrameClassifier, confusion: np.ndarray) -> dict[str, float | None]:
    """What the log says of an epoch's model; the best `dev_accuracy` is kept."""
    if model.pooling is not None:
        return {"dev_accuracy": utterance_figures(confusion, model.phones.symbols)["accuracy"]}
    figures = frame_figures(confusion, model.phones.symbols, model.phones.silences)
    return {
        "dev_accuracy": figures["frame_accuracy"],
        "dev_accuracy_no_silence": figures["frame_accuracy_no_silence"],
    }


def _train_epoch(
    model: nn.Module,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    accelerator: Any,
    batches: Batches,
    epoch: int,
    config: TrainConfig,
    progress: Progress,
) -> float:
    """One pass over the data; returns the loss per label."""
    model.train()
    frontend = accelerator.unwrap_model(model).config.frontend
    loss_sum, label_sum = 0.0, 0
    for batch in progress.over(in_step(batches.epoch(epoch), accelerator), epoch, accelerator):
        batch = batch.to(accelerator.device)
        for group in optimizer.param_groups:
            group["lr"] = config.optim.learning_rate * schedule(progress.share, config.optim.warmup)
        torch.manual_seed(batch.seeds[0])  # dropout, too, is a function of seed, epoch and cuts
        augment = None if frontend is None else SpecAugment(config.spec_augment, batch.seeds, frontend)
        logits, _ = model(batch.waveforms, batch.lengths, log_mel_transform=augment)
        loss = frame_loss(logits, batch.labels, config.optim.label_smoothing)
        labels = (batch.labels != IGNORED).sum()
        # Processes hold different numbers of labels and their gradients are averaged: normalise globally.
        everywhere, num_cuts = accelerator.reduce(torch.stack([labels, labels.new_tensor(len(batch.ids))]))
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {loss.item()} in epoch {epoch + 1} on cuts {' '.join(batch.ids)}")
        accelerator.backward(loss * accelerator.num_processes / everywhere.clamp(min=1))
        accelerator.clip_grad_norm_(model.parameters(), config.optim.clip)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(accelerator.unwrap_model(model))
        loss_sum, label_sum = loss_sum + loss.item(), label_sum + int(labels)
        progress.advance(int(num_cuts), loss_sum / max(label_sum, 1))
    return loss_sum / max(label_sum, 1)


def in_step(batches: Iterator[Batch], accelerator: Any) -> Iterator[Batch]:
    """The batches of this process; and while another still has some, its last one again, without cuts or labels.

    A step needs all processes, and those that read shards have different numbers of batches. What has no labels adds
    nothing to loss and gradient.
    """
    if accelerator.num_processes == 1:
        yield from batches
        return
    idle: Batch | None = None
    while True:
        batch = next(batches, None)
        if not accelerator.reduce(torch.tensor(int(batch is not None), device=accelerator.device)):
            return
        batch = batch or idle
        if batch is None:
            raise ValueError("a process has no batch at all: there are too few cuts for so many processes")
        idle = replace(batch, ids=[], labels=torch.full_like(batch.labels, IGNORED))
        yield batch


@torch.no_grad()
def _average(decay: float, averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor) -> None:
    """One step of the moving average; early steps forget faster, so that the first weights leave no trace."""
    step = int(num_averaged)
    torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + step) / (10 + step)))


def frame_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy summed over the labels: (B, T, P) and (B, T) with -100 for none, or (B, P) and (B,) -> scalar."""
    return F.cross_entropy(
        logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum",
        label_smoothing=label_smoothing,
    )  # fmt: skip


def schedule(share: float, warmup: float) -> float:
    """Learning rate relative to its peak, after a share of the training in [0, 1]: linear rise, cosine fall."""
    if share < warmup:
        return share / warmup
    return 0.5 * (1 + math.cos(math.pi * min((share - warmup) / (1 - warmup), 1.0)))


def _parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Weight decay on matrices and filters only, as is usual: not on biases and normalisations."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]


@torch.no_grad()
def _learn_statistics(frontend: Mfcc, batches: Iterator[Batch], accelerator: Any) -> None:
    """Mean and variance of the training features, for `global` normalisation."""
    statistics, device = FeatureStatistics(frontend.dim, accelerator.device), accelerator.device
    for batch in batches:  # the module's own statistics are still 0 and 1
        statistics.add(*frontend(batch.waveforms.to(device), batch.lengths.to(device)))
    for name in ("count", "total", "squares"):
        setattr(statistics, name, accelerator.reduce(getattr(statistics, name)))
    frontend.set_statistics(statistics.mean, statistics.variance)
