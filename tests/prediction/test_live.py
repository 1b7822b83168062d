"""Live speech: the phones of the whole recording, for any pieces, each as soon as it is final."""

import io
import itertools
import os
import re
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from refused import refused

from speechattn import FrameClassifier
from speechattn.decoding.smoothing import phonotactics_of
from speechattn.prediction.live import LiveSegments, microphone, pcm, print_live


@pytest.fixture(scope="module")
def model(model_folder) -> FrameClassifier:
    """Weights strong enough that many phones take turns."""
    model = FrameClassifier.from_pretrained(model_folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    labels = np.random.default_rng(0).integers(0, len(model.phones), 500).repeat(3)
    model.phonotactics = phonotactics_of([labels], len(model.phones))
    return model


def noise(num_samples, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32)


def in_pieces(live, samples, sizes):
    """The segments that each piece makes final, and the last ones."""
    ends = np.cumsum([0, *sizes]).clip(max=len(samples)).tolist()
    given_out = [live.push(samples[first:end]) for first, end in zip(ends, ends[1:])]  # noqa: B905 (one shorter)
    return [*given_out, live.push(samples[ends[-1] :]), live.flush()]


@given(num_samples=st.integers(400, 9000), sizes=st.lists(st.integers(0, 3000), max_size=8), smooth=st.booleans())
def test_any_pieces_give_the_segments_of_the_whole(model, num_samples, sizes, smooth):
    samples = noise(num_samples)
    segments = sum(in_pieces(LiveSegments(model, smooth=smooth), samples, sizes), [])
    expected = model.classify(samples, smooth=smooth)
    assert [segment[:3] for segment in segments] == [segment[:3] for segment in expected]
    assert [segment.confidence for segment in segments] == pytest.approx([s.confidence for s in expected], abs=1e-5)


def test_a_phone_is_given_when_the_next_ones_first_frame_is_final(model):
    samples, hop, live = noise(16000), 160, LiveSegments(model)
    classes = model.posteriors(samples).argmax(axis=1)
    changes = np.flatnonzero(np.diff(classes)) + 1  # first frames of all phones but the first
    assert len(changes) > 9
    needed = 400 + hop * (changes + model.lookahead)  # samples until such a frame is final
    count = 0
    for time in range(0, 16000, hop):
        count += len(live.push(samples[time : time + hop]))
        assert count == (needed <= time + hop).sum()


@pytest.mark.parametrize("smooth", [False, True])
def test_the_unfinished_phone_is_what_the_next_given_one_begins_as(model, smooth):
    frequencies = np.random.default_rng(0).uniform(100, 7000, 20).repeat(800)  # Hz; of noise one smoothed phone is made
    samples = (0.3 * np.sin(2 * np.pi * np.cumsum(frequencies) / 16000)).astype(np.float32)
    live = LiveSegments(model, smooth=smooth)
    assert live.unfinished is None
    given_out, unfinished = [], None
    for first in range(0, 16000, 100):
        now = live.push(samples[first : first + 100])
        if now and unfinished is not None:
            assert now[0][:2] == unfinished[:2] and now[0].end >= unfinished.end
        given_out += now
        unfinished = live.unfinished
        if unfinished is not None:
            assert unfinished.start == (given_out[-1].end if given_out else 0.0) < unfinished.end
            assert 0 < unfinished.confidence <= 1
    assert len(given_out) > 9


def test_nothing_comes_of_less_than_a_frame_and_an_end_may_be_told(model):
    for smooth in (False, True):
        live = LiveSegments(model, smooth=smooth)
        assert live.push(noise(399)) == [] and live.flush() == []
    live = LiveSegments(model)
    live.push(noise(800))
    assert live.flush(duration=0.0503)[-1].end == 0.0503


def test_pcm_is_read_as_it_comes_whatever_the_pieces():
    class Pipe:
        def __init__(self, pieces):
            self.pieces = list(pieces)

        def read1(self, size):
            assert size == 3200
            return self.pieces.pop(0) if self.pieces else b""

    samples = np.arange(-300, 300, dtype="<i2")
    whole = samples.tobytes() + b"\x07"  # half a sample at the end
    for sizes in ([1201], [1] * 1201, [3, 1000, 198], [401, 400, 400]):
        ends = np.cumsum([0, *sizes]).tolist()
        pipe = Pipe(whole[first:end] for first, end in zip(ends, ends[1:]))  # noqa: B905 (one shorter)
        assert np.array_equal(np.concatenate(list(pcm(pipe, 16000))), samples)
    assert np.array_equal(np.concatenate(list(pcm(io.BytesIO(whole), 16000))), samples)


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "AIFF"])
def test_an_audio_file_is_not_taken_for_samples(format):
    file = io.BytesIO()
    soundfile.write(file, noise(1600), 16000, format=format)
    with pytest.raises(ValueError, match=r"an audio file, not raw samples: use `speechattn predict -`"):
        list(pcm(io.BytesIO(file.getvalue()), 16000))


