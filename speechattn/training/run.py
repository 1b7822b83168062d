"""Train a `FrameClassifier` on cuts: AdamW, warm-up and cosine decay, SpecAugment, averaged weights.

The model kept is the one that scores best on dev, with a temperature that is learned there. Devices, mixed precision
and processes are Accelerate's: the same command runs under `torchrun`. A training that is stopped, or dies, goes on
when the command is given again. Whatever is random in it is drawn for the cut or batch at hand from (seed, epoch, cut
id), so that weights, optimiser and the place in the data are all of its state.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechattn.batches.chunks import Chunking
from speechattn.batches.loader import Batch, Batches
from speechattn.batches.wave_augment import WaveAugmentConfig
from speechattn.cuts.model_inputs import check_labels, cut_labels, load_cuts, refuse_realigned
from speechattn.cuts.shards import Shards, checksum_or_path, is_sharded
from speechattn.decoding.smoothing import Phonotactics, phonotactics_of
from speechattn.evaluation.evaluate import count_confusions, learn_temperature
from speechattn.evaluation.metrics import frame_figures, utterance_figures
from speechattn.frontend import FeatureStatistics, Frontend, ReadyFeatures, make_frontend
from speechattn.jobs.interruption import Interruption
from speechattn.jobs.stamps import is_done, mark_done, stamp_record
from speechattn.model.classifier import FrameClassifier
from speechattn.model.files import MODEL_FILES, model_files
from speechattn.phones import IGNORED
from speechattn.plots import plot_curves, save_figure
from speechattn.training.checkpoint import Checkpoints
from speechattn.training.config import DataConfig, OptimConfig, TrainConfig
from speechattn.training.fine_tuning import model_to_tune
from speechattn.training.log import LOG_FILE, EpochLog, Progress, Tally, Timed
from speechattn.training.optimisers import Learner, grouped, padded_with_idle
from speechattn.training.precision import resolve_mixed_precision

__all__ = ["DataConfig", "OptimConfig", "TrainConfig", "train"]

log = logging.getLogger("speechattn")

TRAIN_STAMP = "train.done.json"
UNFINISHED = "unfinished"  # holds the best model so far and the state of a training that goes on, or was stopped


@dataclass
class History:
    """How far a training has come, and what came of it.

    Attributes:
        epoch: The one that goes on, from 0.
        tally: What it has come to.
        rows: The log of those before.
        best_accuracy: On dev; below 0 before there is any.
        best_weights: Of the model that had it, on the CPU.
    """

    epoch: int = 0
    tally: Tally = field(default_factory=Tally)
    rows: list[dict[str, float]] = field(default_factory=list)
    best_accuracy: float = -1.0
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def close_epoch(self, accuracy: float, model: FrameClassifier) -> bool:
        """Go to the next epoch; returns whether the model is the best so far."""
        better = accuracy > self.best_accuracy
        if better:
            self.best_accuracy = accuracy
            self.best_weights = {name: value.to("cpu", copy=True) for name, value in model.state_dict().items()}
        self.epoch, self.tally = self.epoch + 1, Tally()
        return better

    def state_dict(self) -> dict[str, Any]:
        """All of it, as a state can hold it."""
        return {**vars(self), "tally": asdict(self.tally)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> History:
        """The inverse of `state_dict`."""
        return cls(**{**state, "tally": Tally(**state["tally"])})


def train(config: TrainConfig, *, init: str | Path | None = None) -> Path:
    """Train, and keep the epoch that is best on dev.

    A training that has ended already is not repeated; one with the same options and data that was stopped goes on, and
    on a CPU ends with the very same weights.

    The temperature of the model's posteriors is learned on dev at the end, see `learn_temperature`.

    Args:
        config: The whole training.
        init: A model to start from instead of fresh weights; its shape replaces that of `config.model`, see
            `fine_tuning.model_to_tune`.

    Returns:
        The model's folder.

    Raises:
        ValueError: When the cuts cannot be read or labelled, the options do not fit each other or the machine, or a
            stopped training was one of another number of processes: the folder is then as it was. Or when the loss
            stops being finite, memory runs out, or no label of dev can be scored: the model that was in the folder is
            then gone; `unfinished/` in it holds the best one so far, and the state that was saved last.
        KeyboardInterrupt: At SIGINT (Ctrl-C), once the state is saved; while the data are read and checked there is
            none yet.
        SystemExit: At SIGTERM, once the state is saved; while the data are read it ends the process as usual.
    """
    from accelerate import Accelerator, PartialState
    from accelerate.utils import set_seed

    output, unfinished = Path(config.output), Path(config.output) / UNFINISHED
    options, inputs = stamp_inputs(config, init)
    if is_done(output / TRAIN_STAMP, options, inputs):
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed as it tidied up
        log.info("%s: trained already with these options and data", output)
        return output
    processes = int(os.environ.get("WORLD_SIZE", 1))  # set by torchrun; on a CPU Accelerate heeds it only when told
    on_cpu = processes > 1 and not torch.cuda.is_available()
    precision = resolve_mixed_precision(config.optim.mixed_precision, PartialState(cpu=on_cpu).device)
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=precision)
    if config.optim.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("optim.mixed_precision fp16 needs a GPU; a CPU can do bf16")
    set_seed(config.seed)
    model = FrameClassifier(config.model) if init is None else model_to_tune(config.model, init)
    batches, dev, phonotactics = _data(config, model, accelerator)
    main = accelerator.is_main_process
    checkpoints = Checkpoints(
        unfinished, stamp_record(options, inputs), every_s=60 * config.optim.save_minutes, enabled=main
    )
    state, sharing = checkpoints.newest(), _sharing(config, accelerator)
    _check_state(state, sharing, unfinished, accelerator)
    if main:
        _clear(output, resumed=state is not None)
        log.info(
            "%d parameters, %d training and %d dev utterances, %d process(es) on %s, %d threads, mixed precision %s",
            sum(p.numel() for p in model.parameters()), batches.num_cuts, dev.num_cuts,
            accelerator.num_processes, accelerator.device.type, torch.get_num_threads(), precision,
        )  # fmt: skip
    model.to(accelerator.device)
    if isinstance(model.frontend, ReadyFeatures):
        log.info("no front end, no log-mel energies: spec_augment does nothing")
    elif model.frontend.config.learns_statistics and init is None and state is None:
        _learn_statistics(model.frontend, batches.epoch(), accelerator)
    learner, history = Learner(model, config, accelerator), History()
    if state is not None:
        learner.load_state_dict(state["learner"])
        history = History.from_state(state["history"])
        if main:
            log.info("goes on after %d epochs and %d batches", history.epoch, history.tally.batches)

    def save() -> None:
        state = {"sharing": sharing, "history": history.state_dict(), "learner": learner.state_dict()}
        checkpoints.save(history.epoch, history.tally.batches, state)

    progress = Progress(config.optim.epochs, batches.num_cuts, enabled=main)
    with (
        Interruption(deferred=accelerator.num_processes > 1) as interruption,
        EpochLog(output / LOG_FILE, history.rows, enabled=main) as table,
    ):
        try:
            while history.epoch < config.optim.epochs:
                for _ in _steps(learner, batches, history, progress, interruption):
                    if checkpoints.due:
                        save()
                started = time.monotonic()
                scores = _dev_scores(learner, dev)
                accuracy = scores["dev_accuracy"]
                if accuracy is None:
                    raise ValueError(f"{config.data.dev}: no frame has a label that can be scored")
                with interruption.held():
                    table.write(
                        epoch=history.epoch + 1,
                        train_loss=round(history.tally.mean_loss, 5),
                        **{name: round(score or 0.0, 5) for name, score in scores.items()},
                        seconds=round(history.tally.seconds + time.monotonic() - started, 1),
                        **history.tally.throughput(),
                    )
                    if history.close_epoch(accuracy, learner.averaged) and main:
                        _show_best(learner.averaged, unfinished)
                [signals] = sum_over_processes(accelerator, interruption.received is not None)
                interruption.raise_if(signals > 0)
            interruption.deferred = False  # there is nothing more to agree on
            if main:
                best = learner.averaged  # which Accelerate leaves in float32, as it will be used
                best.load_state_dict(history.best_weights)
                best.config = replace(best.config, temperature=learn_temperature(best, config.data.dev))
                log.info("temperature %.3f, learned on dev", best.config.temperature)
                best.phonotactics = phonotactics
                save_figure(plot_curves(history.rows), output / "curves.png")
                best.save_pretrained(output)
                mark_done(output / TRAIN_STAMP, options, inputs, [*model_files(output).values(), output / LOG_FILE])
                shutil.rmtree(unfinished)
        except (KeyboardInterrupt, SystemExit):
            if main and not (output / TRAIN_STAMP).is_file():  # else it has ended, all but for the exit
                save()
                log.info(
                    "stopped after %d epochs and %d batches: the same command goes on from the last state",
                    history.epoch, history.tally.batches,
                )  # fmt: skip
            raise
    accelerator.wait_for_everyone()
    return output


def _clear(output: Path, *, resumed: bool) -> None:
    """Make room for a training; one that goes on keeps its states."""
    for stale in (output / TRAIN_STAMP, *(output / name for name in MODEL_FILES)):
        stale.unlink(missing_ok=True)
    for folder in (output / "tensorboard", *([] if resumed else [output / UNFINISHED])):
        shutil.rmtree(folder, ignore_errors=True)
    (output / UNFINISHED).mkdir(parents=True, exist_ok=True)


def _show_best(model: FrameClassifier, folder: Path) -> None:
    """Save the best model so far; where that fails it is said, and the training goes on: its states hold it, too."""
    try:
        model.save_pretrained(folder)
    except OSError as error:
        log.warning("%s: the best model so far could not be saved, and the training goes on: %s", folder, error)


def stamp_inputs(config: TrainConfig, init: str | Path | None) -> tuple[dict[str, Any], dict[str, Path | str]]:
    """What a training's result depends on, for its stamp: options, and files by role. Not where things lie."""
    options = asdict(config) | {"init": None if init is None else str(init)}
    del options["output"], options["model"]["temperature"]  # which is learned
    for name in ("train", "dev", "num_workers"):
        del options["data"][name]
    del options["optim"]["save_minutes"]
    inputs = {"train": checksum_or_path(config.data.train), "dev": checksum_or_path(config.data.dev)}
    return options, {**inputs, **(model_files(init) if init is not None else {})}


