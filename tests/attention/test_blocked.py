from typing import Any

import pytest
import torch
from attention_reference import BLOCK, CONTEXTS, DIM, HEADS, TOLERANCE, assert_same, pair
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from speechattn.attention import (
    TruncatedSelfAttention,
)
from speechattn.attention import blocked as blocks
from speechattn.attention import layer as layers


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("left, right", CONTEXTS)
def test_blocked_equals_dense_for_every_length(
    left: int, right: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "block_frames", lambda left, right: 8)
    dense, blocked = pair(left, right, dtype)
    for num_frames in range(1, 3 * 8 + 2):
        assert_same(dense, blocked, torch.randn(2, num_frames, DIM, dtype=dtype))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("left, right", CONTEXTS)
def test_blocked_equals_dense_around_the_real_block(left: int, right: int, dtype: torch.dtype) -> None:
    dense, blocked = pair(left, right, dtype)
    odd = {1, 2, left, right, left + right, left + right + 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 1} - {0}
    for num_frames in odd:
        lengths = torch.tensor([num_frames, num_frames // 2, 0])
        assert_same(dense, blocked, torch.randn(3, num_frames, DIM, dtype=dtype), lengths)


@given(
    num_frames=st.integers(1, 4 * BLOCK),
    left=st.integers(0, 300),
    right=st.integers(0, 300),
    lengths=st.lists(st.integers(0, 4 * BLOCK), min_size=1, max_size=3),
    dtype=st.sampled_from(list(TOLERANCE)),
    seed=st.integers(0, 2**31),
)
def test_blocked_equals_dense_anywhere(
    num_frames: int, left: int, right: int, lengths: list[int], dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    dense, blocked = pair(left, right, dtype)
    x = torch.randn(len(lengths), num_frames, DIM, dtype=dtype)
    assert_same(dense, blocked, x, torch.tensor(lengths).clamp(max=num_frames))


def test_auto_takes_blocks_for_long_input_only(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    for name in ("dense", "blocked"):
        original = getattr(layers, name)
        monkeypatch.setattr(layers, name, lambda *args, name=name, f=original: taken.append(name) or f(*args))
    attention = TruncatedSelfAttention(DIM, HEADS, left=2, right=2)
    for num_frames in (1, 50, 2000):
        attention(torch.randn(1, num_frames, DIM))
    TruncatedSelfAttention(DIM, HEADS, left=None, right=2)(torch.randn(1, 1000, DIM))
    assert taken == ["dense", "dense", "blocked", "dense"]


class MadeTensors(TorchDispatchMode):
    """Notes the largest tensor that is made, and how large all made or written to are together; views are not."""

    largest = 0
    together = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not func.is_view:
            self.largest = max(self.largest, result.untyped_storage().nbytes() // result.itemsize)
            self.together += result.numel()
        return result


def test_memory_of_the_blocked_path_grows_linearly() -> None:
    growth = {}
    for attention in pair(16, 16):
        largest = []
        for num_frames in (10 * BLOCK, 20 * BLOCK):
            with torch.no_grad(), MadeTensors() as made:
                attention(torch.randn(1, num_frames, DIM))
            largest.append(made.largest)
        growth[attention.path] = largest[1] / largest[0]
    assert growth == {"dense": 4.0, "blocked": pytest.approx(2.0, rel=0.05)}


def test_work_of_the_blocked_path_grows_linearly_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "PIECE_FRAMES", BLOCK)  # many pieces, none of which may touch the whole length
    for position in ("none", "relative"):
        attention = TruncatedSelfAttention(DIM, HEADS, left=16, right=16, path="blocked", position=position)
        work = []
        for num_frames in (100 * BLOCK, 200 * BLOCK):
            x = torch.randn(1, num_frames, DIM, requires_grad=True)
            with MadeTensors() as made:
                attention(x).sum().backward()
            work.append(made.together)
        assert work[1] / work[0] == pytest.approx(2.0, rel=0.05)
