"""A stream gives, for any chunks, what the whole signal gives; and each frame as soon as its latency says."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import vowels
from torch import Tensor

from speechattn.frontend import Fbank, FeatureStream, FrontendConfig, Mfcc, Spectrogram

FLOAT32 = {"rtol": 1e-5, "atol": 1e-4}
FLOAT64 = {"rtol": 1e-9, "atol": 1e-9}
FRONTEND_PRESETS: dict[str, dict[str, Any]] = {
    "kaldi": {},
    "kaldi, edges mirrored": {"snip_edges": False},
    "kaldi, energy": {"use_energy": True},
    "htk": {"preset": "htk"},
    "python_speech_features": {"preset": "python_speech_features"},
    "librosa": {"preset": "librosa", "top_db": 0},
    "torchaudio": {"preset": "torchaudio", "top_db": 0},
    "libriphone": {"preset": "libriphone", "normalisation": "none"},
}
GEOMETRIES: dict[str, dict[str, Any]] = {
    "16 kHz": {},
    "8 kHz": {"sample_rate": 8000},
    "odd window and hop": {"sample_rate": 11025, "window_ms": 23.0, "hop_ms": 7.5},
    "gaps between windows": {"window_ms": 10.0, "hop_ms": 12.5},
}
NORMALISATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "speaker": {"normalisation": "speaker"},
    "global": {"normalisation": "global"},
    "online": {"normalisation": "online"},
    "online, short": {"normalisation": "online", "cmn_window": 6, "global_frames": 4},
    "online, near speech": {"normalisation": "online", "cmn_window": 120, "cmn_min_range": 3.0},
    "sliding": {"normalisation": "sliding"},
    "sliding, short": {"normalisation": "sliding", "cmn_window": 6, "min_cmn_window": 3},
    "sliding, least above window": {"normalisation": "sliding", "cmn_window": 2, "min_cmn_window": 7},
    "sliding, centred": {"normalisation": "sliding", "cmn_window": 5, "center_cmn": True},
    "sliding, centred, even": {"normalisation": "sliding", "cmn_window": 8, "center_cmn": True},
    "sliding, centred, one": {"normalisation": "sliding", "cmn_window": 1, "center_cmn": True},
}


@cache
def front_end(preset: str, geometry: str, normalisation: str, order: int, rule: str, dtype: torch.dtype) -> Mfcc:
    settings = FRONTEND_PRESETS[preset] | GEOMETRIES[geometry] | {"delta_order": order, "delta_rule": rule}
    if geometry == "gaps between windows" and not FrontendConfig(**FRONTEND_PRESETS[preset]).resolved.snip_edges:
        settings["hop_ms"] = 10.0  # padded edges want no gaps
    mfcc = Mfcc(**(settings | NORMALISATIONS[normalisation])).to(dtype)
    if mfcc.config.learns_statistics:
        mfcc.set_statistics(*statistics(mfcc))
    return mfcc


def statistics(mfcc: Mfcc) -> tuple[Tensor, Tensor]:
    """A mean and variance for each feature, no two alike."""
    return torch.linspace(-20, 20, mfcc.dim), torch.linspace(1, 90, mfcc.dim)


def speaker(mfcc: Mfcc) -> dict[str, Any]:
    return {"statistics": statistics(mfcc)} if mfcc.config.normalisation == "speaker" else {}


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, num_samples)


def streamed(mfcc: Any, chunks: list[Any]) -> Any:
    """All that a stream gives for these chunks."""
    stream = mfcc.stream(**speaker(mfcc))
    parts = [stream.push(chunk) for chunk in chunks] + [stream.flush()]
    return np.concatenate(parts) if isinstance(parts[-1], np.ndarray) else torch.cat(parts)


def cut(samples: Any, size: int) -> list[Any]:
    return [samples[begin : begin + size] for begin in range(0, len(samples), size)]


@st.composite
def chunked(draw: st.DrawFn, max_samples: int = 3000) -> tuple[int, list[slice]]:
    """A number of samples, often near one or two windows, and where to cut them; chunks can be empty."""
    near = st.sampled_from([0, 1, 199, 200, 399, 400, 401, 559, 560, 720])
    num_samples = draw(near | st.integers(0, max_samples))
    cuts = sorted(draw(st.lists(st.integers(0, num_samples), max_size=30)))
    return num_samples, [slice(*ends) for ends in zip([0, *cuts], [*cuts, num_samples], strict=True)]


# ----------------------------------------------------------------------------------------- equals offline


@settings(max_examples=400)
@given(
    chunked(),
    st.sampled_from(list(FRONTEND_PRESETS)),
    st.sampled_from(list(GEOMETRIES)),
    st.sampled_from(list(NORMALISATIONS)),
    st.integers(0, 2),
    st.sampled_from(["kaldi", "torchaudio"]),
    st.integers(0, 9),
)
def test_any_chunks_of_any_configuration_give_the_offline_features(
    pieces: tuple[int, list[slice]],
    preset: str,
    geometry: str,
    normalisation: str,
    order: int,
    rule: str,
    seed: int,
) -> None:
    num_samples, slices = pieces
    mfcc = front_end(preset, geometry, normalisation, order, rule, torch.float64)
    samples = torch.from_numpy(noise(num_samples, seed))
    expected = mfcc(samples, **speaker(mfcc))
    result = streamed(mfcc, [samples[piece] for piece in slices])
    assert result.shape == expected.shape == (mfcc.geometry.num_frames(num_samples), mfcc.dim)
    torch.testing.assert_close(result, expected, **FLOAT64)


@settings(max_examples=150)
@given(
    chunked(),
    st.sampled_from(list(FRONTEND_PRESETS)),
    st.sampled_from(["none", "speaker", "global", "online", "sliding"]),
    st.sampled_from(["float32", "float64", "int16"]),
    st.booleans(),
    st.integers(0, 9),
)
def test_chunks_of_any_kind_give_the_offline_features_in_float32(
    pieces: tuple[int, list[slice]], preset: str, normalisation: str, dtype: str, as_numpy: bool, seed: int
) -> None:
    num_samples, slices = pieces
    mfcc = front_end(preset, "16 kHz", normalisation, 2, "kaldi", torch.float32)
    if mfcc.config.normalisation == "sliding":  # of few frames, variances near 0 make rounding errors large
        mfcc = Mfcc(**(FRONTEND_PRESETS[preset] | {"normalisation": "sliding", "normalise_variance": False}))
    samples = noise(num_samples, seed)
    samples = (32768 * samples).astype(np.int16) if dtype == "int16" else samples.astype(dtype)
    samples = samples if as_numpy else torch.from_numpy(samples)
    expected = mfcc(samples, **speaker(mfcc))
    result = streamed(mfcc, [samples[piece] for piece in slices])
    assert type(result) is type(expected) and result.dtype == expected.dtype and result.shape == expected.shape
    np.testing.assert_allclose(result, expected, **FLOAT32)


@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_single_samples_give_the_offline_features(preset: str) -> None:
    mfcc = front_end(preset, "16 kHz", "sliding, short", 2, "kaldi", torch.float64)
    samples = torch.from_numpy(noise(1300))
    torch.testing.assert_close(streamed(mfcc, cut(samples, 1)), mfcc(samples), **FLOAT64)


@pytest.mark.parametrize("normalisation", ["none", "speaker", "global", "online", "sliding"])
@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_speech_in_chunks_gives_the_offline_features(speech: list[np.ndarray], preset: str, normalisation: str) -> None:
    mfcc = front_end(preset, "16 kHz", normalisation, 2, "kaldi", torch.float32)
    for samples, size in zip(speech, (1600, 1234, 10**6), strict=True):
        result, expected = streamed(mfcc, cut(samples, size)), mfcc(samples, **speaker(mfcc))
        np.testing.assert_allclose(result, expected, **FLOAT32)


@pytest.mark.parametrize("center", [False, True])
def test_sliding_windows_much_shorter_than_the_signal(center: bool) -> None:
    mfcc = Mfcc(normalisation="sliding", cmn_window=50, min_cmn_window=20, center_cmn=center, delta_order=1)
    samples = noise(60_000).astype(np.float32)
    result = streamed(mfcc, cut(samples, 777))
    np.testing.assert_allclose(result, mfcc(samples), **FLOAT32)
    untouched = Mfcc(delta_order=1)(samples)
    assert abs(result - untouched).max() > 1


@pytest.mark.parametrize("module", [Fbank(), Fbank("librosa", top_db=0, delta_order=1), Spectrogram("htk")])
def test_spectra_stream_too(module: Fbank | Spectrogram) -> None:
    samples = noise(3000).astype(np.float32)
    result, expected = streamed(module, cut(samples, 123)), module(samples)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6 * abs(expected).max())


def test_streams_of_one_front_end_do_not_disturb_each_other() -> None:
    mfcc, signals = Mfcc(), [torch.from_numpy(noise(2000, seed)).float() for seed in range(2)]
    streams, results = [mfcc.stream(), mfcc.stream()], [[], []]
    for begin in range(0, 2000, 250):
        for stream, signal, result in zip(streams, signals, results, strict=True):
            result.append(stream.push(signal[begin : begin + 250]))
    for stream, signal, result in zip(streams, signals, results, strict=True):
        torch.testing.assert_close(torch.cat([*result, stream.flush()]), mfcc(signal), **FLOAT32)


@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_one_buffer_can_be_filled_again_and_again(preset: str) -> None:
    mfcc = Mfcc(**FRONTEND_PRESETS[preset])
    samples, buffer = noise(2000).astype(np.float32), np.empty(100, dtype=np.float32)
    stream, parts = mfcc.stream(), []
    for chunk in cut(samples, 100):
        buffer[:] = chunk
        parts.append(stream.push(buffer))
    np.testing.assert_allclose(np.concatenate([*parts, stream.flush()]), mfcc(samples), **FLOAT32)


def test_a_result_once_given_never_changes() -> None:
    stream, samples = Mfcc(delta_order=0).stream(), torch.from_numpy(noise(4000))
    first = stream.push(samples[:1000])
    before = first.clone()
    for chunk in cut(samples[1000:], 300):
        stream.push(chunk)
    assert len(first) == 4 and torch.equal(first, before)


def test_autocast_keeps_full_precision() -> None:
    mfcc, samples = Mfcc(), torch.from_numpy(noise(3000)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = streamed(mfcc, cut(samples, 500))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, mfcc(samples), **FLOAT32)


# ------------------------------------------------------------------------------------- latency and memory


@pytest.mark.parametrize("preset", ["kaldi", "kaldi, edges mirrored", "python_speech_features", "librosa"])
@pytest.mark.parametrize("normalisation", [name for name in NORMALISATIONS if name != "sliding"])  # too long a signal
@pytest.mark.parametrize("order", [0, 2])
def test_no_frame_waits_longer_than_the_latency_and_some_frame_that_long(
    preset: str, normalisation: str, order: int
) -> None:
    mfcc = front_end(preset, "16 kHz", normalisation, order, "kaldi", torch.float64)
    samples = noise(2600)
    centres = mfcc.geometry.centres(len(samples))
    stream, parts, came = mfcc.stream(**speaker(mfcc)), [], []
    step = 1 if normalisation == "none" else 40  # which all windows' ends are multiples of
    for number, chunk in enumerate(cut(samples, step)):
        parts.append(stream.push(chunk))
        came += [step * (number + 1)] * len(parts[-1])
    during = len(came)
    parts.append(stream.flush())
    came += [len(samples)] * len(parts[-1])
    np.testing.assert_allclose(np.concatenate(parts), mfcc(samples, **speaker(mfcc)), **FLOAT64)
    assert len(came) == len(centres) >= during > 0
    window = mfcc.geometry.window
    assert all(at <= max(window, centre + mfcc.latency) for at, centre in zip(came, centres, strict=True))
    assert max(at - centre for at, centre in zip(came[:during], centres, strict=False) if at > window) == mfcc.latency


@pytest.mark.parametrize(
    ("fields", "latency"),
    [
        ({"delta_order": 0}, 200),
        ({}, 200 + 4 * 160),
        ({"delta_order": 1, "delta_window": 3}, 200 + 3 * 160),
        ({"normalisation": "sliding"}, 200 + (4 + 99) * 160),
        ({"normalisation": "sliding", "center_cmn": True}, 200 + (4 + 599) * 160),
        ({"sample_rate": 8000, "delta_order": 0}, 100),
        ({"preset": "librosa", "top_db": 0, "delta_order": 0}, 200),
        ({"normalisation": "utterance"}, None),
        ({"preset": "librosa"}, None),
    ],
)
def test_latency_in_samples(fields: dict[str, Any], latency: int | None) -> None:
    assert Mfcc(**fields).latency == latency


@pytest.mark.parametrize("normalisation", ["none", "sliding, short", "sliding, centred"])
@pytest.mark.parametrize("preset", ["kaldi", "python_speech_features", "librosa"])
def test_memory_does_not_grow_with_the_signal(preset: str, normalisation: str) -> None:
    mfcc = front_end(preset, "16 kHz", normalisation, 2, "kaldi", torch.float32)
    stream, sizes = mfcc.stream(), []
    for _ in range(100):
        stream.push(torch.randn(1600))
        sizes.append(kept_bytes(stream))
    assert 0 < max(sizes[50:]) <= max(sizes[:50]) < 50_000


def kept_bytes(item: Any) -> int:
    """Bytes behind all tensors that a stream and its parts hold."""
    if isinstance(item, Tensor):
        return item.untyped_storage().nbytes()
    if type(item).__module__ == FeatureStream.__module__:
        item = list(vars(item).values())
    return sum(map(kept_bytes, item)) if isinstance(item, list) else 0


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "statistics", "message"),
    [
        ({"preset": "librosa"}, None, "top_db=80 .*'librosa' cannot stream"),
        ({"preset": "torchaudio"}, None, "top_db=80 .*'torchaudio' cannot stream"),
        ({"preset": "libriphone"}, None, "normalisation='utterance' .*cannot stream"),
        ({"normalisation": "utterance"}, None, "normalisation='utterance' .*cannot stream"),
        ({"normalisation": "speaker"}, None, "normalisation='speaker' needs statistics"),
        ({}, (torch.zeros(39), torch.ones(39)), "statistics are for normalisation='speaker'"),
        ({"normalisation": "speaker"}, (torch.zeros(13), torch.ones(13)), r"\(39,\).*got \(13,\)"),
        ({"normalisation": "speaker"}, (torch.zeros(2, 39), torch.ones(2, 39)), r"\(39,\).*got \(2, 39\)"),
    ],
)
def test_what_cannot_stream_is_refused_by_name(
    fields: dict[str, Any], statistics: tuple[Tensor, Tensor] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Mfcc(**fields).stream(statistics=statistics)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(3, dtype=np.int32), r"int16, got \(3,\) torch.int32"),
        (torch.zeros(3, dtype=torch.bool), r"int16, got \(3,\) torch.bool"),
        (torch.zeros(3, dtype=torch.complex64), r"int16, got \(3,\) torch.complex64"),
        (np.zeros((1, 3)), r"\(n,\) .* got \(1, 3\)"),
        (torch.tensor(0.5), r"\(n,\) .* got \(\)"),
    ],
)
def test_samples_that_do_not_fit_are_refused_and_harm_nothing(samples: Any, message: str) -> None:
    mfcc, signal = Mfcc(), torch.from_numpy(noise(1500)).float()
    stream = mfcc.stream()
    first = stream.push(signal[:700])
    with pytest.raises(ValueError, match=message):
        stream.push(samples)
    parts = [first, stream.push(signal[700:]), stream.flush()]
    torch.testing.assert_close(torch.cat(parts), mfcc(signal), **FLOAT32)


def test_nothing_follows_a_flush() -> None:
    stream = Mfcc().stream()
    stream.push(torch.zeros(1000))
    stream.flush()
    with pytest.raises(ValueError, match="push after flush"):
        stream.push(torch.zeros(1000))
    with pytest.raises(ValueError, match="flush after flush"):
        stream.flush()


@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
@pytest.mark.parametrize("num_samples", [None, 0, 1, 399])
def test_less_than_a_window_gives_no_frames(preset: str, num_samples: int | None) -> None:
    stream = Mfcc(**FRONTEND_PRESETS[preset]).stream()
    if num_samples is not None:
        assert stream.push(torch.zeros(num_samples)).shape == (0, 39)
    assert stream.flush().shape == (0, 39)


def test_an_array_that_must_not_be_written_is_taken_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    samples = np.frombuffer(np.round(20000 * vowels(1000)).astype("<i2").tobytes(), dtype="<i2")  # live audio, as bytes
    stream = Mfcc(delta_order=0).stream()
    np.testing.assert_array_equal(np.concatenate([stream.push(samples), stream.flush()]), Mfcc(delta_order=0)(samples))
    assert not recwarn.list