def _sharing(config: TrainConfig, accelerator: Any) -> dict[str, int | str]:
    """What a resumed run must share with the interrupted one: how batches are shared out, and the precision."""
    sharing: dict[str, int | str] = {
        "processes": accelerator.num_processes, "mixed precision": accelerator.mixed_precision
    }  # fmt: skip
    if is_sharded(config.data.train):
        sharing["data.num_workers"] = max(1, config.data.num_workers)  # one reads what this process would read
    return sharing


def _check_state(state: dict[str, Any] | None, sharing: dict[str, int | str], folder: Path, accelerator: Any) -> None:
    """Refuse a state that these processes cannot go on from; all have read it when this returns."""
    if state is not None and state["sharing"] != sharing:
        had, have = (", ".join(f"{name} {number}" for name, number in s.items()) for s in (state["sharing"], sharing))
        raise ValueError(
            f"{folder} holds the state of a training with {had}, which cannot go on with {have}: take the same again, "
            "or remove that folder to begin afresh"
        )
    place = 0 if state is None else 1 + state["history"]["epoch"] + state["history"]["tally"]["batches"]
    places = accelerator.reduce(torch.tensor(place, device=accelerator.device))
    if places != place * accelerator.num_processes:
        raise ValueError(f"{folder}: the processes find different states there; it must be one folder that all share")


