"""Run a model over a recording of any length in bounded memory: by blocks of a minute, with the result of the whole."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from speechattn.audio import audio_blocks
from speechattn.labels.intervals import Segment
from speechattn.model.classifier import FrameClassifier
from speechattn.prediction.live import LiveSegments

__all__ = ["Progress", "recording_excerpts", "recording_posteriors", "recording_segments"]

BLOCK_S = 60.0

Progress = Callable[[float], object]  # called after each block with its duration in seconds


def _ignore(seconds: float) -> None:
    pass


def recording_segments(
    model: FrameClassifier,
    path: str | Path,
    *,
    channel: int | None = None,
    smooth: bool = False,
    on_progress: Progress = _ignore,
) -> list[Segment]:
    """The result of `FrameClassifier.classify` for a file, up to rounding.

    Memory does not grow with the file, unless the model needs the whole recording (`lookahead` is None).

    Raises:
        ValueError: As for `FrameClassifier.classify`.
    """
    duration = model.duration(path)
    if not _in_blocks(model, duration):
        posteriors = recording_posteriors(model, path, channel=channel, on_progress=on_progress)
        return model.segments(posteriors, duration, smooth=smooth)
    live, segments = LiveSegments(model, smooth=smooth), []
    for block, seconds in _blocks(model, path, channel):
        segments += live.push(block)
        on_progress(seconds)
    return segments + live.flush(duration)


def recording_posteriors(
    model: FrameClassifier, path: str | Path, *, channel: int | None = None, on_progress: Progress = _ignore
) -> np.ndarray:
    """Posteriors of a file, (T, P) float32, or with pooling (P,); computed by blocks if the model can stream.

    Raises:
        ValueError: As for `FrameClassifier.classify`.
    """
    duration = model.duration(path)
    if not _in_blocks(model, duration):
        posteriors = model.posteriors(model.samples(path, channel=channel))
        on_progress(duration)
        return posteriors
    stream, pieces = model.stream(), []
    for block, seconds in _blocks(model, path, channel):
        pieces.append(stream.push(block))
        on_progress(seconds)
    return np.exp(np.concatenate([*pieces, stream.flush()]))


def recording_excerpts(
    model: FrameClassifier, path: str | Path, longest_s: float, *, channel: int | None = None
) -> Iterator[np.ndarray]:
    """The samples of a file at the model's rate, (n,) float32, in the fewest excerpts of equal length.

    Args:
        model: A model with a front end.
        path: The file.
        longest_s: Maximum duration of an excerpt in seconds.
        channel: See `FrameClassifier.classify`.

    Raises:
        ValueError: As for `FrameClassifier.classify`.
    """
    rate = model.frontend.geometry.sample_rate
    duration = model.duration(path)
    size = math.ceil(duration * rate / math.ceil(duration / longest_s))
    waiting = np.empty(0, dtype=np.float32)
    for block in audio_blocks(path, sample_rate=rate, channel=channel):
        waiting = np.concatenate([waiting, block])
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if len(waiting):
        yield waiting


def _in_blocks(model: FrameClassifier, duration: float) -> bool:
    return model.feature_dim is None and model.lookahead is not None and duration > BLOCK_S


def _blocks(model: FrameClassifier, path: str | Path, channel: int | None) -> Iterator[tuple[np.ndarray, float]]:
    """Blocks of samples, and the duration of each in seconds."""
    rate = model.frontend.geometry.sample_rate
    for block in audio_blocks(path, sample_rate=rate, channel=channel, seconds=BLOCK_S):
        yield block, len(block) / rate
