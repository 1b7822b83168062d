"""The optimiser Muon: momentum with orthogonalised steps.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024, with steps scaled to match AdamW's, from
Liu et al., "Muon is scalable for LLM training", 2025 (eq. 4). Equals `torch.optim.Muon` with
`adjust_lr_fn="match_rms_adamw"` on devices with bfloat16 units. On others it iterates in float32, where PyTorch's
still uses slow bfloat16.
"""

from collections.abc import Iterable, Sequence
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
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            gradients = [parameter.grad for parameter in parameters]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            averages = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
            torch._foreach_lerp_(averages, gradients, 1 - momentum)
            nesterov = torch._foreach_lerp(gradients, averages, momentum)
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
            for parameter, step in zip(parameters, _orthogonalised_all(nesterov), strict=True):
                parameter.add_(step, alpha=-rate * 0.2 * max(parameter.shape) ** 0.5)


def _orthogonalised_all(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Orthogonalise each matrix, in one batch per shape; a matrix and its transpose count as one shape.

    Processes that train together divide the work, since their gradients are the same.
    """
    group = torch.distributed if torch.distributed.is_available() and torch.distributed.is_initialized() else None
    rank, world_size = (group.get_rank(), group.get_world_size()) if group else (0, 1)
    wide = [matrix.T if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    by_shape: dict[torch.Size, list[int]] = {}
    for index, matrix in enumerate(wide):
        by_shape.setdefault(matrix.shape, []).append(index)
    together = wide[0].new_zeros(sum(matrix.numel() for matrix in wide))
    steps = [part.view_as(matrix) for part, matrix in zip(together.split([m.numel() for m in wide]), wide, strict=True)]
    for indices in by_shape.values():
        if own := indices[rank::world_size]:
            for index, step in zip(own, orthogonalised(torch.stack([wide[i] for i in own])), strict=True):
                steps[index].copy_(step)
    if world_size > 1:
        torch.distributed.all_reduce(together)  # one process computed each step, and the others add 0
    return [step.T if step.shape != matrix.shape else step for step, matrix in zip(steps, matrices, strict=True)]


def orthogonalised(matrices: Tensor) -> Tensor:
    """Set the singular values of matrices (B, M, N), M <= N, to about 1, by five Newton-Schulz iterations.

    The result is bfloat16 if the device has units for it, else float32. Precision matters little, since the iteration
    only brings the singular values to between 0.7 and 1.2.
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(torch.bfloat16 if computes_in_bfloat16(matrices.device) else torch.float32)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
