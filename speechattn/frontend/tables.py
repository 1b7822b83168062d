"""The constant tables of a front end: analysis window, Fourier matrix, mel filters, DCT."""

import math
import warnings

import torch
from torch import Tensor, nn

from speechattn.audio import import_torchaudio
from speechattn.frontend.config import FrontendConfig

__all__ = ["analysis_window", "fourier_matrix", "liftered_dct", "mel_filters"]

PERIODIC = ("librosa", "torchaudio")  # presets


def analysis_window(config: FrontendConfig) -> Tensor:
    """The analysis window, (window,) float32.

    Povey: Kaldi's default, a Hann window to the power of 0.85. Windows are periodic in librosa and torchaudio, and
    symmetric in Kaldi, HTK (HTK Book, eq. 5.3) and NumPy.
    """
    if config.window_type == "rectangular":
        return torch.ones(config.window, dtype=torch.float32)
    make = torch.hamming_window if config.window_type == "hamming" else torch.hann_window
    window = make(config.window, periodic=config.preset in PERIODIC, dtype=torch.float64)
    return (window.pow(0.85) if config.window_type == "povey" else window).float()


def fourier_matrix(config: FrontendConfig) -> Tensor:
    """The real Fourier transform as a matrix, (window, 2 * bins) float32: real parts, then imaginary parts.

    It replaces the FFT in exported graphs, which must not hold complex numbers.
    """
    spectrum = torch.fft.rfft(torch.eye(config.window, dtype=torch.float64), n=config.fft_length)
    return torch.cat([spectrum.real, spectrum.imag], dim=1).float()


def mel_filters(config: FrontendConfig) -> Tensor:
    """Triangular filters, (bins, num_mels) float32."""
    if config.mel_filters == "bins":
        return _filters_between_bins(config)
    if config.mel_filters == "slaney":
        return _slaney_filters(config)
    torchaudio, bins, sample_rate = import_torchaudio(), config.fft_length // 2 + 1, config.sample_rate
    if config.mel_filters == "mel":
        filters, _ = torchaudio.compliance.kaldi.get_mel_banks(
            config.num_mels, 2 * (bins - 1), float(sample_rate), config.low_freq, config.high_freq, 100.0, -500.0, 1.0
        )
        return nn.functional.pad(filters, (0, 1)).T.contiguous()  # Kaldi leaves out the Nyquist bin
    with warnings.catch_warnings():  # filters narrower than a bin are normal with 128 filters
        warnings.simplefilter("ignore")
        return torchaudio.functional.melscale_fbanks(
            bins, config.low_freq, config.highest_freq, config.num_mels, sample_rate
        )


def _slaney_filters(config: FrontendConfig) -> Tensor:
    """Triangles of equal area on the scale of Slaney's Auditory Toolbox: linear up to 1 kHz, logarithmic above.

    torchaudio has them too, but rounds half an odd sample rate (11,025 Hz) down; librosa does not.
    """
    linear_hertz, linear_mels, log_step = 1000.0, 15.0, math.log(6.4) / 27

    def mel(hertz: float) -> float:
        if hertz < linear_hertz:
            return hertz * linear_mels / linear_hertz
        return linear_mels + math.log(hertz / linear_hertz) / log_step

    points = torch.linspace(mel(config.low_freq), mel(config.highest_freq), config.num_mels + 2, dtype=torch.float64)
    logarithmic = linear_hertz * ((points - linear_mels) * log_step).exp()
    corners = torch.where(points < linear_mels, points * linear_hertz / linear_mels, logarithmic)
    freqs = _bins(config) * config.sample_rate / config.fft_length
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    triangles = torch.minimum((freqs - left) / (centre - left), (right - freqs) / (right - centre)).clamp(min=0)
    return (triangles * 2 / (right - left)).float()


def _filters_between_bins(config: FrontendConfig) -> Tensor:
    """Triangles whose corners are rounded down to whole bins, as in python_speech_features."""
    lowest, highest = (math.log10(1 + freq / 700) for freq in (config.low_freq, config.highest_freq))
    points = torch.linspace(lowest, highest, config.num_mels + 2, dtype=torch.float64)
    freqs = 700 * (10**points - 1)
    corners = ((config.fft_length + 1) * freqs / config.sample_rate).floor()
    bins = _bins(config)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins - left) / (centre - left).clamp(min=1)
    falling = (right - bins) / (right - centre).clamp(min=1)
    filters = torch.where(bins < centre, rising, falling)
    return torch.where((bins >= left) & (bins < right), filters, 0.0).float()


def _bins(config: FrontendConfig) -> Tensor:
    return torch.arange(config.fft_length // 2 + 1, dtype=torch.float64)[:, None]


def liftered_dct(config: FrontendConfig) -> Tensor:
    """Orthonormal DCT-II with the lifter 1 + Q/2 sin(pi i / Q) folded in: (num_mels, num_ceps) float32.

    With `htk_compat` all rows are scaled by sqrt(2 / num_mels) and c0 comes last (HTK Book, eq. 5.14, `MFCC_0`).
    """
    mel = torch.arange(config.num_mels, dtype=torch.float64)
    cepstrum = torch.arange(config.num_ceps, dtype=torch.float64)
    dct = torch.cos(math.pi / config.num_mels * (mel[:, None] + 0.5) * cepstrum)
    dct *= math.sqrt(2.0 / config.num_mels)
    if not config.htk_compat:
        dct[:, 0] = math.sqrt(1.0 / config.num_mels)
    if config.lifter:
        dct *= 1.0 + 0.5 * config.lifter * torch.sin(math.pi * cepstrum / config.lifter)
    if config.htk_compat:
        dct = dct.roll(-1, dims=1)
    return dct.float()
