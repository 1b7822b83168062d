"""Train a `FrameClassifier` on cuts, and keep the epoch that scores best on dev.

Accelerate handles devices, mixed precision and processes: the same command runs under `torchrun`. Rerun the command to
resume an interrupted run. All randomness derives from (seed, epoch, cut id), so a checkpoint holds only weights,
optimiser state and the position in the data.
"""

import json
import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from speechattn.cuts.shards import checksum_or_path
from speechattn.evaluation.evaluate import count_confusions, learn_temperature
from speechattn.evaluation.metrics import frame_figures, utterance_figures
from speechattn.jobs.interruption import Interruption
from speechattn.jobs.stamps import changed_parts, is_done, mark_done, stamp_record
from speechattn.model.classifier import FrameClassifier
from speechattn.model.files import model_files
from speechattn.phones import IGNORED
from speechattn.plots import plot_curves, save_figure
from speechattn.training.config import DataConfig, OptimConfig, TrainConfig
from speechattn.training.local_group import local_group
from speechattn.training.log import LOG_FILE, EpochLog
from speechattn.training.optimisers import padded_with_idle
from speechattn.training.progress import timed
from speechattn.training.setup import TRAIN_STAMP, UNFINISHED, Run, holds_model, set_up

__all__ = ["DataConfig", "OptimConfig", "TrainConfig", "train"]

log = logging.getLogger("speechattn")


def train(config: TrainConfig, *, init: str | Path | None = None, overwrite: bool = False, processes: int = 1) -> Path:
    """Train a model, or resume an interrupted run. A finished run is not repeated.

    The model kept is the averaged model of the epoch with the best dev accuracy. At the end, its temperature is fitted
    on dev, see `learn_temperature`. A run resumed with the same options and data ends with bit-equal weights on a CPU.

    Args:
        config: The configuration.
        init: Model to start from instead of random weights; its shape replaces that of `config.model`, see
            `fine_tuning.model_to_tune`.
        overwrite: Whether to train in a folder that holds the finished model of another run. That folder is renamed
            first, to `<output>.1` and so on, so that nothing finished is lost.
        processes: Number of processes on this machine that share each step, see `local_group`. Each takes batches of
            `data.batch_seconds / processes`, so that a step covers as much speech as with one process. Under torchrun
            it must be 1, and each process takes batches of `data.batch_seconds`.

    Returns:
        The model's folder.

    Raises:
        ValueError: If the cuts cannot be read or labelled, options do not fit each other or the machine, or a
            checkpoint cannot be resumed with these processes, the folder holds the finished model of another run, or
            another process trains in it; the folder is then unchanged. Also if the loss is not finite, memory runs
            out, or dev has no label to score; the subfolder `unfinished` then holds the best model so far and the last
            checkpoints.
        KeyboardInterrupt: On SIGINT (Ctrl-C), after saving a checkpoint, unless the data are still being loaded.
        SystemExit: On SIGTERM, likewise; while the data are loaded, SIGTERM ends the process as usual.
    """
    output = Path(config.output)
    options, inputs = stamp_inputs(config, init)
    defaults = default_options()
    if is_done(output / TRAIN_STAMP, options, inputs, defaults=defaults):
        shutil.rmtree(output / UNFINISHED, ignore_errors=True)  # left by a process killed during the final clean-up
        log.info("%s: already trained with these options and data", output)
        return output
    record = stamp_record(options, inputs)
    if holds_model(output) and not overwrite:
        raise ValueError(
            f"{output} holds a finished model of another run ({_differences(output, record, defaults)}): choose "
            "another folder, or use --overwrite, which renames it"
        )
    arguments = config, init, options, inputs, overwrite, processes > 1
    with local_group(processes, _train_run, *arguments):
        _train_run(*arguments)
    return output


def _train_run(
    config: TrainConfig,
    init: str | Path | None,
    options: Mapping[str, Any],
    inputs: Mapping[str, Path | str],
    overwrite: bool,
    split_batches: bool,
) -> None:
    """Train as one of the processes. `options` and `inputs` are those of the stamp; the rest as for `set_up`."""
    output = Path(config.output)
    run = set_up(config, init, stamp_record(options, inputs), overwrite=overwrite, split_batches=split_batches)
    is_main = run.accelerator.is_main_process
    with (
        ExitStack() as at_end,
        Interruption(deferred=run.accelerator.num_processes > 1) as interruption,
        EpochLog(output / LOG_FILE, run.state.rows, enabled=is_main) as epoch_log,
    ):
        if run.lock is not None:
            at_end.callback(run.lock.release)
        try:
            while run.state.epoch < config.optim.epochs:
                _train_epoch(run, interruption)
                _score_epoch(run, epoch_log, interruption)
            interruption.deferred = False  # from here on, the processes need not agree
            if is_main:
                _save_model(run, output)
                written = [*model_files(output).values(), output / LOG_FILE]
                mark_done(output / TRAIN_STAMP, options, inputs, written)
                shutil.rmtree(output / UNFINISHED)
        except (KeyboardInterrupt, SystemExit):
            if is_main and not (output / TRAIN_STAMP).is_file():  # else the run is complete
                run.save()
                log.info(
                    "stopped after %d epochs and %d batches; rerun the command to resume from the last checkpoint",
                    run.state.epoch, run.state.tally.batches,
                )  # fmt: skip
            raise
    run.accelerator.wait_for_everyone()


