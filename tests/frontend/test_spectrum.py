"""The energies of a frame: both paths against loops and each other, any lengths, settings and types; gradients."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from signals import ODD_SIGNALS, SIGNALS, vowels
from torch import Tensor

from speechattn.frontend import FrontendConfig, make_frontend
from speechattn.frontend.config import CHOICES, FRONTEND_PRESETS
from speechattn.frontend.spectrum import BLOCK_FRAMES, LogBandEnergies
from speechattn.frontend.tables import mel_filters

FLOAT32 = {"rtol": 1e-5, "atol": 1e-4}  # of log-energies
FLOAT64 = {"rtol": 1e-9, "atol": 1e-9}
SMALL = {"window_ms": 2.0, "hop_ms": 1.0, "n_fft": 40, "num_mels": 4, "num_ceps": 4, "low_freq": 200.0}  # 32/16

settings_of_frames = st.fixed_dictionaries(
    {
        "snip_edges": st.booleans(),
        "edge_padding": st.sampled_from(CHOICES["edge_padding"]),
        "remove_dc": st.booleans(),
        "preemphasis": st.sampled_from([0.0, 0.5, 0.97, 1.0]),
        "preemphasis_over": st.sampled_from(CHOICES["preemphasis_over"]),
        "window_type": st.sampled_from(CHOICES["window_type"]),
        "power": st.sampled_from(CHOICES["power"]),
        "periodogram": st.booleans(),
        "decibels": st.booleans(),
        "energy_from": st.sampled_from(CHOICES["energy_from"]),
        "energy_floor": st.sampled_from([0.0, 1.0]),
    }
).filter(lambda fields: fields["power"] == 2 or not fields["periodogram"])


def resolved(preset: str = "kaldi", **fields: Any) -> FrontendConfig:
    return FrontendConfig(preset, **fields).resolved


def band_energies(config: FrontendConfig) -> LogBandEnergies:
    return LogBandEnergies(config, mel_filters(config), frame_energy=True)


def blocked(energies: LogBandEnergies, waveforms: Tensor, lengths: list[int]) -> Tensor:
    with torch.no_grad():
        return energies(waveforms, torch.tensor(lengths))


def plain(energies: LogBandEnergies, waveforms: Tensor, lengths: list[int]) -> Tensor:
    """By the differentiable path, which is taken when there is something to differentiate."""
    result = energies(waveforms.requires_grad_(), torch.tensor(lengths))
    assert result.requires_grad or not result.numel()
    return result.detach()


# ------------------------------------------------------------------------------------------------ against loops


def sample_at(samples: list[float], i: int, edge_padding: str) -> float:
    """The i-th sample, also before 0 and after the end."""
    n = len(samples)
    while not 0 <= i < n:
        if edge_padding in ("zero", "tail"):
            return 0.0
        shift = edge_padding == "mirror"  # the edge sample comes twice
        i = -shift - i if i < 0 else 2 * (n - 1) + shift - i
    return samples[i]


def frame_starts(config: FrontendConfig, num_samples: int) -> list[int]:
    """Where the frames begin, by each tool's own rule."""
    window, hop, n_fft = config.window, config.hop, config.fft_length
    if num_samples < window:
        return []
    if config.snip_edges:
        return list(range(0, num_samples - window + 1, hop))
    if config.edge_padding == "mirror":  # Kaldi's NumFrames and FirstSampleOfFrame
        count = (num_samples + hop // 2) // hop
        return [t * hop + hop // 2 - window // 2 for t in range(count)]
    if config.edge_padding == "tail":  # python_speech_features' framesig
        count = 1 + math.ceil((num_samples - window) / hop)
        return [t * hop for t in range(count)]
    # librosa.stft and torch.stft: n_fft // 2 samples on either side, frames of n_fft, the window in their middle
    count = 1 + (num_samples + 2 * (n_fft // 2) - n_fft) // hop
    return [t * hop - n_fft // 2 + (n_fft - window) // 2 for t in range(count)]


def window_value(config: FrontendConfig, i: int) -> float:
    # Periodic in librosa and torchaudio, symmetric in Kaldi, HTK and NumPy.
    period = config.window if config.preset in ("librosa", "torchaudio") else config.window - 1
    return {
        "povey": (0.5 - 0.5 * math.cos(2 * math.pi * i / period)) ** 0.85,
        "hamming": 0.54 - 0.46 * math.cos(2 * math.pi * i / period),
        "hann": 0.5 - 0.5 * math.cos(2 * math.pi * i / period),
        "rectangular": 1.0,
    }[config.window_type]


def energies_by_loops(config: FrontendConfig, samples: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Log-energies of the bands and of the frame, (T, bands + 1), sample by sample, in float64."""
    signal = [float(sample) * config.scale for sample in samples]
    if config.preemphasis_over == "signal":
        signal = [x - config.preemphasis * (signal[i - 1] if i else 0.0) for i, x in enumerate(signal)]
    n_fft, rows = config.fft_length, []
    angles = 2 * np.pi / n_fft * np.arange(n_fft // 2 + 1)
    for start in frame_starts(config, len(samples)):
        frame = [sample_at(signal, start + i, config.edge_padding) for i in range(config.window)]
        if config.remove_dc:
            mean = sum(frame) / len(frame)
            frame = [x - mean for x in frame]
        frame_energy = sum(x**2 for x in frame)
        if config.preemphasis_over == "frame":
            frame = [x - config.preemphasis * frame[max(i - 1, 0)] for i, x in enumerate(frame)]
        spectrum = sum(window_value(config, i) * x * np.exp(-1j * angles * i) for i, x in enumerate(frame))
        power = np.abs(spectrum) ** config.power / (n_fft if config.periodogram else 1)
        if config.energy_from == "spectrum":
            frame_energy = sum(power)
        unit = 10 / math.log(10) if config.decibels else 1.0
        bands = [unit * math.log(max(energy, config.floor)) for energy in power @ filters]
        rows.append([*bands, math.log(max(frame_energy, config.floor, config.energy_floor))])
    return np.array(rows).reshape(-1, filters.shape[1] + 1)


@settings(max_examples=300)
@given(
    fields=settings_of_frames,
    window=st.integers(20, 40),
    hop=st.integers(1, 20),
    n_fft=st.sampled_from([0, -1, 47, 80]),
    num_samples=st.integers(0, 130),
)
def test_both_paths_equal_loops(fields: dict, window: int, hop: int, n_fft: int, num_samples: int) -> None:
    config = resolved(window_ms=window / 16, hop_ms=hop / 16, n_fft=n_fft, mel_filters="hertz", **fields)
    filters = torch.rand(config.fft_length // 2 + 1, 3)
    energies = LogBandEnergies(config, filters, frame_energy=True).double()
    samples = vowels(num_samples) + np.float32(0.02)
    expected = energies_by_loops(config, samples, filters.double().numpy())
    assert config.geometry.num_frames(num_samples) == len(expected)
    waveforms = torch.from_numpy(samples)[None].double()
    for path in (blocked, plain):
        # The windows are rounded to float32.
        np.testing.assert_allclose(path(energies, waveforms, [num_samples])[0], expected, rtol=1e-5, atol=1e-5)


@given(fields=settings_of_frames, num_samples=st.integers(0, 130))
def test_the_spectrum_itself_equals_loops(fields: dict, num_samples: int) -> None:
    config = resolved(window_ms=2, hop_ms=1, n_fft=40, **{**fields, "decibels": False}, floor=1e-300)
    energies = LogBandEnergies(config, None).double()
    samples = vowels(num_samples)
    expected = np.exp(energies_by_loops(config, samples, np.eye(21))[:, :-1])
    waveforms = torch.from_numpy(samples)[None].double()
    for path in (blocked, plain):
        atol = 1e-6 * expected.max(initial=1e-3)
        np.testing.assert_allclose(path(energies, waveforms, [num_samples])[0], expected, rtol=1e-5, atol=atol)


# ---------------------------------------------------------------------------------- blocked path = plain path


@settings(max_examples=300)
@given(
    preset=st.sampled_from(list(FRONTEND_PRESETS)),
    fields=settings_of_frames | st.just({}),
    num_samples=st.integers(0, 3000) | st.sampled_from([0, 1, 399, 400, 401, 559, 560]),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.int16]),
)
def test_blocked_equals_plain(preset: str, fields: dict, num_samples: int, seed: int, dtype: torch.dtype) -> None:
    assume(not (fields.get("periodogram", FRONTEND_PRESETS[preset]["periodogram"]) and fields.get("power") == 1))
    if not fields.get("decibels", True):
        fields = {**fields, "top_db": 0.0}
    energies = band_energies(resolved(preset, **fields))
    samples = np.round(32768 * vowels(num_samples, seed)).astype(np.int16)
    floats = torch.from_numpy(samples / 32768)[None]
    waveforms = torch.from_numpy(samples)[None] if dtype == torch.int16 else floats.to(dtype)

    single = blocked(energies, waveforms, [num_samples])
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, plain(energies, floats.clone(), [num_samples]), **FLOAT32)
    energies = energies.double()
    double = blocked(energies, waveforms, [num_samples])
    assert double.dtype == torch.float64
    torch.testing.assert_close(double, plain(energies, floats.clone(), [num_samples]), **FLOAT64)
    assert not double.numel() or double.std() > 0.5


@pytest.mark.parametrize("name", [*SIGNALS, *ODD_SIGNALS])
@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_blocked_equals_plain_on_odd_signals(preset: str, name: str) -> None:
    config = resolved(preset)
    energies, waveforms = band_energies(config), torch.from_numpy((SIGNALS | ODD_SIGNALS)[name])[None]
    lengths = [waveforms.shape[1]]
    # Of a constant, what is left of a frame less its mean is rounding errors, 1e-8 of the largest amplitude.
    least = 2 * math.log(1e-8 * config.scale * config.window) * (10 / math.log(10) if config.decibels else 1)
    pair = blocked(energies, waveforms, lengths), plain(energies, waveforms.clone(), lengths)
    torch.testing.assert_close(*(path.clamp(min=least) for path in pair), **FLOAT32)


@pytest.mark.parametrize("more", [-1, 0, 1, 160, 400])
@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("preset", ["kaldi", "torchaudio", "python_speech_features"])
def test_blocked_equals_plain_over_several_blocks(preset: str, blocks: int, more: int) -> None:
    config = resolved(preset, snip_edges=FRONTEND_PRESETS[preset]["snip_edges"])
    geometry = config.geometry
    num_samples = geometry.window - geometry.left + (blocks * BLOCK_FRAMES - 1) * geometry.hop + more
    energies, waveforms = band_energies(config), torch.from_numpy(vowels(num_samples))[None]
    result = blocked(energies, waveforms, [num_samples])
    assert abs(result.shape[1] - blocks * BLOCK_FRAMES) <= 3
    torch.testing.assert_close(result, plain(energies, waveforms, [num_samples]), **FLOAT32)


@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_the_transform_as_a_matrix_gives_the_same(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    energies, waveforms = band_energies(resolved(preset)), torch.from_numpy(vowels(3000))[None]
    expected = plain(energies, waveforms, [2500])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    num_frames = energies.geometry.num_frames(2500)
    as_matrix = energies(waveforms, torch.tensor([2500])).detach()
    torch.testing.assert_close(as_matrix[:, :num_frames], expected[:, :num_frames], **FLOAT32)


# ------------------------------------------------------------------------------------ padding, buffers, threads


@given(
    preset=st.sampled_from(list(FRONTEND_PRESETS)),
    snip_edges=st.booleans(),
    lengths=st.lists(st.integers(0, 1500), min_size=1, max_size=4),
    garbage=st.sampled_from([math.nan, math.inf, -1e30]),
)
def test_samples_past_an_utterances_end_are_never_looked_at(
    preset: str, snip_edges: bool, lengths: list[int], garbage: float
) -> None:
    energies = band_energies(resolved(preset, snip_edges=snip_edges))
    batch = torch.full((len(lengths), max(lengths) + 500), garbage)
    for row, length in enumerate(lengths):
        batch[row, :length] = torch.from_numpy(vowels(length, row))
    for path in (blocked, plain):
        results = path(energies, batch, lengths)
        assert results.isfinite().all()
        for row, length in enumerate(lengths):
            alone = path(energies, torch.from_numpy(vowels(length, row))[None], [length])[0]
            torch.testing.assert_close(results[row, : len(alone)], alone, **FLOAT32)


def test_a_call_leaves_nothing_behind_for_the_next() -> None:
    """The blocked path reuses its buffers; recordings with a NaN, and other sizes, come before."""
    waveforms, spoilt = torch.from_numpy(vowels(4000))[None], torch.full((1, 5000), torch.nan)
    configs = [resolved(preset, window_ms=ms) for preset in FRONTEND_PRESETS for ms in (25.0, 20.0)]
    modules = [band_energies(config) for config in configs]
    expected = [blocked(module, waveforms, [4000]) for module in modules]
    for module in modules + modules[::-1]:
        blocked(module, spoilt, [5000])
    for module, energies in zip(modules, expected, strict=True):
        assert torch.equal(blocked(module, waveforms, [4000]), energies) and energies.isfinite().all()


def test_threads_do_not_disturb_each_other() -> None:
    energies = band_energies(resolved())
    signals = [torch.from_numpy(vowels(30_000, seed))[None] for seed in range(4)]
    expected = [blocked(energies, waveforms, [30_000]) for waveforms in signals]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            results = list(pool.map(lambda waveforms: blocked(energies, waveforms, [30_000]), signals))
            assert all(torch.equal(*pair) for pair in zip(results, expected, strict=True))


# ---------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("snip_edges", [True, False])
@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_gradients_are_those_of_finite_differences(preset: str, snip_edges: bool) -> None:
    config = resolved(preset, **SMALL, snip_edges=snip_edges, floor=1e-10)
    energies, lengths = band_energies(config).double(), torch.tensor([90, 60])
    batch = 0.1 * torch.randn(2, 90, dtype=torch.float64)
    real = torch.arange(energies(batch, lengths).shape[1]) < config.geometry.num_frames(lengths)[:, None]
    assert torch.autograd.gradcheck(lambda x: energies(x, lengths)[real], batch.requires_grad_(), eps=1e-7, atol=1e-4)


@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_gradients_are_finite_where_a_magnitude_is_zero(preset: str) -> None:
    energies = LogBandEnergies(resolved(preset, power=1, periodogram=False), None)
    waveforms = torch.zeros(1, 800, requires_grad=True)
    energies(waveforms, torch.tensor([800])).sum().backward()
    assert waveforms.grad is not None and waveforms.grad.isfinite().all()


@pytest.mark.parametrize("preset", sorted(FRONTEND_PRESETS))
@pytest.mark.parametrize("num_frames", [0, 1, 5])
def test_streams_on_other_devices_compute_what_the_kernels_do(preset, num_frames):
    """No such device is needed: their path runs on the CPU, too."""
    energies = make_frontend(FrontendConfig(preset=preset)).energies
    geometry = energies.geometry
    samples = 0.1 * torch.randn(geometry.window + 6 * geometry.hop)
    found, expected = torch.zeros(2, num_frames, energies.columns)
    energies.in_torch(samples, -geometry.left, found)
    energies.blocked(samples, -geometry.left, expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert num_frames == 0 or expected.abs().max() > 0.1
