"""Batches: every utterance once, nothing lost to padding, labels in step with the features."""

from __future__ import annotations

import json

import pytest
import soundfile
import torch

from speechattn.corpora.manifest import read_cuts
from speechattn.cuts import cut_labels, long_enough
from speechattn.data import Batches
from speechattn.geometry import Geometry
from speechattn.phones import IGNORED, PhoneSet

GEOMETRY = Geometry()
PHONES = PhoneSet.load("arpabet41")


def make_batches(path, **options):
    return Batches(long_enough(path, GEOMETRY), PHONES, GEOMETRY, batch_seconds=4.0, **options)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_every_utterance_once_and_whole(tone_corpus, shuffle, num_workers):
    path = tone_corpus / "train.jsonl.gz"
    cuts = {cut.id: cut for cut in read_cuts(path)}
    seen = []
    for batch in make_batches(path, shuffle=shuffle, num_workers=num_workers).epoch(0):
        second_longest = batch.lengths.sort().values[:-1].max() if len(batch.ids) > 1 else 0
        assert len(batch.ids) * second_longest <= 4.0 * 16000  # only the last utterance may go past the cap
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


def test_processes_share_the_cuts_with_equal_numbers_of_batches(tone_corpus):
    path = tone_corpus / "train.jsonl.gz"
    shares = [list(make_batches(path, shuffle=True, rank=rank, world_size=2).epoch(0)) for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1])
    ids = [cut_id for share in shares for batch in share for cut_id in batch.ids]
    assert {cut_id.split("_dup")[0] for cut_id in ids} == {cut.id for cut in read_cuts(path)}


def test_cuts_below_one_frame_are_left_out_and_listed(tone_corpus, tmp_path, caplog):
    rows = [cut.to_dict() for cut in read_cuts(tone_corpus / "dev.jsonl.gz")]
    rows[0]["recording"]["num_samples"] = 399
    rows[0]["duration"] = rows[0]["recording"]["duration"] = 399 / 16000
    path = tmp_path / "cuts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(long_enough(path, GEOMETRY)) == len(rows) - 1
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
        long_enough(tone_corpus / "dev.jsonl.gz", Geometry(8000, 200, 80))


def test_labels_at_another_rate_are_the_same_phones(tone_corpus):
    half = Geometry(8000, 200, 80)
    for cut in read_cuts(tone_corpus / "dev.jsonl.gz"):
        labels, slow = cut_labels(cut, PHONES, GEOMETRY), cut_labels(cut.resample(8000), PHONES, half)
        assert len(slow) == half.num_frames(cut.resample(8000).num_samples)
        same = (labels[: len(slow)] == slow[: len(labels)]).mean()
        assert same > 0.98  # all but a boundary that falls on a frame's centre
