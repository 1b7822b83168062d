"""The step that a streaming graph is made of gives, chunk by chunk, the posteriors of the whole recording."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechattn.attention import NORMALISERS, SCORES
from speechattn.export.check import Run, streamed
from speechattn.export.streaming import StreamingStep
from speechattn.frontend import FrontendConfig
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import BlstmConfig, ClassifierConfig, EncoderConfig, MlpConfig, TdnnConfig

SMALL = {"dim": 8, "layers": 2, "heads": 2, "feed_forward": 8}
NORMALISATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "global": {"normalisation": "global"},
    "online": {"normalisation": "online"},
    "online, short": {"normalisation": "online", "cmn_window": 6, "global_frames": 4},
    "online, near speech": {"normalisation": "online", "cmn_window": 20, "cmn_min_range": 3.0},
    "online, mean only": {"normalisation": "online", "cmn_window": 30, "normalise_variance": False},
}
FRONTENDS: dict[str, dict[str, Any]] = {
    "static": {"delta_order": 0},
    "edges mirrored": {"snip_edges": False},
    "energy": {"use_energy": True, "delta_order": 1, "delta_window": 3},
    "htk": {"preset": "htk"},
    "python_speech_features": {"preset": "python_speech_features"},
    "librosa": {"preset": "librosa", "top_db": 0},
    "torchaudio": {"preset": "torchaudio", "top_db": 0, "preemphasis": 0.9, "preemphasis_over": "signal"},
    "libriphone": {"preset": "libriphone", "normalisation": "none"},
    "log-mel": {"kind": "fbank", "num_mels": 20, "normalisation": "online"},
    "log-mel with deltas": {"kind": "fbank", "num_mels": 8, "delta_order": 2},
    "8 kHz": {"sample_rate": 8000},
    "odd window and hop": {"sample_rate": 11025, "window_ms": 23.0, "hop_ms": 7.5},
    "gaps between windows": {"window_ms": 10.0, "hop_ms": 12.5},
    "long windows": {"window_ms": 110.0, "snip_edges": False},
}
EDGES = [0, 1, 399, 400, 401, 559, 560, 1599, 1600, 1601, 3199, 3200, 3201]  # samples: frames and chunks begin and end
lengths = st.sampled_from(EDGES) | st.integers(0, 12000)


def model_of(*, frontend: dict[str, Any] | None = None, **fields: Any) -> FrameClassifier:
    """Float64, eval mode, with parameters that all matter, also those that begin at 0."""
    config = ClassifierConfig(phones="timit39", frontend=FrontendConfig(**(frontend or {})), temperature=1.7, **fields)
    model = FrameClassifier(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    if model.frontend.config.learns_statistics:
        dim = model.frontend.dim
        model.frontend.set_statistics(torch.linspace(-20, 20, dim), torch.linspace(1, 90, dim))
    return model.double().eval()


def run_of(step: StreamingStep) -> Run:
    """The step as an exported file would be called."""

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [output.numpy() for output in step(*map(torch.from_numpy, inputs))]

    return run


def noise(num_samples: int) -> np.ndarray:
    return np.random.default_rng(num_samples).normal(0, 0.1, num_samples)


def offline(model: FrameClassifier, samples: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(samples)[None])
    return (logits[0] / model.config.temperature).log_softmax(dim=1).numpy()


def assert_streams(model: FrameClassifier, num_samples: int) -> None:
    step, samples = StreamingStep(model), noise(num_samples)
    result, expected = streamed(step, run_of(step), samples), offline(model, samples)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, atol=1e-8, rtol=0)


# ---------------------------------------------------------------------------------------------- equals offline


@settings(max_examples=60)
@given(
    num_samples=lengths,
    normalisation=st.sampled_from(list(NORMALISATIONS)),
    left=st.integers(0, 9),
    right=st.integers(0, 5),
    conv_kernel=st.sampled_from([0, 1, 7]),
    position=st.sampled_from(["none", "sinusoidal", "learned", "relative", "rotary"]),
    stack=st.integers(1, 3),
    input_context=st.integers(0, 4),
    score=st.sampled_from(SCORES),
    normaliser=st.sampled_from(NORMALISERS),
)
def test_any_encoder_gives_the_offline_posteriors(
    num_samples: int, normalisation: str, left: int, right: int, **fields: Any
) -> None:
    encoder = EncoderConfig(**SMALL, context=((left, right), (left + 1, 0)), max_positions=50, **fields)
    model = model_of(frontend=NORMALISATIONS[normalisation], encoder=encoder)
    assert_streams(model, num_samples)


@pytest.mark.parametrize("name", FRONTENDS)
def test_any_front_end_gives_the_offline_posteriors(name: str) -> None:
    model = model_of(frontend=FRONTENDS[name], kind="linear")

    @given(num_samples=lengths)
    def check(num_samples: int) -> None:
        assert_streams(model, num_samples)

    check()


BASELINES: dict[str, dict[str, Any]] = {
    "mlp": {"mlp": MlpConfig(width=8, layers=2)},
    "mlp, window": {"mlp": MlpConfig(width=8, layers=1, left=5, right=13)},
    "tdnn": {"tdnn": TdnnConfig(width=8, layers=((5, 1), (3, 9), (1, 1)))},
}


@pytest.mark.parametrize("name", BASELINES)
def test_any_baseline_gives_the_offline_posteriors(name: str) -> None:
    model = model_of(kind=name.partition(",")[0], **BASELINES[name])

    @given(num_samples=lengths)
    def check(num_samples: int) -> None:
        assert_streams(model, num_samples)

    check()


def encoder_model(**fields: Any) -> FrameClassifier:
    encoder = EncoderConfig(**SMALL, left=6, right=2, conv_kernel=5, stack=2, input_context=3, position="rotary")
    return model_of(frontend=NORMALISATIONS["online"], encoder=encoder, **fields)


def test_speech_gives_what_the_stream_in_python_gives(speech: list[np.ndarray]) -> None:
    model = encoder_model().float()
    step = StreamingStep(model)
    for samples in speech:
        stream = model.stream()
        expected = np.concatenate([stream.push(samples), stream.flush()])
        result = streamed(step, run_of(step), samples)
        np.testing.assert_allclose(result, expected, atol=1e-4, rtol=0)
        assert result.std(axis=0).min() > 1e-2  # there is something to be equal to


def test_a_state_that_is_not_handed_on_would_be_seen() -> None:
    step = StreamingStep(encoder_model())
    run, samples = run_of(step), noise(8000)

    def forgetful(chunk: np.ndarray, length: np.ndarray, state: np.ndarray, clock: np.ndarray) -> list[np.ndarray]:
        return run(chunk, length, 0 * state, clock)

    assert np.abs(streamed(step, forgetful, samples) - streamed(step, run, samples)).max() > 0.01


# --------------------------------------------------------------------------------------------------- protocol


def calls(step: StreamingStep, samples: np.ndarray, chunks: int) -> list[tuple[int, int]]:
    """(first_frame, num_frames) of so many calls."""
    run, size, result = run_of(step), step.chunk_samples, []
    state, clock = np.zeros(step.state_size), np.zeros(2, dtype=np.int64)
    for number in range(chunks):
        chunk = samples[number * size : (number + 1) * size]
        _, first, count, state, clock = run(np.pad(chunk, (0, size - len(chunk))), np.array(len(chunk)), state, clock)
        assert state.shape == (step.state_size,) and clock.tolist() == [
            number + 1,
            min((number + 1) * size, len(samples)),
        ]
        result.append((int(first), int(count)))
    return result


def test_frames_come_with_the_fixed_delay_and_the_last_with_the_last_empty_chunk() -> None:
    model = encoder_model()
    step = StreamingStep(model)
    assert step.chunk_samples == 1600 and step.chunk_frames == 10
    assert (model.lookahead, step.delay) == (24, 26)  # whole steps
    # 65 frames: chunks bring frames -26 to -17, then -16 to -7, ...; of the third the last four rows are frames 0 to 3.
    samples = noise(160 * 64 + 400)
    assert calls(step, samples, 11) == [
        (10, 0), (10, 0), (6, 4), (0, 10), (0, 10), (0, 10), (0, 10), (0, 10), (0, 10), (0, 1), (0, 0)
    ]  # fmt: skip
    assert step.flush_chunks == 3  # seven chunks have samples, and the tenth has the last frame


@given(num_samples=st.integers(400, 7000))
def test_so_many_empty_chunks_are_enough_and_none_is_too_many(num_samples: int) -> None:
    step = StreamingStep(model_of(kind="linear"))
    full = -(-num_samples // step.chunk_samples)
    assert step.flush_chunks == 1
    *frames, after = (count for _, count in calls(step, noise(num_samples), full + 2))
    assert sum(frames) == step.frontend.geometry.num_frames(num_samples) and after == 0
    assert (frames[-1] > 0) == (num_samples - 1600 * (full - 1) >= 1040)  # those of the last chunk's later part


def test_what_comes_after_the_end_or_past_the_length_does_not_matter() -> None:
    model = encoder_model()
    step, samples = StreamingStep(model), noise(4000)
    run, expected = run_of(step), offline(model, samples)
    state, clock = np.zeros(step.state_size), np.zeros(2, dtype=np.int64)
    parts = []
    for number in range(8):
        chunk = np.full(1600, np.nan if number < 3 else 0.5)
        count = np.array([1600, 1600, 800, 1600, 7, 0, 1600, 1600][number])
        if number < 3:
            chunk[:count] = samples[1600 * number :][:1600]
        rows, first, num_frames, state, clock = run(chunk, count, state, clock)
        assert np.isfinite(rows).all()
        parts.append(rows[first : first + num_frames])
    assert clock[1] == 4000
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-8)


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"frontend": {"normalisation": "utterance"}}, "normalisation='utterance' needs the whole utterance"),
        ({"frontend": {"preset": "librosa"}}, "top_db=80 .*'librosa' cannot stream"),
        ({"frontend": {"normalisation": "sliding"}}, "normalisation='sliding' is not for streaming graphs"),
        ({"encoder": EncoderConfig(**SMALL, right=None)}, "right=None needs the whole utterance"),
        ({"encoder": EncoderConfig(**SMALL, left=None)}, "encoder.left must be limited"),
        ({"kind": "blstm", "blstm": BlstmConfig(width=4, layers=1)}, "kind 'blstm' cannot stream"),
        ({"kind": "linear", "symbols": ("a", "b"), "pooling": "mean"}, "pooling 'mean' cannot stream"),
    ],
)
def test_a_model_without_a_stream_of_fixed_size_is_refused_by_name(model: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamingStep(model_of(**model))


def test_a_model_of_ready_features_is_refused() -> None:
    model = FrameClassifier(ClassifierConfig(phones="timit39", kind="linear", frontend=None)).eval()
    with pytest.raises(ValueError, match="a model without a front end features"):
        StreamingStep(model)
