"""Long recordings in blocks: the numbers of one piece, at any rate, in bounded memory."""

import numpy as np
import pytest
import soundfile

from speechattn import FrameClassifier
from speechattn.audio import AudioError, audio_blocks, load, load_audio
from speechattn.decoding.smoothing import phonotactics_of
from speechattn.prediction import long_audio
from speechattn.prediction.long_audio import recording_excerpts, recording_posteriors, recording_segments


@pytest.fixture(scope="module")
def model(model_folder):
    model = FrameClassifier.from_pretrained(model_folder)
    model.phonotactics = phonotactics_of([np.arange(41).repeat(3)], len(model.phones))
    return model


def write(path, seconds, rate=16000, channels=1):
    samples = 0.1 * np.random.default_rng(0).standard_normal((round(rate * seconds), channels))
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 44101, 48000])
@pytest.mark.parametrize("seconds", [0.01, 0.4, 5.0])
def test_blocks_are_the_samples_of_the_whole(tmp_path, rate, seconds):
    path = write(tmp_path / "a.wav", 3.37, rate, channels=2)
    for channel in (None, 1):
        blocks = list(audio_blocks(path, seconds=seconds, channel=channel))
        whole = load_audio(path, channel=channel)
        assert len(np.concatenate(blocks)) == len(whole) and all(len(block) for block in blocks)
        np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-6)
        assert seconds > 1 or len(blocks) > 2


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_blocks_of_compressed_audio_are_those_of_the_whole(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    time = np.arange(4 * 22050) / 22050
    samples = 0.3 * np.sin(2 * np.pi * (200 + 100 * time) * time)
    samples += 0.02 * np.random.default_rng(0).standard_normal(len(time))
    soundfile.write(path, samples, 22050)
    whole = load_audio(path, sample_rate=22050)
    assert len(whole) == len(samples)
    for seconds in (0.5, 1.5):
        blocks = list(audio_blocks(path, sample_rate=22050, seconds=seconds))
        assert len(blocks) > 2 and np.array_equal(np.concatenate(blocks), whole)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_blocks_hold_fewer_samples_of_many_channels(tmp_path, monkeypatch, rate):
    path = write(tmp_path / "a.wav", 2.0, rate, channels=7)
    whole, read, mono = load_audio(path), [], load._mono

    def watched(samples, *rest):
        read.append(samples.size)
        return mono(samples, *rest)

    monkeypatch.setattr(load, "READ_AT_ONCE", 70_000)
    monkeypatch.setattr(load, "_mono", watched)
    blocks = list(audio_blocks(path))
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-6)
    assert max(read) == 70_000 and sum(read) == 2 * 7 * rate


def test_what_is_wrong_in_the_middle_is_told(tmp_path):
    path = write(tmp_path / "a.flac.wav", 2.0)
    samples, _ = soundfile.read(path)
    samples[20000] = np.nan
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    blocks = audio_blocks(path, seconds=0.5)
    assert len(next(blocks)) == 8000
    with pytest.raises(AudioError, match="NaN"):
        list(blocks)


@pytest.mark.parametrize("rate", [16000, 22050])
def test_blocks_give_what_one_piece_gives(model, tmp_path, monkeypatch, rate):
    path = write(tmp_path / "a.wav", 7.013, rate)
    posteriors, segments = model.posteriors(model.samples(path)), model.classify(path)
    assert np.array_equal(recording_posteriors(model, path), posteriors)  # short: in one piece
    monkeypatch.setattr(long_audio, "BLOCK_S", 1.0)
    np.testing.assert_allclose(recording_posteriors(model, path), posteriors, atol=1e-5)
    found = recording_segments(model, path)
    assert [segment[:3] for segment in found] == [segment[:3] for segment in segments]
    smooth = recording_segments(model, path, smooth=True)
    assert [segment[:3] for segment in smooth] == [segment[:3] for segment in model.classify(path, smooth=True)]
    assert found[-1].end == model.duration(path)


@pytest.mark.parametrize(
    ("rate", "seconds", "count"), [(16000, 2.0, 2), (16000, 2.01, 3), (44100, 2.5, 3), (8000, 0.5, 1)]
)
def test_stretches_are_the_samples_of_the_whole_in_equal_parts(model, tmp_path, rate, seconds, count):
    path = write(tmp_path / "a.wav", seconds, rate)
    excerpts = list(recording_excerpts(model, path, 1.0))
    sizes = [len(samples) for samples in excerpts]
    assert len(sizes) == count and max(sizes) - min(sizes) <= count and max(sizes) <= 16000
    np.testing.assert_allclose(np.concatenate(excerpts), model.samples(path), atol=1e-6)


def test_no_more_than_a_block_is_read_at_a_time(model, tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", 5.0)
    monkeypatch.setattr(long_audio, "BLOCK_S", 1.0)
    pushed = []
    stream = model.stream()

    class Watched:
        def push(self, samples):
            pushed.append(len(samples))
            return stream.push(samples)

        def flush(self):
            return stream.flush()

    monkeypatch.setattr(FrameClassifier, "stream", lambda self: Watched())
    recording_segments(model, path)
    assert pushed == [16000] * 5