def _data(
    config: TrainConfig, model: FrameClassifier, accelerator: Any
) -> tuple[Batches, Batches, Phonotactics | None]:
    """What to learn from, what to score on, and how the labels to learn follow each other; refused unless all fits."""
    phones, geometry, per_utterance = model.phones, model.frontend.geometry, model.pooling is not None
    if config.wave_augment.adds_silence and phones.pause is None:
        raise ValueError("wave_augment.pause_share and noise_share need a phone called SIL, sil or h#")
    ready_features = model.feature_dim is not None
    if ready_features and config.wave_augment != WaveAugmentConfig():
        raise ValueError("wave_augment needs a front end: a model of ready features hears no waveforms")
    training, dev = (
        load_cuts(path, geometry, feature_dim=model.feature_dim) for path in (config.data.train, config.data.dev)
    )
    phonotactics = None  # of shards, which would have to be read through, and of pooling
    if per_utterance or isinstance(training, Shards):
        check_labels(training, phones, geometry, per_utterance=per_utterance)
    else:
        phonotactics = phonotactics_of((cut_labels(cut, phones, geometry) for cut in training), len(phones))
    check_labels(dev, phones, geometry, per_utterance=per_utterance)
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
            shuffle=True, seed=config.seed, chunking=_chunking(config, model),
            wave_augment=config.wave_augment, num_workers=config.data.num_workers, **share,
        ),
        Batches(dev, phones, geometry, shuffle=False, **share),
        phonotactics,
    )  # fmt: skip


