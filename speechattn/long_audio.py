"""A recording of any length through the model in bounded memory: a minute at a time, with the numbers of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from speechattn.alignment import Segment
from speechattn.audio import audio_blocks
from speechattn.classifier import FrameClassifier
from speechattn.live import LiveSegments

__all__ = ["recording_posteriors", "recording_segments"]

BLOCK_S = 60.0


def recording_segments(
    model: FrameClassifier, path: str | Path, *, channel: int | None = None, smooth: bool = False
) -> list[Segment]:
    """What `FrameClassifier.classify` gives for a file, up to rounding; of a file of hours, too.

    Beyond the segments, memory does not grow with the file. It does when the model needs the whole recording before
    its first frame (`lookahead` is None), and, by the posteriors, with `smooth`.

    Raises:
        ValueError: As for `FrameClassifier.classify`.
    """
    duration = model.duration(path)
    if smooth or not _in_blocks(model, duration):
        return model.segments(recording_posteriors(model, path, channel=channel), duration, smooth=smooth)
    live, segments = LiveSegments(model), []
    for block in _blocks(model, path, channel):
        segments += live.push(block)
    return segments + live.flush(duration)


def recording_posteriors(model: FrameClassifier, path: str | Path, *, channel: int | None = None) -> np.ndarray:
    """Posteriors of a file, (T, P) float32, computed in blocks where the model can; with pooling (P,).

    Raises:
        ValueError: As for `FrameClassifier.classify`.
    """
    if not _in_blocks(model, model.duration(path)):
        return model.posteriors(model.samples(path, channel=channel))
    stream = model.stream()
    pieces = [stream.push(block) for block in _blocks(model, path, channel)]
    return np.exp(np.concatenate([*pieces, stream.flush()]))


def _in_blocks(model: FrameClassifier, duration: float) -> bool:
    return model.feature_dim is None and model.lookahead is not None and duration > BLOCK_S


def _blocks(model: FrameClassifier, path: str | Path, channel: int | None) -> Iterator[np.ndarray]:
    return audio_blocks(path, sample_rate=model.frontend.geometry.sample_rate, channel=channel, seconds=BLOCK_S)
