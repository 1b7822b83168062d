"""The front ends: `Spectrogram`, `Fbank` and `Mfcc`, modules from waveforms to features.

They share every stage: frames, spectrum, then for each its own last step, then deltas and normalisation. Each is one
`nn.Module` with its tables as buffers, differentiable down to the waveform, always in full precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechattn.frontend.config import FrontendConfig
from speechattn.frontend.deltas import add_deltas
from speechattn.frontend.inputs import as_tensor, full_precision
from speechattn.frontend.masks import frame_mask
from speechattn.frontend.normalisation import online_cmvn, scale_of, sliding_cmvn, sliding_reach, utterance_cmvn
from speechattn.frontend.spectrum import BandEnergies
from speechattn.frontend.stream import FeatureStream
from speechattn.frontend.tables import liftered_dct, mel_filters

__all__ = ["Fbank", "Mfcc", "Spectrogram"]

LogMelTransform = Callable[[Tensor, Tensor], Tensor]
Statistics = tuple[Tensor, Tensor]


class Frontend(nn.Module):
    """What the front ends share; each gives its static features.

    Args:
        config: The recipe.
        filters: (bins, bands) weights of the spectrum's bins, None for the spectrum itself.
        frame_energy: Whether the static features need the energy of each frame.
        static_dim: Static features of a frame.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: FrontendConfig, filters: Tensor | None, *, frame_energy: bool, static_dim: int) -> None:
        super().__init__()
        self.config = config
        self.geometry = config.geometry
        self.static_dim = static_dim
        self.dim = static_dim * (1 + config.delta_order)
        self.energies = BandEnergies(config, filters, frame_energy=frame_energy)
        learned = config.learns_statistics  # once from training data, so they are saved with the model
        self.register_buffer("mean", torch.zeros(self.dim), persistent=learned)
        self.register_buffer("scale", torch.ones(self.dim), persistent=learned)

    def forward(
        self,
        waveforms: Any,
        lengths: Any = None,
        *,
        log_mel_transform: LogMelTransform | None = None,
        statistics: Statistics | None = None,
    ) -> Any:
        """Compute features.

        Args:
            waveforms: (B, N) float in [-1, 1], or int16; or one waveform, (N,). Tensor or NumPy array.
            lengths: (B,) samples in each row; None when every row is full. Samples past it are ignored.
            log_mel_transform: Applied to the log-mel energies (B, T, num_mels) and frame lengths (B,)
                before the DCT; SpecAugment goes here.
            statistics: (mean, variance) for `speaker` normalisation, (D,) each, or (B, D) for a speaker a row.

        Returns:
            (features, frame_lengths): (B, T, D) float and (B,) int64; features past an utterance's frames
            are 0. For one waveform the features alone, (T, D). NumPy in, NumPy out.

        Raises:
            ValueError: When shapes, dtypes or lengths do not fit, or `statistics` is missing or not asked for.
        """
        if isinstance(waveforms, np.ndarray):
            waveforms = as_tensor(waveforms, self.mean.device)
            lengths = None if lengths is None else torch.as_tensor(lengths)
            result = self(waveforms, lengths, log_mel_transform=log_mel_transform, statistics=statistics)
            if isinstance(result, Tensor):
                return result.numpy(force=True)
            return tuple(part.numpy(force=True) for part in result)
        if waveforms.ndim == 1 and lengths is None:
            return self(waveforms[None], log_mel_transform=log_mel_transform, statistics=statistics)[0][0]
        waveforms, lengths = self._checked(waveforms, lengths)
        frame_lengths = self.geometry.num_frames(lengths)
        if torch.compiler.is_compiling():
            # A graph must not depend on how many frames there are. With two more there are never 0 or 1.
            count = torch.sym_max(self.geometry.windows(waveforms.shape[1]), 0)
            waveforms = nn.functional.pad(waveforms, (0, self.geometry.window + self.geometry.hop))
        with full_precision(waveforms.device):
            static = self.static(self.energies(waveforms, lengths), frame_lengths, log_mel_transform)
            features = self.with_deltas(static, frame_lengths)
            features = self.normalised(features, frame_lengths, statistics)
        return features[:, :count] if torch.compiler.is_compiling() else features, frame_lengths

    def static(self, energies: Tensor, frame_lengths: Tensor, transform: LogMelTransform | None) -> Tensor:
        """Energies (B, T, columns) -> static features (B, T, static_dim)."""
        raise NotImplementedError

    def with_deltas(self, static: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, static_dim) -> (B, T, D), padded frames 0."""
        config = self.config
        return add_deltas(
            static, frame_lengths, order=config.delta_order, window=config.delta_window, rule=config.delta_rule
        )

    def normalised(self, features: Tensor, frame_lengths: Tensor, statistics: Statistics | None) -> Tensor:
        """(B, T, D), padded frames 0 -> the same, normalised."""
        config = self.config
        mean, scale = self._fixed_statistics(statistics)
        if config.normalisation == "none":
            return features
        if config.normalisation == "utterance":
            return utterance_cmvn(
                features, frame_lengths, variance=config.normalise_variance, ddof=int(config.unbiased)
            )
        if config.normalisation == "sliding":
            return sliding_cmvn(
                features,
                frame_lengths,
                window=config.cmn_window,
                min_window=config.min_cmn_window,
                center=config.center_cmn,
                variance=config.normalise_variance,
            )
        mask = frame_mask(frame_lengths, features.shape[1])[..., None]
        features = (features - mean) * scale * mask
        if config.normalisation == "online":
            return online_cmvn(
                features,
                frame_lengths,
                window=config.cmn_window,
                global_frames=config.global_frames,
                variance=config.normalise_variance,
            )
        return features

    def set_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Fix the statistics of `global` and `online` normalisation: mean and variance of each feature, (D,)."""
        if not self.config.learns_statistics:
            raise ValueError(f"normalisation is {self.config.normalisation!r}, statistics need 'global' or 'online'")
        self.mean.copy_(mean)
        self.scale.copy_(scale_of(variance) if self.config.normalise_variance else torch.ones_like(variance))

    @property
    def lookahead(self) -> int | None:
        """Frames to the right that a frame depends on at most, by deltas and normalisation; None: unlimited."""
        config = self.config
        if not config.streams:
            return None
        frames = config.delta_reach
        if config.normalisation == "sliding":
            frames += sliding_reach(config.cmn_window, config.min_cmn_window, config.center_cmn)[1]
        return frames

    @property
    def latency(self) -> int | None:
        """Samples after its centre that a frame waits for at most before a stream gives it; None: unlimited.

        No frame comes before the stream is a window long.
        """
        if self.lookahead is None:
            return None
        return self.lookahead * self.geometry.hop + self.geometry.window - self.geometry.window // 2

    def stream(self, *, statistics: Statistics | None = None) -> FeatureStream:
        """The same features from samples that come in pieces.

        Args:
            statistics: (mean, variance), (D,) each, for `speaker` normalisation.

        Raises:
            ValueError: When the configuration needs the whole utterance before its first frame, or `statistics` is
                missing, not asked for, or not of one speaker.
        """
        if self.config.top_db:
            raise ValueError(
                f"top_db={self.config.top_db:g} needs an utterance's loudest frame, so preset "
                f"{self.config.preset!r} cannot stream; top_db=0 can"
            )
        if self.config.normalisation == "utterance":
            raise ValueError(
                "normalisation='utterance' needs the whole utterance and cannot stream; 'online', 'sliding', "
                "'speaker', 'global' and 'none' can"
            )
        mean, _ = self._fixed_statistics(statistics)
        if mean.ndim == 3:
            raise ValueError(f"statistics of a stream must be ({self.dim},) each, got {(len(mean), self.dim)}")
        return FeatureStream(self, statistics)

    def _fixed_statistics(self, statistics: Statistics | None) -> tuple[Tensor, Tensor]:
        """Mean and factor of `speaker`, `global` and `online` normalisation, to broadcast over (B, T, D)."""
        if (statistics is not None) != (self.config.normalisation == "speaker"):
            raise ValueError(
                "normalisation='speaker' needs statistics=(mean, variance)"
                if statistics is None
                else f"statistics are for normalisation='speaker', which is {self.config.normalisation!r}"
            )
        if statistics is None:
            return self.mean, self.scale
        mean, variance = (torch.as_tensor(part).to(self.mean) for part in statistics)
        for part in (mean, variance):
            if part.ndim not in (1, 2) or part.shape[-1] != self.dim:
                raise ValueError(f"statistics must be ({self.dim},) or (B, {self.dim}), got {tuple(part.shape)}")
        scale = scale_of(variance) if self.config.normalise_variance else torch.ones_like(variance)
        return mean.unsqueeze(-2), scale.unsqueeze(-2)

    def _checked(self, waveforms: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        if waveforms.ndim != 2:
            raise ValueError(f"waveforms must be (B, N), or (N,) without lengths, got {tuple(waveforms.shape)}")
        if waveforms.dtype != torch.int16 and not waveforms.is_floating_point():
            raise ValueError(f"waveforms must be float in [-1, 1] or int16, got {waveforms.dtype}")
        batch, num_samples = waveforms.shape
        if lengths is None:
            return waveforms, torch.full((batch,), num_samples, device=waveforms.device)
        if lengths.shape != (batch,):
            raise ValueError(f"lengths must be ({batch},), got {tuple(lengths.shape)}")
        if not torch.compiler.is_compiling() and ((lengths < 0) | (lengths > num_samples)).any():
            raise ValueError(f"lengths must lie in 0..{num_samples}, got {lengths.tolist()}")
        return waveforms, lengths.to(waveforms.device, torch.int64)


class Spectrogram(Frontend):
    """Power spectra, or magnitudes, of a batch of waveforms: (B, T, n_fft // 2 + 1), not in logarithms.

    Args:
        preset: Whose frames, pre-emphasis, window and transform.
        config: The whole configuration at once; preset and fields are then not looked at.
        **fields: Fields of `FrontendConfig`. Deltas are off unless asked for.

    Raises:
        ValueError: When a setting is out of its range.
    """

    def __init__(self, preset: str = "kaldi", *, config: FrontendConfig | None = None, **fields: Any) -> None:
        config = config or FrontendConfig(preset=preset, **{"delta_order": 0, **fields})
        super().__init__(config, None, frame_energy=False, static_dim=config.fft_length // 2 + 1)

    def static(self, energies: Tensor, frame_lengths: Tensor, transform: LogMelTransform | None) -> Tensor:
        """The spectrum is the energies themselves."""
        if transform is not None:
            raise ValueError("log_mel_transform is for Fbank and Mfcc: a Spectrogram has no log-mel energies")
        return energies


class Fbank(Frontend):
    """Log-mel energies of a batch of waveforms: (B, T, num_mels).

    The `kaldi` preset equals Kaldi's compute-fbank-feats with `--dither=0` (feature-fbank.cc).

    Args:
        preset: Whose recipe to follow, see `Mfcc`.
        config: The whole configuration at once; preset and fields are then not looked at.
        **fields: Fields of `FrontendConfig`. Deltas are off unless asked for.

    Raises:
        ValueError: When a setting is out of its range.

    Example:
        >>> Fbank(num_mels=40)(torch.zeros(16000)).shape
        torch.Size([98, 40])
    """

    def __init__(self, preset: str = "kaldi", *, config: FrontendConfig | None = None, **fields: Any) -> None:
        config = config or FrontendConfig(preset=preset, **{"delta_order": 0, **fields})
        super().__init__(config, mel_filters(config), frame_energy=False, static_dim=config.num_mels)

    def static(self, energies: Tensor, frame_lengths: Tensor, transform: LogMelTransform | None) -> Tensor:
        """The log-mel energies."""
        return _log_mel(energies, frame_lengths, self.config, transform)


class Mfcc(Frontend):
    """Mel-frequency cepstral coefficients of a batch of waveforms, 13 of them, with deltas and delta-deltas.

    The presets give what other tools give: `kaldi` its compute-mfcc-feats (`--use-energy=false --dither=0`;
    feature-mfcc.cc) and add-deltas, `htk` HCopy's `MFCC_0` with the HTK Book's settings (sec. 5.4 to 5.6: c0 last),
    `librosa`, `torchaudio` and `python_speech_features` their MFCCs at 25 ms and 10 ms, `libriphone` the features
    of the NTU course and s3prl's `mfcc` baseline. docs/frontend.md has the exact calls and how far they agree.

    Args:
        preset: Whose recipe to follow.
        config: The whole configuration at once; preset and fields are then not looked at.
        **fields: Fields of `FrontendConfig`; `Mfcc(delta_order=0)` gives the 13 static coefficients.

    Raises:
        ValueError: When a setting is out of its range.

    Example:
        >>> Mfcc(preset="kaldi")(torch.zeros(16000)).shape
        torch.Size([98, 39])
    """

    dct: Tensor

    def __init__(self, preset: str = "kaldi", *, config: FrontendConfig | None = None, **fields: Any) -> None:
        config = config or FrontendConfig(preset=preset, **fields)
        super().__init__(config, mel_filters(config), frame_energy=config.use_energy, static_dim=config.num_ceps)
        self.register_buffer("dct", liftered_dct(config), persistent=False)

    def static(self, energies: Tensor, frame_lengths: Tensor, transform: LogMelTransform | None) -> Tensor:
        """The cepstra: the log-mel energies' cosine transform."""
        config = self.config
        cepstra = _log_mel(energies[..., : config.num_mels], frame_lengths, config, transform) @ self.dct
        if not config.use_energy:
            return cepstra
        energy = energies[..., -1:]
        if config.htk_compat:
            return torch.cat([cepstra[..., :-1], energy], dim=-1)
        return torch.cat([energy, cepstra[..., 1:]], dim=-1)


def _log_mel(
    log_mel: Tensor, frame_lengths: Tensor, config: FrontendConfig, transform: LogMelTransform | None
) -> Tensor:
    """(B, T, num_mels): with the range limited, if the recipe does, and transformed."""
    if config.top_db:
        # Over the utterance's own frames; a row of the least value, so that there is one without frames.
        real = frame_mask(frame_lengths, log_mel.shape[1])[..., None]
        least = 10 * math.log10(config.floor)
        rows = nn.functional.pad(log_mel.masked_fill(~real, least), (0, 0, 0, 1), value=least)
        log_mel = torch.maximum(log_mel, rows.amax(dim=(1, 2), keepdim=True) - config.top_db)
    return log_mel if transform is None else transform(log_mel, frame_lengths)