def _chunking(config: TrainConfig, model: FrameClassifier) -> Chunking | None:
    """How to cut long utterances so that a piece has the context that the model looks at.

    But for normalisation, which sees the piece as it would see the utterance.
    """
    frontend = model.config.frontend
    if config.data.max_seconds is None or frontend is None or model.pooling is not None:
        return None
    left, right = (
        None if frames is None else frames + frontend.delta_reach
        for frames in (model.body.left_context, model.body.right_context)
    )
    return Chunking.of(model.frontend.geometry, config.data.max_seconds, left, right)


def _steps(
    learner: Learner, batches: Batches, history: History, progress: Progress, interruption: Interruption
) -> Iterator[None]:
    """Learn from what is left of an epoch's data, and halt after each step, when `history` tells all that happened."""
    accelerator, tally, epoch = learner.accelerator, history.tally, history.epoch
    learner.wrapped.train()
    data = Timed(batches.epoch(epoch, skip=tally.batches))
    before, waited = time.monotonic(), 0.0

    with progress.over(epoch, tally):
        for group in grouped(padded_with_idle(data, batches.idle(), accelerator), learner.config.optim.accumulate):
            labels, utterances = sum_over_processes(
                accelerator,
                sum(int((batch.labels != IGNORED).sum()) for batch in group),
                sum(batch.num_utterances for batch in group),
            )
            own_loss, own_frames = learner.backward(group, int(labels), epoch)
            loss, frames, waiting, signals = sum_over_processes(
                accelerator, own_loss, own_frames, data.seconds - waited, interruption.received is not None
            )
            with interruption.held():
                learner.update(progress.share(epoch, tally))
                now = time.monotonic()
                tally.add(
                    batches=len(group), utterances=utterances, labels=int(labels), loss=loss, frames=int(frames),
                    seconds=now - before, waiting=waiting / accelerator.num_processes,
                )  # fmt: skip
                before, waited = now, data.seconds
            progress.show(tally)
            yield
            interruption.raise_if(signals > 0)


def sum_over_processes(accelerator: Any, *numbers: float) -> list[float]:
    """The sums over all processes."""
    return accelerator.reduce(torch.tensor(numbers, dtype=torch.float32, device=accelerator.device)).tolist()


def _dev_scores(learner: Learner, dev: Batches) -> dict[str, float | None]:
    """What the log says of an epoch's model; the best `dev_accuracy` is kept."""
    model, accelerator = learner.averaged, learner.accelerator
    confusion = torch.from_numpy(count_confusions(model, dev, accelerator.device))
    counts = accelerator.reduce(confusion.to(accelerator.device)).cpu().numpy()
    if model.pooling is not None:
        return {"dev_accuracy": utterance_figures(counts, model.phones.symbols)["accuracy"]}
    figures = frame_figures(counts, model.phones.symbols, model.phones.silences)
    return {
        "dev_accuracy": figures["frame_accuracy"],
        "dev_accuracy_no_silence": figures["frame_accuracy_no_silence"],
    }


@torch.no_grad()
def _learn_statistics(frontend: Frontend, batches: Iterator[Batch], accelerator: Any) -> None:
    """Mean and variance of the training features, for `global` and `online` normalisation."""
    device = accelerator.device
    statistics = FeatureStatistics(frontend.dim, device)
    plain = make_frontend(replace(frontend.config, normalisation="none")).to(device)
    for batch in batches:
        statistics.add(*plain(batch.waveforms.to(device), batch.lengths.to(device)))
    for name in ("count", "total", "squares"):
        setattr(statistics, name, accelerator.reduce(getattr(statistics, name)))
    frontend.set_statistics(statistics.mean, statistics.variance)