def test_lines_are_the_phones_with_their_latency(model, capsys):
    samples = (32767 * noise(16000).clip(-1, 1)).astype(np.int16)
    latencies = print_live(model, [samples[:9000], samples[9000:]])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    expected = model.classify(samples)
    assert [row[2] for row in rows] == [segment.phone for segment in expected]
    assert [float(row[1]) for row in rows] == pytest.approx([segment.end for segment in expected], abs=1e-4)
    assert [float(row[4]) for row in rows] == pytest.approx(latencies, abs=1e-3)
    early = [row for row in rows if float(row[1]) < 0.4]  # of the first piece: 9000 samples had come
    assert early and all(float(row[4]) > 9000 / 16000 - float(row[1]) for row in early)


def test_the_command_reads_a_pipe(model_folder, tmp_path):
    samples = (32767 * noise(20000).clip(-1, 1)).astype("<i2")
    command = [sys.executable, "-m", "speechattn", "stream", "-", "--model", str(model_folder), "--symbols", "ipa"]
    run = subprocess.run(command, input=samples.tobytes(), capture_output=True, check=True)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="PCM_16")
    expected = FrameClassifier.from_pretrained(model_folder).classify(tmp_path / "a.wav")
    rows = [line.split() for line in run.stdout.decode().splitlines()]
    assert [row[0] for row in rows] == [f"{segment.start:.4f}" for segment in expected]
    assert not any(row[2].isupper() for row in rows)
    assert re.search(r"phones are final at least [\d.]+ ms after their end", run.stderr.decode())
    assert "latency" in run.stderr.decode()


def test_ctrl_c_ends_a_microphone_with_the_phones_it_has_heard(model, monkeypatch, capsys):
    class InputStream:
        def __init__(self, sample_rate, **options):
            assert (sample_rate, options) == (16000, {"device": None, "channels": 1, "dtype": "int16"})
            self.pieces = 0

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def read(self, count):
            self.pieces += 1
            if self.pieces == 8:
                os.kill(os.getpid(), signal.SIGINT)
            return (32767 * noise(count, self.pieces).clip(-1, 1)).astype(np.int16)[:, None], False

    fake = types.SimpleNamespace(InputStream=InputStream, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    print_live(model, microphone(16000))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert float(rows[-1][1]) == pytest.approx(0.7)  # seven pieces of a tenth of a second; the eighth never came


def test_lost_audio_is_logged_once(monkeypatch, caplog):
    class InputStream:
        def __init__(self, sample_rate, **options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def read(self, count):
            return np.zeros((count, 1), np.int16), True

    fake = types.SimpleNamespace(InputStream=InputStream, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    assert len(list(itertools.islice(microphone(16000), 3))) == 3
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "audio was lost because computation is too slow: from here on"
    ]


def test_what_cannot_be_streamed_is_one_line(model_folder, tmp_path, capsys, monkeypatch):
    assert "for files use predict" in refused(capsys, "stream", "a.wav", "--model", model_folder)
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert 'pip install "speechattn[microphone]"' in refused(capsys, "stream", "--model", model_folder)

    class Broken:
        def __init__(self, *arguments, **options):
            raise RuntimeError("Invalid device")

    fake = types.SimpleNamespace(InputStream=Broken, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    assert "no microphone: Invalid device" in refused(capsys, "stream", "--model", model_folder)
