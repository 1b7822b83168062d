"""MFCC against Kaldi's own code, torchaudio's and a reference in loops; batches against single utterances."""

from __future__ import annotations

import math

import kaldi_native_fbank as knf
import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speechattn.frontend import Mfcc, MfccConfig, frame_mask, num_frames

LENGTHS = (0, 1, 399, 400, 401, 559, 560, 719, 720, 4321)
NORMALISATIONS = ("none", "utterance", "global")
KALDI = {"rtol": 1e-4, "atol": 1e-3}  # float32 against other implementations
ALONE = {"rtol": 1e-5, "atol": 1e-4}  # float32 in a batch against alone


def vowels(num_samples: int, seed: int = 0) -> np.ndarray:
    """Something like speech: a gliding pulse train, coloured, louder and softer, with noise; float32."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_samples) / 16000
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(7 * time + seed)) / 16000
    voice = sum(np.cos(k * phase) / (1 + ((k * 120 - 700) / 400) ** 2) for k in range(1, 30))
    signal = 0.05 * voice * (1.1 + np.sin(9 * time)) + 0.01 * rng.standard_normal(num_samples)
    return np.asarray(signal, dtype=np.float32)


SIGNALS = {
    "vowels": vowels(16000),
    "noise": np.random.default_rng(1).normal(0, 0.1, 8000).astype(np.float32),
    "clipped": np.clip(40 * vowels(8000, 2), -1, 1),
    "offset": vowels(8000, 3) + np.float32(0.3),
    "faint": 1e-3 * vowels(8000, 4),
    "one frame": vowels(400, 5),
    "silence": np.zeros(2000, dtype=np.float32),
    "silence, then vowels": np.concatenate([np.zeros(3000, dtype=np.float32), vowels(3000, 6)]),
}

# ---------------------------------------------------------------------------------------------- references


def mel(hertz: float) -> float:
    return 1127.0 * math.log(1.0 + hertz / 700.0)


def log_mel_by_loops(samples: np.ndarray, num_mels: int = 23) -> np.ndarray:
    """Kaldi's feature-window.cc and mel-computations.cc in float64, frame by frame and bin by bin."""
    bins = np.arange(257)[:, None] * np.arange(512)[None, :]
    fourier = np.exp(-2j * np.pi * bins / 512)
    low, high = mel(20.0), mel(8000.0)
    rows, start = [], 0
    while start + 400 <= len(samples):
        frame = 32768.0 * samples[start : start + 400].astype(np.float64)
        frame = frame - frame.mean()
        emphasised = np.zeros(512)
        for i in range(400):
            povey = (0.5 - 0.5 * math.cos(2 * math.pi * i / 399)) ** 0.85
            emphasised[i] = povey * (frame[i] - 0.97 * frame[max(i - 1, 0)])
        power = np.abs(fourier @ emphasised) ** 2
        row = []
        for m in range(num_mels):
            left, centre, right = (low + (m + k) * (high - low) / (num_mels + 1) for k in range(3))
            energy = 0.0
            for k in range(256):  # without the Nyquist bin
                at = mel(k * 16000 / 512)
                if left < at < right:
                    weight = (at - left) / (centre - left) if at <= centre else (right - at) / (right - centre)
                    energy += weight * power[k]
            row.append(math.log(max(energy, np.finfo(np.float32).eps)))
        rows.append(row)
        start += 160
    return np.array(rows).reshape(-1, num_mels)


def cepstra_by_loops(log_mel: np.ndarray, num_ceps: int = 13) -> np.ndarray:
    """Kaldi's ComputeDctMatrix and ComputeLifterCoeffs."""
    num_mels = log_mel.shape[1]
    cepstra = np.zeros((len(log_mel), num_ceps))
    for t in range(len(log_mel)):
        for k in range(num_ceps):
            scale = math.sqrt((1 if k == 0 else 2) / num_mels)
            for n in range(num_mels):
                cepstra[t, k] += scale * math.cos(math.pi / num_mels * (n + 0.5) * k) * log_mel[t, n]
            cepstra[t, k] *= 1 + 0.5 * 22 * math.sin(math.pi * k / 22)
    return cepstra


