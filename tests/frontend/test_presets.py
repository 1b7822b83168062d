"""Each preset against the library it is named after, on speech, synthetic signals, lengths and sample rates.

HTK itself is not to be had as a library: its preset is compared with the HTK Book's equations, in loops.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given
from hypothesis import strategies as st
from signals import SIGNALS, vowels

from benchmarks.frontend_peers import (
    PEERS,
    Peer,
    kaldi_native_mfcc,
    librosa_mfcc,
    psf_mfcc,
    torchaudio_kaldi_mfcc,
    torchaudio_mfcc,
)
from speechattn.frontend import Fbank, FrontendConfig, Mfcc, Spectrogram, num_frames
from speechattn.frontend.config import FRONTEND_PRESETS

CEPSTRA = {"rtol": 1e-4, "atol": 1e-3}  # float32 against other implementations
MODULES = {"Mfcc": Mfcc, "Fbank": Fbank, "Spectrogram": Spectrogram}
GOLDEN = Path(__file__).parents[1] / "assets/kaldi_mfcc.npz"
Reference = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(autouse=True)
def _quiet_peers() -> Iterator[None]:
    """The peers warn of short signals, of filters narrower than a bin, and of a single frame's deviation."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        yield


def peer_name(peer: Peer) -> str:
    fields = "".join(f",{name}={value}" for name, value in peer.fields.items() if name != "delta_order")
    return f"{peer.module}-{peer.preset}{fields}-{peer.package}"


def module_like(peer: Peer) -> Mfcc | Fbank | Spectrogram:
    return MODULES[peer.module](peer.preset, **peer.fields)


def check(module: Mfcc | Fbank | Spectrogram, reference: Reference, samples: np.ndarray) -> None:
    """The same shape and the same numbers; a spectrum, whose values have no common size, by its largest value."""
    features, expected = module(samples), reference(samples)
    assert features.dtype == np.float32 and features.shape == expected.shape
    atol = 1e-6 * np.abs(expected).max() if isinstance(module, Spectrogram) else CEPSTRA["atol"]
    np.testing.assert_allclose(features, expected, rtol=CEPSTRA["rtol"], atol=atol)


# ------------------------------------------------------------------------------------------- all peers, by table


@pytest.mark.parametrize("peer", PEERS, ids=peer_name)
def test_speech_gives_what_the_peer_gives(peer: Peer, speech: list[np.ndarray]) -> None:
    module = module_like(peer)
    for samples in speech:
        check(module, peer.features, samples)
        assert np.ptp(module(samples)) > 5


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("peer", PEERS, ids=peer_name)
def test_synthetic_signals_give_what_the_peer_gives(peer: Peer, name: str) -> None:
    module, samples = module_like(peer), SIGNALS[name]
    if peer.preset == "libriphone" and name == "silence":  # there, rounding errors divided by 1e-10
        np.testing.assert_allclose(module(samples), 0, atol=1e-3)
    else:
        check(module, peer.features, samples)


@pytest.mark.parametrize("peer", PEERS, ids=peer_name)
@given(num_samples=st.sampled_from([400, 401, 559, 560]) | st.integers(400, 3000), seed=st.integers(0, 99))
def test_any_length_gives_what_the_peer_gives(peer: Peer, num_samples: int, seed: int) -> None:
    module = module_like(peer)
    samples = vowels(num_samples, seed)
    if peer.preset == "libriphone" and num_samples < 1840:
        # One frame has no deviation: NaN there, 0 here. Under ten may differ by next to nothing, and the least
        # deviation that is divided by is 1e-10 there, 0.03 here.
        assert module(samples).shape == peer.features(samples).shape
    else:
        check(module, peer.features, samples)


@pytest.mark.parametrize("num_samples", [0, 1, 399])
@pytest.mark.parametrize("peer", PEERS, ids=peer_name)
def test_less_than_a_window_gives_no_frames(peer: Peer, num_samples: int) -> None:
    module = module_like(peer)
    features = module(np.zeros(num_samples, dtype=np.float32))
    assert features.shape == (0, module.dim) and features.dtype == np.float32


