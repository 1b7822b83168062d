"""Inputs of the front ends: arrays as tensors, checks, and full precision under autocast."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechattn.audio.load import LOUDEST
from speechattn.frontend.masks import frame_mask, is_padded

__all__ = ["as_tensor", "check_amplitudes", "full_precision"]


def as_tensor(samples: Any, device: torch.device) -> Tensor:
    """A tensor or NumPy array as a tensor; arrays that are read-only or run backwards are copied."""
    if isinstance(samples, np.ndarray) and not (samples.flags.writeable and all(s >= 0 for s in samples.strides)):
        samples = samples.copy()
    return torch.as_tensor(samples, device=device)


def check_amplitudes(waveforms: Tensor, lengths: Tensor | None = None) -> None:
    """Refuse samples on the CPU that are not finite, or far beyond [-1, 1], as `load_audio` does.

    Args:
        waveforms: (..., N).
        lengths: (...,) samples to check in each row; None: all.

    Raises:
        ValueError: If there are such samples.
    """
    if not (waveforms.is_floating_point() and waveforms.is_cpu and waveforms.numel()):  # others would have to wait
        return
    samples = waveforms.detach()
    if lengths is not None and is_padded(lengths, waveforms.shape[-1]):
        samples = samples.masked_fill(~frame_mask(lengths, waveforms.shape[-1]), 0.0)
    lowest, highest = samples.aminmax()
    loudest = torch.maximum(-lowest, highest)
    if not loudest <= LOUDEST:  # NaN compares false
        found = f"{loudest:.3g}" if loudest.isfinite() else "NaN or infinity"
        raise ValueError(f"samples must be finite and roughly within [-1, 1], found {found}")


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """A context without autocast; free when autocast is off."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()
