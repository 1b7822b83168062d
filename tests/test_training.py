"""Training end to end on a corpus made of tones: it learns, repeats exactly, and refuses what it cannot use."""

from __future__ import annotations

import csv
import math
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from speechattn.alignment import Interval
from speechattn.augmentation import SpecAugmentConfig
from speechattn.classifier import ClassifierConfig, FrameClassifier
from speechattn.corpora.manifest import alignment_items, read_cuts, save_cuts
from speechattn.corpora.shards import write_shards
from speechattn.data import Batch
from speechattn.encoder import EncoderConfig
from speechattn.evaluation import evaluate, learn_temperature
from speechattn.frontend import MfccConfig
from speechattn.training import DataConfig, OptimConfig, TrainConfig, frame_loss, in_step, schedule, train


@pytest.fixture
def config(tone_corpus, tmp_path):
    return TrainConfig(
        output=str(tmp_path / "model"),
        data=DataConfig(
            train=str(tone_corpus / "train.jsonl.gz"),
            dev=str(tone_corpus / "dev.jsonl.gz"),
            batch_seconds=4.0,
            num_workers=0,
        ),
        model=ClassifierConfig(
            frontend=MfccConfig(normalisation="global"),
            encoder=EncoderConfig(dim=32, layers=1, heads=2, left=4, right=4, feed_forward=32, conv_kernel=3),
        ),
        spec_augment=SpecAugmentConfig(freq_masks=1, freq_width=2, time_masks_per_s=0.5, time_width=3),
        optim=OptimConfig(epochs=6, learning_rate=5e-3, average=0.9),
    )


def weights(folder):
    return FrameClassifier.from_pretrained(folder).state_dict()


