"""The front ends: the default chain against a reference in loops, batches against single utterances, types, errors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import ODD_SIGNALS, vowels
from torch import Tensor

from speechattn.frontend import Fbank, FrontendConfig, Mfcc, Spectrogram, frame_mask, num_frames
from speechattn.frontend.config import FRONTEND_PRESETS

LENGTHS = (0, 1, 399, 400, 401, 559, 560, 719, 720, 4321)
NORMALISATIONS = ("none", "utterance", "sliding", "online", "speaker", "global")
SLIDING = {"cmn_window": 4, "min_cmn_window": 2}  # less than the few frames here
LOOPS = {"rtol": 1e-4, "atol": 1e-3}  # float32 against float64
ALONE = {"rtol": 1e-5, "atol": 1e-4}  # float32 in a batch against alone


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


@pytest.mark.parametrize("num_samples", LENGTHS)
def test_whole_chain_equals_loops(num_samples: int) -> None:
    samples = vowels(num_samples)
    expected = mfcc_by_loops(samples)
    assert expected.shape == (num_frames(num_samples), 39)
    np.testing.assert_allclose(Mfcc()(samples), expected, **LOOPS)
    np.testing.assert_allclose(Mfcc().double()(samples), expected, rtol=1e-5, atol=1e-4)  # tables are float32


def statistics_for(mfcc: Mfcc) -> dict[str, tuple[Tensor, Tensor]]:
    """What a call needs besides the waveforms; sets the statistics of `global` normalisation."""
    statistics = torch.linspace(-1, 1, mfcc.dim), torch.linspace(0.5, 2, mfcc.dim)
    if mfcc.config.normalisation == "global":
        mfcc.set_statistics(*statistics)
    return {"statistics": statistics} if mfcc.config.normalisation == "speaker" else {}


def test_utterance_normalisation_equals_kaldis_cmvn() -> None:
    features = Mfcc(normalisation="utterance")(vowels(8000))
    expected = cmvn_by_loops(mfcc_by_loops(vowels(8000)))
    np.testing.assert_allclose(features, expected, **LOOPS)
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
    preset=st.sampled_from(list(FRONTEND_PRESETS)),
    snip_edges=st.booleans(),
    normalisation=st.sampled_from(NORMALISATIONS),
    extra=st.integers(0, 700),
)
def test_batch_equals_alone_whatever_the_padding_holds(
    lengths: list[int], garbage: float, preset: str, snip_edges: bool, normalisation: str, extra: int
) -> None:
    variance = normalisation != "sliding"  # that of a few frames may be so small that rounding errors show
    mfcc = Mfcc(preset, snip_edges=snip_edges, normalisation=normalisation, normalise_variance=variance, **SLIDING)
    statistics = statistics_for(mfcc)
    count = mfcc.geometry.num_frames
    batch = torch.full((len(lengths), max(lengths) + extra), garbage)
    for row, length in enumerate(lengths):
        batch[row, :length] = torch.from_numpy(vowels(length, row))
    batch.requires_grad_()
    features, frame_lengths = mfcc(batch, torch.tensor(lengths), **statistics)
    if features.numel():
        weighted(features).backward()
    gradient = torch.zeros_like(batch) if batch.grad is None else batch.grad

    assert frame_lengths.dtype == torch.int64 and frame_lengths.tolist() == [count(n) for n in lengths]
    assert features.shape == (len(lengths), count(batch.shape[1]), 39)
    assert not features[~frame_mask(frame_lengths, features.shape[1])].any()
    for row, length in enumerate(lengths):
        alone = torch.from_numpy(vowels(length, row)).requires_grad_()
        expected = mfcc(alone, **statistics)
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


@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_int16_equals_float(preset: str) -> None:
    mfcc = Mfcc(preset)
    samples = (32768 * vowels(4000)).astype(np.int16)
    assert np.array_equal(mfcc(samples), mfcc(samples.astype(np.float32) / 32768))
    tensor = torch.from_numpy(samples)
    assert torch.equal(mfcc(tensor), mfcc(tensor / 32768.0))


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
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_less_than_a_frame_gives_no_frames(preset: str, normalisation: str, num_samples: int) -> None:
    for order in (0, 2):
        mfcc = Mfcc(preset, delta_order=order, normalisation=normalisation)
        statistics = statistics_for(mfcc)
        assert mfcc(torch.zeros(num_samples), **statistics).shape == (0, 13 * (order + 1))
        waveforms = torch.zeros(2, num_samples, requires_grad=True)
        for batch in (waveforms, waveforms.detach()):
            features, frame_lengths = mfcc(batch, torch.tensor([num_samples, 0]), **statistics)
            assert features.shape == (2, 0, 13 * (order + 1)) and frame_lengths.tolist() == [0, 0]


@pytest.mark.parametrize("name", ODD_SIGNALS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_odd_signals_stay_finite_forward_and_backward(preset: str, normalisation: str, name: str) -> None:
    for use_energy in (False, True):
        mfcc = Mfcc(preset, normalisation=normalisation, use_energy=use_energy, **SLIDING)
        statistics = statistics_for(mfcc)
        waveform = torch.from_numpy(ODD_SIGNALS[name]).requires_grad_()
        features = mfcc(waveform, **statistics)
        features.square().sum().backward()
        assert features.isfinite().all() and waveform.grad.isfinite().all()
        assert mfcc(waveform.detach(), **statistics).isfinite().all()


@pytest.mark.parametrize("front_end", [Fbank, Spectrogram])
@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_fbank_and_spectrogram_keep_the_same_promises(preset: str, front_end: type[Fbank | Spectrogram]) -> None:
    module = front_end(preset, delta_order=1, normalisation="none")
    batch = torch.full((2, 2500), torch.nan)
    batch[0, :2000], batch[1, :900] = torch.from_numpy(vowels(2000)), torch.from_numpy(vowels(900, 1))
    features, frame_lengths = module(batch, torch.tensor([2000, 900]))
    assert features.shape == (2, module.geometry.num_frames(2500), module.dim) and module.dim == 2 * module.static_dim
    for row, samples in enumerate([vowels(2000), vowels(900, 1)]):
        alone = module(samples)
        np.testing.assert_allclose(features[row, : frame_lengths[row]].numpy(), alone, **ALONE)
        assert not features[row, frame_lengths[row] :].any() and np.ptp(alone) > 0
    assert module(vowels(399)).shape == (0, module.dim)


# ------------------------------------------------------------------------------------ being a good module


def test_gradients_are_those_of_finite_differences() -> None:
    config = FrontendConfig(
        window_ms=4, hop_ms=2, num_mels=4, num_ceps=3, low_freq=200, delta_window=1, normalisation="utterance"
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
    np.testing.assert_allclose(features[0].numpy(), deltas_by_loops(cepstra_by_loops(expected)), **LOOPS)


def test_log_mel_transform_of_fbank_is_the_last_step_and_a_spectrogram_has_none() -> None:
    samples = vowels(1000)
    halved = Fbank()(samples, log_mel_transform=lambda log_mel, frame_lengths: log_mel / 2)
    np.testing.assert_allclose(2 * halved, Fbank()(samples), rtol=1e-6)
    with pytest.raises(ValueError, match="log_mel_transform is for Fbank and Mfcc"):
        Spectrogram()(samples, log_mel_transform=lambda log_mel, frame_lengths: log_mel)


def test_only_learned_statistics_are_saved() -> None:
    assert not Mfcc().state_dict() and not Mfcc(normalisation="utterance").state_dict()
    trained, fresh = Mfcc(normalisation="global"), Mfcc(normalisation="global")
    assert set(trained.state_dict()) == {"mean", "scale"}
    trained.set_statistics(torch.randn(39), torch.rand(39))
    fresh.load_state_dict(trained.state_dict())
    assert np.array_equal(fresh(vowels(2000)), trained(vowels(2000)))
    assert not list(trained.parameters())


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


@pytest.mark.parametrize("normalisation", ["none", "utterance", "sliding", "online", "global"])
def test_statistics_are_asked_for_by_speaker_normalisation_alone(normalisation: str) -> None:
    samples, statistics = torch.zeros(800), (torch.zeros(39), torch.ones(39))
    with pytest.raises(ValueError, match=f"statistics are for normalisation='speaker', which is '{normalisation}'"):
        Mfcc(normalisation=normalisation)(samples, statistics=statistics)
    with pytest.raises(ValueError, match=r"normalisation='speaker' needs statistics=\(mean, variance\)"):
        Mfcc(normalisation="speaker")(samples)
    with pytest.raises(ValueError, match=r"statistics must be \(39,\) or \(B, 39\), got \(13,\)"):
        Mfcc(normalisation="speaker")(samples, statistics=(torch.zeros(13), torch.ones(13)))


def test_speaker_statistics_may_differ_from_row_to_row() -> None:
    mfcc, waveforms = Mfcc(normalisation="speaker"), torch.from_numpy(np.stack([vowels(2000), vowels(2000, 1)]))
    mean, variance = torch.randn(2, 39), torch.rand(2, 39) + 0.1
    features, _ = mfcc(waveforms, statistics=(mean, variance))
    for row in range(2):
        expected = (Mfcc()(waveforms[row]) - mean[row]) / variance[row].sqrt()
        torch.testing.assert_close(features[row], expected, rtol=1e-5, atol=1e-4)
        alone = mfcc(waveforms[row], statistics=(mean[row], variance[row]))
        torch.testing.assert_close(features[row], alone, **ALONE)
