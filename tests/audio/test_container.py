"""Files that hold more audio than their headers state: all of it is read, and a warning has both lengths."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from speechattn.audio import AudioError, audio_blocks, audio_info, is_container, load_audio, read_audio
from speechattn.audio.flac import stream_lengths
from speechattn.audio.mpeg import audio_frames

RATE = 16000
EXACT = {  # suffix -> format and subtype of libsndfile
    "wav": ("WAV", "PCM_16"), "aiff": ("AIFF", "PCM_16"), "au": ("AU", "PCM_16"), "w64": ("W64", "PCM_16"),
    "caf": ("CAF", "PCM_16"), "rf64": ("RF64", "PCM_16"), "flac": ("FLAC", "PCM_16"),
    "sph": ("NIST", "PCM_16"), "voc": ("VOC", "PCM_16"),
}  # fmt: skip
LOSSY = {"ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III")}


def speech(num_samples: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(num_samples)
    loudness = np.repeat(np.random.default_rng(seed + 1).uniform(0, 0.2, num_samples // 800 + 1), 800)[:num_samples]
    return (noise * loudness).clip(-0.9, 0.9).astype(np.float32)


def written(folder: Path, suffix: str, samples: np.ndarray, **options: object) -> bytes:
    kind, subtype = (EXACT | LOSSY)[suffix]
    path = folder / f"whole.{suffix}"
    soundfile.write(path, samples, RATE, format=kind, subtype=subtype, **options)
    return path.read_bytes()


def read(path: Path) -> np.ndarray:
    samples, rate = read_audio(path)
    assert rate == RATE and audio_info(path).num_samples == len(samples)
    blocks = np.concatenate(list(audio_blocks(path, seconds=0.3)))
    assert np.array_equal(blocks, samples)
    return samples


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("suffix", EXACT | LOSSY)
def test_joined_files_are_read_one_after_the_other(suffix: str, count: int, tmp_path: Path, caplog) -> None:
    parts = [written(tmp_path, suffix, speech(48000, seed)) for seed in range(count)]
    alone = []
    for number, part in enumerate(parts):
        (tmp_path / f"{number}.{suffix}").write_bytes(part)
        alone.append(read(tmp_path / f"{number}.{suffix}"))
    assert not caplog.records
    (tmp_path / f"joined.{suffix}").write_bytes(b"".join(parts))
    joined = read(tmp_path / f"joined.{suffix}")
    assert caplog.records
    if suffix == "mp3":  # the decoder's state and the encoder's padding go on between them
        assert 0 <= len(joined) - sum(map(len, alone)) < 6 * count * 1152
    else:
        assert np.array_equal(joined, np.concatenate(alone))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_joined_files_of_different_rates_are_refused(suffix: str, tmp_path: Path) -> None:
    kind, subtype = (EXACT | LOSSY)[suffix]
    soundfile.write(tmp_path / f"b.{suffix}", speech(8000), 8000, format=kind, subtype=subtype)
    data = written(tmp_path, suffix, speech(16000)) + (tmp_path / f"b.{suffix}").read_bytes()
    (tmp_path / f"joined.{suffix}").write_bytes(data)
    with pytest.raises(AudioError, match="joined streams of different rates"):
        audio_info(tmp_path / f"joined.{suffix}")


def stating(data: bytes, suffix: str, num_bytes: int) -> bytes:
    """The file with a header that states this many bytes of audio."""
    content, num_frames = bytearray(data), num_bytes // 2
    if suffix == "wav":
        struct.pack_into("<I", content, content.index(b"data") + 4, num_bytes)
        struct.pack_into("<I", content, 4, num_bytes + 36)
    elif suffix == "aiff":
        struct.pack_into(">I", content, content.index(b"SSND") + 4, num_bytes + 8)
        struct.pack_into(">I", content, content.index(b"COMM") + 10, num_frames)
    elif suffix == "au":
        struct.pack_into(">I", content, 8, num_bytes)
    elif suffix == "w64":
        struct.pack_into("<Q", content, content.index(b"data") + 16, num_bytes + 24)
    elif suffix == "caf":
        struct.pack_into(">Q", content, content.index(b"data") + 4, num_bytes + 4)
    elif suffix == "rf64":
        struct.pack_into("<QQ", content, 28, num_bytes, num_frames)
    elif suffix == "flac":
        struct.pack_into(">I", content, 22, num_frames)
    return bytes(content)


@pytest.mark.parametrize("stated", [0, 2000, 32000])
@pytest.mark.parametrize("suffix", ["wav", "aiff", "au", "w64", "caf", "rf64", "flac"])
def test_a_header_that_states_too_little_is_corrected(suffix: str, stated: int, tmp_path: Path, caplog) -> None:
    samples = speech(56000)
    whole = written(tmp_path, suffix, samples)
    expected = read(tmp_path / f"whole.{suffix}")
    assert not caplog.records and len(expected) == 56000
    (tmp_path / f"stale.{suffix}").write_bytes(stating(whole, suffix, stated))
    assert np.array_equal(read(tmp_path / f"stale.{suffix}"), expected)
    both = (f"{stated // 2:,} samples", "56,000") if suffix == "flac" else (f"{stated:,} bytes of audio", "112,000")
    assert "states {}, {} are there".format(*both) in caplog.text
    (tmp_path / f"joined.{suffix}").write_bytes(whole + stating(whole, suffix, stated))
    assert np.array_equal(read(tmp_path / f"joined.{suffix}"), np.concatenate([expected, expected]))


@settings(deadline=None, max_examples=60)
@given(
    num_samples=st.integers(1, 20_000), rate=st.sampled_from([8000, 12_345, 16_000, 44_100, 65_535, 96_000]),
    channels=st.integers(1, 3), subtype=st.sampled_from(["PCM_S8", "PCM_16", "PCM_24"]), silent=st.booleans(),
)  # fmt: skip
def test_the_last_frame_of_flac_tells_its_length(
    tmp_path_factory, num_samples: int, rate: int, channels: int, subtype: str, silent: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.flac"
    samples = speech(num_samples * channels).reshape(-1, channels) * (not silent)
    soundfile.write(path, samples, rate, subtype=subtype)
    data = path.read_bytes()
    assert stream_lengths(data) == (num_samples, num_samples)
    unknown = stating(data, "flac", 0)
    assert stream_lengths(unknown) == stream_lengths(unknown + b"TAG".ljust(128)) == (0, num_samples)


def test_a_flac_recording_that_was_stopped_ends_with_its_last_whole_frame(tmp_path: Path, caplog) -> None:
    whole = written(tmp_path, "flac", speech(56000))
    expected = read(tmp_path / "whole.flac")
    (tmp_path / "stopped.flac").write_bytes(stating(whole, "flac", 0)[:-900])
    found = read(tmp_path / "stopped.flac")
    assert len(found) in range(56000 - 2 * 4096, 56000) and np.array_equal(found, expected[: len(found)])
    (tmp_path / "cut.flac").write_bytes(whole[:-900])  # stated right
    with pytest.raises(AudioError, match="cut short|damaged"):
        read_audio(tmp_path / "cut.flac")


@pytest.mark.parametrize("suffix", ["wav", "aiff", "caf"])
def test_chunks_and_padding_after_the_audio_are_not_audio(suffix: str, tmp_path: Path, caplog) -> None:
    whole = written(tmp_path, suffix, speech(16000))
    chunk = {
        "wav": b"LIST" + struct.pack("<I", 6) + b"abcdef",
        "aiff": b"ANNO" + struct.pack(">I", 6) + b"abcdef",
        "caf": b"info" + struct.pack(">q", 6) + b"abcdef",
    }[suffix]
    for name, more in (("chunk", chunk), ("padding", bytes(512))):
        (tmp_path / f"{name}.{suffix}").write_bytes(whole + more)
        assert len(read(tmp_path / f"{name}.{suffix}")) == 16000
    assert not caplog.records


def without_header_frame(data: bytes) -> bytes:
    return b"".join(data[f.start : f.start + f.size] for f in audio_frames(data) if not f.is_header)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_an_mp3_of_variable_rate_without_header_is_read_whole(rate: int, tmp_path: Path) -> None:
    samples = np.concatenate([speech(5 * rate), 0.001 * speech(25 * rate)])
    soundfile.write(tmp_path / "a.mp3", samples, rate, bitrate_mode="VARIABLE", compression_level=0.2)
    data = (tmp_path / "a.mp3").read_bytes()
    assert len({frame.size for frame in audio_frames(data)}) > 3
    (tmp_path / "bare.mp3").write_bytes(
        b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + without_header_frame(data) + b"TAG" + bytes(125)
    )
    with soundfile.SoundFile(tmp_path / "bare.mp3") as file:
        assert abs(file.frames - len(samples)) > 3 * rate  # what libsndfile believes
    whole, bare = load_audio(tmp_path / "a.mp3"), load_audio(tmp_path / "bare.mp3")
    assert 0 <= len(bare) - len(whole) < 4 * 1152
    delays = [float(np.dot(bare[d : d + 60000], whole[:60000])) for d in range(2400)]
    assert max(delays) > 0.95 * float(np.dot(whole[:60000], whole[:60000]))


def test_mp3_frames_are_counted() -> None:
    assert list(audio_frames(b"")) == list(audio_frames(b"\xff" * 100)) == list(audio_frames(bytes(1000))) == []


@pytest.mark.parametrize("channels", [2, 3])
def test_channels_that_cancel_each_other_are_not_averaged(channels: int, tmp_path: Path, caplog) -> None:
    samples = speech(32000)
    stereo = np.stack([samples, -0.95 * samples, 0 * samples][:channels], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, RATE, subtype="FLOAT")
    assert np.array_equal(load_audio(tmp_path / "a.wav"), samples)
    assert np.array_equal(np.concatenate(list(audio_blocks(tmp_path / "a.wav", seconds=0.5))), samples)
    assert np.array_equal(load_audio(stereo), samples)
    assert "cancel each other; channel 0 is used" in caplog.text
    caplog.clear()
    for other in (samples, speech(32000, 5), 0 * samples):
        np.testing.assert_allclose(load_audio(np.stack([samples, other], axis=1)), (samples + other) / 2, atol=1e-6)
    assert not caplog.records


@pytest.mark.parametrize("suffix", EXACT | LOSSY)
def test_the_first_bytes_give_a_container_away(suffix: str, tmp_path: Path) -> None:
    assert is_container(written(tmp_path, suffix, speech(16000))[:3200])


def test_raw_samples_are_no_container() -> None:
    generator = np.random.default_rng(0)
    for scale in (0, 1, 10, 1000, 30000):
        for _ in range(200):
            assert not is_container(
                (scale * generator.standard_normal(1600)).clip(-32768, 32767).astype("<i2").tobytes()
            )
    for head in (
        b"\0\0\0\x18ftypM4A ",
        b"\x1a\x45\xdf\xa3",
        b"\xff\xf1\x50\x80",
        b"ID3\x03",
        b"\x30\x26\xb2\x75\x8e\x66",
    ):
        assert is_container(head + bytes(100))