def log_rows(folder):
    with open(folder / "log.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_learns_a_separable_task_and_keeps_the_best_epoch(config, tone_corpus):
    folder = train(config)
    rows = log_rows(folder)
    assert [int(row["epoch"]) for row in rows] == list(range(1, 7))
    assert float(rows[-1]["train_loss"]) < 0.5 * float(rows[0]["train_loss"])
    figures, confusion = evaluate(FrameClassifier.from_pretrained(folder), tone_corpus / "dev.jsonl.gz")
    assert figures["frame_accuracy"] > 0.9 > figures["majority"]["frame_accuracy"] + 0.3
    best = max(float(row["dev_accuracy"]) for row in rows)
    assert figures["frame_accuracy"] == pytest.approx(best, abs=1e-5)
    assert confusion.sum() == figures["num_frames"]
    model = FrameClassifier.from_pretrained(folder)
    assert model.frontend.mean.abs().max() > 1  # statistics were learned
    assert model.config.temperature == learn_temperature(model, tone_corpus / "dev.jsonl.gz") != 1
    assert figures["expected_calibration_error"] < figures["expected_calibration_error_at_temperature_1"]


def test_same_seed_same_weights_whatever_the_workers_and_other_seed_other_weights(config, tmp_path):
    short = replace(config, optim=replace(config.optim, epochs=1))
    first = weights(train(replace(short, output=str(tmp_path / "a"))))
    workers = replace(short.data, num_workers=2)
    again = weights(train(replace(short, data=workers, output=str(tmp_path / "b"))))
    other = weights(train(replace(short, seed=1, output=str(tmp_path / "c"))))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_finished_training_is_not_repeated_but_a_changed_or_damaged_one_is(config):
    config = replace(config, optim=replace(config.optim, epochs=1))
    folder = train(config)
    weight_file = folder / "model.safetensors"
    made = weight_file.stat().st_mtime_ns
    train(config)
    assert weight_file.stat().st_mtime_ns == made
    train(replace(config, optim=replace(config.optim, learning_rate=1e-3)))
    changed = weight_file.stat().st_mtime_ns
    assert changed > made
    weight_file.write_bytes(weight_file.read_bytes()[:100])
    train(replace(config, optim=replace(config.optim, learning_rate=1e-3)))
    assert weight_file.stat().st_size > 100


def test_a_refused_training_leaves_the_model_that_is_there(config):
    folder = train(replace(config, optim=replace(config.optim, epochs=1)))
    before = weights(folder)
    with pytest.raises(ValueError, match="phone"):
        train(replace(config, model=replace(config.model, phones="timit39")))
    after = weights(folder)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_stopped_training_leaves_nothing_that_looks_finished(config, monkeypatch):
    folder = train(replace(config, optim=replace(config.optim, epochs=1)))

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("speechattn.training.plot_curves", stop)  # after the last epoch
    with pytest.raises(KeyboardInterrupt):
        train(config)
    with pytest.raises(ValueError, match="no model at"):
        FrameClassifier.from_pretrained(folder)
    FrameClassifier.from_pretrained(folder / "unfinished")
    monkeypatch.undo()
    train(config)
    FrameClassifier.from_pretrained(folder)
    assert not (folder / "unfinished").exists()


def test_a_training_from_another_model_runs_again_when_that_model_changes(config, tmp_path):
    short = replace(config, optim=replace(config.optim, epochs=1))
    start, tuned = replace(short, output=str(tmp_path / "start")), replace(short, output=str(tmp_path / "tuned"))
    made = []
    for seed in (0, 0, 1):
        init = train(replace(start, seed=seed))
        made.append((train(tuned, init=init) / "model.safetensors").stat().st_mtime_ns)
    assert made[0] == made[1] < made[2]


def test_nothing_to_score_is_an_error(config, tone_corpus, tmp_path):
    cuts = [cut for cut in read_cuts(tone_corpus / "dev.jsonl.gz")]
    for cut in cuts:
        end = cut.num_samples
        cut.supervisions[0].alignment["phone"] = alignment_items([Interval(0, end, "q")])
    save_cuts(tmp_path / "q.jsonl.gz", cuts)
    with pytest.raises(ValueError, match="no frame has a label"):
        evaluate(FrameClassifier(ClassifierConfig(phones="timit39")).eval(), tmp_path / "q.jsonl.gz")


def train_in_two_processes(config, tmp_path):
    """Train under torchrun; returns the log's rows."""
    script = tmp_path / "train.py"
    script.write_text(
        "import logging, pickle, sys\n"
        "from speechattn.training import train\n"
        "if __name__ == '__main__':\n"
        "    logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
        f"    train(pickle.load(open({str(tmp_path / 'config.pickle')!r}, 'rb')))\n"
    )
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(config))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(script)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("2 process(es) on cpu") == 1
    return log_rows(Path(config.output))


def test_two_processes_train_one_model_on_uneven_data(config, tmp_path):
    """Every cut is scored once, and the loss starts as one process's does."""
    short = replace(config, optim=replace(config.optim, epochs=2))
    rows = train_in_two_processes(short, tmp_path)
    folder = Path(config.output)
    figures, _ = evaluate(FrameClassifier.from_pretrained(folder), config.data.dev)
    best = max(float(row["dev_accuracy"]) for row in rows)
    assert len(rows) == 2 and figures["frame_accuracy"] == pytest.approx(best, abs=1e-5)
    alone = log_rows(train(replace(short, output=str(tmp_path / "alone"))))
    assert float(rows[0]["train_loss"]) == pytest.approx(float(alone[0]["train_loss"]), rel=0.25)


class Processes:
    """Stands for Accelerate in threads: `reduce` sums over them."""

    num_processes, device = 3, torch.device("cpu")

    def __init__(self):
        self.barrier, self.values = threading.Barrier(self.num_processes, timeout=20), []

    def reduce(self, value):
        self.values.append(value)
        self.barrier.wait()
        total = sum(self.values[-self.num_processes :])
        self.barrier.wait()
        return total


