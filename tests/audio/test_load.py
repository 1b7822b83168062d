"""Audio as arrays: exact samples, channels, rates, and one clear line for every file that cannot be used."""

import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from speechattn.audio import AudioError, AudioInfo, audio_info, load_audio, read_audio, resample, resampling

INT16 = np.array([-32768, -1, 0, 1, 12345, 32767], dtype=np.int16)


def noise(num_samples: int, num_channels: int = 1) -> np.ndarray:
    shape = (num_samples, num_channels) if num_channels > 1 else num_samples
    return np.random.default_rng(num_samples).uniform(-0.5, 0.5, shape).astype(np.float32)


def tone(num_samples: int, rate: float, hertz: float = 440.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(num_samples) / rate).astype(np.float32)


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_int16_is_divided_by_32768(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, INT16, 16_000)
    expected = (INT16 / 32768).astype(np.float32)
    samples = load_audio(path)
    assert samples.dtype == np.float32 and np.array_equal(samples, expected)
    assert np.array_equal(load_audio(str(path)), expected) and np.array_equal(load_audio(INT16), expected)


def test_float_arrays_come_back_as_float32() -> None:
    samples = load_audio(noise(100).astype(np.float64))
    assert samples.dtype == np.float32 and np.array_equal(samples, noise(100))


def test_channels_are_averaged_or_chosen(tmp_path: Path) -> None:
    stereo = noise(500, 2)
    soundfile.write(tmp_path / "a.wav", stereo, 16_000, subtype="FLOAT")
    for source in (tmp_path / "a.wav", stereo):
        np.testing.assert_allclose(load_audio(source), (stereo[:, 0] + stereo[:, 1]) / 2, atol=1e-7)
        assert np.array_equal(load_audio(source, channel=0), stereo[:, 0])
        assert np.array_equal(load_audio(source, channel=1), stereo[:, 1])
        for channel in (2, -1):
            with pytest.raises(AudioError, match=f"there is no channel {channel}; channels are 0 to 1"):
                load_audio(source, channel=channel)


