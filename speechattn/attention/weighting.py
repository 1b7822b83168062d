"""From queries and keys to attention weights: context, score, normaliser."""

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
    """Settings that turn queries and keys into weights; equations in `TruncatedSelfAttention`.

    Args:
        left: Left context L in frames; None for unlimited.
        right: Right context R in frames; None for unlimited.
        normaliser: `softmax`, `relu` or `sigmoid`.
        additive: (H, E), w of the additive score; None for the dot product.
        position: Its bias is added to the scores.
        dropout: Share of weights dropped, [0, 1).
    """

    left: int | None
    right: int | None
    normaliser: str = "softmax"
    additive: Tensor | None = None
    position: Position = field(default_factory=Position)
    dropout: float = 0.0

    @property
    def is_plain(self) -> bool:
        """Whether this is ordinary softmax attention to all frames, which PyTorch has a fused kernel for."""
        is_biased = type(self.position).bias is not Position.bias
        unlimited = self.left is None and self.right is None
        return unlimited and self.normaliser == "softmax" and self.additive is None and not is_biased

    def sees(self, offset: Tensor) -> Tensor:
        """Whether a key is within the context, bool; `offset` is the key's time minus the query's."""
        if self.left is None:
            return torch.ones_like(offset, dtype=torch.bool) if self.right is None else offset <= self.right
        within = offset >= -self.left
        return within if self.right is None else within & (offset <= self.right)


def score(query: Tensor, key: Tensor, additive: Tensor | None, bias: Tensor | None) -> Tensor:
    """Score of each key for each query, before the normaliser.

    Args:
        query: (..., queries, E) float.
        key: (..., E, keys).
        additive: w of the additive score, (..., 1, 1, E); None for the dot product.
        bias: Added to the scores, (..., queries, keys); None for none.

    Returns:
        (..., queries, keys).
    """
    if additive is not None:
        scores = (torch.tanh(query[..., :, None, :] + key.transpose(-1, -2)[..., None, :, :]) * additive).sum(dim=-1)
    else:
        scale = 1 / math.sqrt(query.shape[-1])
        if query.ndim == 3 and bias is not None:  # one pass over the scores
            if not torch.is_grad_enabled():
                return torch.baddbmm(bias.to(query.dtype), query, key, alpha=scale)
            return torch.baddbmm(bias.to(query.dtype), query * scale, key)  # cheaper gradient
        scores = (query * scale) @ key
    return scores if bias is None else scores + bias


def hidden_score(dtype: torch.dtype) -> float:
    """Score of an invisible key, which every normaliser turns into a weight of 0.

    Finite, so that a padded query without any visible key has no NaN gradient; half the minimum, so that a bias may be
    added.
    """
    return torch.finfo(dtype).min / 2


def normalise(scores: Tensor, normaliser: str, count: Tensor | None) -> Tensor:
    """Scores (..., queries, keys) -> attention weights.

    Args:
        scores: Float, `hidden_score` for invisible keys.
        normaliser: `softmax`, `relu` or `sigmoid`.
        count: (..., queries, 1) int, visible keys n_t of each query, for `relu` and `sigmoid`.

    Returns:
        Like the scores; 0 for invisible keys. Rows of padding, without any visible key, are finite.
    """
    if count is None:
        return scores.softmax(dim=-1)
    count = count.clamp(min=1).to(scores.dtype)
    return scores.relu() / count if normaliser == "relu" else torch.sigmoid(scores - count.log())
