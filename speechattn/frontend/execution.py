"""How and where this code runs: traced by a compiler, transformed by torch.func, on a device without float64."""

import torch
from torch import Tensor

__all__ = ["is_traced", "is_transformed", "single_precision", "wide_device", "wide_dtype"]


def is_transformed() -> bool:
    """Whether a transform of torch.func runs this code, which needs operations that are not in place."""
    return torch._C._functorch.peek_interpreter_stack() is not None  # torch has no public name for it


def is_traced() -> bool:
    """Whether torch.compile, torch.export or torch.func runs this code, so that values must not decide its course."""
    return torch.compiler.is_compiling() or is_transformed()


def wide_dtype(device: torch.device) -> torch.dtype:
    """The precision for long sums and large angles: float64, or float32 on Apple's GPU, which has no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def wide_device(device: torch.device) -> torch.device:
    """Where to compute in float64 for this device: the device itself, or the CPU for Apple's GPU."""
    return torch.device("cpu") if device.type == "mps" else device


def single_precision(x: Tensor) -> Tensor:
    """A tensor in at least float32, also under mixed precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
