"""Predict an audio file, and encode the result for the page."""

import base64
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechattn.audio import audio_info
from speechattn.labels.intervals import Segment
from speechattn.model.classifier import FrameClassifier
from speechattn.prediction.files import FORMATS
from speechattn.server.limits import Limits

__all__ = ["Analysis", "TooLong", "analyse", "file_of", "page_data"]

MAX_SAMPLES = 1 << 26  # of all channels together, 256 MB when decoded


class TooLong(ValueError):
    """A recording that exceeds the server's limit of duration or samples."""


class Analysis(NamedTuple):
    """A recording and its prediction."""

    samples: np.ndarray  # (N,) float32 at the model's rate
    posteriors: np.ndarray  # (T, P) float32
    segments: list[Segment]
    smoothed: bool


def analyse(model: FrameClassifier, path: Path, limits: Limits, *, smooth: bool = False) -> Analysis:
    """Predict the phones of a file.

    Args:
        model: A model with a front end and without pooling.
        path: The file.
        limits: Maximum duration; compared with the header, before decoding.
        smooth: See `FrameClassifier.classify`.

    Raises:
        TooLong: If the recording exceeds the limits.
        ValueError: As for `FrameClassifier.classify`.
    """
    info = audio_info(path)
    seconds = info.num_samples / info.sample_rate
    if seconds > limits.duration_s:
        raise TooLong(f"{path}: lasts {seconds:,.0f} s; this server accepts at most {limits.duration_s:g} s")
    if info.num_samples * info.num_channels > MAX_SAMPLES:
        raise TooLong(
            f"{path}: {info.num_channels} channels of {info.num_samples:,} samples; this server accepts at most "
            f"{MAX_SAMPLES:,} in total: send one channel, or a lower sample rate"
        )
    samples = model.samples(path)
    posteriors = model.posteriors(samples)
    segments = model.segments(posteriors, seconds, smooth=smooth)
    return Analysis(samples, posteriors, segments, smooth)


def file_of(segments: Sequence[Segment], stem: str, format_name: str) -> tuple[str, str]:
    """Format phones as a file.

    Args:
        segments: At least one segment.
        stem: File name without suffix; in a CTM also the utterance.
        format_name: A key of `prediction.files.FORMATS`.

    Returns:
        (file name, text).
    """
    suffix, write = FORMATS[format_name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (stem + suffix)
        write(path, list(segments))
        return path.name, path.read_text(encoding="utf-8")


def page_data(model: FrameClassifier, analysis: Analysis, name: str) -> bytes:
    """Encode everything that the page draws, plays and saves as JSON.

    Args:
        model: The model of `analysis`.
        analysis: From `analyse`.
        name: File name of the recording.

    Returns:
        A JSON object in UTF-8. Arrays are base64 of little-endian rows: `samples` int16, scaled by 32768; `posteriors`
        uint16 (frames, phones), scaled by 65535. Times in `frames` are in samples.
    """
    geometry = model.frontend.geometry
    files = {}
    for format_name in FORMATS:
        file_name, text = file_of(analysis.segments, Path(name).stem, format_name)
        files[format_name] = {"name": file_name, "text": text}
    samples = np.clip(np.round(32768 * analysis.samples), -32768, 32767)
    data = {
        "name": name,
        "duration": analysis.segments[-1].end,
        "smoothed": analysis.smoothed,
        "segments": [segment._asdict() for segment in analysis.segments],
        "symbols": list(model.phones.symbols),
        "silences": sorted(model.phones.silences),
        "sample_rate": geometry.sample_rate,
        "frames": {"count": len(analysis.posteriors), "first_centre": geometry.first_centre, "hop": geometry.hop},
        "samples": _base64(samples.astype("<i2")),
        "posteriors": _base64(np.round(65535 * analysis.posteriors).astype("<u2")),
        "files": files,
    }
    return json.dumps(data, ensure_ascii=False).encode()


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
