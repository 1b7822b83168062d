"""Compare an exported file with PyTorch, on speech-like signals of lengths that differ from the example's."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from speechattn.export.streaming import StreamingStep
from speechattn.model.classifier import FrameClassifier

__all__ = ["Agreement", "Run", "compare_stream", "compare_whole", "open_file", "speech_like", "streamed"]

DURATIONS_S = (0.1, 1.0, 37.0)
Run = Callable[..., list[np.ndarray]]  # inputs -> outputs, in the graph's order


class Agreement(NamedTuple):
    """Difference between the posteriors of an exported file and PyTorch's."""

    posteriors: float  # maximum difference
    logarithms: float  # maximum difference of log-posteriors
    alike: float  # share of frames with the same decision


def open_file(path: Path) -> Run:
    """The function that a .onnx or .pt2 file computes."""
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
    """Compare single recordings, and three padded to one length.

    Args:
        model: In eval mode, float32.
        run: An exported `WaveformModel` or `FeatureModel`.

    Raises:
        ValueError: When shapes or frame lengths differ.
    """

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
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
                    yield _log_posteriors(model, result[frames]), _log_posteriors(model, reference[frames])

    return _agreement(pairs())


def compare_stream(model: FrameClassifier, step: StreamingStep, run: Run) -> Agreement:
    """Compare a stream, chunk by chunk, with the whole recording.

    Args:
        model: In eval mode, float32.
        step: The exported graph.
        run: The exported file.
    """

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for inputs, _ in _batches(model):
            with torch.inference_mode():
                logits, _ = model(torch.from_numpy(inputs[:1]))
            yield streamed(step, run, inputs[0]), _log_posteriors(model, logits[0].numpy())

    return _agreement(pairs())


def streamed(step: StreamingStep, run: Run, samples: np.ndarray) -> np.ndarray:
    """Log-posteriors of a recording, (N,) float32 -> (T, P), by the protocol of docs/export.md."""
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
    """Synthetic voice with gliding pitch and formant, plus noise, both modulated at the rate of syllables.

    A steady sound would not do: after variance normalisation only rounding errors would be left.

    Returns:
        (N,) float32 in [-1, 1], the same for the same seed.
    """
    noise = np.random.default_rng(seed).standard_normal(num_samples)
    time = np.arange(num_samples) / sample_rate
    pitch = 120 + 40 * np.sin(7 * time + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    formant = 900 + 600 * np.sin(24 * time + 2 * seed)
    harmonics = range(1, min(30, int(sample_rate / 2 / 160)))
    voice = sum(np.cos(k * phase) / (1 + ((k * pitch - formant) / 400) ** 2) for k in harmonics)
    loudness, breath = np.exp(1.5 * np.sin(37 * time)), 1.2 + np.sin(29 * time + seed)
    return (0.015 * loudness * voice + 0.005 * breath * noise).astype(np.float32)


def _batches(model: FrameClassifier) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per duration, waveforms (3, N) or ready features (3, T, D), and lengths (3,)."""
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


def _log_posteriors(model: FrameClassifier, logits: np.ndarray) -> np.ndarray:
    """(T, P) or, with pooling, (P,) -> (T, P) or (1, P)."""
    return (torch.from_numpy(np.atleast_2d(logits)) / model.config.temperature).log_softmax(dim=1).numpy()


def _agreement(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Agreement:
    """From pairs of log-posteriors, (T, P) each: exported, expected."""
    result, expected = map(np.concatenate, zip(*pairs, strict=True))
    return Agreement(
        posteriors=float(np.abs(np.exp(result) - np.exp(expected)).max()),
        logarithms=float(np.abs(result - expected).max()),
        alike=float((result.argmax(axis=1) == expected.argmax(axis=1)).mean()),
    )
