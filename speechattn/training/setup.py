"""Set up a training run: processes, model, data and, for an interrupted run, its newest checkpoint."""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from speechattn.batches.chunks import Chunking
from speechattn.batches.loader import Batch, Batches
from speechattn.batches.wave_augment import WaveAugmentConfig
from speechattn.cuts.model_inputs import check_labels, cut_labels, load_cuts, refuse_realigned
from speechattn.cuts.shards import Shards, is_sharded
from speechattn.decoding.smoothing import Phonotactics, phonotactics_of
from speechattn.frontend import FeatureStatistics, Frontend, ReadyFeatures, make_frontend
from speechattn.model.classifier import FrameClassifier
from speechattn.model.files import MODEL_FILES, WEIGHTS_FILE
from speechattn.training.checkpoint import Checkpoints
from speechattn.training.config import TrainConfig
from speechattn.training.fine_tuning import model_to_tune
from speechattn.training.optimisers import Learner
from speechattn.training.precision import resolve_mixed_precision
from speechattn.training.progress import RunState

__all__ = ["TRAIN_STAMP", "UNFINISHED", "Run", "holds_model", "set_up"]

log = logging.getLogger("speechattn")

TRAIN_STAMP = "train.done.json"
UNFINISHED = "unfinished"  # subfolder with the checkpoints and the best model so far


@dataclass
class Run:
    """All parts of a run; `phonotactics` is None with pooling and for training cuts in shards."""

    config: TrainConfig
    accelerator: Any
    batches: Batches
    dev: Batches
    phonotactics: Phonotactics | None
    checkpoints: Checkpoints
    learner: Learner
    state: RunState
    lock: FileLock | None  # of the folder, held by the first process

    def save(self) -> None:
        """Save a checkpoint."""
        state = {
            "sharing": _resume_conditions(self.config, self.accelerator),
            "history": self.state.state_dict(),
            "learner": self.learner.state_dict(),
        }
        self.checkpoints.save(self.state.epoch, self.state.tally.batches, state)


def set_up(
    config: TrainConfig,
    init: str | Path | None,
    stamp: Mapping[str, Any],
    *,
    overwrite: bool = False,
    split_batches: bool = False,
) -> Run:
    """Set up a run, or resume it from its newest checkpoint; arguments and errors as for `run.train`.

    Nothing is changed until all inputs are checked. `stamp` identifies the run, see `stamps.stamp_record`.
    `split_batches` shares `data.batch_seconds` out among the processes.
    """
    from accelerate import Accelerator, PartialState
    from accelerate.utils import set_seed

    output = Path(config.output)
    # torchrun sets WORLD_SIZE. On CPUs, Accelerate starts several processes only with cpu=True.
    on_cpu = int(os.environ.get("WORLD_SIZE", 1)) > 1 and not torch.cuda.is_available()
    precision = resolve_mixed_precision(config.optim.mixed_precision, PartialState(cpu=on_cpu).device)
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=precision)
    if config.optim.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("optim.mixed_precision fp16 needs a GPU; a CPU can do bf16")
    set_seed(config.seed)
    model = FrameClassifier(config.model) if init is None else model_to_tune(config.model, init)
    batches, dev, phonotactics = _load_data(config, model, accelerator, split_batches)
    is_main = accelerator.is_main_process
    checkpoints = Checkpoints(output / UNFINISHED, stamp, every_s=60 * config.optim.save_minutes, enabled=is_main)
    saved = checkpoints.newest()
    _check_resumable(saved, _resume_conditions(config, accelerator), checkpoints.folder, accelerator)
    lock = _lock(output) if is_main else None
    if is_main:
        if overwrite and holds_model(output):
            _rename(output)
        _clear(output, keep_checkpoints=saved is not None)
        log.info(
            "%d parameters, %d training and %d dev utterances, %d process(es) on %s, %d threads, mixed precision %s",
            sum(p.numel() for p in model.parameters()), batches.num_cuts, dev.num_cuts,
            accelerator.num_processes, accelerator.device.type, torch.get_num_threads(), precision,
        )  # fmt: skip
    model.to(accelerator.device)
    if isinstance(model.frontend, ReadyFeatures):
        log.info("the model takes ready features: spec_augment has no effect")
    elif model.frontend.config.learns_statistics and init is None and saved is None:
        _learn_statistics(model.frontend, batches.epoch(), accelerator)
    learner, state = Learner(model, config, accelerator), RunState()
    if saved is not None:
        learner.load_state_dict(saved["learner"])
        state = RunState.from_state_dict(saved["history"])
        if is_main:
            log.info("resumed after %d epochs and %d batches", state.epoch, state.tally.batches)
    return Run(config, accelerator, batches, dev, phonotactics, checkpoints, learner, state, lock)


