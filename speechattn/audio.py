"""Load audio files and arrays as mono float32 in [-1, 1] at a given rate.

soundfile (libsndfile) reads the files: WAV, FLAC, Ogg, MP3, AIFF, NIST SPHERE and more. torchaudio resamples. Audio
that would silently give wrong frames (truncated, not finite, wrong scale) is refused.
"""

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
LARGEST_TABLE = 1 << 22  # weights in the table of torchaudio's resampler
ZERO_CROSSINGS, ROLLOFF = 6, 0.99  # of the resampler's windowed sinc: torchaudio's defaults
SAMPLE_RATES = (1000, 768_000)  # Hz; other rates mean a damaged header, and are costly to resample
LOUDEST = 100.0  # floats may exceed 1, but 40 dB more means another scale; from 1e14 on a spectrum overflows
READ_AT_ONCE = 1 << 22  # samples of all channels; a header may state far more than the file holds
MOST_TAPS = 1 << 21  # computed at a time without a table: bounds the memory
UNKNOWN_LENGTH = 0x7FFF0000  # 32-bit lengths from here on mean "unknown" (written to a pipe)
# Messages in libsndfile's log about truncated files, and their units.
CUT_SHORT = {
    r"(?:data|SSND|Data Size)\s*: (?P<stated>\d+) \(should be (?P<there>\d+)\)": "bytes of audio",
    r"frame count (?P<there>\d+) does not match value from 'ds64' chunk of (?P<stated>\d+)": "samples",  # RF64
    r"Length : (?P<there>\d+)\nriff : (?:.*\n)*?data : (?P<stated>\d+)": "bytes",  # W64
}
OGG_CUT_SHORT = r"Last page lacks an end-of-stream bit\.\nOgg ?: Junk after the last page"  # part of the next page
UNHELPFUL = (1, 7, 24, 29)  # libsndfile's errors that say nothing, or something wrong, about the file

logger = logging.getLogger("speechattn")


class AudioError(ValueError):
    """Audio that cannot be used; the message names the file and the fault."""


class AudioInfo(NamedTuple):
    """The header of an audio file."""

    num_samples: int  # per channel
    sample_rate: int
    num_channels: int


class _Sequential(soundfile.SoundFile):
    """A file that is only read from start to end.

    soundfile seeks to the current position after each read. In MP3, whose frames depend on earlier ones, this damages
    what follows; DWVW cannot seek, though libsndfile reports that it can.
    """

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek."""
        return False


def load_audio(
    source: str | Path | np.ndarray, *, sample_rate: int = SAMPLE_RATE, channel: int | None = None
) -> np.ndarray:
    """Load mono audio from a file or an array.

    Args:
        source: Path of a file; or samples at `sample_rate`: (N,) or (N, channels), int16 or float in [-1, 1].
        sample_rate: Rate of the result in Hz. Files at another rate are resampled, which is logged once.
        channel: Channel, counted from 0; None averages all channels.

    Returns:
        (N,) float32 in [-1, 1].

    Raises:
        AudioError: If the audio is missing, unreadable, truncated, empty, not finite or far beyond [-1, 1], or has no
            such channel.
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
    """Read mono audio at the file's own rate.

    Args:
        path: The file.
        channel: Channel, counted from 0; None averages all channels.

    Returns:
        (N,) float32 in [-1, 1], and the rate in Hz. The file's duration is exactly N / rate seconds.

    Raises:
        AudioError: As for `load_audio`.
    """
    with _open(path) as file:
        blocks = list(_mono_blocks(path, file, channel, file.frames))
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks), file.samplerate


