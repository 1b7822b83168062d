"""SpecAugment: masks of time and frequency over the log-mel energies (Park et al. 2019, sec. 2)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SpecAugment", "SpecAugmentConfig", "cut_seed"]


@dataclass(frozen=True)
class SpecAugmentConfig:
    """How much of an utterance is hidden in training.

    Args:
        freq_masks: Bands of mel channels masked in each utterance.
        freq_width: Greatest width of a band, channels.
        time_masks_per_s: Stretches of time masked per second of speech.
        time_width: Greatest length of a stretch, frames.
    """

    freq_masks: int = 2
    freq_width: int = 5
    time_masks_per_s: float = 1.0
    time_width: int = 10


def cut_seed(seed: int, epoch: int, cut_id: str) -> int:
    """The one source of randomness for a cut in an epoch: 63 bits of a hash."""
    digest = hashlib.blake2b(f"{seed}|{epoch}|{cut_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class SpecAugment:
    """Masks one batch; pass it as `log_mel_transform`.

    Masked cells take the utterance's mean of their channel, which later normalisation turns to about 0.

    Args:
        config: How much to mask.
        seeds: One seed for each utterance of the batch.
        frames_per_s: Frames in a second.
    """

    def __init__(self, config: SpecAugmentConfig, seeds: Sequence[int], frames_per_s: float) -> None:
        self.config = config
        self.seeds = seeds
        self.frames_per_s = frames_per_s

    def __call__(self, log_mel: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, M) log-mel energies and (B,) frames -> (B, T, M)."""
        hidden = torch.zeros(log_mel.shape, dtype=torch.bool)
        for row, seed, num_frames in zip(hidden, self.seeds, frame_lengths.tolist(), strict=True):
            generator = torch.Generator().manual_seed(seed)
            for _ in range(self.config.freq_masks):
                first, end = _stretch(row.shape[1], self.config.freq_width, generator)
                row[:, first:end] = True
            for _ in range(round(self.config.time_masks_per_s * num_frames / self.frames_per_s)):
                first, end = _stretch(num_frames, self.config.time_width, generator)
                row[first:end] = True
        real = torch.arange(log_mel.shape[1], device=log_mel.device)[None] < frame_lengths[:, None]
        count = frame_lengths.clamp(min=1)[:, None, None]
        mean = log_mel.masked_fill(~real[..., None], 0.0).sum(dim=1, keepdim=True) / count
        return torch.where(hidden.to(log_mel.device), mean, log_mel)


def _stretch(size: int, greatest: int, generator: torch.Generator) -> tuple[int, int]:
    """A random stretch [first, end) of at most `greatest` and of fewer than `size` cells."""
    width = int(torch.randint(0, min(greatest, max(size - 1, 0)) + 1, (), generator=generator))
    first = int(torch.randint(0, size - width + 1, (), generator=generator))
    return first, first + width