def test_every_preset_but_htk_has_a_peer() -> None:
    assert {peer.preset for peer in PEERS} == set(FRONTEND_PRESETS) - {"htk"}


# ----------------------------------------------------------------------------------------------------------- Kaldi


@pytest.mark.parametrize("name", ["mfcc", "mfcc_centred", "mfcc_energy", "fbank"])
def test_golden_features_of_kaldi(name: str) -> None:
    golden = np.load(GOLDEN)
    modules = {
        "mfcc": Mfcc(delta_order=0),
        "mfcc_centred": Mfcc(delta_order=0, snip_edges=False),
        "mfcc_energy": Mfcc(delta_order=0, use_energy=True),
        "fbank": Fbank(),
    }
    assert np.ptp(golden[name]) > 20
    np.testing.assert_allclose(modules[name](golden["samples"]), golden[name], **CEPSTRA)


def fbank_of_kaldi(samples: np.ndarray) -> np.ndarray:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(16000, 32768 * samples)
    fbank.input_finished()
    return np.stack([fbank.get_frame(t) for t in range(fbank.num_frames_ready)])


@pytest.mark.parametrize("name", SIGNALS)
def test_kaldi_fbank_equals_kaldis_own(name: str) -> None:
    check(Fbank(), fbank_of_kaldi, SIGNALS[name])