def audio_blocks(
    path: str | Path, *, sample_rate: int = SAMPLE_RATE, channel: int | None = None, seconds: float = 30.0
) -> Iterator[np.ndarray]:
    """The samples of `load_audio` block by block, in bounded memory.

    Args:
        path: The file.
        sample_rate: Rate of the result in Hz.
        channel: As for `load_audio`.
        seconds: Approximate duration of a block.

    Yields:
        (n,) float32 in [-1, 1], n >= 1.

    Raises:
        AudioError: As for `load_audio`; for damage inside the file, when it is reached.
    """
    with _open(path) as file:
        rate = file.samplerate
        ratio = Fraction(rate, sample_rate)
        # The resampler's weights repeat with this period: pieces that begin at a multiple of it are resampled like the
        # whole, except near their ends.
        period = ratio.numerator
        margin = period * math.ceil((ZERO_CROSSINGS * max(ratio, Fraction(1)) / Fraction(ROLLOFF) + 2) / period)
        size = period * math.ceil(max(seconds * rate, 2 * margin) / period)
        if ratio == 1:
            yield from _mono_blocks(path, file, channel, size)
            return
        piece, before = np.empty(0, dtype=np.float32), 0  # `before`: samples of the piece that were yielded
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
    """Read up to the length in the header, at most `size` samples at a time: (n,) float32."""
    size = min(size, READ_AT_ONCE // file.channels)
    read = 0
    while read < file.frames:
        count = min(size, file.frames - read)
        try:
            # With a count, soundfile also reads codecs that cannot seek (GSM, G.721).
            samples = file.read(count, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise AudioError(f"{path}: damaged audio: {error}") from error
        read += len(samples)
        if len(samples) < count:
            guess = "; an MP3's length may be a guess: convert it to WAV" if file.format == "MP3" else ""
            raise AudioError(f"{path}: cut short: {read} of {file.frames} samples can be decoded{guess}")
        yield _mono(samples, channel, str(path))


def audio_info(path: str | Path) -> AudioInfo:
    """Length, rate and channels of a file, from its header.

    Raises:
        AudioError: If the file is missing, not audio, empty, or visibly truncated.
    """
    with _open(path) as file:
        return AudioInfo(file.frames, file.samplerate, file.channels)


def resample(samples: np.ndarray, rate: int, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Resample by windowed-sinc interpolation, as `torchaudio.functional.resample` does.

    Args:
        samples: (N,) float32.
        rate: Rate of the samples in Hz.
        sample_rate: Rate of the result in Hz.

    Returns:
        (ceil(N * sample_rate / rate),) float32; `samples` itself if the rates are equal.
    """
    if rate == sample_rate:
        return samples
    import torch

    from speechattn.audio import import_torchaudio

    _log_resampling(rate, sample_rate)
    ratio = Fraction(rate, sample_rate)
    if ratio.numerator * ratio.denominator > LARGEST_TABLE:
        return _interpolate(samples, rate, sample_rate)
    waveform = torch.from_numpy(np.ascontiguousarray(samples))
    return import_torchaudio().functional.resample(waveform, rate, sample_rate).numpy()


def _interpolate(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """The result of `torchaudio.functional.resample` without its table of rate x sample_rate weights.

    For rates with few common divisors, such as 44101 and 16000 Hz, the table would take gigabytes.
    """
    cutoff = min(rate, sample_rate) * ROLLOFF / rate  # as a fraction of the input's bandwidth
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
def _log_resampling(rate: int, sample_rate: int) -> None:
    logger.warning("audio at %d Hz is resampled to %d Hz", rate, sample_rate)


def _open(path: str | Path) -> soundfile.SoundFile:
    """Open a file and check its header."""
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
        raise AudioError(f"{path}: SPHERE audio compressed by {compression}; convert it with sph2pipe -f wav")
    try:
        file = _Sequential(os.fsencode(path) if os.name == "posix" else path)  # bytes: the name may not be UTF-8
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: the suffix of a headerless format
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
    """Header fields of a NIST SPHERE file; empty for other files."""
    with open(path, "rb") as file:
        header = file.read(1024)
    if not header.startswith(b"NIST_1A"):
        return {}
    rows = (line.split(maxsplit=2) for line in header.decode("ascii", "replace").splitlines())
    return {row[0]: row[2] for row in rows if len(row) == 3}  # name, type, value


def _check_header(path: Path, file: soundfile.SoundFile, sphere: dict[str, str]) -> None:
    """Refuse impossible rates, and files that are empty, truncated or of unknown length."""
    low, high = SAMPLE_RATES
    if not low <= file.samplerate <= high:
        raise AudioError(f"{path}: its header states {file.samplerate} Hz; rates from {low} to {high} Hz are accepted")
    if re.search(OGG_CUT_SHORT, file.extra_info):
        raise AudioError(f"{path}: cut short: its last page is not whole")
    if file.frames == 0:
        raise AudioError(f"{path}: the audio is empty (0 samples)")
    if file.frames >= 1 << 48:
        raise AudioError(f"{path}: its header states no length (written to a pipe?); convert it to WAV")
    # libsndfile reads truncated files without an error. Its log reports them, except for SPHERE.
    count = sphere.get("sample_count", "")
    if count.isdigit() and file.frames < int(count):
        raise AudioError(f"{path}: cut short: {file.frames} of {count} samples are there")
    for pattern, unit in CUT_SHORT.items():
        found = re.search(pattern, file.extra_info)
        if found and int(found["there"]) < int(found["stated"]) < UNKNOWN_LENGTH:
            raise AudioError(f"{path}: cut short: {found['there']} of {found['stated']} {unit} are there")


def _mono(samples: np.ndarray, channel: int | None, what: str) -> np.ndarray:
    """Check samples, (N, channels), and select or average channels: (N,) float32."""
    num_samples, num_channels = samples.shape
    if num_samples == 0:
        raise AudioError(f"{what}: the audio is empty (0 samples)")
    if channel is not None and not 0 <= channel < num_channels:
        raise AudioError(f"{what}: there is no channel {channel}; channels are 0 to {num_channels - 1}")
    selected = samples if channel is None else samples[:, channel : channel + 1]
    if not np.isfinite(selected).all():
        raise AudioError(f"{what}: some samples are NaN or infinite")
    if (loudest := np.abs(selected).max()) > LOUDEST:
        raise AudioError(f"{what}: some samples are far beyond [-1, 1]: {loudest:.3g}")
    return np.ascontiguousarray(selected.mean(axis=1), dtype=np.float32)


def import_torchaudio() -> ModuleType:
    """Import torchaudio, whose compiled part needs a torch of the same build (both CUDA, or both CPU).

    Raises:
        ImportError: If it is not installed or does not fit the installed torch; the message names both versions.
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
    """Version and build of torchaudio, such as 2.11.0+cpu, read without importing it."""
    spec = find_spec("torchaudio")
    for folder in (spec and spec.submodule_search_locations) or []:
        version = Path(folder) / "version.py"
        if version.is_file():
            return str(runpy.run_path(str(version)).get("__version__", "of unknown version"))
    return "(none)" if spec is None else "of unknown version"