def test_read_audio_keeps_the_rate_and_audio_info_agrees(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", noise(4411, 2), 44_100)
    samples, rate = read_audio(tmp_path / "a.flac", channel=1)
    assert samples.shape == (4411,) and rate == 44_100
    assert audio_info(tmp_path / "a.flac") == AudioInfo(num_samples=4411, sample_rate=44_100, num_channels=2)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled_as_torchaudio_does(tmp_path: Path, rate: int) -> None:
    samples = noise(rate // 3 + 1)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    expected = torchaudio.functional.resample(torch.from_numpy(samples), rate, 16_000).numpy()
    got = load_audio(tmp_path / "a.wav")
    assert got.dtype == np.float32 and len(got) == -(-len(samples) * 16_000 // rate)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("num_samples", [1, 5, 4410, 70_001])
@pytest.mark.parametrize("rate", [6000, 44_100])
def test_the_way_without_a_table_computes_the_same(num_samples: int, rate: int) -> None:
    samples = noise(num_samples)
    expected = torchaudio.functional.resample(torch.from_numpy(samples), rate, 16_000).numpy()
    got = resampling._interpolate(samples, rate, 16_000)
    assert got.shape == expected.shape and got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)  # torchaudio tabulates in float32


def test_the_way_without_a_table_does_not_depend_on_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = resampling._interpolate(noise(5000), 44_101, 16_000)
    monkeypatch.setattr(resampling, "MAX_TAPS", 1000)
    assert np.array_equal(resampling._interpolate(noise(5000), 44_101, 16_000), expected)


@pytest.mark.parametrize("rate", [8000, 12_345, 16_001, 37_800, 44_101, 96_000])
def test_a_tone_stays_the_tone_at_any_rate(rate: int) -> None:
    got = resample(tone(2 * rate, rate), rate)
    expected = tone(len(got), 16_000)
    assert abs(len(got) - 32_000) <= 1
    np.testing.assert_allclose(got[400:-400], expected[400:-400], atol=0.02)


def test_the_wanted_rate_may_be_another() -> None:
    assert len(resample(noise(16_000), 16_000, 8000)) == 8000
    samples = noise(100)
    assert resample(samples, 8000, 8000) is samples


def test_resampling_is_logged_once_per_rate(caplog: pytest.LogCaptureFixture) -> None:
    resampling._log_resampling.cache_clear()
    with caplog.at_level(logging.WARNING, logger="speechattn"):
        for rate in (8000, 8000, 48_000, 8000):
            resample(noise(1000), rate)
    assert caplog.messages == [
        "audio at 8000 Hz is resampled to 16000 Hz",
        "audio at 48000 Hz is resampled to 16000 Hz",
    ]


def make_bad(path: Path, kind: str) -> Path:
    """A file that must be refused."""
    whole = path.with_name("whole" + path.suffix)
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("this is no audio\n" * 99)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no samples":
        soundfile.write(path, np.zeros(0), 16_000)
    elif kind in ("nan", "inf"):
        samples = noise(1000)
        samples[500] = float(kind)
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
    elif kind in ("mistaken for int16", "other rate"):
        scale, rate = (32768, 16_000) if kind == "mistaken for int16" else (1, 768_001)
        soundfile.write(path, scale * noise(1000), rate, subtype="FLOAT")
    elif kind == "no length":
        soundfile.write(path, noise(1000), 16_000)
        content = bytearray(path.read_bytes())
        content[21] &= 0xF0  # the 36 bits of FLAC's sample count
        content[22:26] = bytes(4)
        path.write_bytes(content[:-200])  # nor a whole frame that would tell it
    elif kind == "cut short":
        soundfile.write(whole, noise(16_000), 16_000)
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return path


@pytest.mark.parametrize(
    "name, kind, message",
    [
        ("a.wav", "missing", "no such file"),
        ("a.wav", "folder", "is a folder"),
        ("a.wav", "text", "not an audio file"),
        ("a.raw", "text", "not an audio file"),
        ("a.wav", "empty", r"the file is empty \(0 bytes\)"),
        ("a.wav", "no samples", r"the audio is empty \(0 samples\)"),
        ("a.wav", "nan", "NaN or infinite"),
        ("a.wav", "inf", "NaN or infinite"),
        ("a.wav", "cut short", "cut short: 159[0-9][0-9] of 32000 bytes"),
        ("a.aiff", "cut short", "cut short"),
        ("a.au", "cut short", "cut short"),
        ("a.w64", "cut short", "cut short: 160[0-9][0-9] of 32024 bytes"),
        ("a.rf64", "cut short", "cut short: 79[0-9][0-9] of 16000 samples"),
        ("a.mp3", "cut short", "cut short: [0-9]+ of 16000 samples"),
        ("a.flac", "cut short", "damaged audio"),
        ("a.ogg", "cut short", "cut short: its last page is not whole"),
        ("a.wav", "mistaken for int16", r"some samples are far beyond \[-1, 1\]: 1.64e\+04"),
        ("a.wav", "other rate", "its header states 768001 Hz; rates from 1000 to 768000 Hz are accepted"),
        ("a.flac", "no length", "states no length"),
    ],
)
def test_bad_files_get_one_line_that_names_them(tmp_path: Path, name: str, kind: str, message: str) -> None:
    path = make_bad(tmp_path / name, kind)
    with pytest.raises(AudioError, match=message) as caught:
        load_audio(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "no samples", "cut short"])
def test_audio_info_refuses_what_the_header_shows(tmp_path: Path, kind: str) -> None:
    with pytest.raises(AudioError, match="a.wav"):
        audio_info(make_bad(tmp_path / "a.wav", kind))


def test_a_damaged_header_is_told_apart(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", INT16, 16_000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[22:24] = bytes(2)
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(AudioError, match=r"a.wav: not an audio file that can be read .*: Channel count is zero\."):
        load_audio(tmp_path / "a.wav")


def test_a_header_cannot_ask_for_more_than_memory(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", noise(1000, 8), 16_000)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] |= 0x0F  # the 36 bits of its sample count: 2 terabytes
    content[22:26] = b"\xff" * 4
    (tmp_path / "a.flac").write_bytes(content)
    with pytest.raises(AudioError, match="more than memory holds|cut short|damaged"):  # as the system lends memory
        load_audio(tmp_path / "a.flac")


@pytest.mark.parametrize("name, codec", [("a.wav", "GSM610"), ("a.wav", "G721_32"), ("a.aiff", "DWVW_16")])
def test_codecs_that_cannot_seek_are_read(tmp_path: Path, name: str, codec: str) -> None:
    samples = tone(8000, 8000)
    soundfile.write(tmp_path / name, 0.5 * samples, 8000, subtype=codec)
    got, rate = read_audio(tmp_path / name)
    assert rate == 8000 and np.corrcoef(got[:8000], samples)[0, 1] > 0.95
    assert len(got) == audio_info(tmp_path / name).num_samples


@pytest.mark.parametrize("declared", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_written_to_a_pipe_is_read(tmp_path: Path, declared: int) -> None:
    soundfile.write(tmp_path / "a.wav", INT16, 16_000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = declared.to_bytes(4, "little")  # what ffmpeg and SoX leave where they cannot go back
    (tmp_path / "a.wav").write_bytes(content)
    assert np.array_equal(load_audio(tmp_path / "a.wav"), (INT16 / 32768).astype(np.float32))


@pytest.mark.parametrize(
    "samples, message",
    [
        (np.zeros(0, dtype=np.float32), "empty"),
        (np.zeros((0, 2), dtype=np.float32), "empty"),
        (np.array([0, np.nan]), "NaN or infinite"),
        (np.array([[np.inf, -np.inf]]), "NaN or infinite"),
        (np.array([0, -101.0]), r"far beyond \[-1, 1\]: 101"),
        (np.array([0, 1], dtype=np.int32), "int16 or floats in .* got an array of int32"),
        (np.array(["a"]), "int16 or floats"),
        (np.zeros((2, 2, 2)), r"got shape=\(2, 2, 2\)"),
        (np.array(0.5), r"got shape=\(\)"),
    ],
)
def test_bad_arrays_are_refused(samples: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        load_audio(samples)


def test_a_torchaudio_that_does_not_fit_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, *rest: object) -> object:
        if name == "torchaudio":
            raise OSError("libcudart.so.13: cannot open shared object file")
        return importing(name, *rest)

    import builtins

    importing = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", broken)
    message = rf"torch [0-9.]+.* and torchaudio {torchaudio.__version__.split('+')[0]}.*one kind.*libcudart"
    with pytest.raises(ImportError, match=message):
        resampling.import_torchaudio()


def test_every_file_of_the_timit_sample_is_read_whole(timit_archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(timit_archive) as file:
        paths = [Path(file.extract(name, tmp_path)) for name in file.namelist() if name.endswith(".wav")]
    lengths = [len(load_audio(path)) for path in paths]
    assert len(lengths) == 160 and sum(lengths) / 16_000 / 60 == pytest.approx(8.17, abs=0.005)
    assert [audio_info(path).num_samples for path in paths] == lengths
