"""Where a model runs: the CPU, or a GPU by its name."""

from typing import Any

__all__ = ["checked_device"]


def checked_device(name: str) -> Any:
    """A `torch.device` by its name, such as `cpu` or `cuda:1`.

    Raises:
        ValueError: If there is no such device here.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name}: not available here ({str(error).splitlines()[0]})") from None
    return device
