"""MFCC features, batched: waveform -> frames -> power spectrum -> log-mel -> cepstra -> deltas -> normalised.

The `kaldi` preset equals Kaldi's compute-mfcc-feats with `--use-energy=false --dither=0`
(feature-window.cc, feature-mfcc.cc, feature-functions.cc). The front end is part of the model: one
`nn.Module` with its tables as buffers, differentiable down to the waveform, always in full precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechattn.geometry import Geometry, num_frames
from speechattn.torch_pair import import_torchaudio

__all__ = ["Mfcc", "MfccConfig", "frame_mask", "num_frames"]

INT16_SCALE = 32768.0
MEL_FLOOR = torch.finfo(torch.float32).eps  # Kaldi's floor under the logarithm
VARIANCE_FLOOR = 1e-3  # speech has 0.5 and more; with less, the rounding errors of two-frame utterances would show

NORMALISATIONS = ("none", "utterance", "global")
PRESETS = ("kaldi",)

LogMelTransform = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class MfccConfig:
    """What an `Mfcc` computes.

    Args:
        preset: Whose recipe to follow; `kaldi`.
        sample_rate: Samples per second of the input.
        window: Samples in a frame (25 ms).
        hop: Samples between frames (10 ms).
        num_mels: Mel filters.
        num_ceps: Cepstral coefficients kept, c0 first; at most `num_mels`.
        low_freq: Lower edge of the lowest filter, Hz.
        high_freq: Upper edge of the highest filter, Hz; 0 means the Nyquist frequency, a negative value
            counts down from it.
        preemphasis: Coefficient of the first difference, [0, 1].
        lifter: Cepstral lifter Q; 0 for none.
        delta_order: 0 static only, 1 with deltas, 2 with delta-deltas.
        delta_window: Frames to each side in the delta regression.
        normalisation: `none`; `utterance`: zero mean and unit variance over each utterance's own frames;
            `global`: by statistics of the training data, kept in the module.

    Raises:
        ValueError: When a field is out of its range.
    """

    preset: str = "kaldi"
    sample_rate: int = 16000
    window: int = 400
    hop: int = 160
    num_mels: int = 23
    num_ceps: int = 13
    low_freq: float = 20.0
    high_freq: float = 0.0
    preemphasis: float = 0.97
    lifter: float = 22.0
    delta_order: int = 2
    delta_window: int = 2
    normalisation: str = "none"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got preset={self.preset!r}")
        if self.normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation must be one of {', '.join(NORMALISATIONS)}, got {self.normalisation!r}")
        if not 1 <= self.num_ceps <= self.num_mels:
            raise ValueError(f"num_ceps must lie in 1..num_mels={self.num_mels}, got num_ceps={self.num_ceps}")
        if self.delta_order not in (0, 1, 2):
            raise ValueError(f"delta_order must be 0, 1 or 2, got delta_order={self.delta_order}")
        if self.delta_window < 1:
            raise ValueError(f"delta_window must be at least 1, got delta_window={self.delta_window}")
        if not 0 <= self.low_freq < self.highest_freq <= self.sample_rate / 2:
            raise ValueError(
                f"need 0 <= low_freq < high_freq <= {self.sample_rate / 2:g} Hz, got "
                f"low_freq={self.low_freq:g} and high_freq={self.high_freq:g}"
            )
        _ = self.geometry  # checks sample_rate, window and hop

    @property
    def geometry(self) -> Geometry:
        """Where the frames lie."""
        return Geometry(self.sample_rate, self.window, self.hop)

    @property
    def highest_freq(self) -> float:
        """Upper edge of the highest filter, Hz."""
        return self.high_freq if self.high_freq > 0 else self.sample_rate / 2 + self.high_freq

    @property
    def dim(self) -> int:
        """Features per frame."""
        return self.num_ceps * (1 + self.delta_order)


class Mfcc(nn.Module):
    """Mel-frequency cepstral coefficients of a batch of waveforms.

    Each frame is freed of its mean, pre-emphasised, shaped by the Povey window and transformed; the mel
    energies' logarithms go through an orthonormal DCT-II and a lifter. Deltas are Kaldi's add-deltas: the
    second order is the first-order filter convolved with itself, both applied to the static features with
    the utterance's own first and last frame repeated.

    Args:
        preset: Whose recipe to follow; `kaldi`.
        delta_order: 0, 1 or 2; `Mfcc(delta_order=0)` gives the 13 static coefficients.
        normalisation: `none`, `utterance` or `global`.
        config: The whole configuration at once, instead of the three arguments above.

    Raises:
        ValueError: When a setting is out of its range.

    Example:
        >>> Mfcc(preset="kaldi")(torch.zeros(16000)).shape
        torch.Size([98, 39])
    """

    frame_window: Tensor
    mel_filters: Tensor
    dct: Tensor
    delta_filters: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        preset: str = "kaldi",
        *,
        delta_order: int = 2,
        normalisation: str = "none",
        config: MfccConfig | None = None,
    ) -> None:
        super().__init__()
        config = config or MfccConfig(preset=preset, delta_order=delta_order, normalisation=normalisation)
        self.config = config
        self.geometry = config.geometry
        self.n_fft = 1 << (config.window - 1).bit_length()
        tables = {
            "frame_window": _povey_window(config.window),
            "mel_filters": _mel_filters(config, self.n_fft),
            "dct": _liftered_dct(config),
            "delta_filters": _delta_filters(config.delta_order, config.delta_window),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        # Global normalisation: learned once from training data, so it is saved with the model.
        learned = config.normalisation == "global"
        self.register_buffer("mean", torch.zeros(config.dim), persistent=learned)
        self.register_buffer("scale", torch.ones(config.dim), persistent=learned)

    def forward(self, waveforms: Any, lengths: Any = None, *, log_mel_transform: LogMelTransform | None = None) -> Any:
        """Compute features.

        Args:
            waveforms: (B, N) float in [-1, 1], or int16; or one waveform, (N,). Tensor or NumPy array.
            lengths: (B,) samples in each row; None when every row is full. Samples past it are ignored.
            log_mel_transform: Applied to the log-mel energies (B, T, num_mels) and frame lengths (B,)
                before the DCT; SpecAugment goes here.

        Returns:
            (features, frame_lengths): (B, T, D) float and (B,) int64; features past an utterance's frames
            are 0. For one waveform the features alone, (T, D). NumPy in, NumPy out.

        Raises:
            ValueError: When shapes, dtypes or lengths do not fit.
        """
        if isinstance(waveforms, np.ndarray):
            lengths = None if lengths is None else torch.as_tensor(lengths)
            result = self(torch.as_tensor(waveforms), lengths, log_mel_transform=log_mel_transform)
            if isinstance(result, Tensor):
                return result.numpy(force=True)
            return tuple(part.numpy(force=True) for part in result)
        if waveforms.ndim == 1 and lengths is None:
            return self(waveforms[None], log_mel_transform=log_mel_transform)[0][0]
        waveforms, lengths = self._checked(waveforms, lengths)
        frame_lengths = self.geometry.num_frames(lengths)
        with torch.autocast(waveforms.device.type, enabled=False):
            log_mel = self._log_mel(waveforms)
            if log_mel_transform is not None:
                log_mel = log_mel_transform(log_mel, frame_lengths)
            features = self._with_deltas(log_mel @ self.dct, frame_lengths)
            features = self._normalised(features, frame_lengths)
            mask = frame_mask(frame_lengths, features.shape[1])
            return features.masked_fill(~mask[..., None], 0.0), frame_lengths

    def set_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Fix the statistics of `global` normalisation: mean and variance of each feature, (D,)."""
        if self.config.normalisation != "global":
            raise ValueError(f"normalisation is {self.config.normalisation!r}, statistics need 'global'")
        self.mean.copy_(mean)
        self.scale.copy_(variance.clamp(min=VARIANCE_FLOOR).rsqrt())

    def _checked(self, waveforms: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        if waveforms.ndim != 2:
            raise ValueError(f"waveforms must be (B, N), or (N,) without lengths, got {tuple(waveforms.shape)}")
        if waveforms.dtype == torch.int16:
            waveforms = waveforms.to(self.dct.dtype) / INT16_SCALE
        elif not waveforms.is_floating_point():
            raise ValueError(f"waveforms must be float in [-1, 1] or int16, got {waveforms.dtype}")
        batch, num_samples = waveforms.shape
        if lengths is None:
            lengths = torch.full((batch,), num_samples, device=waveforms.device)
        elif lengths.shape != (batch,):
            raise ValueError(f"lengths must be ({batch},), got {tuple(lengths.shape)}")
        elif ((lengths < 0) | (lengths > num_samples)).any():
            raise ValueError(f"lengths must lie in 0..{num_samples}, got {lengths.tolist()}")
        lengths = lengths.to(waveforms.device, torch.int64)
        # A frame that straddles an utterance's end would carry a NaN of the padding into its gradient.
        waveforms = waveforms.masked_fill(~frame_mask(lengths, num_samples), 0.0)
        return waveforms.to(self.dct.dtype), lengths

    def _log_mel(self, waveforms: Tensor) -> Tensor:
        """(B, N) -> (B, T, num_mels)."""
        if waveforms.shape[1] < self.geometry.window:
            return waveforms.new_zeros(waveforms.shape[0], 0, self.config.num_mels)
        frames = (INT16_SCALE * waveforms).unfold(1, self.geometry.window, self.geometry.hop)
        frames = frames - frames.mean(dim=2, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)  # a frame's first sample precedes itself
        frames = (frames - self.config.preemphasis * before) * self.frame_window
        spectrum = torch.fft.rfft(frames, n=self.n_fft)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.mel_filters).clamp(min=MEL_FLOOR).log()

    def _with_deltas(self, static: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C * (1 + delta_order))."""
        if self.config.delta_order == 0 or static.shape[1] == 0:
            return static.repeat(1, 1, 1 + self.config.delta_order)
        num_frames, reach = static.shape[1], self.delta_filters.shape[1] // 2
        times = torch.arange(-reach, num_frames + reach, device=static.device)
        last = (frame_lengths - 1).clamp(min=0)
        times = torch.minimum(times.clamp(min=0)[None], last[:, None])  # repeat the utterance's own edges
        padded = static.gather(1, times[..., None].expand(-1, -1, static.shape[2]))
        windows = padded.unfold(1, 2 * reach + 1, 1)  # (B, T, C, taps)
        deltas = torch.einsum("btck,ok->btoc", windows, self.delta_filters)
        return torch.cat([static, deltas.flatten(2)], dim=2)

    def _normalised(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
        if self.config.normalisation == "none":
            return features
        if self.config.normalisation == "global":
            return (features - self.mean) * self.scale
        mask = frame_mask(frame_lengths, features.shape[1])[..., None]
        count = frame_lengths.clamp(min=1)[:, None, None]
        mean = features.masked_fill(~mask, 0.0).sum(dim=1, keepdim=True) / count
        centred = (features - mean).masked_fill(~mask, 0.0)
        variance = centred.square().sum(dim=1, keepdim=True) / count
        return centred * variance.clamp(min=VARIANCE_FLOOR).rsqrt()


def frame_mask(frame_lengths: Tensor, num_frames: int) -> Tensor:
    """(B,) frame counts -> (B, num_frames) bool, True = real frame."""
    return torch.arange(num_frames, device=frame_lengths.device) < frame_lengths[:, None]


def _povey_window(window: int) -> Tensor:
    """Kaldi's default: a Hann window raised to 0.85, (window,)."""
    return torch.hann_window(window, periodic=False, dtype=torch.float64).pow(0.85).float()


