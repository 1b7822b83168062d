import math

import numpy as np
import torch
from torch import Tensor, nn

from speechattn.attention import (
    Position,
    RelativeBias,
    Rotary,
    TruncatedSelfAttention,
)

DIM, HEADS = 8, 2


PATHS = ("auto", "dense", "blocked")  # those that run everywhere, forward and backward


TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-5}, torch.float64: {"rtol": 1e-9, "atol": 1e-9}}


CONTEXTS = [(0, 0), (1, 0), (0, 1), (2, 5), (5, 2), (16, 16), (40, 3)]


UNLIMITED = [(None, None), (None, 0), (None, 2), (3, None), (0, None)]


BLOCK = 32  # the longer of the two sizes of blocks


def pair(left: int | None, right: int | None, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """The same weights behind the dense and the blocked path."""
    dense = TruncatedSelfAttention(DIM, HEADS, left=left, right=right, path="dense").to(dtype)
    blocked = TruncatedSelfAttention(DIM, HEADS, left=left, right=right, path="blocked").to(dtype)
    blocked.load_state_dict(dense.state_dict())
    return dense, blocked


def by_loops(attention: TruncatedSelfAttention, x: Tensor, lengths: list[int]) -> np.ndarray:
    """Vaswani et al. 2017, eq. 1, for one query of one head at a time, in float64."""
    weights = {name: value.double().numpy() for name, value in attention.state_dict().items()}
    batch, num_frames, dim = x.shape
    size = dim // attention.heads
    output = np.zeros(x.shape)
    for b in range(batch):
        projected = x[b].double().numpy() @ weights["query_key_value.weight"].T + weights["query_key_value.bias"]
        query, key, value = np.split(projected, 3, axis=1)
        for t in range(lengths[b]):
            first = 0 if attention.left is None else max(t - attention.left, 0)
            last = lengths[b] - 1 if attention.right is None else min(t + attention.right, lengths[b] - 1)
            heads = []
            for h in range(attention.heads):
                own = slice(h * size, (h + 1) * size)
                scores = [
                    score_by_loops(attention, weights, h, query[t, own], key[s, own], t, s)
                    for s in range(first, last + 1)
                ]
                shares = weights_by_loops(attention.normaliser, scores)
                heads.append(sum(share * value[first + i, own] for i, share in enumerate(shares)))
            output[b, t] = weights["output.weight"] @ np.concatenate(heads) + weights["output.bias"]
    return output


def score_by_loops(
    attention: TruncatedSelfAttention, weights: dict, head: int, query: np.ndarray, key: np.ndarray, t: int, s: int
) -> float:
    """The score of key s for query t, E features each."""
    if isinstance(attention.position, Rotary):
        query, key = rotated(query, t), rotated(key, s)
    if attention.additive is None:
        score = sum(q * k for q, k in zip(query, key, strict=True)) / math.sqrt(len(query))
    else:
        terms = zip(weights["additive"][head], query, key, strict=True)
        score = sum(w * math.tanh(q + k) for w, q, k in terms)
    if isinstance(attention.position, RelativeBias):
        score += weights["position.offset_bias"][head, s - t + attention.left]
    return score


def rotated(x: np.ndarray, time: int) -> np.ndarray:
    """Su et al. 2021, eq. 34, pair by pair."""
    result = x.copy()
    for i in range(0, len(x), 2):
        angle = time / 10000 ** (i / len(x))
        result[i] = x[i] * math.cos(angle) - x[i + 1] * math.sin(angle)
        result[i + 1] = x[i] * math.sin(angle) + x[i + 1] * math.cos(angle)
    return result


def weights_by_loops(normaliser: str, scores: list[float]) -> list[float]:
    count = len(scores)
    if normaliser == "relu":
        return [max(score, 0.0) / count for score in scores]
    if normaliser == "sigmoid":
        return [1 / (1 + math.exp(math.log(count) - score)) for score in scores]
    exponentials = [math.exp(score - max(scores)) for score in scores]
    return [e / sum(exponentials) for e in exponentials]


def run(attention: nn.Module, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Output, and the gradients with respect to the input and to every parameter."""
    x = x.clone().requires_grad_()
    y = attention(x, lengths)
    weight = torch.arange(y.numel(), dtype=y.dtype).view(y.shape).cos()
    gradient, *rest = torch.autograd.grad((y * weight).sum(), [x, *attention.parameters()])
    return y.detach(), gradient, rest


def assert_same(one: nn.Module, other: nn.Module, x: Tensor, lengths: Tensor | None = None) -> None:
    tolerance = TOLERANCE[x.dtype]
    (y1, gradient1, rest1), (y2, gradient2, rest2) = run(one, x, lengths), run(other, x, lengths)
    torch.testing.assert_close(y1, y2, **tolerance)
    torch.testing.assert_close(gradient1, gradient2, **tolerance)
    for slope1, slope2 in zip(rest1, rest2, strict=True):  # sums over all frames: relative to their size
        scale = slope1.abs().max().clamp(min=1)
        torch.testing.assert_close(slope1 / scale, slope2 / scale, **tolerance)


def variant(
    score: str, normaliser: str, position: str | Position, path: str, left: int = 5, right: int = 3
) -> nn.Module:
    """A layer in float64 whose parameters all matter."""
    torch.manual_seed(3)
    attention = TruncatedSelfAttention(
        DIM, HEADS, left=left, right=right, path=path, score=score, normaliser=normaliser, position=position
    )
    for name, parameter in attention.named_parameters():
        if name == "position.offset_bias":
            nn.init.normal_(parameter)
    return attention.double()


def transparent(num_frames: int, left: int | None, right: int | None, path: str) -> TruncatedSelfAttention:
    """Attention whose output for one-hot frames is its own matrix of weights."""
    attention = TruncatedSelfAttention(num_frames, 1, left=left, right=right, path=path)
    with torch.no_grad():
        attention.query_key_value.weight[2 * num_frames :] = torch.eye(num_frames)
        attention.query_key_value.bias.zero_()
        attention.output.weight.copy_(torch.eye(num_frames))
        attention.output.bias.zero_()
    return attention
