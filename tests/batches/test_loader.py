"""Batches: every utterance once, nothing lost to padding, labels in step with the features."""

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children

import psutil
import pytest
import soundfile
import torch
from lhotse import CutSet

from speechattn.batches.loader import Batches
from speechattn.cuts.files import read_cuts
from speechattn.cuts.model_inputs import cut_labels, load_cuts
from speechattn.cuts.shards import write_shards
from speechattn.frontend import FrontendConfig
from speechattn.geometry import Geometry
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig
from speechattn.phones import IGNORED, PhoneSet
from speechattn.training.optimisers import frame_loss

GEOMETRY = Geometry()
PHONES = PhoneSet.load("arpabet41")


def make_batches(path, **options):
    return Batches(load_cuts(path, GEOMETRY), PHONES, GEOMETRY, batch_seconds=4.0, **options)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_every_utterance_once_and_whole(tone_corpus, shuffle, num_workers):
    path = tone_corpus / "train.jsonl.gz"
    cuts = {cut.id: cut for cut in read_cuts(path)}
    seen = []
    for batch in make_batches(path, shuffle=shuffle, num_workers=num_workers).epoch(0):
        assert len(batch.ids) * batch.lengths.max() <= 4.0 * 16000
        assert batch.num_utterances == len(batch.ids)
        for row, cut_id in enumerate(batch.ids):
            length = int(batch.lengths[row])
            audio, _ = soundfile.read(cuts[cut_id].recording.sources[0].source, dtype="float32")
            assert torch.equal(batch.waveforms[row, :length], torch.from_numpy(audio))
            assert not batch.waveforms[row, length:].any()
            labels = torch.from_numpy(cut_labels(cuts[cut_id], PHONES, GEOMETRY))
            assert len(labels) == GEOMETRY.num_frames(length)
            assert torch.equal(batch.labels[row, : len(labels)], labels)
            assert (batch.labels[row, len(labels) :] == IGNORED).all()
            seen.append(cut_id)
    assert sorted(seen) == sorted(cuts)


def test_order_is_a_function_of_seed_and_epoch(tone_corpus):
    def order(seed, epoch):
        batches = make_batches(tone_corpus / "train.jsonl.gz", shuffle=True, seed=seed)
        return [cut_id for batch in batches.epoch(epoch) for cut_id in batch.ids]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def ids(batches):
    return [batch.ids for batch in batches]


@pytest.mark.parametrize("world_size", [2, 3, 20])
def test_processes_take_turns_at_the_batches_of_one(tone_corpus, world_size):
    path = tone_corpus / "train.jsonl.gz"
    order = ids(make_batches(path, shuffle=True).epoch(3))
    for rank in range(world_size):
        share = make_batches(path, shuffle=True, rank=rank, world_size=world_size)
        assert ids(share.epoch(3)) == order[rank::world_size]
        assert ids(share.epoch(3, skip=1)) == order[rank::world_size][1:]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_that_are_over_are_skipped(tone_corpus, tmp_path, num_workers):
    write_shards(tone_corpus / "train.jsonl.gz", tmp_path / "shards", size=8)
    for path in (tone_corpus / "train.jsonl.gz", tmp_path / "shards"):
        batches = make_batches(path, shuffle=True, num_workers=num_workers)
        order = ids(batches.epoch(1))
        assert ids(batches.epoch(1, skip=4)) == order[4:]
        assert ids(batches.epoch(1, skip=len(order) + 1)) == []
        assert ids(batches.epoch(1)) == order


def test_a_worker_is_deaf_to_a_signal_to_all_and_ends_with_its_loader(tone_corpus):
    path, others = tone_corpus / "train.jsonl.gz", active_children()
    batches = make_batches(path, shuffle=False, num_workers=1)
    epoch = batches.epoch()
    seen = [next(epoch).ids]
    [worker] = [process for process in active_children() if process not in others]
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    assert seen + ids(epoch) == ids(batches.epoch()) == ids(make_batches(path, shuffle=False).epoch())
    del batches, epoch
    worker.join()


