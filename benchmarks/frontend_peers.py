"""What other libraries compute: the reference calls behind the presets, for the agreement table and the tests.

Each function takes samples (N,), float32 in [-1, 1], at least one window of 25 ms, and gives (T, D) as NumPy, in the
precision in which its library computes. 16 kHz is the rate of the calls quoted in `PEERS`; at other rates the window
stays 25 ms, the hop 10 ms, and the FFT length follows by each library's own rule.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import kaldi_native_fbank
import librosa
import numpy as np
import python_speech_features
import torch
import torchaudio
from numpy.typing import NDArray

__all__ = [
    "PEERS",
    "Peer",
    "kaldi_native_mfcc",
    "librosa_fbank",
    "librosa_mfcc",
    "librosa_spectrogram",
    "libriphone",
    "psf_mfcc",
    "torchaudio_kaldi_fbank",
    "torchaudio_kaldi_mfcc",
    "torchaudio_kaldi_spectrogram",
    "torchaudio_mfcc",
    "torchaudio_spectrogram",
]

Samples = NDArray[np.float32]
Features = NDArray[Any]

# ------------------------------------------------------------------------------------------------------- cepstra


def torchaudio_kaldi_mfcc(
    x: Samples, sample_rate: int = 16000, *, snip_edges: bool = True, use_energy: bool = False
) -> Features:
    """Kaldi's MFCC as torchaudio transcribes it, (T, 13); the energy is not floored, as in Kaldi's own default."""
    return torchaudio.compliance.kaldi.mfcc(
        32768 * _row(x),
        num_ceps=13,
        dither=0.0,
        energy_floor=0.0,
        sample_frequency=sample_rate,
        snip_edges=snip_edges,
        use_energy=use_energy,
    ).numpy()


def kaldi_native_mfcc(
    x: Samples, sample_rate: int = 16000, *, snip_edges: bool = True, use_energy: bool = False
) -> Features:
    """Kaldi's own C++, through kaldi-native-fbank, (T, 13)."""
    options = kaldi_native_fbank.MfccOptions(use_energy=use_energy)
    options.frame_opts.samp_freq = sample_rate
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = snip_edges
    mfcc = kaldi_native_fbank.OnlineMfcc(options)
    mfcc.accept_waveform(sample_rate, 32768 * x)
    mfcc.input_finished()
    return np.stack([mfcc.get_frame(t) for t in range(mfcc.num_frames_ready)])


def librosa_mfcc(x: Samples, sample_rate: int = 16000) -> Features:
    """MFCC of librosa, (T, 13): 128 Slaney mels, decibels at most 80 below the loudest, constant padding."""
    return librosa.feature.mfcc(y=x, sr=sample_rate, n_mfcc=13, **_librosa_geometry(sample_rate)).T


