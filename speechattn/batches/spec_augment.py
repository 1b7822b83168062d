"""Augmentation of the log-mel energies, before the DCT: SpecAugment and vocal tract length perturbation.

Masks of time and frequency follow Park et al. 2019, sec. 2; the warp of the frequency axis, which makes other
speakers of the ones there are, Jaitly & Hinton 2013. Both leave the labels as they are.
"""

from __future__ import annotations

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
    """How much of an utterance is hidden in training.

    Args:
        freq_masks: Bands of mel channels masked in each utterance.
        freq_width: Greatest width of a band, channels.
        time_masks_per_s: Stretches of time masked per second of speech.
        time_width: Greatest length of a stretch, frames.
        warp: Greatest change of the vocal tract's length, as a share of it, [0, 1): the frequency axis of each
            utterance is stretched by a factor drawn from [1 - warp, 1 + warp].

    Raises:
        ValueError: When a field is out of its range.
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
    """The one source of randomness for a cut in an epoch: 63 bits of a hash."""
    digest = hashlib.blake2b(f"{seed}|{epoch}|{cut_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class SpecAugment:
    """Augments one batch; pass it as `log_mel_transform`.

    Masked cells take the utterance's mean of their channel, which later normalisation turns to about 0.

    Args:
        config: How much to change.
        seeds: One seed for each utterance of the batch.
        frontend: The features that the energies are on the way to.
    """

    def __init__(self, config: SpecAugmentConfig, seeds: Sequence[int], frontend: FrontendConfig) -> None:
        self.config = config
        self.seeds = seeds
        self.frontend = frontend

    def __call__(self, log_mel: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, M) log-mel energies and (B,) frames -> (B, T, M)."""
        frames_per_s = self.frontend.sample_rate / self.frontend.hop
        factors = torch.ones(len(log_mel))
        hidden = torch.zeros(log_mel.shape, dtype=torch.bool)
        for number, (seed, num_frames) in enumerate(zip(self.seeds, frame_lengths.tolist(), strict=True)):
            generator = torch.Generator().manual_seed(seed)
            row = hidden[number]
            for _ in range(self.config.freq_masks):
                first, end = _stretch(row.shape[1], self.config.freq_width, generator)
                row[:, first:end] = True
            for _ in range(round(self.config.time_masks_per_s * num_frames / frames_per_s)):
                first, end = _stretch(num_frames, self.config.time_width, generator)
                row[first:end] = True
            factors[number] += self.config.warp * (2 * torch.rand((), generator=generator) - 1)
        if self.config.warp:
            log_mel = warp_frequency(log_mel, factors.to(log_mel), self.frontend)
        real = frame_mask(frame_lengths, log_mel.shape[1])[..., None]
        count = frame_lengths.clamp(min=1)[:, None, None]
        mean = log_mel.masked_fill(~real, 0.0).sum(dim=1, keepdim=True) / count
        return torch.where(hidden.to(log_mel.device), mean, log_mel)


def warp_frequency(log_mel: Tensor, factors: Tensor, frontend: FrontendConfig) -> Tensor:
    """Stretch the frequency axis: the channel at f takes the energy at f * factor, between channels by a line.

    Args:
        log_mel: (B, T, M).
        factors: (B,), around 1. Beyond the outer channels their energy goes on.
        frontend: Says where the channels lie: evenly spaced on the mel scale 1127 ln(1 + f / 700).

    Returns:
        (B, T, M).

    Raises:
        ValueError: When the channels lie on another scale, Slaney's.
    """
    frontend = frontend.resolved
    if frontend.mel_filters == "slaney":
        raise ValueError("spec_augment.warp is for mel scales as Kaldi's and HTK's, not for mel_filters='slaney'")
    channels = log_mel.shape[2]
    lowest, highest = (1127 * math.log1p(freq / 700) for freq in (frontend.low_freq, frontend.highest_freq))
    spacing = (highest - lowest) / (channels + 1)
    centres = lowest + spacing * torch.arange(1, channels + 1, device=log_mel.device)
    freqs = 700 * torch.expm1(centres / 1127) * factors[:, None]  # (B, M)
    sources = ((1127 * torch.log1p(freqs / 700) - lowest) / spacing - 1).clamp(0, channels - 1)
    below = sources.floor().long().clamp(max=max(channels - 2, 0))
    above = (below + 1).clamp(max=channels - 1)
    share = (sources - below).to(log_mel)[:, None]
    lower, upper = (log_mel.gather(2, index[:, None].expand(-1, log_mel.shape[1], -1)) for index in (below, above))
    return lower.lerp(upper, share.expand_as(lower))


def _stretch(size: int, greatest: int, generator: torch.Generator) -> tuple[int, int]:
    """A random stretch [first, end) of at most `greatest` and of fewer than `size` cells."""
    width = int(torch.randint(0, min(greatest, max(size - 1, 0)) + 1, (), generator=generator))
    first = int(torch.randint(0, size - width + 1, (), generator=generator))
    return first, first + width
