"""Inputs of the front ends: arrays as tensors, and full precision under autocast."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_tensor", "full_precision"]


def as_tensor(samples: Any, device: torch.device) -> Tensor:
    """A tensor or NumPy array as a tensor; read-only arrays, as from `np.frombuffer`, are copied."""
    if isinstance(samples, np.ndarray) and not samples.flags.writeable:
        samples = samples.copy()
    return torch.as_tensor(samples, device=device)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """A context without autocast; free when autocast is off."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()