KILLED_WHILE_LOADING = """
import os, signal, sys
from multiprocessing import active_children
from speechattn.cuts.model_inputs import load_cuts
from speechattn.batches.loader import Batches
from speechattn.geometry import Geometry
from speechattn.phones import PhoneSet

if __name__ == "__main__":
    cuts = load_cuts(sys.argv[1], Geometry())
    batches = Batches(
        cuts, PhoneSet.load("arpabet41"), Geometry(), batch_seconds=4.0, shuffle=False, num_workers=1
    )
    next(batches.epoch())
    print(*(process.pid for process in active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_worker_outlives_a_killed_training(tone_corpus, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED_WHILE_LOADING)
    command = [sys.executable, str(script), str(tone_corpus / "train.jsonl.gz")]
    with open(tmp_path / "out", "w") as out:  # not a pipe, which a worker left behind would hold open
        run = subprocess.run(command, stdout=out, check=False)
    workers = [int(number) for number in (tmp_path / "out").read_text().split()]
    assert run.returncode == -signal.SIGKILL and workers
    for _ in range(100):
        if not any(map(psutil.pid_exists, workers)):
            return
        time.sleep(0.1)
    pytest.fail(f"workers {workers} live on")


def test_a_last_utterance_that_is_longer_than_all_before_does_not_exceed_the_cap(tone_corpus):
    """Short ones first."""
    cuts = sorted(load_cuts(tone_corpus / "train.jsonl.gz", GEOMETRY), key=lambda cut: cut.duration)
    longest = cuts[-1].duration
    for cap in (0.5 * longest, 1.01 * longest, 2.5 * longest, 7 * longest):
        batches = Batches(CutSet.from_cuts(cuts), PHONES, GEOMETRY, batch_seconds=cap, shuffle=False)
        made = list(batches.epoch())
        assert [cut_id for batch in made for cut_id in batch.ids] == [cut.id for cut in cuts]
        assert all(batch.waveforms.numel() <= cap * 16000 or len(batch.ids) == 1 for batch in made)


@pytest.mark.parametrize("preset", ["kaldi", "librosa"])
def test_an_idle_batch_teaches_nothing(tone_corpus, preset):
    encoder = EncoderConfig(dim=8, layers=1, heads=2, feed_forward=8)
    model = FrameClassifier(ClassifierConfig(frontend=FrontendConfig(preset=preset), encoder=encoder))
    geometry = model.frontend.geometry
    path = tone_corpus / "train.jsonl.gz"
    idle = Batches(load_cuts(path, geometry), PHONES, geometry, batch_seconds=4.0, shuffle=True).idle()
    loss = frame_loss(model(idle.waveforms, idle.lengths)[0], idle.labels)
    loss.backward()
    assert loss == 0 and idle.ids == [] and idle.num_utterances == 0
    assert all(not parameter.grad.any() for parameter in model.parameters())


def test_cuts_below_one_frame_are_left_out_and_listed(tone_corpus, tmp_path, caplog):
    rows = [cut.to_dict() for cut in read_cuts(tone_corpus / "dev.jsonl.gz")]
    rows[0]["recording"]["num_samples"] = 399
    rows[0]["duration"] = rows[0]["recording"]["duration"] = 399 / 16000
    path = tmp_path / "cuts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(load_cuts(path, GEOMETRY)) == len(rows) - 1
    assert rows[0]["id"] in caplog.text


def test_audio_that_went_missing_names_the_cut(tone_corpus, tmp_path):
    rows = [cut.to_dict() for cut in read_cuts(tone_corpus / "dev.jsonl.gz")]
    rows[0]["recording"]["sources"][0]["source"] = str(tmp_path / "gone.wav")
    path = tmp_path / "cuts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=rf"cut {rows[0]['id']}: .*gone\.wav"):
        list(make_batches(path, shuffle=False).epoch(0))


@pytest.mark.parametrize("content", [b"", b"not json\n", b'{"id": 3}\n', b"\x1f\x8b damaged"])
def test_what_is_not_a_file_of_cuts_is_refused_by_name(tmp_path, content):
    path = tmp_path / "cuts.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cuts\.jsonl"):
        read_cuts(path)
    with pytest.raises(ValueError, match="no such file"):
        read_cuts(tmp_path / "absent.jsonl.gz")


def test_another_sample_rate_is_refused(tone_corpus):
    with pytest.raises(ValueError, match="16000 Hz, the model at 8000 Hz"):
        load_cuts(tone_corpus / "dev.jsonl.gz", Geometry(8000, 200, 80))


def test_labels_at_another_rate_are_the_same_phones(tone_corpus):
    half = Geometry(8000, 200, 80)
    for cut in read_cuts(tone_corpus / "dev.jsonl.gz"):
        labels, slow = cut_labels(cut, PHONES, GEOMETRY), cut_labels(cut.resample(8000), PHONES, half)
        assert len(slow) == half.num_frames(cut.resample(8000).num_samples)
        same = (labels[: len(slow)] == slow[: len(labels)]).mean()
        assert same > 0.98  # all but a boundary that falls on a frame's centre


def test_batches_have_whole_multiples_of_frames(tone_corpus):
    """Every new shape costs the libraries memory for good; padding has no labels."""
    geometry = Geometry()
    made = Batches(
        load_cuts(tone_corpus / "train.jsonl.gz", geometry), PhoneSet.load("arpabet41"), geometry,
        batch_seconds=5.0, shuffle=True,
    )  # fmt: skip
    for batch in made.epoch(0):
        assert batch.labels.shape[1] % 32 == 0 == geometry.num_frames(batch.waveforms.shape[1]) % 32
        for length, row in zip(batch.lengths.tolist(), batch.labels, strict=True):
            assert (row[geometry.num_frames(length) :] == -100).all() and (
                row[: geometry.num_frames(length)] >= 0
            ).any()
