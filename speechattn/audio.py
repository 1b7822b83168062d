"""Audio files and arrays to what the package computes with: mono float32 in [-1, 1] at the wanted rate.

Files are read with soundfile (libsndfile: WAV, FLAC, Ogg, MP3, AIFF, NIST SPHERE ...), other rates are
resampled with torchaudio. Audio that would silently give wrong frames (cut short, not finite, of another scale)
is refused.
"""

from __future__ import annotations

import logging
import math
import os
import re
import runpy
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import soundfile

__all__ = [
    "SAMPLE_RATE",
    "AudioError",
    "AudioInfo",
    "audio_blocks",
    "audio_info",
    "load_audio",
    "read_audio",
    "resample",
]

SAMPLE_RATE = 16000
INT16_SCALE = 32768.0
LARGEST_TABLE = 1 << 22  # weights that torchaudio's resampler may tabulate
ZERO_CROSSINGS, ROLLOFF = 6, 0.99  # of the resampler's windowed sinc: torchaudio's defaults
SAMPLE_RATES = (1000, 768_000)  # Hz; a header that states another one is damaged, and costly to resample
LOUDEST = 100.0  # floats may exceed 1, but 40 dB more are of another scale; from 1e14 on a spectrum overflows
READ_AT_ONCE = 1 << 22  # samples of all channels: a header may claim far more than there are
MOST_TAPS = 1 << 21  # of those that are not tabulated, as many at a time: bounds memory at rates far apart
UNKNOWN_LENGTH = 0x7FFF0000  # from here on a 32-bit length stands for "unknown": written to a pipe
# What libsndfile's log says of a file that ends too soon, and in what it counts.
CUT_SHORT = {
    r"(?:data|SSND|Data Size)\s*: (?P<stated>\d+) \(should be (?P<there>\d+)\)": "bytes of audio",
    r"frame count (?P<there>\d+) does not match value from 'ds64' chunk of (?P<stated>\d+)": "samples",  # RF64
    r"Length : (?P<there>\d+)\nriff : (?:.*\n)*?data : (?P<stated>\d+)": "bytes",  # W64
}
OGG_CUT_SHORT = r"Last page lacks an end-of-stream bit\.\nOgg ?: Junk after the last page"  # a part of the next page
UNHELPFUL = (1, 7, 24, 29)  # libsndfile's errors that say nothing about the file, or something wrong

logger = logging.getLogger("speechattn")


class AudioError(ValueError):
    """Audio that cannot be used; the message names the file and what is wrong with it."""


class AudioInfo(NamedTuple):
    """What an audio file's header says."""

    num_samples: int  # per channel
    sample_rate: int
    num_channels: int


class _Sequential(soundfile.SoundFile):
    """A file that is read from its beginning to its end.

    After each read soundfile seeks to where it is anyway. In MP3, where a frame needs the bits of those before it,
    that damages what follows; DWVW has no seeking, though libsndfile says so.
    """

    def seekable(self) -> bool:
        """No."""
        return False


def load_audio(
    source: str | Path | np.ndarray, *, sample_rate: int = SAMPLE_RATE, channel: int | None = None
) -> np.ndarray:
    """Mono audio at the wanted rate, from a file or an array.

    Args:
        source: Path of a file; or samples, taken to be at `sample_rate` already: (N,) or (N, channels), int16
            or float in [-1, 1].
        sample_rate: The rate wanted, in Hz. A file of another rate is resampled, and that is logged once.
        channel: The channel to take, counted from 0; None averages all channels.

    Returns:
        (N,) float32 in [-1, 1].

    Raises:
        AudioError: When the audio is missing, unreadable, cut short, empty, not finite or far beyond [-1, 1], or has
            no such channel.
    """
    if isinstance(source, str | Path):
        samples, rate = read_audio(source, channel=channel)
        return resample(samples, rate, sample_rate)
    samples = np.asarray(source)
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / INT16_SCALE
    elif not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(f"samples must be int16 or floats in [-1, 1], got an array of {samples.dtype}")
    if samples.ndim not in (1, 2):
        raise AudioError(f"samples must be (N,) or (N, channels), got shape={samples.shape}")
    return _mono(samples[:, None] if samples.ndim == 1 else samples, channel, "array")


def read_audio(path: str | Path, *, channel: int | None = None) -> tuple[np.ndarray, int]:
    """Mono audio of a file at the file's own rate.

    Args:
        path: The file.
        channel: The channel to take, counted from 0; None averages all channels.

    Returns:
        (N,) float32 in [-1, 1], and the rate in Hz. The file lasts exactly N / rate seconds.

    Raises:
        AudioError: As for `load_audio`.
    """
    with _open(path) as file:
        blocks = list(_mono_blocks(path, file, channel, file.frames))
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks), file.samplerate