@pytest.mark.parametrize("counts", [(1, 2, 5), (3, 3, 3), (1, 1, 2)])
def test_processes_with_fewer_batches_keep_step_without_adding_to_the_loss(counts):
    processes = Processes()

    def batches(process):
        for number in range(counts[process]):
            name = [f"{process}-{number}"]
            yield Batch(name, torch.ones(1, 800), torch.tensor([800]), torch.ones(1, 3, dtype=torch.int64), [0])

    with ThreadPoolExecutor(processes.num_processes) as pool:
        taken = list(pool.map(lambda process: list(in_step(batches(process), processes)), range(3)))
    assert {len(mine) for mine in taken} == {max(counts)}
    for process, mine in enumerate(taken):
        own, idle = mine[: counts[process]], mine[counts[process] :]
        assert [batch.ids for batch in own] == [[f"{process}-{number}"] for number in range(counts[process])]
        for batch in idle:
            assert batch.ids == [] and batch.labels.shape == (1, 3)
            assert frame_loss(torch.randn(1, 3, 5), batch.labels) == 0


@pytest.mark.slow
def test_two_processes_train_one_model_on_shards(config, tone_corpus, tmp_path):
    """3 shards for 2 processes: steps differ, and still every cut is learned from, and every dev cut scored."""
    write_shards(Path(config.data.train), tmp_path / "shards/train", size=8)
    write_shards(Path(config.data.dev), tmp_path / "shards/dev", size=100)
    data = replace(config.data, train=str(tmp_path / "shards/train"), dev=str(tmp_path / "shards/dev"))
    short = replace(config, data=data, optim=replace(config.optim, epochs=2))
    rows = train_in_two_processes(short, tmp_path)
    figures, _ = evaluate(FrameClassifier.from_pretrained(Path(config.output)), config.data.dev)
    best = max(float(row["dev_accuracy"]) for row in rows)
    assert len(rows) == 2 and figures["frame_accuracy"] == pytest.approx(best, abs=1e-5)
    with pytest.raises(AssertionError, match="1 shards are too few for 2 processes"):
        wrong = replace(short, data=replace(data, train=data.dev), output=str(tmp_path / "wrong"))
        train_in_two_processes(wrong, tmp_path)


def test_init_starts_from_the_models_weights(config, tmp_path):
    folder = train(replace(config, optim=replace(config.optim, epochs=1)))
    frozen = replace(config, output=str(tmp_path / "tuned"), optim=replace(config.optim, epochs=1, learning_rate=0.0))
    tuned = weights(train(frozen, init=folder))
    start = weights(folder)
    assert all(torch.allclose(start[name], tuned[name], atol=1e-6) for name in start)


def test_labels_that_the_inventory_lacks_name_the_cut(config):
    wrong = replace(config, model=replace(config.model, phones="timit39"))
    with pytest.raises(ValueError, match=r"cut train-\d+.*phone '(AA|IY|S|SIL)'"):
        train(wrong)


def test_loss_is_the_sum_over_labelled_frames_by_hand():
    logits = torch.randn(2, 3, 5)
    labels = torch.tensor([[0, 4, -100], [2, -100, -100]])
    by_hand = 0.0
    for row, frame in ((0, 0), (0, 1), (1, 0)):
        by_hand -= F.log_softmax(logits[row, frame], dim=0)[labels[row, frame]].item()
    assert frame_loss(logits, labels).item() == pytest.approx(by_hand, rel=1e-5)
    assert frame_loss(logits, torch.full((2, 3), -100)).item() == 0


def test_loss_over_utterances_by_hand():
    logits, labels = torch.randn(3, 5), torch.tensor([4, 0, 2])
    by_hand = -sum(F.log_softmax(logits[row], dim=0)[label].item() for row, label in enumerate(labels))
    assert frame_loss(logits, labels).item() == pytest.approx(by_hand, rel=1e-5)


def test_schedule_rises_falls_and_ends_at_zero():
    assert schedule(0.0, 0.1) == 0
    assert schedule(0.05, 0.1) == pytest.approx(0.5)
    assert schedule(0.1, 0.1) == pytest.approx(1)
    assert schedule(0.55, 0.1) == pytest.approx(0.5)
    assert schedule(1.0, 0.1) == pytest.approx(0, abs=1e-12)
    shares = np.linspace(0.1, 1, 50)
    assert all(schedule(a, 0.1) > schedule(b, 0.1) for a, b in zip(shares, shares[1:], strict=False))
    assert math.isclose(schedule(0.0, 0.0), 1)