def test_kaldi_spectrogram_equals_torchaudios_but_for_the_energy_in_its_bin_0() -> None:
    def power_spectrum(samples: np.ndarray) -> np.ndarray:
        waveform = 32768 * torch.from_numpy(samples)[None]
        return torchaudio.compliance.kaldi.spectrogram(waveform, dither=0.0).exp().numpy()

    spectrum, expected = Spectrogram()(vowels(4000)), power_spectrum(vowels(4000))
    np.testing.assert_allclose(spectrum[:, 1:] / 1e6, expected[:, 1:] / 1e6, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("samples", [vowels(4000), 1e-6 * vowels(4000), np.zeros(900, dtype=np.float32)])
def test_energy_floor_1_is_torchaudios_default(samples: np.ndarray) -> None:
    samples = samples.astype(np.float32)
    waveform = 32768 * torch.from_numpy(samples)[None]
    expected = torchaudio.compliance.kaldi.mfcc(waveform, num_ceps=13, dither=0.0, use_energy=True)
    features = Mfcc(delta_order=0, use_energy=True, energy_floor=1.0)(samples)
    np.testing.assert_allclose(features, expected.numpy(), **CEPSTRA)
    assert (features[:, 0] >= 0).all()


@given(num_samples=st.integers(400, 2000), hop=st.integers(40, 400), window=st.integers(100, 400))
def test_kaldi_pads_any_geometry_alike(num_samples: int, hop: int, window: int) -> None:
    hop = min(hop, window)
    options = kaldi_native_fbank.MfccOptions(use_energy=False)
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = False
    options.frame_opts.frame_length_ms, options.frame_opts.frame_shift_ms = window / 16, hop / 16
    extractor = kaldi_native_fbank.OnlineMfcc(options)
    extractor.accept_waveform(16000, 32768 * vowels(num_samples))
    extractor.input_finished()
    expected = np.stack([extractor.get_frame(t) for t in range(extractor.num_frames_ready)])
    mfcc = Mfcc(delta_order=0, snip_edges=False, window_ms=window / 16, hop_ms=hop / 16)
    np.testing.assert_allclose(mfcc(vowels(num_samples)), expected, **CEPSTRA)


@pytest.mark.parametrize(
    "fields, options",
    [
        ({"num_mels": 40, "num_ceps": 40}, {"num_mel_bins": 40, "num_ceps": 40}),
        ({"num_ceps": 1}, {"num_ceps": 1}),
        ({"low_freq": 125.0, "high_freq": 7600.0}, {"low_freq": 125.0, "high_freq": 7600.0}),
        ({"high_freq": -400.0}, {"high_freq": -400.0}),
        ({"preemphasis": 0.5}, {"preemphasis_coefficient": 0.5}),
        ({"preemphasis": 0.0}, {"preemphasis_coefficient": 0.0}),
        ({"remove_dc": False}, {"remove_dc_offset": False}),
        ({"lifter": 0.0}, {"cepstral_lifter": 0.0}),
        ({"window_type": "hamming"}, {"window_type": "hamming"}),
        ({"window_type": "rectangular"}, {"window_type": "rectangular"}),
        ({"htk_compat": True}, {"htk_compat": True}),
        ({"htk_compat": True, "use_energy": True}, {"htk_compat": True, "use_energy": True, "energy_floor": 0.0}),
        ({"n_fft": -1}, {"round_to_power_of_two": False}),
        ({"window_ms": 32.0, "hop_ms": 8.0}, {"frame_length": 32.0, "frame_shift": 8.0}),
        ({"delta_order": 2}, {}),
    ],
    ids=lambda value: ",".join(f"{name}={setting}" for name, setting in value.items()) or "default",
)
def test_kaldi_with_other_settings_equals_torchaudio(fields: dict, options: dict) -> None:
    samples = SIGNALS["offset"]
    features = Mfcc(**{"delta_order": 0, **fields})(samples)
    expected = torchaudio.compliance.kaldi.mfcc(
        32768 * torch.from_numpy(samples)[None], **{"num_ceps": 13, "dither": 0.0, **options}
    )
    np.testing.assert_allclose(features[:, : expected.shape[1]], expected.numpy(), **CEPSTRA)


@pytest.mark.parametrize(
    "fields",
    [
        {"window_type": "hamming"},
        {"low_freq": 0.0},
        {"preemphasis": 0.96},
        {"preemphasis_over": "signal"},
        {"remove_dc": False},
        {"mel_filters": "hertz"},
        {"n_fft": 1024},
        {"lifter": 21.0},
        {"power": 1},
        {"scale": 32700.0},
        {"use_energy": True},
    ],
    ids=str,
)
def test_a_setting_that_is_not_kaldis_would_be_noticed(fields: dict) -> None:
    features = Mfcc(delta_order=0, **fields)(SIGNALS["offset"])
    assert not np.allclose(features, torchaudio_kaldi_mfcc(SIGNALS["offset"]), **CEPSTRA)


# ------------------------------------------------------------------------------------------------- sample rates

RATES = (8000, 11025, 16000, 22050, 44100, 48000)


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize(
    "preset, reference",
    [
        ("kaldi", torchaudio_kaldi_mfcc),
        ("kaldi", kaldi_native_mfcc),
        ("librosa", librosa_mfcc),
        ("torchaudio", torchaudio_mfcc),
        ("python_speech_features", psf_mfcc),
    ],
    ids=["kaldi-torchaudio", "kaldi", "librosa", "torchaudio", "python_speech_features"],
)
def test_other_sample_rates(preset: str, reference: Callable[[np.ndarray, int], np.ndarray], sample_rate: int) -> None:
    hop = sample_rate // 100
    fields = {"high_freq": float(sample_rate // 2)} if preset == "torchaudio" else {}  # it halves 11,025 to 5,512
    mfcc = Mfcc(preset, sample_rate=sample_rate, delta_order=0, **fields)
    for num_samples in (50 * hop, 50 * hop + 17):
        check(mfcc, lambda samples: reference(samples, sample_rate), vowels(num_samples))


@pytest.mark.parametrize("sample_rate", RATES)
def test_kaldi_centred_at_other_sample_rates(sample_rate: int) -> None:
    samples = vowels(sample_rate // 2)
    features = Mfcc(sample_rate=sample_rate, delta_order=0, snip_edges=False)(samples)
    np.testing.assert_allclose(features, kaldi_native_mfcc(samples, sample_rate, snip_edges=False), **CEPSTRA)


# --------------------------------------------------------------------------------------------------------- top_db


@pytest.mark.parametrize("preset", ["librosa", "torchaudio"])
def test_top_db_counts_from_the_utterances_own_loudest_cell(preset: str) -> None:
    loud = np.concatenate([vowels(3000), 1e-5 * vowels(2000, 1)]).astype(np.float32)
    quiet = (1e-4 * vowels(5000, 2)).astype(np.float32)
    mfcc, unlimited = Mfcc(preset), Mfcc(preset, top_db=0.0)
    features, _ = mfcc(np.stack([loud, quiet]))
    for row, samples in enumerate([loud, quiet]):
        np.testing.assert_allclose(features[row], mfcc(samples), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(mfcc(quiet), unlimited(quiet), rtol=1e-5, atol=1e-4)  # nothing of it is cut off
    assert not np.allclose(mfcc(loud), unlimited(loud), atol=1)


@pytest.mark.parametrize("preset", ["librosa", "torchaudio"])
def test_padding_does_not_raise_the_loudest_cell(preset: str) -> None:
    mfcc = Mfcc(preset, delta_order=0)
    batch = np.full((2, 5000), 0.9, dtype=np.float32)
    batch[0, :3000] = 1e-4 * vowels(3000)
    features, frame_lengths = mfcc(batch, np.array([3000, 5000]))
    np.testing.assert_allclose(features[0, : frame_lengths[0]], mfcc(batch[0, :3000]), rtol=1e-5, atol=1e-4)


# ------------------------------------------------------------------------------------------------------------- HTK


def htk_mel(hertz: float) -> float:
    """The HTK Book, eq. 5.13."""
    return 2595 * math.log10(1 + hertz / 700)


def htk_mfcc(
    samples: np.ndarray, sample_rate: int = 16000, *, num_mels: int = 26, use_energy: bool = False
) -> np.ndarray:
    """The HTK Book 3.4, sec. 5.2 to 5.6, in loops and float64, with MELFLOOR = 1 as in HTK's HSigP: (T, 13).

    HCopy's TARGETKIND = MFCC_0 (or MFCC_E), WINDOWSIZE = 250000, TARGETRATE = 100000, PREEMCOEF = 0.97, USEHAMMING,
    NUMCHANS = 26, NUMCEPS = 12, CEPLIFTER = 22, USEPOWER = F, ENORMALISE = F.
    """
    window, hop = sample_rate // 40, sample_rate // 100
    n_fft = 2 ** math.ceil(math.log2(window))
    corner = [m * htk_mel(sample_rate / 2) / (num_mels + 1) for m in range(num_mels + 2)]
    rows, start = [], 0
    while start + window <= len(samples):
        frame = [32768.0 * float(sample) for sample in samples[start : start + window]]
        energy = math.log(sum(sample**2 for sample in frame))  # eq. 5.18; RAWENERGY: before anything else
        emphasised = [frame[n] - 0.97 * frame[n - 1] for n in range(1, window)]  # eq. 5.1
        emphasised = [frame[0] * (1 - 0.97), *emphasised]
        windowed = [  # eq. 5.2
            (0.54 - 0.46 * math.cos(2 * math.pi * n / (window - 1))) * emphasised[n] for n in range(window)
        ]
        magnitude = np.abs(np.fft.fft(windowed, n_fft))
        log_mel = []
        for m in range(1, num_mels + 1):
            total = 0.0
            for k in range(1, n_fft // 2):  # neither DC nor the Nyquist frequency
                at = htk_mel(k * sample_rate / n_fft)
                if corner[m - 1] < at <= corner[m]:
                    total += magnitude[k] * (at - corner[m - 1]) / (corner[m] - corner[m - 1])
                elif corner[m] < at < corner[m + 1]:
                    total += magnitude[k] * (corner[m + 1] - at) / (corner[m + 1] - corner[m])
            log_mel.append(math.log(max(total, 1.0)))
        row = []
        for i in range(1, 13):  # eq. 5.14 and 5.12
            cepstrum = math.sqrt(2 / num_mels) * sum(
                log_mel[j - 1] * math.cos(math.pi * i / num_mels * (j - 0.5)) for j in range(1, num_mels + 1)
            )
            row.append((1 + 22 / 2 * math.sin(math.pi * i / 22)) * cepstrum)
        rows.append([*row, energy if use_energy else math.sqrt(2 / num_mels) * sum(log_mel)])
        start += hop
    return np.array(rows).reshape(-1, 13)


def htk_deltas(static: np.ndarray) -> np.ndarray:
    """Eq. 5.16 with the first and last vector repeated, once and then again over its own result: (T, 3 D)."""
    blocks = [static]
    for _ in range(2):
        last, deltas = blocks[-1], np.zeros_like(static)
        for t in range(len(static)):
            for theta in (1, 2):
                after, before = last[min(t + theta, len(static) - 1)], last[max(t - theta, 0)]
                deltas[t] += theta * (after - before) / (2 * (1**2 + 2**2))
        blocks.append(deltas)
    return np.concatenate(blocks, axis=1)


@pytest.mark.parametrize("name", ["vowels", "noise", "clipped", "offset", "faint"])
def test_htk_preset_equals_the_htk_book(name: str) -> None:
    samples = SIGNALS[name][:4000]
    expected = htk_deltas(htk_mfcc(samples))
    features = Mfcc("htk")(samples)
    assert features.shape == expected.shape == (num_frames(4000), 39)
    np.testing.assert_allclose(features, expected, **CEPSTRA)


def test_htk_preset_equals_the_htk_book_on_speech(speech: list[np.ndarray]) -> None:
    for samples in speech:
        samples = samples[4000:12000]
        np.testing.assert_allclose(Mfcc("htk", delta_order=0)(samples), htk_mfcc(samples), **CEPSTRA)


@pytest.mark.parametrize("num_samples", [400, 401, 559, 560, 1234])
def test_htk_preset_with_energy_equals_the_htk_book(num_samples: int) -> None:
    samples = vowels(num_samples)
    expected = htk_mfcc(samples, use_energy=True)
    np.testing.assert_allclose(Mfcc("htk", delta_order=0, use_energy=True)(samples), expected, **CEPSTRA)
    assert not np.allclose(expected, htk_mfcc(samples), atol=1)


@pytest.mark.parametrize("sample_rate", [8000, 48000])
def test_htk_preset_at_other_sample_rates(sample_rate: int) -> None:
    samples = vowels(sample_rate // 10)
    mfcc = Mfcc("htk", sample_rate=sample_rate, delta_order=0)
    np.testing.assert_allclose(mfcc(samples), htk_mfcc(samples, sample_rate), **CEPSTRA)


def test_htk_floors_faint_filters_at_1() -> None:
    faint = 1e-4 * vowels(1000)
    np.testing.assert_allclose(Mfcc("htk", delta_order=0)(faint.astype(np.float32)), htk_mfcc(faint), **CEPSTRA)
    assert not np.allclose(Mfcc("htk", delta_order=0, floor=1e-3)(faint.astype(np.float32)), htk_mfcc(faint), atol=1)


# ------------------------------------------------------------------------------------------------ what they share


@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_presets_are_400_160_with_13_cepstra_and_differ(preset: str) -> None:
    config = FrontendConfig(preset)
    assert (config.window, config.hop, config.num_ceps, Mfcc(config=config).dim) == (400, 160, 13, 39)
    others = [Mfcc(other)(vowels(4000)) for other in FRONTEND_PRESETS if other != preset]
    features = Mfcc(preset)(vowels(4000))
    assert not any(features.shape == other.shape and np.allclose(features, other, atol=0.1) for other in others)
