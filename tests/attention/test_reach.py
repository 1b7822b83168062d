import pytest
import torch
from attention_reference import BLOCK, CONTEXTS, DIM, HEADS, PATHS, TOLERANCE, UNLIMITED, pair, transparent

from speechattn.attention import (
    TruncatedSelfAttention,
)
from speechattn.attention import blocked as blocks


@pytest.mark.parametrize("left, right", CONTEXTS + UNLIMITED)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("num_frames", [1, BLOCK, 2 * BLOCK + 5, 200])
def test_every_query_reaches_exactly_its_context(
    num_frames: int, left: int | None, right: int | None, path: str
) -> None:
    attention = transparent(num_frames, left, right, path)
    weights = attention(torch.eye(num_frames)[None])[0].detach()
    for t in range(num_frames):
        reached = weights[t].nonzero().flatten().tolist()
        first = 0 if left is None else max(0, t - left)
        end = num_frames if right is None else min(num_frames, t + right + 1)
        assert reached == list(range(first, end))
    torch.testing.assert_close(weights.sum(1), torch.ones(num_frames))


@pytest.mark.parametrize("left, right", [(0, 0), (2, 5), (5, 2), (30, 1)])
@pytest.mark.parametrize("path", ["dense", "blocked"])
def test_gradients_reach_exactly_the_context(left: int, right: int, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "block_frames", lambda left, right: 8)
    attention = TruncatedSelfAttention(DIM, HEADS, left=left, right=right, path=path).double()
    x = torch.randn(1, 29, DIM, dtype=torch.float64, requires_grad=True)
    y = attention(x)
    for t in range(29):
        (gradient,) = torch.autograd.grad(y[0, t].sum(), x, retain_graph=True)
        reached = gradient[0].any(dim=1).nonzero().flatten().tolist()
        assert reached == list(range(max(0, t - left), min(29, t + right + 1)))


def test_shifting_the_input_shifts_the_output() -> None:
    for left, right in [(0, 0), (3, 7), (7, 3)]:
        for attention in pair(left, right):
            x = torch.randn(1, 150, DIM)
            whole = attention(x)
            for shift in (1, 5, BLOCK - 1, BLOCK, BLOCK + 1):
                part = attention(x[:, shift:])
                torch.testing.assert_close(part[:, left:], whole[:, shift + left :], **TOLERANCE[torch.float32])
                if left:
                    assert not torch.allclose(part[:, 0], whole[:, shift], atol=1e-3)
