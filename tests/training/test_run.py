"""Training end to end on a corpus made of tones: it learns, repeats exactly, and refuses what it cannot use."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from training_process import log_rows, run_training

from speechattn.batches.loader import Batches
from speechattn.cuts.files import alignment_items, read_cuts, save_cuts
from speechattn.cuts.model_inputs import cut_labels, load_cuts
from speechattn.cuts.shards import write_shards
from speechattn.decoding.smoothing import phonotactics_of
from speechattn.evaluation.evaluate import evaluate, learn_temperature
from speechattn.geometry import Geometry
from speechattn.labels.intervals import Interval
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig
from speechattn.phones import PhoneSet
from speechattn.training.config import OptimConfig
from speechattn.training.run import train


def weights(folder):
    return FrameClassifier.from_pretrained(folder).state_dict()


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
    assert all(float(row["frames_per_s"]) > 0 and 0 < float(row["data_wait"]) < 1 for row in rows)


def test_what_is_learned_at_the_end_is_that_of_the_model_on_disk(config, tone_corpus, tmp_path):
    """In float32, though it was trained in bf16; training labels are counted when they are read, which is once."""
    cuts = list(read_cuts(config.data.train))
    cuts[0] = cuts[0].truncate(duration=300 / 16000, preserve_id=True)
    save_cuts(tmp_path / "train.jsonl.gz", cuts)
    short = replace(
        config,
        data=replace(config.data, train=str(tmp_path / "train.jsonl.gz")),
        optim=replace(config.optim, epochs=1, mixed_precision="bf16"),
    )
    logged = run_training(short, tmp_path)  # by itself: Accelerate takes one precision in a process
    assert logged.count("1 cuts below one frame left out") == 1
    model = FrameClassifier.from_pretrained(short.output)
    assert model.config.temperature == learn_temperature(model, tone_corpus / "dev.jsonl.gz")
    labels = [cut_labels(cut, model.phones, model.frontend.geometry) for cut in cuts[1:]]
    assert model.phonotactics == phonotactics_of(labels, len(model.phones))


def test_same_seed_same_weights_whatever_the_workers_and_other_seed_other_weights(config, tmp_path):
    short = replace(config, optim=replace(config.optim, epochs=1))
    first = weights(train(replace(short, output=str(tmp_path / "a"))))
    workers = replace(short.data, num_workers=2)
    again = weights(train(replace(short, data=workers, output=str(tmp_path / "b"))))
    other = weights(train(replace(short, seed=1, output=str(tmp_path / "c"))))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_model_is_neither_trained_again_nor_lost(config, capsys):
    config = replace(config, optim=replace(config.optim, epochs=1))
    folder = train(config)
    before = files_of(folder)
    train(config)
    assert files_of(folder) == before
    changed = replace(config, seed=5, optim=replace(config.optim, learning_rate=1e-3))
    expected = (
        r"holds a finished model of another run \(other seed, optim.learning_rate\): choose another folder, or use"
    )
    with pytest.raises(ValueError, match=expected):
        train(changed)
    assert files_of(folder) == before
    assert train(changed, overwrite=True) == folder
    assert files_of(folder.with_name(f"{folder.name}.1")) == before and files_of(folder) != before
    second = files_of(folder)
    train(changed, overwrite=True)
    assert files_of(folder) == second
    train(replace(config, seed=6), overwrite=True)
    assert files_of(folder.with_name(f"{folder.name}.2")) == second
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="its files were changed"):
        train(replace(config, seed=6))
    (folder / "train.done.json").unlink()  # somebody else's model
    with pytest.raises(ValueError, match="it has no valid stamp"):
        train(replace(config, seed=6))


def test_a_killed_run_beside_a_finished_model_loses_neither(config, monkeypatch):
    config = replace(config, optim=replace(config.optim, epochs=2))
    folder = train(config)
    before = files_of(folder)
    changed = replace(config, seed=5)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("speechattn.training.run.plot_curves", stop)  # after the last epoch
    with pytest.raises(KeyboardInterrupt):
        train(changed, overwrite=True)
    monkeypatch.undo()
    kept = folder.with_name(f"{folder.name}.1")
    assert files_of(kept) == before and (folder / "unfinished").is_dir()
    train(changed)  # resumes: the folder holds no finished model
    assert files_of(kept) == before and not folder.with_name(f"{folder.name}.2").exists()


def test_a_new_version_with_more_options_knows_what_an_older_one_has_trained(config):
    config = replace(config, optim=replace(config.optim, epochs=1))
    folder = train(config)
    stamp = json.loads((folder / "train.done.json").read_text())
    assert stamp["version"]
    del stamp["options"]["model"]["frontend"]["cmn_min_range"], stamp["options"]["optim"]["average"]
    stamp["options"]["model"]["encoder"]["layer_drop"] = 0.0  # of an older version
    stamp["version"] = "0.0.1"
    (folder / "train.done.json").write_text(json.dumps(stamp))
    before = files_of(folder)
    if config.optim.average == OptimConfig().average:
        train(config)
    else:
        with pytest.raises(ValueError, match=r"other optim.average\)"):
            train(config)
    assert files_of(folder) == before


def test_two_runs_in_one_folder_are_refused_at_the_start(config):
    lock = FileLock(Path(config.output).with_name(".model.lock"))
    with lock, pytest.raises(ValueError, match="model: another process is training there"):
        train(config)
    train(replace(config, optim=replace(config.optim, epochs=1)))


def test_a_refused_training_leaves_the_model_that_is_there(config):
    folder = train(replace(config, optim=replace(config.optim, epochs=1)))
    before = weights(folder)
    with pytest.raises(ValueError, match="phone"):
        train(replace(config, model=replace(config.model, phones="timit39")))
    after = weights(folder)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_stopped_training_leaves_nothing_that_looks_finished(config, monkeypatch):
    folder = Path(config.output)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("speechattn.training.run.plot_curves", stop)  # after the last epoch
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
    init = train(start)
    made = (train(tuned, init=init) / "model.safetensors").stat().st_mtime_ns
    moved = init.rename(tmp_path / "moved")  # by content, wherever it is
    assert (train(tuned, init=moved) / "model.safetensors").stat().st_mtime_ns == made
    other = train(replace(start, seed=1))
    with pytest.raises(
        ValueError, match="of another run \\(other config.json, model.safetensors|\\(other model.safetensors"
    ):
        train(tuned, init=other)


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
    assert run_training(config, tmp_path, processes=2).count("2 process(es) on cpu") == 1
    return log_rows(Path(config.output))


def test_two_processes_learn_what_one_learns_from_the_same_global_batches(config, tmp_path):
    """2 batches of each of 2 processes are 4 of one; the epoch ends with a step that not all have batches for."""
    data, phones, geometry = replace(config.data, batch_seconds=6.5), PhoneSet.load("arpabet41"), Geometry()
    short = replace(config, data=data, optim=replace(config.optim, epochs=2, accumulate=2))
    order = Batches(load_cuts(data.train, geometry), phones, geometry, batch_seconds=6.5, shuffle=True)
    assert all(len(list(order.epoch(epoch))) % 2 for epoch in (0, 1))
    rows = train_in_two_processes(short, tmp_path)
    folder = Path(config.output)
    figures, _ = evaluate(FrameClassifier.from_pretrained(folder), config.data.dev)
    best = max(float(row["dev_accuracy"]) for row in rows)
    assert figures["frame_accuracy"] == pytest.approx(best, abs=1e-5)
    alone = replace(short, output=str(tmp_path / "alone"), optim=replace(short.optim, accumulate=4))
    for row, expected in zip(rows, log_rows(train(alone)), strict=True):
        assert float(row["train_loss"]) == pytest.approx(float(expected["train_loss"]), rel=1e-4)
    expected, found = weights(tmp_path / "alone"), weights(folder)
    assert all(torch.allclose(found[name], expected[name], atol=1e-3) for name in expected)


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


def test_init_with_other_phones_keeps_all_but_their_output(config, tmp_path, caplog):
    """The statistics of the front end, too, are the first model's."""
    short = replace(config.optim, epochs=1)
    start = weights(train(replace(config, optim=short)))
    few = ("S", "IY", "AA", "SIL")
    other = replace(
        config,
        output=str(tmp_path / "tuned"),
        model=ClassifierConfig(phones="tones", symbols=few),
        optim=replace(short, learning_rate=0.0),
    )
    with caplog.at_level("INFO"):
        tuned = FrameClassifier.from_pretrained(train(other, init=config.output))
    assert "has another phone set: 0 of 4 output rows start at random" in caplog.text
    assert tuned.phones.symbols == few and tuned.output.out_features == 4
    kept = {name for name in start if not name.startswith("output.")}
    assert all(torch.allclose(tuned.state_dict()[name], start[name], atol=1e-6) for name in kept)
    assert tuned.config.encoder == config.model.encoder

    same = replace(other, output=str(tmp_path / "same"), model=ClassifierConfig(phones="tones", symbols=few[::-1]))
    again = FrameClassifier.from_pretrained(train(same, init=tmp_path / "tuned"))
    assert again.phones.symbols == few
    assert torch.allclose(again.output.weight, tuned.output.weight, atol=1e-6)


