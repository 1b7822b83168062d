"""An interrupted or killed run resumes as though nothing had happened, bit for bit."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_process import log_rows, run_training, start_training

from speechattn.batches.wave_augment import WaveAugmentConfig
from speechattn.cuts.shards import is_sharded, write_shards
from speechattn.jobs.interruption import Interruption
from speechattn.model.classifier import FrameClassifier
from speechattn.training.config import TrainConfig
from speechattn.training.optimisers import Learner
from speechattn.training.run import train

TIMES = ("seconds", "frames_per_s", "data_wait")


@pytest.fixture
def short(config: TrainConfig) -> TrainConfig:
    """Two epochs, all augmentation, a checkpoint after every step."""
    return replace(
        config,
        wave_augment=WaveAugmentConfig(speeds=(0.9, 1.0, 1.1), gain_db=6.0),
        optim=replace(config.optim, epochs=2, save_minutes=0.0),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[TrainConfig], Path]:
    """The result of an uninterrupted run, by its configuration; each is trained once."""
    done: dict[TrainConfig, Path] = {}

    def train_whole(config: TrainConfig) -> Path:
        num_workers = config.data.num_workers if is_sharded(config.data.train) else 0
        config = replace(config, output="", data=replace(config.data, num_workers=num_workers))
        if config not in done:
            done[config] = train(replace(config, output=str(tmp_path_factory.mktemp("whole") / "model")))
        return done[config]

    return train_whole


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, str]]]:
    """Weights, and the log without its times."""
    rows = [{name: value for name, value in row.items() if name not in TIMES} for row in log_rows(folder)]
    return FrameClassifier.from_pretrained(folder).state_dict(), rows


def assert_same(folder: Path, other: Path) -> None:
    (weights, rows), (expected, expected_rows) = outcome(folder), outcome(other)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert rows == expected_rows
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in other.iterdir())


def call_at(monkeypatch: pytest.MonkeyPatch, target: object, name: str, number: int, do: object) -> None:
    """Call `do` just before the call with this number of a method."""
    calls, method = iter(range(1, 10**6)), getattr(target, name)

    def patched(*args, **options):
        if next(calls) == number:
            do()  # type: ignore[operator]
        return method(*args, **options)

    monkeypatch.setattr(target, name, patched)


class Crash(Exception):
    """An exception that no code expects."""


def crash() -> None:
    raise Crash


def crash_at(monkeypatch: pytest.MonkeyPatch, config: TrainConfig, step: int) -> None:
    """Train until just before a step."""
    with monkeypatch.context() as patch, pytest.raises(Crash):
        call_at(patch, Learner, "update", step, crash)
        train(config)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_crashed_run_resumes_bit_by_bit(
    optimizer: str, short: TrainConfig, whole: Callable[[TrainConfig], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the first epoch, about the start of the second, and before the very last step."""
    short = replace(short, optim=replace(short.optim, optimizer=optimizer, context_weight=0.3))
    steps: list[float] = []
    with monkeypatch.context() as patch:
        update = Learner.update
        patch.setattr(Learner, "update", lambda self, done: (steps.append(done), update(self, done)))
        train(short)
    folder = Path(short.output)
    assert_same(folder, whole(short))
    for step in (3, len(steps) // 2 + 1, len(steps)):
        shutil.rmtree(folder)
        crash_at(monkeypatch, short, step)
        assert len(list(folder.glob("unfinished/state-*.pt"))) == 2
        train(short)
        assert_same(folder, whole(short))


@pytest.mark.parametrize(
    ("target", "method", "number", "stop"),
    [
        (Learner, "update", signal.SIGTERM, SystemExit),  # within a step: the step is finished
        (Learner, "backward", signal.SIGINT, KeyboardInterrupt),  # before the gradient: the step is abandoned
        (FrameClassifier, "eval", signal.SIGTERM, SystemExit),  # while dev is scored
    ],
)
def test_a_run_stopped_by_a_signal_resumes(
    short: TrainConfig,
    whole: Callable[[TrainConfig], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    target: type,
    method: str,
    number: int,
    stop: type,
) -> None:
    rarely = replace(short, optim=replace(short.optim, save_minutes=60.0))
    before = signal.getsignal(number)
    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        call_at(patch, target, method, 1 if method == "eval" else 3, lambda: signal.raise_signal(number))
        with pytest.raises(stop) as stopped:
            train(rarely)
    if stop is SystemExit:
        assert stopped.value.code == 143
    assert (
        "stopped after 0 epochs and" in caplog.text
        and "rerun the command to resume from the last checkpoint" in caplog.text
    )
    assert signal.getsignal(number) is before
    [state] = Path(short.output).glob("unfinished/state-*.pt")
    if method != "eval":
        assert state.name.startswith(f"state-00000-0000000{3 if method == 'update' else 2}-")
    train(short)  # the saving interval may change
    assert_same(Path(short.output), whole(short))


@pytest.mark.parametrize("epochs", [1, 2])
def test_deferred_signals_stop_a_run_after_dev_is_scored(
    short: TrainConfig,
    whole: Callable[[TrainConfig], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    epochs: int,
) -> None:
    """One process that defers signals as several do; in the last epoch, too."""
    config = replace(short, optim=replace(short.optim, epochs=epochs))
    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        patch.setattr("speechattn.training.run.Interruption", lambda **_: Interruption(deferred=True))
        call_at(patch, FrameClassifier, "eval", 1, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit):
            train(config)
    assert "stopped after 1 epochs and 0 batches" in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr("speechattn.training.run.Interruption", lambda **_: Interruption(deferred=True))
        patch.setattr("speechattn.training.run.plot_curves", lambda *_: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit):  # at the end, too, where signals are not deferred
            train(config)
    train(config)
    assert_same(Path(config.output), whole(config))


@pytest.mark.parametrize(("num_workers", "same", "other"), [(0, 1, 2), pytest.param(2, 2, 0, marks=pytest.mark.slow)])
def test_accumulation_and_shards_resume_too(
    short: TrainConfig,
    whole: Callable[[TrainConfig], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_workers: int,
    same: int,
    other: int,
) -> None:
    """One data-loading process reads shards in the same order as none; two share them."""
    write_shards(Path(short.data.train), tmp_path / "shards/train", size=8)
    sharded = replace(
        short,
        data=replace(short.data, train=str(tmp_path / "shards/train"), num_workers=num_workers),
        optim=replace(short.optim, accumulate=2),
    )

    def read_by(workers: int) -> TrainConfig:
        return replace(sharded, data=replace(sharded.data, num_workers=workers))

    crash_at(monkeypatch, sharded, 3)
    readers, others = max(1, num_workers), max(1, other)
    message = rf"data\.num_workers {readers}, which cannot be resumed with .* data\.num_workers {others}"
    with pytest.raises(ValueError, match=message):
        train(read_by(other))
    train(read_by(same))
    assert_same(Path(short.output), whole(sharded))


def test_another_number_of_processes_is_refused(short: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    crash_at(monkeypatch, short, 3)
    monkeypatch.setattr(
        "speechattn.training.setup._resume_conditions", lambda *_: {"processes": 2, "mixed precision": "bf16"}
    )
    had, have = "processes 1, mixed precision no", "processes 2, mixed precision bf16"
    with pytest.raises(ValueError, match=f"a run with {had}, which cannot be resumed with {have}"):
        train(short)
    assert list(Path(short.output).glob("unfinished/state-*.pt"))


def test_other_options_start_over_with_a_warning(
    short: TrainConfig,
    whole: Callable[[TrainConfig], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    crash_at(monkeypatch, short, 3)
    changed = replace(short, seed=1, optim=replace(short.optim, epochs=1, clip=2.0))
    train(changed)
    assert "belongs to a run with other settings (seed, optim.epochs, optim.clip): starting over" in caplog.text
    assert_same(Path(short.output), whole(changed))


def test_failing_to_save_checkpoints_or_the_best_model_does_not_stop_a_run(
    short: TrainConfig,
    whole: Callable[[TrainConfig], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A full disk, where the log and the finished model still find room."""
    config, write = replace(short, optim=replace(short.optim, epochs=1)), Path.write_bytes

    def write_when_finished(path: Path, data: bytes) -> int:
        if "unfinished" in path.parts:
            raise OSError("No space left on device")
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_when_finished)
        train(config)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert all("could not be saved" in text and "No space left on device" in text for text in warnings)
    for what in ("the checkpoint", "the best model so far"):
        assert any(what in text for text in warnings)
    assert_same(Path(config.output), whole(config))


def wait_for_checkpoints(folder: Path, process: subprocess.Popen[str], number: int) -> bool:
    """Whether at least `number` checkpoints were written before the process ended."""
    seen: set[str] = set()
    while len(seen) < number and process.poll() is None:
        seen.update(path.name for path in folder.glob("unfinished/state-*.pt"))
        time.sleep(0.01)
    return len(seen) >= number


def test_a_killed_run_with_workers_resumes_bit_by_bit(
    short: TrainConfig, whole: Callable[[TrainConfig], Path], tmp_path: Path
) -> None:
    short = replace(short, data=replace(short.data, num_workers=2))
    with start_training(short, tmp_path) as process:
        assert wait_for_checkpoints(Path(short.output), process, 5)
        os.killpg(process.pid, signal.SIGKILL)
    train(short)
    assert_same(Path(short.output), whole(short))


@pytest.mark.slow
def test_a_run_killed_ten_times_resumes_bit_by_bit(
    short: TrainConfig, whole: Callable[[TrainConfig], Path], tmp_path: Path
) -> None:
    short = replace(short, data=replace(short.data, num_workers=2))
    generator = random.Random(0)
    for _ in range(10):
        with start_training(short, tmp_path) as process:
            if wait_for_checkpoints(Path(short.output), process, generator.randint(1, 4)):
                time.sleep(generator.uniform(0, 0.1))
            if process.poll() is None:
                os.killpg(process.pid, generator.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
    run_training(short, tmp_path)
    assert_same(Path(short.output), whole(short))


@pytest.mark.slow
def test_two_processes_stopped_together_resume_bit_by_bit(short: TrainConfig, tmp_path: Path) -> None:
    short = replace(short, data=replace(short.data, num_workers=1))  # torchrun's signals reach data workers, too
    run_training(replace(short, output=str(tmp_path / "whole")), tmp_path, processes=2)
    for number in (signal.SIGTERM, signal.SIGINT):  # torchrun passes them on
        with start_training(short, tmp_path, processes=2) as process:
            assert wait_for_checkpoints(Path(short.output), process, 3)
            process.send_signal(number)
            _, logged = process.communicate()
        assert "rerun the command to resume from the last checkpoint" in logged
    assert "resumed after" in run_training(short, tmp_path, processes=2)
    assert_same(Path(short.output), tmp_path / "whole")
