"""Files that are no audio, or not what their headers say: the same ones each time, every one to be refused."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

NUM_SAMPLES = 8000
RATE = 16000
CLAIMED = 10**9  # frames that headers state and files do not have
# Suffix -> what libsndfile calls the format, and a codec whose header states the length.
CONTAINERS = {
    "wav": ("WAV", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "sph": ("NIST", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def malformed_files(folder: Path) -> list[Path]:
    """Write about 240 files that no program can take for a recording of speech.

    Args:
        folder: Where to; it exists.

    Returns:
        The files; a name says what is wrong with one.
    """
    paths = []
    for name, content in _malformed(folder):
        path = folder / name
        path.write_bytes(content)
        paths.append(path)
    assert len({path.name for path in paths}) == len(paths)
    return paths


def _malformed(folder: Path) -> Iterator[tuple[str, bytes]]:
    whole = {suffix: _whole(folder, suffix) for suffix in CONTAINERS}
    yield from _other_types()
    yield from _truncated(whole)
    yield from _damaged(folder, whole)
    yield from _fuzzed(whole)
    yield from _impossible_wavs()
    yield from _claims(whole)
    yield from _impossible_samples(folder)
    yield from _too_short(folder)


def _speech(num_samples: int = NUM_SAMPLES) -> np.ndarray:
    time = np.arange(num_samples) / RATE
    noise = np.random.default_rng(0).standard_normal(num_samples)
    return (0.3 * np.sin(2 * np.pi * 220 * time) + 0.01 * noise).astype(np.float32)


def _whole(folder: Path, suffix: str) -> bytes:
    container, codec = CONTAINERS[suffix]
    return _written(folder, _speech(), container, codec)


def _written(folder: Path, samples: np.ndarray, container: str, codec: str) -> bytes:
    path = folder / "whole"
    soundfile.write(path, samples, RATE, format=container, subtype=codec)
    content = path.read_bytes()
    path.unlink()
    return content


def _other_types() -> Iterator[tuple[str, bytes]]:
    generator = np.random.default_rng(1)
    yield "empty.wav", b""
    yield "one_byte.wav", b"R"
    for size in (3, 44, 4096, 100_000):
        yield f"random_{size}.wav", generator.bytes(size)
        yield f"zeros_{size}.wav", bytes(size)
        yield f"ones_{size}.wav", b"\xff" * size
    text = "Not audio, but a text that somebody gave the wrong name.\n" * 99
    yield "text.wav", text.encode()
    yield "text_utf16.wav", text.encode("utf-16")
    yield "text.raw", text.encode()
    yield "page.flac", b"<!doctype html><title>404</title>" * 99
    yield "table.csv", b"start,end,phone\n0,1,AA\n" * 99
    yield "data.json", b'{"audio": "none"}' * 99
    magic = {
        "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "jpg": b"\xff\xd8\xff\xe1\x00\x10Exif", "gif": b"GIF89a",
        "pdf": b"%PDF-1.7\n", "zip": b"PK\x03\x04", "gz": b"\x1f\x8b\x08\x00", "elf": b"\x7fELF\x02\x01\x01",
        "mp4": b"\x00\x00\x00\x18ftypmp42", "webm": b"\x1aE\xdf\xa3\x9fB\x86\x81\x01", "asf": b"0&\xb2u\x8ef\xcf\x11",
        "amr": b"#!AMR\n", "midi": b"MThd\x00\x00\x00\x06\x00\x01", "torrent": b"d8:announce",
        "sqlite": b"SQLite format 3\x00",
    }  # fmt: skip
    for name, start in magic.items():
        yield f"really_{name}.wav", start + generator.integers(0, 128, 2000, dtype=np.uint8).tobytes()


def _truncated(whole: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for suffix, content in whole.items():
        for size in (5, 11, 17, 23, 31):
            yield f"cut_to_{size}_bytes.{suffix}", content[:size]
        for percent in (50, 90):
            yield f"cut_to_{percent}_percent.{suffix}", content[: len(content) * percent // 100]


def _damaged(folder: Path, whole: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Headers are whole, what comes after them is not."""
    generator = np.random.default_rng(4)
    half = len(whole["flac"]) // 2
    yield "a_bit_in_the_middle.flac", whole["flac"][:half] + b"\x5a" + whole["flac"][half + 1 :]
    yield "zeros_in_the_middle.flac", whole["flac"][:half] + bytes(500) + whole["flac"][half + 500 :]
    yield "bytes_left_out.flac", whole["flac"][:half] + whole["flac"][half + 500 :]
    yield "frames_of_chance.mp3", whole["mp3"][:500] + generator.bytes(4000)
    yield "rubbish.mp3", b"\xff\xfb\x90\x00" + generator.bytes(4000)
    yield "only_tags.mp3", b"ID3\x04\x00\x00\x00\x00\x07\x76" + bytes(1014)
    for codec in ("VORBIS", "OPUS"):  # of several pages, so that there is audio before the cut
        content = _written(folder, _speech(10 * RATE), "OGG", codec)
        first, second = content[: len(content) // 2], content[len(content) // 2 :]
        yield f"pages_missing_{codec.lower()}.ogg", first
        yield f"a_page_damaged_{codec.lower()}.ogg", first + b"damaged" + second[7:]


def _fuzzed(whole: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Headers with bytes of chance, among them one that says what format it is."""
    generator = np.random.default_rng(2)
    for suffix, content in whole.items():
        for number in range(6):
            fuzzed = bytearray(content)
            for place in generator.integers(0, 48, 6):
                fuzzed[place] = generator.integers(256)
            fuzzed[generator.integers(3)] ^= 0x10
            yield f"fuzzed_{number}.{suffix}", bytes(fuzzed)


def _wav(
    *,
    channels: int = 1,
    rate: int = RATE,
    bits: int = 16,
    tag: int = 1,
    chunks: str = "fd",
    data_size: int | None = None,
) -> bytes:
    data = (32767 * _speech()).astype("<i2").tobytes()
    align = channels * bits // 8 % 65536
    fields = struct.pack("<HHIIHH", tag, channels, rate, rate * align % 2**32, align, bits)
    parts = {
        "f": b"fmt " + struct.pack("<I", 16) + fields,
        "d": b"data" + struct.pack("<I", len(data) if data_size is None else data_size) + data,
    }
    body = b"WAVE" + b"".join(parts[chunk] for chunk in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _impossible_wavs() -> Iterator[tuple[str, bytes]]:
    yield "0_channels.wav", _wav(channels=0)
    yield "2000_channels.wav", _wav(channels=2000)
    yield "65535_channels.wav", _wav(channels=65535)
    yield "0_hertz.wav", _wav(rate=0)
    yield "4294967295_hertz.wav", _wav(rate=2**32 - 1)
    yield "2147483648_hertz.wav", _wav(rate=2**31)
    yield "2147483647_hertz.wav", _wav(rate=2**31 - 1)
    yield "1_hertz.wav", _wav(rate=1)
    for bits in (0, 40, 48, 65535):
        yield f"{bits}_bits.wav", _wav(bits=bits)
    for tag in (0, 0x50, 0x161, 0x2000, 0x674F):  # unknown, MPEG, WMA, AC-3, Vorbis
        yield f"format_{tag:x}.wav", _wav(tag=tag)
    yield "no_chunks.wav", _wav(chunks="")
    yield "no_data.wav", _wav(chunks="f")
    yield "no_format.wav", _wav(chunks="d")
    yield "no_samples.wav", _wav(chunks="f") + b"data\x00\x00\x00\x00"


def _claims(whole: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Headers that state 10^9 frames."""
    yield "claims.wav", _wav(data_size=2 * CLAIMED)

    def claiming(suffix: str, place: int, claim: bytes) -> tuple[str, bytes]:
        content = whole[suffix]
        return f"claims.{suffix}", content[:place] + claim + content[place + len(claim) :]

    yield claiming("aiff", whole["aiff"].index(b"SSND") + 4, struct.pack(">I", 2 * CLAIMED + 8))
    yield claiming("au", 8, struct.pack(">I", 2 * CLAIMED))
    yield claiming("sph", whole["sph"].index(b"sample_count -i ") + 16, str(CLAIMED).encode() + b"\n")
    yield claiming("flac", 21, struct.pack(">BI", whole["flac"][21] & 0xF0, CLAIMED))
    yield claiming("caf", whole["caf"].index(b"data") + 4, struct.pack(">Q", 2 * CLAIMED + 4))
    yield claiming("w64", whole["w64"].index(b"data") + 16, struct.pack("<Q", 2 * CLAIMED + 24))
    sizes = whole["rf64"].index(b"ds64") + 8
    yield claiming("rf64", sizes, struct.pack("<QQQ", 2 * CLAIMED + 100, 2 * CLAIMED, CLAIMED))


def _impossible_samples(folder: Path) -> Iterator[tuple[str, bytes]]:
    for container, codec in (
        ("WAV", "FLOAT"),
        ("WAV", "DOUBLE"),
        ("AIFF", "FLOAT"),
        ("AU", "DOUBLE"),
        ("CAF", "FLOAT"),
    ):
        for value in (np.nan, np.inf, -np.inf, 1e30, -32768):
            samples = _speech()
            samples[NUM_SAMPLES // 2] = value
            yield f"{value}_{codec.lower()}.{container.lower()}", _written(folder, samples, container, codec)
    stereo = np.stack([_speech(), np.full(NUM_SAMPLES, np.nan, dtype=np.float32)], axis=1)
    yield "nan_in_one_channel.wav", _written(folder, stereo, "WAV", "FLOAT")
    stereo[:, :] = np.inf, -np.inf
    yield "infinities.wav", _written(folder, stereo, "WAV", "FLOAT")


def _too_short(folder: Path) -> Iterator[tuple[str, bytes]]:
    for suffix in ("wav", "flac", "aiff", "au"):
        container, codec = CONTAINERS[suffix]
        yield f"no_samples_at_all.{suffix}", _written(folder, _speech(0), container, codec)
        yield f"one_sample.{suffix}", _written(folder, _speech(1), container, codec)
        yield f"less_than_a_frame.{suffix}", _written(folder, _speech(200), container, codec)


def fuzzed_files(folder: Path, count: int) -> list[Path]:
    """Write files whose headers have a few bytes of chance: some can still be read, none may do harm."""
    generator = np.random.default_rng(3)
    whole = {suffix: _whole(folder, suffix) for suffix in CONTAINERS}
    paths = []
    for number in range(count):
        suffix = str(generator.choice(list(whole)))
        fuzzed = bytearray(whole[suffix])
        for place in generator.integers(4, 64, generator.integers(1, 6)):
            fuzzed[place] = generator.integers(256)
        paths.append(folder / f"chance_{number}.{suffix}")
        paths[-1].write_bytes(fuzzed)
    return paths
