"""An audio file's phones, and what the page shows of them."""

from __future__ import annotations

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

MOST_SAMPLES = 1 << 26  # of all channels together, 256 MB when decoded


class TooLong(ValueError):
    """A recording that lasts longer, or has more samples, than the server takes."""


class Analysis(NamedTuple):
    """What a model heard in a recording, and what it made of it."""

    samples: np.ndarray  # (N,) float32 at the model's rate
    posteriors: np.ndarray  # (T, P) float32
    segments: list[Segment]
    smoothed: bool


def analyse(model: FrameClassifier, path: Path, limits: Limits, *, smooth: bool = False) -> Analysis:
    """Find the phones of a file.

    Args:
        model: One that takes audio and has no pooling.
        path: The file.
        limits: Its longest duration; asked of the header, before anything is decoded.
        smooth: See `FrameClassifier.classify`.

    Raises:
        TooLong: When it is.
        ValueError: As for `FrameClassifier.classify`.
    """
    info = audio_info(path)
    seconds = info.num_samples / info.sample_rate
    if seconds > limits.duration_s:
        raise TooLong(
            f"{path}: lasts {seconds:,.0f} s by its header; this server takes {limits.duration_s:g} s at most"
        )
    if info.num_samples * info.num_channels > MOST_SAMPLES:
        raise TooLong(
            f"{path}: {info.num_channels} channels of {info.num_samples:,} samples; this server decodes "
            f"{MOST_SAMPLES:,} in all at most: send one channel, or a lower sample rate"
        )
    samples = model.samples(path)
    posteriors = model.posteriors(samples)
    segments = model.segments(posteriors, seconds, smooth=smooth)
    return Analysis(samples, posteriors, segments, smooth)


def file_of(segments: Sequence[Segment], stem: str, format_name: str) -> tuple[str, str]:
    """Phones in the file of another tool.

    Args:
        segments: At least one.
        stem: Of the file's name; a CTM names the utterance by it.
        format_name: One of `prediction.FORMATS`.

    Returns:
        (name, text).
    """
    suffix, write = FORMATS[format_name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (stem + suffix)
        write(path, list(segments))
        return path.name, path.read_text(encoding="utf-8")


def page_data(model: FrameClassifier, analysis: Analysis, name: str) -> bytes:
    """All that the page draws, plays and offers as files, in JSON.

    Args:
        model: The model that `analysis` is of.
        analysis: Of a recording.
        name: The recording's file name.

    Returns:
        An object in UTF-8. Arrays are in base64, little-endian, row by row: `samples` int16, 32768 standing for 1;
        `posteriors` uint16, (frames, phones), 65535 standing for 1. Times in `frames` are in samples.
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
        "frames": {
            "count": len(analysis.posteriors),
            "first_centre": geometry.first_centre,
            "hop": geometry.hop,
        },
        "samples": _base64(samples.astype("<i2")),
        "posteriors": _base64(np.round(65535 * analysis.posteriors).astype("<u2")),
        "files": files,
    }
    return json.dumps(data, ensure_ascii=False).encode()


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