def _differences(output: Path, record: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    try:
        stamp = json.loads((output / TRAIN_STAMP).read_text(encoding="utf-8"))
        changed = changed_parts(stamp, record, defaults)
    except (OSError, ValueError, KeyError):
        return "it has no valid stamp"
    return f"other {', '.join(changed)}" if changed else "its files were changed"


def stamp_inputs(config: TrainConfig, init: str | Path | None) -> tuple[dict[str, Any], dict[str, Path | str]]:
    """What determines a run's result, for its stamp: options, and files by role. Locations do not count."""
    files = model_files(init) if init is not None else {}
    # By content: a model may have moved, or another one may have its name. One on the Hub is known by name alone.
    options = asdict(config) | {"init": None if init is None else "by content" if files else str(init)}
    del options["output"], options["model"]["temperature"]  # the temperature is learned
    for name in ("train", "dev", "num_workers"):
        del options["data"][name]
    del options["optim"]["save_minutes"]
    inputs = {"train": checksum_or_path(config.data.train), "dev": checksum_or_path(config.data.dev)}
    return options, {**inputs, **files}


def default_options() -> dict[str, Any]:
    """Options as a version without them would have had them: see `stamps.is_done`."""
    return asdict(TrainConfig()) | {"init": None}


def _train_epoch(run: Run, interruption: Interruption) -> None:
    """Train on the rest of the current epoch, saving checkpoints when due."""
    from tqdm import tqdm

    accelerator, learner, optim = run.accelerator, run.learner, run.config.optim
    tally, epoch, num_cuts = run.state.tally, run.state.epoch, run.batches.num_cuts
    learner.wrapped.train()
    waits: list[float] = []
    batches = padded_with_idle(
        timed(run.batches.epoch(epoch, skip=tally.batches), waits), run.batches.idle(), accelerator
    )
    step_start = time.monotonic()
    with tqdm(
        total=num_cuts, initial=round(tally.utterances), desc=f"epoch {epoch + 1}/{optim.epochs}", unit="utt",
        leave=False, disable=None if accelerator.is_main_process else True,  # None: shown only on a terminal
    ) as bar:  # fmt: skip
        while group := list(islice(batches, optim.accumulate)):
            labels, utterances = sum_over_processes(
                accelerator,
                sum(int((batch.labels != IGNORED).sum()) for batch in group),
                sum(batch.num_utterances for batch in group),
            )
            local_loss, local_frames = learner.backward(group, int(labels), epoch)
            loss, frames, waiting, signals = sum_over_processes(
                accelerator, local_loss, local_frames, sum(waits), interruption.received is not None
            )
            with interruption.held():
                learner.update(run.state.fraction_done(optim.epochs, num_cuts, utterances))
                now = time.monotonic()
                tally.add(
                    batches=len(group), utterances=utterances, labels=int(labels), loss=loss, frames=int(frames),
                    seconds=now - step_start, waiting=waiting / accelerator.num_processes,
                )  # fmt: skip
                step_start = now
                waits.clear()
            bar.set_postfix(loss=f"{tally.mean_loss:.3f}", frames=f"{tally.frames:,}", refresh=False)
            bar.update(round(tally.utterances) - bar.n)
            if run.checkpoints.due:
                run.save()
            interruption.raise_if(signals > 0)


def _score_epoch(run: Run, epoch_log: EpochLog, interruption: Interruption) -> None:
    """Score the averaged model on dev, log the epoch, and keep the model if it is the best so far."""
    started, state, model = time.monotonic(), run.state, run.learner.averaged
    scores = _dev_scores(model, run)
    accuracy = scores["dev_accuracy"]
    if accuracy is None:
        raise ValueError(f"{run.config.data.dev}: no frame has a label that can be scored")
    with interruption.held():
        epoch_log.write(
            epoch=state.epoch + 1,
            train_loss=round(state.tally.mean_loss, 5),
            **{name: round(score or 0.0, 5) for name, score in scores.items()},
            seconds=round(state.tally.seconds + time.monotonic() - started, 1),
            **state.tally.throughput(),
        )
        if state.close_epoch(accuracy, model) and run.accelerator.is_main_process:
            folder = Path(run.config.output) / UNFINISHED
            try:
                model.save_pretrained(folder)
            except OSError as error:
                log.warning("%s: the best model so far could not be saved; training continues: %s", folder, error)
    [signals] = sum_over_processes(run.accelerator, interruption.received is not None)
    interruption.raise_if(signals > 0)


def _dev_scores(model: FrameClassifier, run: Run) -> dict[str, float | None]:
    """Scores for the log; the epoch with the best `dev_accuracy` is kept."""
    confusion = torch.from_numpy(count_confusions(model, run.dev, run.accelerator.device))
    counts = run.accelerator.reduce(confusion.to(run.accelerator.device)).cpu().numpy()
    if model.pooling is not None:
        return {"dev_accuracy": utterance_figures(counts, model.phones.symbols)["accuracy"]}
    figures = frame_figures(counts, model.phones.symbols, model.phones.silences)
    return {f"dev_{name}": figures[f"frame_{name}"] for name in ("accuracy", "accuracy_no_silence")}


def _save_model(run: Run, output: Path) -> None:
    """Fit the temperature of the best model on dev, and save the model and the learning curves."""
    best = run.learner.averaged  # in float32 even under mixed precision, as it will be used
    best.load_state_dict(run.state.best_weights)
    best.config = replace(best.config, temperature=learn_temperature(best, run.config.data.dev))
    log.info("temperature %.3f, learned on dev", best.config.temperature)
    best.phonotactics = run.phonotactics
    save_figure(plot_curves(run.state.rows), output / "curves.png")
    best.save_pretrained(output)


def sum_over_processes(accelerator: Any, *numbers: float) -> list[float]:
    """Sum each number over all processes."""
    return accelerator.reduce(torch.tensor(numbers, dtype=torch.float32, device=accelerator.device)).tolist()
