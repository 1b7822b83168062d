"""The optimiser Muon: momentum with orthogonalised steps.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024, with steps scaled to match AdamW's, from
Liu et al., "Muon is scalable for LLM training", 2025 (eq. 4). Equals `torch.optim.Muon` with
`adjust_lr_fn="match_rms_adamw"` on devices with bfloat16 units. On others it iterates in float32, where PyTorch's
still uses slow bfloat16.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from speechattn.training.precision import computes_in_bfloat16

__all__ = ["Muon", "orthogonalised"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
SMALLEST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """Muon for matrices.

    Args:
        params: Matrices only.
        lr: Learning rate, on AdamW's scale.
        weight_decay: Decoupled weight decay.
        momentum: Nesterov momentum, [0, 1).
    """

    def __init__(
        self, params: Iterable[nn.Parameter], *, lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make one step; `closure` is not called."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(gradient)
                average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
                step = orthogonalised(gradient.lerp(average, momentum))
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.add_(step, alpha=-rate * 0.2 * max(parameter.shape) ** 0.5)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Set the singular values of a matrix (M, N) to about 1, by five Newton-Schulz iterations.

    The result is bfloat16 if the device has units for it, else float32. Precision matters little, since the iteration
    only brings the singular values to between 0.7 and 1.2.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(torch.bfloat16 if computes_in_bfloat16(matrix.device) else torch.float32)
    tall = matrix.shape[0] > matrix.shape[1]
    if tall:
        x = x.T
    x = x / x.norm().clamp(min=SMALLEST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
