"""Processes on one machine train what one process trains, fail with one message, and leave nothing behind."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_process import log_rows

from speechattn.batches.loader import Batches
from speechattn.cuts.files import read_cuts, save_cuts
from speechattn.geometry import Geometry
from speechattn.model.classifier import FrameClassifier
from speechattn.phones import PhoneSet
from speechattn.training.local_group import default_processes, local_group
from speechattn.training.run import train


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_processes_learn_what_one_learns(optimizer, config, tmp_path):
    short = replace(config, optim=replace(config.optim, epochs=2, accumulate=1, optimizer=optimizer))
    threads, environment = torch.get_num_threads(), dict(os.environ)
    # Two batches of 5 s a step, as one process accumulates them.
    data = replace(config.data, batch_seconds=10.0)
    together = train(replace(short, data=data, output=str(tmp_path / "together")), processes=2)
    assert (torch.get_num_threads(), dict(os.environ)) == (threads, environment)
    assert not torch.distributed.is_initialized()
    assert not [child for child in multiprocessing.active_children() if child.name.startswith("Spawn")]
    halves = replace(config.data, batch_seconds=5.0)
    accumulated = replace(short, data=halves, optim=replace(short.optim, accumulate=2), output=str(tmp_path / "alone"))
    alone = train(accumulated)  # and this process can train alone again
    for row, expected in zip(log_rows(together), log_rows(alone), strict=True):
        assert float(row["train_loss"]) == pytest.approx(float(expected["train_loss"]), rel=1e-4)
    expected, found = (FrameClassifier.from_pretrained(folder).state_dict() for folder in (alone, together))
    assert all(torch.allclose(found[name], expected[name], atol=1e-3) for name in expected)


def test_what_fails_in_one_process_is_told_once(config, tmp_path):
    """Unreadable audio that only the second process meets."""
    cuts = list(read_cuts(config.data.train))
    data = replace(config.data, train=str(tmp_path / "train.jsonl.gz"), num_workers=1)
    save_cuts(Path(data.train), cuts)
    broken = replace(config, data=data)
    second = _batch_of_the_second_process(broken)
    for cut in cuts:
        if cut.id in second:
            cut.recording.sources[0].source = str(tmp_path / "gone.flac")
    save_cuts(Path(data.train), cuts)
    with pytest.raises(ValueError, match=r"^cut train-\d+: its audio \S+gone.flac cannot be read$"):
        train(broken, processes=2)
    assert not [child for child in multiprocessing.active_children() if child.name.startswith("Spawn")]


def _batch_of_the_second_process(config):
    batches = Batches(
        read_cuts(config.data.train), PhoneSet.load("arpabet41"), Geometry(),
        batch_seconds=config.data.batch_seconds / 2, shuffle=True, seed=config.seed, rank=1, world_size=2,
    )  # fmt: skip
    return next(batches.epoch(0)).ids


def _die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_told():
    with pytest.raises(ValueError, match="a training process died"), local_group(2, _die):
        raise RuntimeError("connection closed by peer")


def test_an_error_here_ends_the_others():
    began = time.monotonic()
    with pytest.raises(KeyError, match="own"), local_group(2, time.sleep, 60):
        raise KeyError("own")
    assert time.monotonic() - began < 50  # not their 60 seconds
    assert not [child for child in multiprocessing.active_children() if child.name.startswith("Spawn")]


@pytest.mark.parametrize(
    ("threads", "parameters", "torchrun", "expected"),
    [(2, 2_000_000, False, 2), (1, 2_000_000, False, 1), (8, 10_000, False, 1), (8, 2_000_000, True, 1)],
)
def test_large_models_on_cores_train_in_two_processes(threads, parameters, torchrun, expected, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if torchrun:
        monkeypatch.setenv("WORLD_SIZE", "2")
    assert default_processes(parameters) == expected
