"""Load audio files and arrays as mono float32 in [-1, 1] at a given rate.

soundfile (libsndfile) reads the files: WAV, FLAC, Ogg, MP3, AIFF, NIST SPHERE and more. torchaudio resamples. Audio
that would silently give wrong frames (truncated, not finite, wrong scale) is refused.
"""

import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import soundfile

from speechattn.audio.container import AudioError, audio_views
from speechattn.audio.resampling import ROLLOFF, SAMPLE_RATE, ZERO_CROSSINGS, resample

__all__ = ["AudioInfo", "audio_blocks", "audio_info", "load_audio", "read_audio", "seeks_exactly"]

INT16_SCALE = 32768.0
SAMPLE_RATES = (1000, 768_000)  # Hz; other rates mean a damaged header, and are costly to resample
LOUDEST = 100.0  # floats may exceed 1, but 40 dB more means another scale; from 1e14 on a spectrum overflows
READ_AT_ONCE = 1 << 22  # samples of all channels; a header may state far more than the file holds
MAX_CHANNELS = 1024  # as in libsndfile; more are samples in the wrong place
CANCELLED = 0.02  # power of the channels' mean, relative to that of the channels, below which they cancel each other
UNKNOWN_LENGTH = 0x7FFF0000  # 32-bit lengths from here on mean "unknown" (written to a pipe)
# Messages in libsndfile's log about truncated files, and their units.
CUT_SHORT = {
    r"(?:data|SSND|Data Size)\s*: (?P<stated>\d+) \(should be (?P<there>\d+)\)": "bytes of audio",
    r"frame count (?P<there>\d+) does not match value from 'ds64' chunk of (?P<stated>\d+)": "samples",  # RF64
    r"Length : (?P<there>\d+)\nriff : (?:.*\n)*?data : (?P<stated>\d+)": "bytes",  # W64
}
OGG_CUT_SHORT = r"Last page lacks an end-of-stream bit\.\nOgg ?: Junk after the last page"  # part of the next page
EXACT_CODECS = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")  # any container
UNHELPFUL = (1, 7, 24, 29)  # libsndfile's errors that say nothing, or something wrong, about the file

logger = logging.getLogger("speechattn")


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


class _Joined:
    """The streams of one file, one after the other; the attributes of a `SoundFile` that are used here."""

    extra_info = ""

    def __init__(self, path: Path, files: Sequence[soundfile.SoundFile]) -> None:
        kinds = {(file.samplerate, file.channels) for file in files}
        if len(kinds) > 1:
            raise AudioError(f"{path}: joined streams of different rates or numbers of channels; convert it to WAV")
        ((self.samplerate, self.channels),) = kinds
        self.frames, self.format = sum(file.frames for file in files), files[0].format
        self._files, self._lengths = files, [file.frames for file in files]

    def __enter__(self) -> "_Joined":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all streams."""
        for file in self._files:
            file.close()

    def read(self, count: int, *, dtype: str, always_2d: bool) -> np.ndarray:
        """The next `count` samples, or as many as can be decoded."""
        pieces = [np.empty((0, self.channels), dtype=dtype)]
        for number, file in enumerate(self._files):
            size = min(count, self._lengths[number])
            if size:
                pieces.append(file.read(size, dtype=dtype, always_2d=always_2d))
                self._lengths[number] -= size
                count -= size
        return np.concatenate(pieces)


Audio: TypeAlias = "soundfile.SoundFile | _Joined"


def load_audio(
    source: str | Path | np.ndarray, *, sample_rate: int = SAMPLE_RATE, channel: int | None = None
) -> np.ndarray:
    """Load mono audio from a file or an array.

    Args:
        source: Path of a file; or samples at `sample_rate`: (N,) or (N, channels), int16 or float in [-1, 1].
        sample_rate: Rate of the result in Hz. Files at another rate are resampled, which is logged once.
        channel: Channel, counted from 0; None averages all channels. If that cancels nearly everything, as with a
            channel in opposite phase, the loudest channel is taken, which is logged.

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
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.shape[1] > MAX_CHANNELS:
        raise AudioError(f"samples must be (N,) or (N, channels), got shape={samples.shape}: transpose them?")
    if channel is None and samples.shape[1] > 1 and np.isfinite(samples).all():
        channel = _uncancelled("array", [samples])
    return _mono(samples, channel, "array")


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
    channel = _channel(path, channel)
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
    channel = _channel(path, channel)
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