def audio_blocks(
    path: str | Path, *, sample_rate: int = SAMPLE_RATE, channel: int | None = None, seconds: float = 30.0
) -> Iterator[np.ndarray]:
    """The samples of `load_audio` piece by piece, so that memory does not grow with the file.

    Args:
        path: The file.
        sample_rate: The rate wanted, in Hz.
        channel: As for `load_audio`.
        seconds: About how long a block is.

    Yields:
        (n,) float32 in [-1, 1], n >= 1.

    Raises:
        AudioError: As for `load_audio`; of what is wrong within the file, when it is reached.
    """
    with _open(path) as file:
        rate = file.samplerate
        ratio = Fraction(rate, sample_rate)
        # The resampler's pattern of weights repeats after so many samples: pieces that begin there are resampled as
        # the whole is, but for what their ends miss.
        period = ratio.numerator
        margin = period * math.ceil((ZERO_CROSSINGS * max(ratio, Fraction(1)) / Fraction(ROLLOFF) + 2) / period)
        size = period * math.ceil(max(seconds * rate, 2 * margin) / period)
        if ratio == 1:
            yield from _mono_blocks(path, file, channel, size)
            return
        piece, before = np.empty(0, dtype=np.float32), 0  # `before`: samples of the piece that have been given out
        for block in _mono_blocks(path, file, channel, size):
            piece = np.concatenate([piece, block])
            whole = (len(piece) - margin) // period * period
            if whole <= before:
                continue
            resampled = resample(piece, rate, sample_rate)
            yield resampled[int(before / ratio) : int(whole / ratio)]
            kept = max(whole - margin, 0)
            piece, before = piece[kept:], whole - kept
        if len(piece) > before:
            yield resample(piece, rate, sample_rate)[int(before / ratio) :]


