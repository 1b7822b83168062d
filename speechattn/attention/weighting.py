"""From queries and keys to attention weights: who sees whom, how a pair is scored, how scores become shares."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from speechattn.attention.positions import Position

__all__ = ["NORMALISERS", "SCORES", "Weighting", "hidden_score", "normalise", "score"]

SCORES = ("dot", "additive")
NORMALISERS = ("softmax", "relu", "sigmoid")


@dataclass(frozen=True)
class Weighting:
    """Which frames a frame sees, and how it weighs them; equations in `TruncatedSelfAttention`.

    Args:
        left: L, frames; None for all.
        right: R, frames; None for all.
        normaliser: `softmax`, `relu` or `sigmoid`.
        additive: (H, E), the w of the additive score; None for the dot product.
        position: Adds its bias to the scores.
        dropout: Share of the weights dropped, [0, 1).
    """

    left: int | None
    right: int | None
    normaliser: str = "softmax"
    additive: Tensor | None = None
    position: Position = field(default_factory=Position)
    dropout: float = 0.0

    def sees(self, offset: Tensor) -> Tensor:
        """Whether a key is in sight, bool, by its time less the query's."""
        if self.left is None:
            return torch.ones_like(offset, dtype=torch.bool) if self.right is None else offset <= self.right
        within = offset >= -self.left
        return within if self.right is None else within & (offset <= self.right)


def score(query: Tensor, key: Tensor, additive: Tensor | None, bias: Tensor | None) -> Tensor:
    """How well each key suits each query.

    Args:
        query: (..., queries, E) float.
        key: (..., E, keys).
        additive: The w of the additive score, (..., 1, 1, E); None for the dot product.
        bias: Added to the scores, (..., queries, keys); None for nothing.

    Returns:
        (..., queries, keys).
    """
    if additive is not None:
        scores = (torch.tanh(query[..., :, None, :] + key.transpose(-1, -2)[..., None, :, :]) * additive).sum(dim=-1)
    else:
        scale = 1 / math.sqrt(query.shape[-1])
        if query.ndim == 3 and bias is not None:  # bias and scale in the product's own pass
            if not torch.is_grad_enabled():
                return torch.baddbmm(bias.to(query.dtype), query, key, alpha=scale)
            return torch.baddbmm(bias.to(query.dtype), query * scale, key)  # here the scale of the gradients costs more
        scores = (query * scale) @ key
    return scores if bias is None else scores + bias


def hidden_score(dtype: torch.dtype) -> float:
    """What stands for the score of a key that is not visible: no normaliser leaves anything of it.

    Finite, not -inf: a padded query may see no key at all, and its gradient must still not be NaN. Half of the
    least number: something may be added to it.
    """
    return torch.finfo(dtype).min / 2


def normalise(scores: Tensor, normaliser: str, count: Tensor | None) -> Tensor:
    """Scores -> attention weights.

    Args:
        scores: (..., queries, keys) float, `hidden_score` where a key is not visible.
        normaliser: `softmax`, `relu` or `sigmoid`.
        count: n_t, the visible keys of each query, (..., queries, 1) int, for the latter two.

    Returns:
        Like the scores; 0 where a key is not visible. Rows that see no key at all, those of padding, are finite.
    """
    if count is None:
        return scores.softmax(dim=-1)
    count = count.clamp(min=1).to(scores.dtype)
    return scores.relu() / count if normaliser == "relu" else torch.sigmoid(scores - count.log())