def deltas_by_loops(static: np.ndarray, order: int = 2, window: int = 2) -> np.ndarray:
    """Kaldi's DeltaFeatures (feature-functions.cc): scales by recursion, offsets clamped to the utterance."""
    scales = [np.ones(1)]
    for _ in range(order):
        previous, reach = scales[-1], len(scales[-1]) // 2
        current, normaliser = np.zeros(len(previous) + 2 * window), 0.0
        for j in range(-window, window + 1):
            normaliser += j * j
            for k in range(-reach, reach + 1):
                current[j + k + reach + window] += j * previous[k + reach]
        scales.append(current / normaliser)
    num_frames, dim = static.shape
    output = np.zeros((num_frames, dim * (order + 1)))
    for t in range(num_frames):
        for i, scale in enumerate(scales):
            for k, weight in enumerate(scale):
                neighbour = min(max(t + k - len(scale) // 2, 0), num_frames - 1)
                output[t, i * dim : (i + 1) * dim] += weight * static[neighbour]
    return output


def cmvn_by_loops(features: np.ndarray) -> np.ndarray:
    """Kaldi's ApplyCmvn with variances, over one utterance."""
    output = np.zeros_like(features)
    for d in range(features.shape[1]):
        mean = sum(features[:, d]) / len(features)
        variance = sum((value - mean) ** 2 for value in features[:, d]) / len(features)
        output[:, d] = (features[:, d] - mean) / math.sqrt(max(variance, 1e-20))
    return output


def mfcc_by_loops(samples: np.ndarray) -> np.ndarray:
    return deltas_by_loops(cepstra_by_loops(log_mel_by_loops(samples)))


def mfcc_by_torchaudio(samples: np.ndarray) -> np.ndarray:
    waveform = torch.from_numpy(32768 * samples)[None]
    return torchaudio.compliance.kaldi.mfcc(waveform, num_ceps=13, dither=0.0).numpy()


def mfcc_by_knf(samples: np.ndarray) -> np.ndarray:
    """Kaldi's C++ code, as kaldi-native-fbank packs it, deltas included."""
    options = knf.MfccOptions()
    options.frame_opts.dither = 0.0
    options.use_energy = False
    computer = knf.OnlineMfcc(options)
    computer.accept_waveform(16000, (32768 * samples).tolist())
    computer.input_finished()
    frames = [computer.get_frame(t) for t in range(computer.num_frames_ready)]
    return np.array(frames, dtype=np.float32).reshape(-1, 13)


# ---------------------------------------------------------------------------- the same numbers as others


@pytest.mark.parametrize("name", SIGNALS)
def test_kaldi_preset_equals_torchaudio_and_kaldi(name: str) -> None:
    features = Mfcc(preset="kaldi", delta_order=0)(SIGNALS[name])
    assert features.dtype == np.float32 and features.shape == (num_frames(len(SIGNALS[name])), 13)
    np.testing.assert_allclose(features, mfcc_by_torchaudio(SIGNALS[name]), **KALDI)
    np.testing.assert_allclose(features, mfcc_by_knf(SIGNALS[name]), **KALDI)


def test_kaldi_preset_equals_torchaudio_and_kaldi_on_speech(speech: list[np.ndarray]) -> None:
    for samples in speech:
        features = Mfcc(preset="kaldi")(samples)
        static = mfcc_by_knf(samples)
        assert features.shape == (num_frames(len(samples)), 39) and np.abs(features).max() > 20
        np.testing.assert_allclose(features[:, :13], mfcc_by_torchaudio(samples), **KALDI)
        np.testing.assert_allclose(features[:, :13], static, **KALDI)
        np.testing.assert_allclose(features, deltas_by_loops(static), **KALDI)


@pytest.mark.parametrize("num_samples", LENGTHS)
def test_whole_chain_equals_loops(num_samples: int) -> None:
    samples = vowels(num_samples)
    expected = mfcc_by_loops(samples)
    assert expected.shape == (num_frames(num_samples), 39)
    np.testing.assert_allclose(Mfcc()(samples), expected, **KALDI)
    np.testing.assert_allclose(Mfcc().double()(samples), expected, rtol=1e-5, atol=1e-4)  # tables are float32


@given(num_samples=st.integers(0, 3000), seed=st.integers(0, 99))
def test_any_length_equals_torchaudio(num_samples: int, seed: int) -> None:
    samples = vowels(num_samples, seed)
    features = Mfcc(delta_order=0)(samples)
    assert features.shape == (num_frames(num_samples), 13)
    if num_samples >= 400:
        np.testing.assert_allclose(features, mfcc_by_torchaudio(samples), **KALDI)


@pytest.mark.parametrize(
    "config, options",
    [
        (MfccConfig(num_mels=40, num_ceps=40), {"num_mel_bins": 40, "num_ceps": 40}),
        (MfccConfig(num_ceps=1), {"num_ceps": 1}),
        (MfccConfig(low_freq=125, high_freq=7600), {"low_freq": 125.0, "high_freq": 7600.0}),
        (MfccConfig(high_freq=-400), {"high_freq": -400.0}),
        (MfccConfig(preemphasis=0.5), {"preemphasis_coefficient": 0.5}),
        (MfccConfig(lifter=0), {"cepstral_lifter": 0.0}),
        (MfccConfig(sample_rate=8000, window=200, hop=80), {"sample_frequency": 8000.0}),
        (MfccConfig(window=512, hop=128), {"frame_length": 32.0, "frame_shift": 8.0}),
    ],
    ids=["mels", "one cepstrum", "band", "below Nyquist", "preemphasis", "no lifter", "8 kHz", "512/128"],
)
def test_other_settings_equal_torchaudio(config: MfccConfig, options: dict) -> None:
    features = Mfcc(config=config)(vowels(6000))
    expected = torchaudio.compliance.kaldi.mfcc(
        torch.from_numpy(32768 * vowels(6000))[None], **{"num_ceps": 13, "dither": 0.0, **options}
    )
    assert features.shape[1] == config.dim == 3 * config.num_ceps
    np.testing.assert_allclose(features[:, : config.num_ceps], expected.numpy(), **KALDI)


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_deltas_equal_loops_even_when_wider_than_the_utterance(order: int, window: int) -> None:
    mfcc = Mfcc(config=MfccConfig(delta_order=order, delta_window=window))
    for count in (1, 2, 3, 20):
        samples = vowels(400 + 160 * (count - 1))
        static = Mfcc(delta_order=0)(samples)
        features = mfcc(samples)
        assert features.shape == (count, 13 * (order + 1))
        np.testing.assert_allclose(features, deltas_by_loops(static, order, window), rtol=1e-5, atol=1e-4)


def test_utterance_normalisation_equals_kaldis_cmvn() -> None:
    features = Mfcc(normalisation="utterance")(vowels(8000))
    expected = cmvn_by_loops(mfcc_by_loops(vowels(8000)))
    np.testing.assert_allclose(features, expected, **KALDI)
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(0), 1, atol=1e-3)


def test_global_normalisation_is_what_set_statistics_said() -> None:
    plain, mfcc = Mfcc(), Mfcc(normalisation="global")
    waveform = torch.from_numpy(vowels(8000))
    assert torch.equal(mfcc(waveform), plain(waveform))  # until statistics are set
    mean, variance = torch.randn(39), torch.rand(39) + 0.1
    mfcc.set_statistics(mean, variance)
    expected = (plain(waveform) - mean) / variance.sqrt()
    torch.testing.assert_close(mfcc(waveform), expected)
    assert not torch.allclose(expected, plain(waveform), atol=0.1)
    with pytest.raises(ValueError, match="normalisation is 'none'"):
        plain.set_statistics(mean, variance)


# ------------------------------------------------------------------------------ batches, types and padding

lengths_of_a_batch = st.lists(st.sampled_from(LENGTHS) | st.integers(0, 2500), min_size=1, max_size=4)


def weighted(features: Tensor) -> Tensor:
    """A scalar that no normalisation makes constant."""
    return (features * torch.arange(features.shape[-2:].numel()).view(features.shape[-2:]).cos()).sum()


@settings(max_examples=100)
@given(
    lengths=lengths_of_a_batch,
    garbage=st.sampled_from([0.0, 1e3, math.nan, math.inf, -math.inf]),
    normalisation=st.sampled_from(NORMALISATIONS),
    extra=st.integers(0, 700),
)
def test_batch_equals_alone_whatever_the_padding_holds(
    lengths: list[int], garbage: float, normalisation: str, extra: int
) -> None:
    mfcc = Mfcc(normalisation=normalisation)
    if normalisation == "global":
        mfcc.set_statistics(torch.linspace(-1, 1, 39), torch.linspace(0.5, 2, 39))
    batch = torch.full((len(lengths), max(lengths) + extra), garbage)
    for row, length in enumerate(lengths):
        batch[row, :length] = torch.from_numpy(vowels(length, row))
    batch.requires_grad_()
    features, frame_lengths = mfcc(batch, torch.tensor(lengths))
    if features.numel():
        weighted(features).backward()
    gradient = torch.zeros_like(batch) if batch.grad is None else batch.grad

    assert frame_lengths.dtype == torch.int64 and frame_lengths.tolist() == [num_frames(n) for n in lengths]
    assert features.shape == (len(lengths), num_frames(batch.shape[1]), 39)
    assert not features[~frame_mask(frame_lengths, features.shape[1])].any()
    for row, length in enumerate(lengths):
        alone = torch.from_numpy(vowels(length, row)).requires_grad_()
        expected = mfcc(alone)
        torch.testing.assert_close(features[row, : frame_lengths[row]], expected, **ALONE)
        assert not gradient[row, length:].any()
        if expected.numel():
            (slope,) = torch.autograd.grad(weighted(expected), alone)
            scale = slope.abs().max().clamp(min=1)
            torch.testing.assert_close(gradient[row, :length] / scale, slope / scale, rtol=0, atol=1e-3)
        else:
            assert not gradient[row].any()


def test_float64_batch_equals_alone() -> None:
    mfcc = Mfcc(normalisation="utterance").double()
    batch = torch.from_numpy(np.stack([vowels(3000), vowels(3000, 1)])).double()
    features, frame_lengths = mfcc(batch, torch.tensor([3000, 1999]))
    assert features.dtype == torch.float64
    alone = mfcc(batch[1, :1999])
    torch.testing.assert_close(features[1, : frame_lengths[1]], alone, rtol=1e-9, atol=1e-9)


def test_int16_equals_float() -> None:
    samples = (32768 * vowels(4000)).astype(np.int16)
    assert np.array_equal(Mfcc()(samples), Mfcc()(samples.astype(np.float32) / 32768))
    tensor = torch.from_numpy(samples)
    assert torch.equal(Mfcc()(tensor), Mfcc()(tensor / 32768.0))


def test_numpy_in_numpy_out_tensor_in_tensor_out() -> None:
    samples = vowels(2000)
    one, many = Mfcc()(samples), Mfcc()(np.stack([samples, samples]), [2000, 1000])
    assert isinstance(one, np.ndarray) and one.shape == (11, 39)
    assert all(isinstance(part, np.ndarray) for part in many)
    assert many[0].shape == (2, 11, 39) and many[1].dtype == np.int64 and many[1].tolist() == [11, 4]
    assert Mfcc()(samples.astype(np.float64)).dtype == np.float32
    tensors = Mfcc()(torch.from_numpy(np.stack([samples, samples])))
    assert all(isinstance(part, Tensor) for part in tensors) and tensors[1].tolist() == [11, 11]
    np.testing.assert_allclose(tensors[0][1].numpy(), one, **ALONE)


@pytest.mark.parametrize("num_samples", [0, 1, 399])
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_less_than_a_frame_gives_no_frames(num_samples: int, order: int, normalisation: str) -> None:
    mfcc = Mfcc(delta_order=order, normalisation=normalisation)
    assert mfcc(torch.zeros(num_samples)).shape == (0, 13 * (order + 1))
    features, frame_lengths = mfcc(torch.zeros(2, num_samples), torch.tensor([num_samples, 0]))
    assert features.shape == (2, 0, 13 * (order + 1)) and frame_lengths.tolist() == [0, 0]


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize(
    "waveform",
    [torch.zeros(2000), torch.full((2000,), 0.5), torch.ones(400), 1e-8 * torch.ones(2000).cumsum(0).sin()]
    + [torch.sin(torch.arange(2000.0)).sign(), torch.nn.functional.one_hot(torch.tensor(999), 2000).float()],
    ids=["zeros", "constant", "one frame", "1e-8", "clipping", "click"],
)
def test_odd_signals_stay_finite_forward_and_backward(waveform: Tensor, normalisation: str) -> None:
    waveform = waveform.clone().requires_grad_()
    features = Mfcc(normalisation=normalisation)(waveform)
    features.square().sum().backward()
    assert features.isfinite().all() and waveform.grad.isfinite().all()


# ------------------------------------------------------------------------------------ being a good module


def test_gradients_are_those_of_finite_differences() -> None:
    config = MfccConfig(
        window=64, hop=32, num_mels=4, num_ceps=3, low_freq=200, delta_window=1, normalisation="utterance"
    )
    mfcc = Mfcc(config=config).double()
    batch = 1e-2 * torch.randn(2, 170, dtype=torch.float64)
    lengths = torch.tensor([170, 140])
    assert torch.autograd.gradcheck(lambda x: mfcc(x, lengths)[0], batch.requires_grad_(), eps=1e-7, atol=1e-3)


def test_autocast_keeps_full_precision() -> None:
    waveforms = torch.from_numpy(vowels(4000))[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, _ = Mfcc(normalisation="utterance")(waveforms)
    assert features.dtype == torch.float32
    assert torch.equal(features, Mfcc(normalisation="utterance")(waveforms)[0])


def test_log_mel_transform_comes_before_the_dct() -> None:
    samples, seen = vowels(4000), []

    def louder_third_channel(log_mel: Tensor, frame_lengths: Tensor) -> Tensor:
        seen.append((log_mel, frame_lengths))
        return log_mel + 2.0 * (torch.arange(23) == 3)

    features, frame_lengths = Mfcc()(torch.from_numpy(samples)[None], log_mel_transform=louder_third_channel)
    (log_mel, lengths_seen), expected = seen[0], log_mel_by_loops(samples)
    assert len(seen) == 1 and torch.equal(lengths_seen, frame_lengths)
    np.testing.assert_allclose(log_mel[0].numpy(), expected, rtol=1e-4, atol=1e-3)
    expected[:, 3] += 2
    np.testing.assert_allclose(features[0].numpy(), deltas_by_loops(cepstra_by_loops(expected)), **KALDI)


def test_only_learned_statistics_are_saved() -> None:
    assert not Mfcc().state_dict() and not Mfcc(normalisation="utterance").state_dict()
    trained, fresh = Mfcc(normalisation="global"), Mfcc(normalisation="global")
    assert set(trained.state_dict()) == {"mean", "scale"}
    trained.set_statistics(torch.randn(39), torch.rand(39))
    fresh.load_state_dict(trained.state_dict())
    assert np.array_equal(fresh(vowels(2000)), trained(vowels(2000)))
    assert not list(trained.parameters())


def test_frame_mask_is_true_on_real_frames() -> None:
    mask = frame_mask(torch.tensor([0, 2, 3]), 3)
    assert mask.tolist() == [[False, False, False], [True, True, False], [True, True, True]]


# -------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "waveforms, lengths, message",
    [
        (torch.zeros(1, 2, 800), None, r"waveforms must be \(B, N\).*\(1, 2, 800\)"),
        (torch.tensor(0.0), None, r"waveforms must be \(B, N\)"),
        (torch.zeros(800), torch.tensor([800]), r"waveforms must be .*without lengths"),
        (torch.zeros(2, 800), torch.tensor([800]), r"lengths must be \(2,\), got \(1,\)"),
        (torch.zeros(2, 800), torch.tensor([800, 801]), r"lengths must lie in 0\.\.800, got \[800, 801\]"),
        (torch.zeros(2, 800), torch.tensor([800, -1]), r"lengths must lie in 0\.\.800, got \[800, -1\]"),
        (torch.zeros(2, 800, dtype=torch.int32), None, "waveforms must be float .*torch.int32"),
        (np.zeros(800, dtype=np.int64), None, "waveforms must be float .*torch.int64"),
    ],
    ids=["3 axes", "scalar", "(N,) and lengths", "count", "too long", "negative", "int32", "int64 array"],
)
def test_input_that_does_not_fit_is_named(waveforms: Tensor, lengths: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mfcc()(waveforms, lengths)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"preset": "htk"}, "preset must be one of kaldi, got preset='htk'"),
        ({"normalisation": "batch"}, "normalisation must be one of none, utterance, global, got 'batch'"),
        ({"num_ceps": 24}, r"num_ceps must lie in 1\.\.num_mels=23, got num_ceps=24"),
        ({"num_ceps": 0}, "got num_ceps=0"),
        ({"delta_order": 3}, "delta_order must be 0, 1 or 2, got delta_order=3"),
        ({"delta_window": 0}, "delta_window must be at least 1, got delta_window=0"),
        ({"low_freq": -1.0}, "low_freq=-1"),
        ({"low_freq": 4000.0, "high_freq": 4000.0}, "low_freq < high_freq <= 8000 Hz.*high_freq=4000"),
        ({"high_freq": 8001.0}, "high_freq=8001"),
        ({"hop": 0}, "hop must be positive, got hop=0"),
        ({"window": -1}, "window must be positive"),
    ],
)
def test_a_setting_out_of_range_is_named(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MfccConfig(**values)
