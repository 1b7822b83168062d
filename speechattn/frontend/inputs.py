"""What the front ends are called with: arrays as tensors, and a precision that autocast does not lower."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_tensor", "full_precision"]


def as_tensor(samples: Any, device: torch.device) -> Tensor:
    """Samples of a tensor or NumPy array; an array that must not be written, as from `np.frombuffer`, is copied."""
    if isinstance(samples, np.ndarray) and not samples.flags.writeable:
        samples = samples.copy()
    return torch.as_tensor(samples, device=device)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """A context without autocast, at no cost where there is none anyway."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