def _mel_filters(config: MfccConfig, n_fft: int) -> Tensor:
    """Triangles that are straight on the mel scale, (n_fft // 2 + 1, num_mels)."""
    kaldi = import_torchaudio().compliance.kaldi
    filters, _ = kaldi.get_mel_banks(
        config.num_mels, n_fft, float(config.sample_rate), config.low_freq, config.high_freq, 100.0, -500.0, 1.0
    )
    return nn.functional.pad(filters, (0, 1)).T.contiguous()  # Kaldi leaves out the Nyquist bin


def _liftered_dct(config: MfccConfig) -> Tensor:
    """Orthonormal DCT-II with Kaldi's lifter, 1 + Q/2 sin(pi i / Q), folded in: (num_mels, num_ceps)."""
    mel = torch.arange(config.num_mels, dtype=torch.float64)
    cepstrum = torch.arange(config.num_ceps, dtype=torch.float64)
    dct = torch.cos(math.pi / config.num_mels * (mel[:, None] + 0.5) * cepstrum)
    dct *= math.sqrt(2.0 / config.num_mels)
    dct[:, 0] = math.sqrt(1.0 / config.num_mels)
    if config.lifter:
        dct *= 1.0 + 0.5 * config.lifter * torch.sin(math.pi * cepstrum / config.lifter)
    return dct.float()


def _delta_filters(order: int, window: int) -> Tensor:
    """Regression filters of order 1..order, centred in equal lengths: (order, 2 * order * window + 1)."""
    taps = torch.arange(-window, window + 1, dtype=torch.float64)
    first = taps / taps.square().sum()
    filters, current = [], torch.ones(1, dtype=torch.float64)
    for _ in range(order):
        # Convolution with an antisymmetric filter; the tap at offset k multiplies frame t + k.
        current = torch.from_numpy(np.convolve(current.numpy(), first.numpy()))
        filters.append(nn.functional.pad(current, ((order * 2 * window + 1 - len(current)) // 2,) * 2))
    return torch.stack(filters).float() if filters else torch.zeros(0, 1)
