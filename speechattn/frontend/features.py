"""The front ends: `Mfcc`, `Fbank` and `Spectrogram`, modules from waveforms to features.

Frames and spectrum come first and deltas and normalisation last; only the step between differs. Each is one `nn.Module`
with its tables as buffers, differentiable down to the waveform, and always in full precision.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechattn.frontend.config import FrontendConfig
from speechattn.frontend.deltas import add_deltas
from speechattn.frontend.execution import is_traced
from speechattn.frontend.inputs import as_tensor, check_amplitudes, full_precision
from speechattn.frontend.masks import frame_mask
from speechattn.frontend.normalisation import (
    OnlineCmvnStream,
    online_cmvn,
    scale_of,
    sliding_cmvn,
    sliding_reach,
    utterance_cmvn,
)
from speechattn.frontend.spectrum import LogBandEnergies
from speechattn.frontend.stream import FeatureStream, RowStream, WindowStream
from speechattn.frontend.tables import liftered_dct, mel_filters

__all__ = ["Fbank", "Mfcc", "Spectrogram", "make_frontend"]

LogMelTransform = Callable[[Tensor, Tensor], Tensor]
Statistics = tuple[Tensor, Tensor]


class Frontend(nn.Module):
    """Base class of the front ends; subclasses compute the static features."""

    kind: str
    mean: Tensor
    scale: Tensor

    def __init__(self, preset: str = "kaldi", *, config: FrontendConfig | None = None, **fields: Any) -> None:
        super().__init__()
        config = config or FrontendConfig(preset, kind=self.kind, **fields)
        self.config = config = replace(config.resolved, kind=self.kind)
        self.geometry = config.geometry
        self.static_dim = config.static_dim
        self.dim = config.static_dim * (1 + config.delta_order)
        filters = None if self.kind == "spectrogram" else mel_filters(config)
        self.energies = LogBandEnergies(config, filters, frame_energy=self.kind == "mfcc" and config.use_energy)
        # Statistics of the training data are saved with the model.
        mean, scale = torch.zeros(self.dim, dtype=torch.float32), torch.ones(self.dim, dtype=torch.float32)
        self.register_buffer("mean", mean, persistent=config.learns_statistics)
        self.register_buffer("scale", scale, persistent=config.learns_statistics)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frontend":
        """Keep the precision where a model becomes float16 or bfloat16, which have too few digits for spectra."""

        def converted(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            is_short = result.is_floating_point() and torch.finfo(result.dtype).bits < 32
            return tensor.to(result.device) if is_short else result

        return super()._apply(converted, recurse)

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
            waveforms: (B, N) float in [-1, 1] or int16, or one waveform, (N,). Tensor or NumPy array.
            lengths: (B,) samples in each row; None when every row is full. Samples past the length are ignored.
            log_mel_transform: Function of the log-mel energies (B, T, num_mels) and frame lengths (B,) that is applied
                before the DCT, such as SpecAugment.
            statistics: (mean, variance) for `speaker` normalisation, (D,) each, or (B, D) with one speaker per row.

        Returns:
            (features, frame_lengths): (B, T, D) float, 0 past each utterance's frames, and (B,) int64. For a single
            waveform only the features, (T, D). NumPy arrays for NumPy input.

        Raises:
            ValueError: When shapes, dtypes or lengths do not fit, or `statistics` is missing or not expected.
        """
        if isinstance(waveforms, np.ndarray):
            waveforms = as_tensor(waveforms, self.mean.device)
            lengths = None if lengths is None else torch.as_tensor(lengths)
            result = self(waveforms, lengths, log_mel_transform=log_mel_transform, statistics=statistics)
            single = isinstance(result, Tensor)
            return result.numpy(force=True) if single else tuple(part.numpy(force=True) for part in result)
        if waveforms.ndim == 1 and lengths is None:
            return self(waveforms[None], log_mel_transform=log_mel_transform, statistics=statistics)[0][0]
        waveforms, lengths = self._checked(waveforms, lengths)
        frame_lengths = self.geometry.num_frames(lengths)
        if torch.compiler.is_compiling():
            # torch.export specialises on sizes 0 and 1: pad by two frames, cut them off again below.
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
        config, variance, window = self.config, self.config.normalise_variance, self.config.cmn_window
        mean, scale = self._fixed_statistics(statistics)
        if config.normalisation == "none":
            return features
        if config.normalisation == "utterance":
            return utterance_cmvn(features, frame_lengths, variance=variance, ddof=int(config.unbiased))
        if config.normalisation == "sliding":
            min_window, center = config.min_cmn_window, config.center_cmn
            return sliding_cmvn(
                features, frame_lengths, window=window, min_window=min_window, center=center, variance=variance
            )
        features = (features - mean) * scale * frame_mask(frame_lengths, features.shape[1])[..., None]
        if config.normalisation == "online":
            return online_cmvn(
                features, frame_lengths, window=window, global_frames=config.global_frames, variance=variance,
                min_range=config.cmn_min_range, level=config.level_columns,
            )  # fmt: skip
        return features

    def set_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Store the statistics for `global` and `online` normalisation: mean and variance of each feature, (D,)."""
        if not self.config.learns_statistics:
            raise ValueError(f"normalisation is {self.config.normalisation!r}, statistics need 'global' or 'online'")
        self.mean.copy_(mean)
        self.scale.copy_(self._scale(variance))

    @property
    def lookahead(self) -> int | None:
        """Maximum number of later frames that a frame depends on, by deltas and normalisation; None: unlimited."""
        config = self.config
        if not config.streams:
            return None
        if config.normalisation != "sliding":
            return config.delta_reach
        return config.delta_reach + sliding_reach(config.cmn_window, config.min_cmn_window, config.center_cmn)[1]

    @property
    def latency(self) -> int | None:
        """Maximum number of samples after a frame's centre that a stream needs to return it; None: unlimited.

        No frame is returned before the stream is one window long.
        """
        frames, geometry = self.lookahead, self.geometry
        return None if frames is None else frames * geometry.hop + geometry.window - geometry.window // 2

    def stream(self, *, statistics: Statistics | None = None) -> FeatureStream:
        """Start a stream: the same features from samples that arrive in pieces.

        Args:
            statistics: (mean, variance), (D,) each, for `speaker` normalisation.

        Raises:
            ValueError: When the configuration needs the whole utterance before its first frame, or `statistics` is
                missing, not expected, or not for one speaker.
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

        def static(energies: Tensor) -> Tensor:
            return self.static(energies[None], torch.full((1,), len(energies), device=energies.device), None)[0]

        def normalise(features: Tensor, frame_lengths: Tensor) -> Tensor:
            return self.normalised(features, frame_lengths, statistics)

        config, window, minimum = self.config, self.config.cmn_window, self.config.min_cmn_window
        parts: list[RowStream] = [WindowStream(self.with_deltas, config.delta_reach, config.delta_reach)]
        if config.normalisation == "sliding" and config.center_cmn:  # the first windows are shifted to begin at 0
            parts.append(WindowStream(normalise, window, window - window // 2 - 1, minimum=window))
        elif config.normalisation == "sliding":
            parts.append(WindowStream(normalise, max(window, minimum), minimum=minimum))
        elif config.normalisation == "online":
            parts.append(WindowStream(lambda rows, _: (rows - self.mean) * self.scale))
            parts.append(
                OnlineCmvnStream(
                    window, config.global_frames, config.normalise_variance,
                    min_range=config.cmn_min_range, level=config.level_columns,
                )
            )  # fmt: skip
        elif config.normalisation != "none":
            parts.append(WindowStream(normalise))
        return FeatureStream(self.geometry, self.energies, static, parts, self.dim)

    def _fixed_statistics(self, statistics: Statistics | None) -> tuple[Tensor, Tensor]:
        """Mean and factor for `speaker`, `global` and `online` normalisation; they broadcast over (B, T, D)."""
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
        return mean.unsqueeze(-2), self._scale(variance).unsqueeze(-2)

    def _scale(self, variance: Tensor) -> Tensor:
        return scale_of(variance) if self.config.normalise_variance else torch.ones_like(variance)

    def _log_mel(self, log_mel: Tensor, frame_lengths: Tensor, transform: LogMelTransform | None) -> Tensor:
        """(B, T, num_mels) with the dynamic range limited, if the preset does so, and transformed."""
        if self.config.top_db:
            mask = frame_mask(frame_lengths, log_mel.shape[1])[..., None]
            floor = 10 * math.log10(self.config.floor)
            # One more row at the floor, so that amax works without frames, too.
            rows = nn.functional.pad(log_mel.masked_fill(~mask, floor), (0, 0, 0, 1), value=floor)
            log_mel = torch.maximum(log_mel, rows.amax(dim=(1, 2), keepdim=True) - self.config.top_db)
        return log_mel if transform is None else transform(log_mel, frame_lengths)

    def _checked(self, waveforms: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        if waveforms.ndim != 2:
            raise ValueError(f"waveforms must be (B, N), or (N,) without lengths, got {tuple(waveforms.shape)}")
        if waveforms.dtype != torch.int16 and not waveforms.is_floating_point():
            raise ValueError(f"waveforms must be float in [-1, 1] or int16, got {waveforms.dtype}")
        batch, num_samples = waveforms.shape
        if lengths is None:
            lengths = torch.full((batch,), num_samples, device=waveforms.device)
        elif lengths.shape != (batch,):
            raise ValueError(f"lengths must be ({batch},), got {tuple(lengths.shape)}")
        elif not is_traced() and ((lengths < 0) | (lengths > num_samples)).any():
            raise ValueError(f"lengths must lie in 0..{num_samples}, got {lengths.tolist()}")
        lengths = lengths.to(waveforms.device, torch.int64)
        if not is_traced():
            check_amplitudes(waveforms, lengths)
        return waveforms, lengths


class Spectrogram(Frontend):
    """Power or magnitude spectra of a batch of waveforms: (B, T, n_fft // 2 + 1), without a logarithm.

    Arguments and errors as for `Mfcc`, but by default without deltas.
    """

    kind = "spectrogram"

    def static(self, energies: Tensor, frame_lengths: Tensor, transform: LogMelTransform | None) -> Tensor:
        """The spectrum itself."""
        if transform is not None:
            raise ValueError("log_mel_transform is for Fbank and Mfcc: a Spectrogram has no log-mel energies")
        return energies


class Fbank(Frontend):
    """Log-mel energies of a batch of waveforms: (B, T, num_mels).

    Arguments and errors as for `Mfcc`, but by default without deltas. The `kaldi` preset equals Kaldi's
    compute-fbank-feats with `--dither=0` (feature-fbank.cc).

    Example:
        >>> Fbank(num_mels=40)(torch.zeros(16000)).shape
        torch.Size([98, 40])
    """

    kind = "fbank"

    def static(self, energies: Tensor, frame_lengths: Tensor, transform: LogMelTransform | None) -> Tensor:
        """The log-mel energies."""
        return self._log_mel(energies, frame_lengths, transform)


class Mfcc(Frontend):
    """Mel-frequency cepstral coefficients of a batch of waveforms: 13 with their deltas and delta-deltas.

    Each preset equals another tool: `kaldi` its compute-mfcc-feats (`--use-energy=false --dither=0`; feature-mfcc.cc)
    and add-deltas, `htk` HCopy's `MFCC_0` with the HTK Book's settings (sec. 5.4 to 5.6: c0 last), `librosa`,
    `torchaudio` and `python_speech_features` their MFCCs at 25 ms and 10 ms, `libriphone` the features of the NTU
    course and s3prl's `mfcc` baseline. docs/frontend.md has the exact calls and the remaining differences.

    Args:
        preset: Tool to follow.
        config: The whole configuration; preset and fields are then ignored.
        **fields: Fields of `FrontendConfig`; `Mfcc(delta_order=0)` returns the 13 static coefficients.

    Raises:
        ValueError: When a setting is out of its range.

    Example:
        >>> Mfcc(preset="kaldi")(torch.zeros(16000)).shape
        torch.Size([98, 39])
    """

    kind = "mfcc"
    dct: Tensor

    def __init__(self, preset: str = "kaldi", *, config: FrontendConfig | None = None, **fields: Any) -> None:
        super().__init__(preset, config=config, **fields)
        self.register_buffer("dct", liftered_dct(self.config), persistent=False)

    def static(self, energies: Tensor, frame_lengths: Tensor, transform: LogMelTransform | None) -> Tensor:
        """The cepstra: the cosine transform of the log-mel energies."""
        config = self.config
        cepstra = self._log_mel(energies[..., : config.num_mels], frame_lengths, transform) @ self.dct
        if not config.use_energy:
            return cepstra
        energy = energies[..., -1:]
        parts = [cepstra[..., :-1], energy] if config.htk_compat else [energy, cepstra[..., 1:]]
        return torch.cat(parts, dim=-1)


def make_frontend(config: FrontendConfig) -> Frontend:
    """The front end that `config.kind` names."""
    return {"mfcc": Mfcc, "fbank": Fbank, "spectrogram": Spectrogram}[config.kind](config=config)