def seeks_exactly(path: str | Path) -> bool:
    """Whether any part of a file can be read by seeking, with the samples of the whole: not so for MP3 and Ogg.

    Raises:
        AudioError: As for `audio_info`.
    """
    with _open(path, warn=False) as file:
        return isinstance(file, _Sequential) and file.subtype in EXACT_CODECS and not audio_views(Path(path))[0]


def _channel(path: str | Path, channel: int | None) -> int | None:
    """The channel to read, or None for the mean of all channels."""
    with _open(path, warn=False) as file:
        if channel is not None or file.channels == 1:
            return channel
        return _uncancelled(str(path), _blocks(path, file, READ_AT_ONCE))


def _uncancelled(what: str, blocks: Iterable[np.ndarray]) -> int | None:
    """None if the mean of the channels can be taken, else the loudest channel; blocks are (n, channels)."""
    powers, mean_power = np.zeros(1), 0.0
    with np.errstate(all="ignore"):  # samples that are not finite are refused later
        for block in blocks:
            samples = block.astype(np.float64)
            powers = powers + np.square(samples).sum(axis=0)
            mean_power += np.square(samples.mean(axis=1)).sum()
    if not mean_power < CANCELLED * powers.mean():
        return None
    loudest = int(powers.argmax())
    logger.warning("%s: the channels cancel each other; channel %d is used instead of their mean", what, loudest)
    return loudest


def _mono_blocks(path: str | Path, file: Audio, channel: int | None, size: int) -> Iterator[np.ndarray]:
    for samples in _blocks(path, file, size):
        yield _mono(samples, channel, str(path))


def _blocks(path: str | Path, file: Audio, size: int) -> Iterator[np.ndarray]:
    """Read up to the length in the header, at most `size` samples at a time: (n, channels) float32."""
    size = max(min(size, READ_AT_ONCE // file.channels), 1)
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
        yield samples


def audio_info(path: str | Path) -> AudioInfo:
    """Length, rate and channels of a file, from its header.

    Raises:
        AudioError: If the file is missing, not audio, empty, or visibly truncated.
    """
    with _open(path, warn=False) as file:
        return AudioInfo(file.frames, file.samplerate, file.channels)


def _open(path: str | Path, *, warn: bool = True) -> Audio:
    """Open a file and check its header; `warn` logs that a wrong header was corrected."""
    path = Path(path)
    try:
        if not path.exists():
            raise AudioError(f"{path}: no such file")
        if not path.is_file():
            raise AudioError(f"{path}: is a folder or a device, not an audio file")
        if path.stat().st_size == 0:
            raise AudioError(f"{path}: the file is empty (0 bytes)")
        sphere = _sphere_fields(path)
        views, remark = audio_views(path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read: {error.strerror}") from error
    if compression := sphere.get("sample_coding", "").partition(",")[2]:  # pcm,embedded-shorten-v2.00
        raise AudioError(f"{path}: SPHERE audio compressed by {compression}; convert it with sph2pipe -f wav")
    if remark and warn:
        logger.warning("%s: %s", path, remark)
    sources: list[Any] = views or [
        os.fsencode(path) if os.name == "posix" else path
    ]  # bytes: the name may not be UTF-8
    files = []
    try:
        for source in sources:
            files.append(_Sequential(source))
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: the suffix of a headerless format
        message = f"{path}: not an audio file that can be read (WAV, FLAC, ...)"
        if isinstance(error, soundfile.LibsndfileError) and error.code not in UNHELPFUL:
            message += f": {error.error_string}"
        raise AudioError(message) from error
    try:
        for file in files:
            _check_header(path, file, sphere)
        return files[0] if len(files) == 1 else _Joined(path, files)
    except AudioError:
        for file in files:
            file.close()
        raise


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