def test_labels_that_the_inventory_lacks_name_the_cut(config):
    wrong = replace(config, model=replace(config.model, phones="timit39"))
    with pytest.raises(ValueError, match=r"cut train-\d+.*phone '(AA|IY|S|SIL)'"):
        train(wrong)


def test_long_utterances_are_learned_from_in_pieces(config, tmp_path, caplog):
    data = replace(config.data, max_seconds=1.0)
    model = replace(config.model, encoder=replace(config.model.encoder, left=1, right=1, conv_kernel=0))
    short = replace(config, data=data, model=model, optim=replace(config.optim, epochs=2))
    with caplog.at_level("INFO"):
        rows = log_rows(train(short))
    assert "utterances of more than 1 s are cut into" in caplog.text
    assert "24 training" in caplog.text
    whole = replace(short, data=config.data, output=str(tmp_path / "whole"))
    assert float(rows[0]["frames_per_s"]) > 0
    assert float(rows[-1]["train_loss"]) == pytest.approx(float(log_rows(train(whole))[-1]["train_loss"]), rel=0.3)


@pytest.mark.parametrize(("section", "option"), [("optim", "accumulate"), ("data", "max_seconds")])
def test_options_out_of_range_are_refused_by_name(config, section, option):
    with pytest.raises(ValueError, match=rf"{section}\.{option} must be at least 1, got 0"):
        replace(getattr(config, section), **{option: 0})
