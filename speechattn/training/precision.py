"""Which devices compute in bfloat16, and what `mixed_precision: auto` means on them."""

from typing import Any

import torch

__all__ = ["computes_in_bfloat16", "resolve_mixed_precision"]


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 units. Without them a CPU is slower in bfloat16 than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of torch lack it
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def resolve_mixed_precision(setting: str, device: torch.device) -> str:
    """Resolve `auto` to `bf16` or `no` for this device; return other values unchanged."""
    if setting != "auto":
        return setting
    return "bf16" if computes_in_bfloat16(device) else "no"