def torchaudio_mfcc(x: Samples, sample_rate: int = 16000) -> Features:
    """MFCC of torchaudio.transforms, (T, 13): 128 HTK mels, decibels at most 80 below the loudest, reflect padding."""
    transform = torchaudio.transforms.MFCC(
        sample_rate, n_mfcc=13, melkwargs={"hop_length": sample_rate // 100, "n_fft": sample_rate // 40}
    )
    return transform(torch.from_numpy(x)).T.numpy()


def psf_mfcc(x: Samples, sample_rate: int = 16000) -> Features:
    """MFCC of python_speech_features, (T, 13) float64: log-energy first; the last window is filled up with zeros.

    Samples go in as float64, which is what it makes of int16 files.
    """
    return python_speech_features.mfcc(32768 * x.astype(np.float64), sample_rate, nfft=_power_of_two(sample_rate // 40))


def libriphone(x: Samples, sample_rate: int = 16000) -> Features:
    """s3prl's MFCC upstream and the LibriPhone course data, (T, 39); of a single frame NaN (its deviation is)."""
    static = torchaudio.compliance.kaldi.mfcc(_row(x), num_ceps=13, dither=0.0, sample_frequency=sample_rate)
    deltas = torchaudio.functional.compute_deltas(static.T)
    features = torch.cat([static.T, deltas, torchaudio.functional.compute_deltas(deltas)]).T
    return ((features - features.mean(0)) / (1e-10 + features.std(0))).numpy()


# ----------------------------------------------------------------------------------------- mel and power spectra


def torchaudio_kaldi_fbank(x: Samples, sample_rate: int = 16000) -> Features:
    """Kaldi's log-mel energies as torchaudio transcribes them, (T, 23), natural logarithm."""
    return torchaudio.compliance.kaldi.fbank(
        32768 * _row(x), num_mel_bins=23, dither=0.0, sample_frequency=sample_rate
    ).numpy()


def librosa_fbank(x: Samples, sample_rate: int = 16000) -> Features:
    """Mel energies of librosa, (T, 128), dB, at most 80 below the loudest."""
    mel = librosa.feature.melspectrogram(y=x, sr=sample_rate, **_librosa_geometry(sample_rate))
    return librosa.power_to_db(mel).T


def torchaudio_kaldi_spectrogram(x: Samples, sample_rate: int = 16000) -> Features:
    """Kaldi's log power spectrum as torchaudio transcribes it, (T, 257); bin 0 holds the raw log-energy instead."""
    return torchaudio.compliance.kaldi.spectrogram(
        32768 * _row(x), dither=0.0, energy_floor=0.0, sample_frequency=sample_rate
    ).numpy()


def librosa_spectrogram(x: Samples, sample_rate: int = 16000) -> Features:
    """Power spectrum of librosa, (T, 257)."""
    return (np.abs(librosa.stft(y=x, **_librosa_geometry(sample_rate))) ** 2).T


def torchaudio_spectrogram(x: Samples, sample_rate: int = 16000) -> Features:
    """Power spectrum of torchaudio.transforms, (T, 201)."""
    transform = torchaudio.transforms.Spectrogram(n_fft=sample_rate // 40, hop_length=sample_rate // 100)
    return transform(torch.from_numpy(x)).T.numpy()


def _row(x: Samples) -> torch.Tensor:
    return torch.from_numpy(x)[None]


def _power_of_two(num_samples: int) -> int:
    return 1 << (num_samples - 1).bit_length()


def _librosa_geometry(sample_rate: int) -> dict[str, int]:
    window = sample_rate // 40
    return {"n_fft": _power_of_two(window), "win_length": window, "hop_length": sample_rate // 100}


# ----------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Peer:
    """One reference call and what must equal it here.

    Args:
        module: Which module here: `Mfcc`, `Fbank` or `Spectrogram`.
        preset: Its preset.
        fields: The `FrontendConfig` fields in which the module departs from that preset.
        package: The reference's distribution on PyPI.
        call: The reference call for x (N,) at 16 kHz, as one would type it.
        features: The function that makes this call: (N,) -> (T, D).
    """

    module: str
    preset: str
    fields: dict[str, Any]
    package: str
    call: str
    features: Callable[[Samples], Features]

    @property
    def version(self) -> str:
        """The installed version of the reference."""
        return version(self.package)


STATIC: dict[str, Any] = {"delta_order": 0}
CENTRED = STATIC | {"snip_edges": False}
ENERGY = STATIC | {"use_energy": True}

PEERS = (
    Peer(
        "Mfcc",
        "kaldi",
        STATIC,
        "torchaudio",
        "torchaudio.compliance.kaldi.mfcc(32768 * x[None], num_ceps=13, dither=0.0)",
        torchaudio_kaldi_mfcc,
    ),
    Peer(
        "Mfcc",
        "kaldi",
        CENTRED,
        "torchaudio",
        "torchaudio.compliance.kaldi.mfcc(32768 * x[None], num_ceps=13, dither=0.0, snip_edges=False)",
        partial(torchaudio_kaldi_mfcc, snip_edges=False),
    ),
    Peer(
        "Mfcc",
        "kaldi",
        ENERGY,
        "torchaudio",
        "torchaudio.compliance.kaldi.mfcc(32768 * x[None], num_ceps=13, dither=0.0, use_energy=True, energy_floor=0.0)",
        partial(torchaudio_kaldi_mfcc, use_energy=True),
    ),
    Peer(
        "Mfcc",
        "kaldi",
        STATIC,
        "kaldi-native-fbank",
        "OnlineMfcc(MfccOptions(FrameExtractionOptions(dither=0), use_energy=False)), 32768 * x",
        kaldi_native_mfcc,
    ),
    Peer(
        "Mfcc",
        "kaldi",
        CENTRED,
        "kaldi-native-fbank",
        "OnlineMfcc(MfccOptions(FrameExtractionOptions(dither=0, snip_edges=False), use_energy=False)), 32768 * x",
        partial(kaldi_native_mfcc, snip_edges=False),
    ),
    Peer(
        "Mfcc",
        "kaldi",
        ENERGY,
        "kaldi-native-fbank",
        "OnlineMfcc(MfccOptions(FrameExtractionOptions(dither=0), use_energy=True)), 32768 * x",
        partial(kaldi_native_mfcc, use_energy=True),
    ),
    Peer(
        "Mfcc",
        "librosa",
        STATIC,
        "librosa",
        "librosa.feature.mfcc(y=x, sr=16000, n_mfcc=13, n_fft=512, win_length=400, hop_length=160)",
        librosa_mfcc,
    ),
    Peer(
        "Mfcc",
        "torchaudio",
        STATIC,
        "torchaudio",
        'torchaudio.transforms.MFCC(16000, n_mfcc=13, melkwargs={"hop_length": 160, "n_fft": 400})(x)',
        torchaudio_mfcc,
    ),
    Peer(
        "Mfcc",
        "python_speech_features",
        STATIC,
        "python_speech_features",
        "python_speech_features.mfcc(32768 * x.astype(float), 16000)",
        psf_mfcc,
    ),
    Peer(
        "Mfcc",
        "libriphone",
        {},
        "torchaudio",
        "torchaudio.compliance.kaldi.mfcc(x[None], num_ceps=13, dither=0.0), compute_deltas twice, "
        "(y - y.mean(0)) / (1e-10 + y.std(0))",
        libriphone,
    ),
    Peer(
        "Fbank",
        "kaldi",
        {},
        "torchaudio",
        "torchaudio.compliance.kaldi.fbank(32768 * x[None], num_mel_bins=23, dither=0.0)",
        torchaudio_kaldi_fbank,
    ),
    Peer(
        "Fbank",
        "librosa",
        {},
        "librosa",
        "librosa.power_to_db(librosa.feature.melspectrogram(y=x, sr=16000, n_fft=512, win_length=400, hop_length=160))",
        librosa_fbank,
    ),
    Peer(
        "Spectrogram",
        "librosa",
        {},
        "librosa",
        "abs(librosa.stft(x, n_fft=512, win_length=400, hop_length=160)) ** 2",
        librosa_spectrogram,
    ),
    Peer(
        "Spectrogram",
        "torchaudio",
        {},
        "torchaudio",
        "torchaudio.transforms.Spectrogram(n_fft=400, hop_length=160)(x)",
        torchaudio_spectrogram,
    ),
)