def _load_data(
    config: TrainConfig, model: FrameClassifier, accelerator: Any, split_batches: bool
) -> tuple[Batches, Batches, Phonotactics | None]:
    """Load and check the training and dev cuts, and count the phone transitions in the training labels."""
    phones, geometry, per_utterance = model.phones, model.frontend.geometry, model.pooling is not None
    if config.wave_augment.adds_silence and phones.pause is None:
        raise ValueError("wave_augment.pause_share and noise_share need a phone called SIL, sil or h#")
    ready_features = model.feature_dim is not None
    if ready_features and config.wave_augment != WaveAugmentConfig():
        raise ValueError("wave_augment needs a front end: this model takes ready features, not waveforms")
    training, dev = (
        load_cuts(path, geometry, feature_dim=model.feature_dim) for path in (config.data.train, config.data.dev)
    )
    phonotactics = None
    if per_utterance or isinstance(training, Shards):  # counting transitions would read all shards
        check_labels(training, phones, geometry, per_utterance=per_utterance)
    else:
        phonotactics = phonotactics_of((cut_labels(cut, phones, geometry) for cut in training), len(phones))
    check_labels(dev, phones, geometry, per_utterance=per_utterance)
    if not per_utterance:
        refuse_realigned(dev, config.data.dev)
    if isinstance(training, Shards) and len(training.shards) < accelerator.num_processes:
        raise ValueError(
            f"{training.location}: {len(training.shards)} shards are too few for {accelerator.num_processes} processes"
        )
    shared = dict(
        batch_seconds=config.data.batch_seconds / (accelerator.num_processes if split_batches else 1),
        per_utterance=per_utterance, ready_features=ready_features,
        rank=accelerator.process_index, world_size=accelerator.num_processes,
    )  # fmt: skip
    batches = Batches(
        training, phones, geometry, shuffle=True, seed=config.seed, chunking=_chunking(config, model),
        wave_augment=config.wave_augment, num_workers=config.data.num_workers, **shared,
    )  # fmt: skip
    return batches, Batches(dev, phones, geometry, shuffle=False, **shared), phonotactics


def _chunking(config: TrainConfig, model: FrameClassifier) -> Chunking | None:
    """Chunks extended by the model's receptive field. Utterance-wise normalisation still sees only the chunk."""
    frontend = model.config.frontend
    if config.data.max_seconds is None or frontend is None or model.pooling is not None:
        return None
    left, right = (
        None if frames is None else frames + frontend.delta_reach
        for frames in (model.body.left_context, model.body.right_context)
    )
    return Chunking.of(model.frontend.geometry, config.data.max_seconds, left, right)


def _resume_conditions(config: TrainConfig, accelerator: Any) -> dict[str, int | str]:
    """Settings that must not change when a run is resumed: they decide the order of batches and the rounding."""
    conditions: dict[str, int | str] = {
        "processes": accelerator.num_processes,
        "mixed precision": accelerator.mixed_precision,
    }
    if is_sharded(config.data.train):
        conditions["data.num_workers"] = max(1, config.data.num_workers)  # 0 and 1 read shards in the same order
    return conditions


def _check_resumable(
    saved: dict[str, Any] | None, conditions: dict[str, int | str], folder: Path, accelerator: Any
) -> None:
    """Refuse a checkpoint of a run under other conditions, and processes that loaded different checkpoints."""
    if saved is not None and saved["sharing"] != conditions:
        old, new = (", ".join(f"{name} {value}" for name, value in d.items()) for d in (saved["sharing"], conditions))
        raise ValueError(
            f"{folder} holds a checkpoint of a run with {old}, which cannot be resumed with {new}: use the same "
            "settings again, or remove that folder to start over"
        )
    position = 0 if saved is None else 1 + saved["history"]["epoch"] + saved["history"]["tally"]["batches"]
    total = accelerator.reduce(torch.tensor(position, device=accelerator.device))
    if total != position * accelerator.num_processes:
        raise ValueError(f"{folder}: the processes find different checkpoints; they must all share this folder")


def _lock(output: Path) -> FileLock:
    """Keep a second run out of a folder."""
    output.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output.with_name(f".{output.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{output}: another process is training there") from None
    return lock


def holds_model(output: Path) -> bool:
    """Whether a folder holds a finished model, trained there or not."""
    has_weights = (output / WEIGHTS_FILE).is_file() and not (output / UNFINISHED).is_dir()
    return has_weights or (output / TRAIN_STAMP).is_file()


def _rename(output: Path) -> None:
    """Give a finished model's folder the first free name `<output>.N`."""
    number = next(n for n in count(1) if not output.with_name(f"{output.name}.{n}").exists())
    kept = output.with_name(f"{output.name}.{number}")
    output.rename(kept)
    log.info("%s holds a finished model, and is now %s", output, kept)


def _clear(output: Path, *, keep_checkpoints: bool) -> None:
    """Delete what an unfinished run left in the model's folder."""
    for stale in (output / TRAIN_STAMP, *(output / name for name in MODEL_FILES)):
        stale.unlink(missing_ok=True)
    for folder in (output / "tensorboard", *([] if keep_checkpoints else [output / UNFINISHED])):
        shutil.rmtree(folder, ignore_errors=True)
    (output / UNFINISHED).mkdir(parents=True, exist_ok=True)


@torch.no_grad()
def _learn_statistics(frontend: Frontend, batches: Iterator[Batch], accelerator: Any) -> None:
    """Set mean and variance of the training features, for `global` and `online` normalisation."""
    device = accelerator.device
    statistics = FeatureStatistics(frontend.dim, device)
    unnormalised = make_frontend(replace(frontend.config, normalisation="none")).to(device)
    for batch in batches:
        statistics.add(*unnormalised(batch.waveforms.to(device), batch.lengths.to(device)))
    for name in ("count", "total", "squares"):
        setattr(statistics, name, accelerator.reduce(getattr(statistics, name)))
    frontend.set_statistics(statistics.mean, statistics.variance)