def _mono_blocks(path: str | Path, file: soundfile.SoundFile, channel: int | None, size: int) -> Iterator[np.ndarray]:
    """At most so many samples at a time, (n,) float32, to the end that the header tells."""
    size = min(size, READ_AT_ONCE // file.channels)
    read = 0
    while read < file.frames:
        wanted = min(size, file.frames - read)
        try:
            # Told how many, it also reads codecs that cannot seek (GSM, G.721).
            samples = file.read(wanted, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise AudioError(f"{path}: damaged audio: {error}") from error
        read += len(samples)
        if len(samples) < wanted:
            guess = "; an MP3's length may be a guess: convert it to WAV" if file.format == "MP3" else ""
            raise AudioError(f"{path}: cut short: {read} of {file.frames} samples can be decoded{guess}")
        yield _mono(samples, channel, str(path))


def audio_info(path: str | Path) -> AudioInfo:
    """Length, rate and channels of a file, from its header alone.

    Raises:
        AudioError: When the file is missing, not audio, or visibly cut short or empty.
    """
    with _open(path) as file:
        return AudioInfo(file.frames, file.samplerate, file.channels)


def resample(samples: np.ndarray, rate: int, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Samples at another rate, by windowed-sinc interpolation as torchaudio does it.

    Args:
        samples: (N,) float32.
        rate: Their rate in Hz.
        sample_rate: The rate wanted.

    Returns:
        About (N * sample_rate / rate,) float32, or `samples` itself when the rates are equal.
    """
    if rate == sample_rate:
        return samples
    import torch

    from speechattn.audio import import_torchaudio

    _say_resampled(rate, sample_rate)
    ratio = Fraction(rate, sample_rate)
    if ratio.numerator * ratio.denominator > LARGEST_TABLE:
        return _interpolate(samples, rate, sample_rate)
    waveform = torch.from_numpy(np.ascontiguousarray(samples))
    return import_torchaudio().functional.resample(waveform, rate, sample_rate).numpy()


def _interpolate(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """What `torchaudio.functional.resample` computes, without its table of rate x sample_rate weights.

    For rates that share few divisors, such as 44101 and 16000 Hz, the table would take gigabytes.
    """
    cutoff = min(rate, sample_rate) * ROLLOFF / rate  # as a share of the input's own band
    reach = math.ceil(ZERO_CROSSINGS / cutoff)
    num_output = math.ceil(len(samples) * sample_rate / rate)
    padded = np.pad(samples.astype(np.float64), reach + 1)
    output = np.empty(num_output, dtype=np.float32)
    block = max(MOST_TAPS // (2 * reach + 2), 1)
    for first in range(0, num_output, block):
        times = np.arange(first, min(first + block, num_output))[:, None] * rate / sample_rate
        taps = np.floor(times).astype(np.int64) + np.arange(-reach, reach + 2)
        t = np.clip((taps - times) * cutoff, -ZERO_CROSSINGS, ZERO_CROSSINGS)
        weights = cutoff * np.sinc(t) * np.cos(t * np.pi / ZERO_CROSSINGS / 2) ** 2
        output[first : first + block] = (padded[taps + reach + 1] * weights).sum(axis=1)
    return output


@cache  # once per pair of rates
def _say_resampled(rate: int, sample_rate: int) -> None:
    logger.warning("audio at %d Hz is resampled to %d Hz", rate, sample_rate)


def _open(path: str | Path) -> soundfile.SoundFile:
    """The open file, its header checked."""
    path = Path(path)
    try:
        if not path.exists():
            raise AudioError(f"{path}: no such file")
        if not path.is_file():
            raise AudioError(f"{path}: is a folder or a device, not an audio file")
        if path.stat().st_size == 0:
            raise AudioError(f"{path}: the file is empty (0 bytes)")
        sphere = _sphere_fields(path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read: {error.strerror}") from error
    if compression := sphere.get("sample_coding", "").partition(",")[2]:  # pcm,embedded-shorten-v2.00
        raise AudioError(f"{path}: SPHERE audio compressed by {compression}; make a WAV of it with sph2pipe -f wav")
    try:
        file = _Sequential(os.fsencode(path) if os.name == "posix" else path)  # bytes: it may not be UTF-8
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless, by its name
        message = f"{path}: not an audio file that can be read (WAV, FLAC, ...)"
        if isinstance(error, soundfile.LibsndfileError) and error.code not in UNHELPFUL:
            message += f": {error.error_string}"
        raise AudioError(message) from error
    try:
        _check_header(path, file, sphere)
    except AudioError:
        file.close()
        raise
    return file


def _sphere_fields(path: Path) -> dict[str, str]:
    """What the header of a NIST SPHERE file says, by name; of any other file nothing."""
    with open(path, "rb") as file:
        header = file.read(1024)
    if not header.startswith(b"NIST_1A"):
        return {}
    rows = (line.split(maxsplit=2) for line in header.decode("ascii", "replace").splitlines())
    return {row[0]: row[2] for row in rows if len(row) == 3}  # name, type, value


def _check_header(path: Path, file: soundfile.SoundFile, sphere: dict[str, str]) -> None:
    """Refuse a rate that no recording has, and a file without samples, of unknown length, or cut short."""
    low, high = SAMPLE_RATES
    if not low <= file.samplerate <= high:
        raise AudioError(f"{path}: its header states {file.samplerate} Hz; rates of {low} to {high} Hz are taken")
    if re.search(OGG_CUT_SHORT, file.extra_info):
        raise AudioError(f"{path}: cut short: its last page is not whole")
    if file.frames == 0:
        raise AudioError(f"{path}: the audio is empty (0 samples)")
    if file.frames >= 1 << 48:
        raise AudioError(f"{path}: its header states no length (written to a pipe?); convert it to WAV")
    # libsndfile shortens such files silently; only its log tells, and of SPHERE not even that.
    count = sphere.get("sample_count", "")
    if count.isdigit() and file.frames < int(count):
        raise AudioError(f"{path}: cut short: {file.frames} of {count} samples are there")
    for pattern, unit in CUT_SHORT.items():
        found = re.search(pattern, file.extra_info)
        if found and int(found["there"]) < int(found["stated"]) < UNKNOWN_LENGTH:
            raise AudioError(f"{path}: cut short: {found['there']} of {found['stated']} {unit} are there")


def _mono(samples: np.ndarray, channel: int | None, what: str) -> np.ndarray:
    """(N, channels) to (N,) float32, checked."""
    num_samples, num_channels = samples.shape
    if num_samples == 0:
        raise AudioError(f"{what}: the audio is empty (0 samples)")
    if channel is not None and not 0 <= channel < num_channels:
        raise AudioError(f"{what}: there is no channel {channel}; channels are 0 to {num_channels - 1}")
    heard = samples if channel is None else samples[:, channel : channel + 1]
    if not np.isfinite(heard).all():
        raise AudioError(f"{what}: some samples are NaN or infinite")
    if (loudest := np.abs(heard).max()) > LOUDEST:
        raise AudioError(f"{what}: some samples are far beyond [-1, 1]: {loudest:.3g}")
    return np.ascontiguousarray(heard.mean(axis=1), dtype=np.float32)


def import_torchaudio() -> ModuleType:
    """Import torchaudio, whose compiled part needs a torch of the same build (both CUDA, or both CPU).

    Raises:
        ImportError: When it is not installed or does not fit the installed torch; the message names both.
    """
    import torch

    try:
        import torchaudio
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise ImportError(
            f"torchaudio cannot be imported beside torch: torch {torch.__version__} and torchaudio "
            f"{_installed_build()} are installed, and they must be of one kind (both CUDA, or both CPU). "
            f"Install both from one index: pip install --force-reinstall torch torchaudio. ({error})"
        ) from error
    return torchaudio


def _installed_build() -> str:
    """The version of torchaudio with its build, such as 2.11.0+cpu, read without importing it."""
    spec = find_spec("torchaudio")
    for folder in (spec and spec.submodule_search_locations) or []:
        version = Path(folder) / "version.py"
        if version.is_file():
            return str(runpy.run_path(str(version)).get("__version__", "of unknown version"))
    return "(none)" if spec is None else "of unknown version"
