"""Whether an exported file gives what PyTorch gives: on signals like speech, of lengths that it was not made with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from speechattn.classifier import FrameClassifier
from speechattn.streaming_export import StreamingStep

__all__ = [
    "Agreement",
    "Run",
    "compare_stream",
    "compare_whole",
    "double_precision",
    "open_file",
    "speech_like",
    "streamed",
]

DURATIONS_S = (0.1, 1.0, 37.0)
Run = Callable[..., list[np.ndarray]]  # inputs of a graph, in turn -> its outputs, in turn


class Agreement(NamedTuple):
    """How far two sets of logits, or log-posteriors, differ."""

    difference: float  # the greatest
    decided: int  # frames, or utterances with pooling
    alike: int  # of these, with the same likeliest class


def open_file(path: Path) -> Run:
    """What a .onnx or .pt2 file computes."""
    if path.suffix == ".pt2":
        program = torch.export.load(path)
        module, names = program.module(), program.graph_signature.user_inputs

        def run(*inputs: np.ndarray) -> list[np.ndarray]:
            outputs = module(**dict(zip(names, map(torch.from_numpy, inputs), strict=True)))
            return [output.numpy() for output in outputs.values()]

        return run
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def compare_whole(model: FrameClassifier, run: Run) -> Agreement:
    """Compare the logits of single recordings, and of three that are padded to one length.

    Args:
        model: In eval mode, float32.
        run: What `WaveformModel` or `FeatureModel` was exported to.

    Raises:
        ValueError: When shapes or frame lengths differ.
    """

    def pairs() -> Iterable[tuple[np.ndarray, np.ndarray]]:
        for inputs, lengths in _batches(model):
            for rows in (1, len(inputs)):
                logits, frame_lengths = run(inputs[:rows], lengths[:rows])
                with torch.inference_mode():
                    expected = [part.numpy() for part in model(*map(torch.from_numpy, (inputs[:rows], lengths[:rows])))]
                if not np.array_equal(frame_lengths, expected[1]) or logits.shape != expected[0].shape:
                    raise ValueError(
                        f"the exported model gives {logits.shape} logits and frame lengths {frame_lengths.tolist()}, "
                        f"PyTorch {expected[0].shape} and {expected[1].tolist()}"
                    )
                for result, reference, count in zip(logits, expected[0], frame_lengths, strict=True):
                    frames = slice(count if result.ndim == 2 else None)
                    yield np.atleast_2d(result[frames]), np.atleast_2d(reference[frames])

    return _agreement(pairs())


def double_precision(model: FrameClassifier) -> Run:
    """PyTorch in float64, to compare with like an exported file: what differs then is the rounding of float32."""
    exact = copy.deepcopy(model).double()

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [output.numpy() for output in exact(*map(torch.from_numpy, inputs))]

    return run


def compare_stream(model: FrameClassifier, step: StreamingStep, run: Run) -> Agreement:
    """Compare the log-posteriors of a stream, chunk by chunk, with those of the whole recording at once.

    Args:
        model: In eval mode, float32.
        step: What was exported.
        run: The exported file.
    """

    def pairs() -> Iterable[tuple[np.ndarray, np.ndarray]]:
        for inputs, _ in _batches(model):
            yield streamed(step, run, inputs[0]), np.log(model.posteriors(inputs[0]))

    return _agreement(pairs())


def streamed(step: StreamingStep, run: Run, samples: np.ndarray) -> np.ndarray:
    """The log-posteriors of a recording, (N,) float32 -> (T, P), by the protocol of docs/export.md."""
    size = step.chunk_samples
    state, clock = np.zeros(step.state_size, dtype=samples.dtype), np.zeros(2, dtype=np.int64)
    parts = []
    for first in range(0, len(samples) + step.flush_chunks * size, size):
        chunk = samples[first : first + size]
        padded = np.pad(chunk, (0, size - len(chunk)))
        rows, begin, count, state, clock = run(padded, np.array(len(chunk)), state, clock)
        parts.append(rows[begin : begin + count])
    return np.concatenate(parts)


def speech_like(num_samples: int, sample_rate: int, seed: int) -> np.ndarray:
    """Voice with a pitch and a formant that glide, louder and softer, with noise.

    Returns:
        (N,) float32, the same for the same seed.
    """
    noise = np.random.default_rng(seed).standard_normal(num_samples)
    time = np.arange(num_samples) / sample_rate
    pitch = 120 + 40 * np.sin(7 * time + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    formant = 900 + 600 * np.sin(11 * time + 2 * seed)
    harmonics = range(1, min(30, int(sample_rate / 2 / 160)))
    voice = sum(np.cos(k * phase) / (1 + ((k * pitch - formant) / 400) ** 2) for k in harmonics)
    loudness, breath = 1.05 + np.sin(9 * time), 1.2 + np.sin(5 * time + seed)
    return (0.05 * loudness * voice + 0.01 * breath * noise).astype(np.float32)


def _batches(model: FrameClassifier) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """For every duration waveforms (3, N), or ready features (3, T, D), and their lengths (3,)."""
    geometry = model.frontend.geometry
    for duration in DURATIONS_S:
        size = round(duration * geometry.sample_rate)
        if model.feature_dim is None:
            inputs = np.stack([speech_like(size, geometry.sample_rate, seed) for seed in range(3)])
        else:
            size = geometry.num_frames(size)
            shape = (3, size, model.feature_dim)
            inputs = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        yield inputs, np.array([size, size * 7 // 8, size * 2 // 3])


def _agreement(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Agreement:
    difference, decided, alike = 0.0, 0, 0
    for result, expected in pairs:
        difference = max(difference, float(np.abs(result - expected).max(initial=0.0)))
        decided += len(expected)
        alike += int((result.argmax(axis=1) == expected.argmax(axis=1)).sum())
    return Agreement(difference, decided, alike)
