"""Truncated self-attention: exact reach, both paths alike, padding without a trace, loops as the judge."""

import copy
import math

import numpy as np
import pytest
import torch
from attention_reference import (
    BLOCK,
    CONTEXTS,
    DIM,
    HEADS,
    PATHS,
    TOLERANCE,
    UNLIMITED,
    assert_same,
    by_loops,
    pair,
    run,
    variant,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from speechattn.attention import (
    NORMALISERS,
    POSITIONS,
    SCORES,
    Position,
    Rotary,
    TruncatedSelfAttention,
    band_mask,
)
from speechattn.attention import blocked as blocks

# ------------------------------------------------------------------------------------------- the equation


@pytest.mark.parametrize("left, right", CONTEXTS + UNLIMITED)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_equals_loops(left: int | None, right: int | None, path: str, dtype: torch.dtype) -> None:
    attention = TruncatedSelfAttention(DIM, HEADS, left=left, right=right, path=path).to(dtype)
    x, lengths = torch.randn(2, BLOCK + 9, DIM, dtype=dtype), [BLOCK + 9, 37]
    expected = by_loops(attention, x, lengths)
    y = attention(x, torch.tensor(lengths)).detach()
    assert y.dtype == dtype
    np.testing.assert_allclose(y.numpy(), expected, **TOLERANCE[dtype])
    everything = copy.copy(attention)
    everything.left = everything.right = None
    if left is not None or right is not None:  # the band is not without effect
        assert not np.allclose(everything(x, torch.tensor(lengths)).detach().numpy(), expected, atol=1e-2)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("score", SCORES)
def test_every_variant_equals_loops_on_both_paths(score: str, normaliser: str, position: str) -> None:
    x, lengths = torch.randn(2, BLOCK + 9, DIM, dtype=torch.float64), [BLOCK + 9, 17]
    expected = by_loops(variant(score, normaliser, position, "dense"), x, lengths)
    for path in ("dense", "blocked"):
        y = variant(score, normaliser, position, path)(x, torch.tensor(lengths)).detach().numpy()
        np.testing.assert_allclose(y, expected, **TOLERANCE[torch.float64])
    plain = variant("dot", "softmax", "none", "dense")
    if (score, normaliser, position) != ("dot", "softmax", "none"):  # the variant is not without effect
        assert not np.allclose(plain(x, torch.tensor(lengths)).detach().numpy(), expected, atol=1e-3)


@settings(max_examples=60)
@given(
    score=st.sampled_from(SCORES),
    normaliser=st.sampled_from(NORMALISERS),
    position=st.sampled_from(POSITIONS),
    left=st.integers(0, 40),
    right=st.integers(0, 40),
    lengths=st.lists(st.integers(0, 3 * BLOCK + 7), min_size=1, max_size=3),
    piece=st.sampled_from([BLOCK, 2 * BLOCK, 2048]),
)
def test_every_variant_and_its_gradients_agree_on_both_paths(
    score: str, normaliser: str, position: str, left: int, right: int, lengths: list[int], piece: int
) -> None:
    dense, blocked = (variant(score, normaliser, position, path, left, right) for path in ("dense", "blocked"))
    x = torch.randn(len(lengths), max(lengths), DIM, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "PIECE_FRAMES", piece)
        assert_same(dense, blocked, x, torch.tensor(lengths))


@pytest.mark.parametrize("path", ["dense", "blocked"])
def test_a_position_module_of_ones_own_fits_in(path: str) -> None:
    class Recent(Position):
        """Prefers near frames, by ALiBi's slopes (Press et al. 2022)."""

        def bias(self, offsets: Tensor) -> Tensor:
            slopes = torch.tensor([0.5, 0.25], dtype=torch.float64)
            return -slopes[:, None, None] * offsets.abs()

    x = torch.randn(1, 70, DIM, dtype=torch.float64)
    attention = variant("dot", "softmax", Recent(), path)
    equal = variant("dot", "softmax", "relative", path)
    equal.position.offset_bias.data = -torch.tensor([[0.5], [0.25]]).double() * torch.arange(-5, 4).abs()
    torch.testing.assert_close(attention(x), equal(x), **TOLERANCE[torch.float64])


def test_rotary_scores_depend_on_the_offset_alone() -> None:
    rotary = Rotary(8)
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def score(t: int, s: int) -> float:
        q, k = rotary.encode(query, torch.tensor([t])), rotary.encode(key, torch.tensor([s]))
        return float((q * k).sum())

    assert score(10**7 + 5, 10**7 + 2) == pytest.approx(score(5, 2), abs=1e-8)
    assert score(5, 2) != pytest.approx(score(5, 3), abs=1e-3)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-6), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize(
    "times",
    [[0], [4095, 4096], range(4000, 8300), [5, 3, 4], range(10**7, 10**7 + 3)],
    ids=["start", "two tables", "three tables", "unordered", "after a day"],
)
def test_rotary_turns_pairs_by_the_angles_of_the_equation(times, dtype: torch.dtype, tolerance: float) -> None:
    x = torch.randn(2, 1, len(times), 6, dtype=dtype)
    rotated = Rotary(6).encode(x, torch.tensor(list(times)))
    assert rotated.dtype == dtype
    for row in sorted({0, len(times) // 2, len(times) - 1}):
        for column in range(0, 6, 2):
            angle = times[row] / 10000 ** (column / 6)
            even, odd = x[..., row, column : column + 2].double().unbind(-1)
            turned = even * math.cos(angle) - odd * math.sin(angle), even * math.sin(angle) + odd * math.cos(angle)
            found = rotated[..., row, column : column + 2].double()
            torch.testing.assert_close(found, torch.stack(turned, dim=-1), rtol=0, atol=tolerance)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("left, right", [(None, None), (30, 30), (None, 29), (1000, None), (29, 29)])
def test_context_over_everything_equals_full_attention(path: str, left: int | None, right: int | None) -> None:
    attention = TruncatedSelfAttention(DIM, HEADS, left=left, right=right, path=path)
    x = torch.randn(3, 30, DIM)
    query, key, value = (
        part.view(3, 30, HEADS, -1).transpose(1, 2) for part in attention.query_key_value(x).chunk(3, dim=2)
    )
    full = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(3, 30, DIM)
    torch.testing.assert_close(attention(x), attention.output(full), **TOLERANCE[torch.float32])
    short = TruncatedSelfAttention(DIM, HEADS, left=28, right=29, path=path)
    short.load_state_dict(attention.state_dict())
    assert not torch.equal(short(x)[:, -1], attention(x)[:, -1])  # one frame less is seen


def test_band_mask_by_its_definition() -> None:
    for left, right in CONTEXTS + UNLIMITED:
        mask = band_mask(12, left, right)
        for t in range(12):
            for s in range(12):
                visible = (left is None or s >= t - left) and (right is None or s <= t + right)
                assert bool(mask[t, s]) == visible


# ------------------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("left, right", [(0, 0), (3, 9), (None, None), (None, 1), (400, 400)])
@pytest.mark.parametrize("garbage", [0.0, 1e4, 1e30, math.inf, math.nan])
def test_padding_leaves_no_trace(path: str, left: int | None, right: int | None, garbage: float) -> None:
    attention = TruncatedSelfAttention(DIM, HEADS, left=left, right=right, path=path)
    lengths, num_frames = [0, 1, 17, 64, 200, 230], 230
    x = torch.randn(len(lengths), num_frames, DIM)
    for row, length in enumerate(lengths):
        x[row, length:] = garbage
    y, gradient, rest = run(attention, x, torch.tensor(lengths))
    assert all(part.isfinite().all() for part in (y, gradient, *rest))
    for row, length in enumerate(lengths):
        assert not y[row, length:].any() and not gradient[row, length:].any()
        if length:
            alone = attention(x[row : row + 1, :length])[0]
            torch.testing.assert_close(y[row, :length], alone, **TOLERANCE[torch.float32])
            assert y[row, :length].any() and gradient[row, :length].any()


@pytest.mark.parametrize("path", PATHS)
def test_nothing_but_padding_is_zero_with_finite_gradients(path: str) -> None:
    attention = TruncatedSelfAttention(DIM, HEADS, left=2, right=2, path=path)
    y, gradient, rest = run(attention, torch.randn(2, 80, DIM), torch.zeros(2, dtype=torch.int64))
    assert not y.any() and not gradient.any() and all(not slope.any() for slope in rest)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", [(2, 0, DIM), (0, 5, DIM), (0, 0, DIM)])
def test_empty_input_gives_empty_output(path: str, shape: tuple[int, int, int]) -> None:
    attention = TruncatedSelfAttention(DIM, HEADS, left=2, right=2, path=path)
    assert attention(torch.zeros(shape)).shape == shape
    assert attention(torch.zeros(shape), torch.zeros(shape[0], dtype=torch.int64)).shape == shape


# ------------------------------------------------------------------------------------ being a good module


@pytest.mark.parametrize("score, normaliser, position", [("dot", "softmax", "none"), ("additive", "relu", "relative")])
def test_an_exported_graph_takes_any_length(score: str, normaliser: str, position: str) -> None:
    attention = variant(score, normaliser, position, "auto")
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    example = torch.randn(2, 100, DIM, dtype=torch.float64), torch.tensor([100, 60])
    graph = torch.export.export(attention, example, dynamic_shapes=(sizes, {0: torch.export.Dim.DYNAMIC})).module()
    for lengths in ([70, 33, 0], [3, 2], [200, 129, 1, 64]):
        x, frame_lengths = torch.randn(len(lengths), max(lengths), DIM, dtype=torch.float64), torch.tensor(lengths)
        torch.testing.assert_close(graph(x, frame_lengths), attention(x, frame_lengths), **TOLERANCE[torch.float64])


def test_every_path_has_the_same_parameters() -> None:
    shapes = [
        {name: value.shape for name, value in attention.state_dict().items()}
        for path in PATHS
        for attention in (
            TruncatedSelfAttention(DIM, HEADS, path=path),
            TruncatedSelfAttention(DIM, HEADS, left=None, right=0, path=path),
        )
    ]
    assert shapes[0] and all(shape == shapes[0] for shape in shapes)


@pytest.mark.parametrize("path", ["dense", "blocked"])
def test_dropout_is_for_training_only(path: str) -> None:
    attention = TruncatedSelfAttention(DIM, HEADS, left=4, right=4, dropout=0.5, path=path)
    x = torch.randn(1, 100, DIM)
    plain = attention.eval()(x)
    assert torch.equal(plain, attention(x))
    attention.train()
    assert not torch.allclose(plain, attention(x), atol=1e-2)
    mean = torch.stack([attention(x) for _ in range(400)]).mean(0)
    torch.testing.assert_close(mean, plain, rtol=0, atol=0.15)  # dropped weights are made up for
    attention.dropout = 0.0
    torch.testing.assert_close(attention(x), plain)


def test_dropout_and_its_gradient_drop_the_same_weights() -> None:
    """The blocked path makes its scores again for the gradient: the slope of the result, by differences."""
    attention = TruncatedSelfAttention(DIM, HEADS, left=9, right=4, dropout=0.3, path="blocked").double()
    x = torch.randn(2, 3 * BLOCK + 5, DIM, dtype=torch.float64, requires_grad=True)

    def result(x: Tensor) -> Tensor:
        torch.manual_seed(5)
        return (attention(x) ** 2).sum()

    (gradient,) = torch.autograd.grad(result(x), x)
    for _ in range(3):
        step = 1e-6 * torch.randn_like(x)
        difference = (result(x + step) - result(x - step)).item() / 2
        assert difference == pytest.approx((gradient * step).sum().item(), rel=1e-5)
    torch.manual_seed(6)
    assert abs((attention(x) ** 2).sum() - result(x)) > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_reaches_the_gradient(dtype: torch.dtype) -> None:
    dense, blocked = pair(9, 4)
    x = torch.randn(1, 3 * BLOCK + 5, DIM)
    slopes = {}
    for attention in (dense, blocked):
        with torch.autocast("cpu", dtype):
            y = attention(x)
        assert y.dtype == dtype
        (slopes[attention.path],) = torch.autograd.grad(y.float().sum(), attention.query_key_value.weight)
        exact = torch.autograd.grad(attention(x).sum(), attention.query_key_value.weight)[0]
        torch.testing.assert_close(slopes[attention.path], exact, rtol=0.1, atol=0.1 * float(exact.abs().max()))
    with torch.inference_mode(), torch.autocast("cpu", dtype):
        assert blocked(x).dtype == dtype


def test_the_blocked_path_is_not_differentiated_twice() -> None:
    x = torch.randn(1, 100, DIM, requires_grad=True)
    attention = TruncatedSelfAttention(DIM, HEADS, left=3, right=3, path="blocked")
    (gradient,) = torch.autograd.grad((attention(x) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"heads": 3}, "heads must divide dim, got dim=8 and heads=3"),
        ({"heads": 0}, "heads=0"),
        ({"left": -1}, "left must be 0 or more frames, or None for all, got left=-1"),
        ({"right": -2}, "right must be .*got right=-2"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got dropout=1.0"),
        ({"dropout": -0.1}, "got dropout=-0.1"),
        ({"path": "sparse"}, "path must be one of auto, dense, blocked, got path='sparse'"),
        ({"score": "cosine"}, "score must be one of dot, additive, got score='cosine'"),
        ({"normaliser": "max"}, "normaliser must be one of softmax, relu, sigmoid, got normaliser='max'"),
        ({"position": "clock"}, "position must be one of none, relative, rotary or a Position module, got 'clock'"),
        ({"position": "relative", "right": None}, "position 'relative' needs a limited context on both sides"),
        ({"position": "rotary", "heads": 8}, "rotary positions need an even number of features per head, got 1"),
    ],
)
def test_an_argument_out_of_range_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TruncatedSelfAttention(**{"dim": DIM, "heads": HEADS, **arguments})


@pytest.mark.parametrize("shape", [(5, DIM), (1, 5, DIM + 1), (1, 1, 5, DIM)])
def test_input_of_another_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x must be \(B, T, 8\), got"):
        TruncatedSelfAttention(DIM, HEADS)(torch.zeros(shape))
