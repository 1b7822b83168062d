"""Augmentation of log-mel energies, before the DCT: SpecAugment and vocal tract length perturbation.

Time and frequency masks follow Park et al. 2019, sec. 2; the warp of the frequency axis, which imitates other speakers,
follows Jaitly & Hinton 2013. Both keep the labels.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from speechattn.frontend import FrontendConfig, frame_mask

__all__ = ["SpecAugment", "SpecAugmentConfig", "cut_seed", "warp_frequency"]


@dataclass(frozen=True)
class SpecAugmentConfig:
    """Augmentation of the log-mel energies in training.

    Args:
        freq_masks: Frequency masks per utterance.
        freq_width: Maximum width of a frequency mask (mel channels).
        time_masks_per_s: Time masks per second of speech.
        time_width: Maximum length of a time mask (frames).
        warp: Maximum change of the vocal tract length, as a fraction, [0, 1): the frequency axis of each utterance is
            stretched by a factor drawn uniformly from [1 - warp, 1 + warp].

    Raises:
        ValueError: If a field is out of range.
    """

    freq_masks: int = 2
    freq_width: int = 5
    time_masks_per_s: float = 1.0
    time_width: int = 10
    warp: float = 0.0

    def __post_init__(self) -> None:
        for name in ("freq_masks", "freq_width", "time_masks_per_s", "time_width"):
            if getattr(self, name) < 0:
                raise ValueError(f"spec_augment.{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.warp < 1:
            raise ValueError(f"spec_augment.warp must lie in [0, 1), got {self.warp}")


def cut_seed(seed: int, epoch: int, cut_id: str) -> int:
    """The seed for everything random about a cut in an epoch: 63 bits of a hash."""
    digest = hashlib.blake2b(f"{seed}|{epoch}|{cut_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class SpecAugment:
    """Augments one batch; pass it as `log_mel_transform`.

    Masked cells get the utterance's mean in their channel, which later normalisation turns to about 0.

    Args:
        config: The augmentation.
        seeds: One seed per utterance of the batch.
        frontend: The front end that computes the energies.
    """

    def __init__(self, config: SpecAugmentConfig, seeds: Sequence[int], frontend: FrontendConfig) -> None:
        self.config, self.seeds, self.frontend = config, seeds, frontend

    def __call__(self, log_mel: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, M) log-mel energies and (B,) numbers of frames -> (B, T, M)."""
        frames_per_s = self.frontend.sample_rate / self.frontend.hop
        factors = torch.ones(len(log_mel))
        masked = torch.zeros(log_mel.shape, dtype=torch.bool)
        for index, (seed, num_frames) in enumerate(zip(self.seeds, frame_lengths.tolist(), strict=True)):
            generator = torch.Generator().manual_seed(seed)
            for _ in range(self.config.freq_masks):
                start, end = _random_span(log_mel.shape[2], self.config.freq_width, generator)
                masked[index, :, start:end] = True
            for _ in range(round(self.config.time_masks_per_s * num_frames / frames_per_s)):
                start, end = _random_span(num_frames, self.config.time_width, generator)
                masked[index, start:end] = True
            factors[index] += self.config.warp * (2 * torch.rand((), generator=generator) - 1)
        if self.config.warp:
            log_mel = warp_frequency(log_mel, factors.to(log_mel), self.frontend)
        padding = ~frame_mask(frame_lengths, log_mel.shape[1])[..., None]
        count = frame_lengths.clamp(min=1)[:, None, None]
        mean = log_mel.masked_fill(padding, 0.0).sum(dim=1, keepdim=True) / count
        return torch.where(masked.to(log_mel.device), mean, log_mel)


def warp_frequency(log_mel: Tensor, factors: Tensor, frontend: FrontendConfig) -> Tensor:
    """Stretch the frequency axis: the channel at f takes the energy at f * factor, by linear interpolation.

    Args:
        log_mel: (B, T, M).
        factors: (B,), around 1. Beyond the outermost channels, their energy is repeated.
        frontend: Defines the channels, evenly spaced on the mel scale 1127 ln(1 + f / 700).

    Returns:
        (B, T, M).

    Raises:
        ValueError: If the channels are on Slaney's mel scale.
    """
    frontend = frontend.resolved
    if frontend.mel_filters == "slaney":
        raise ValueError("spec_augment.warp needs the mel scale of Kaldi and HTK, not mel_filters='slaney'")
    channels = log_mel.shape[2]
    lowest, highest = (1127 * math.log1p(freq / 700) for freq in (frontend.low_freq, frontend.highest_freq))
    spacing = (highest - lowest) / (channels + 1)
    centres = lowest + spacing * torch.arange(1, channels + 1, device=log_mel.device)
    freqs = 700 * torch.expm1(centres / 1127) * factors[:, None]  # (B, M)
    sources = ((1127 * torch.log1p(freqs / 700) - lowest) / spacing - 1).clamp(0, channels - 1)
    below = sources.floor().long().clamp(max=max(channels - 2, 0))
    above = (below + 1).clamp(max=channels - 1)
    fraction = (sources - below).to(log_mel)[:, None]
    lower, upper = (log_mel.gather(2, index[:, None].expand(-1, log_mel.shape[1], -1)) for index in (below, above))
    return lower.lerp(upper, fraction.expand_as(lower))


def _random_span(size: int, max_width: int, generator: torch.Generator) -> tuple[int, int]:
    """A random span [start, end) of at most `max_width` and fewer than `size` cells."""
    width = int(torch.randint(0, min(max_width, max(size - 1, 0)) + 1, (), generator=generator))
    start = int(torch.randint(0, size - width + 1, (), generator=generator))
    return start, start + width
