"""The encoder: how far it sees, frame by frame, and that no utterance sees its neighbours in a batch."""

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from encoder_under_test import INPUT_DIM, SMALL, encoder, reach
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from speechattn.attention import TruncatedSelfAttention
from speechattn.frontend import frame_mask
from speechattn.model.block import VariationalDropout
from speechattn.model.config import ENCODER_PRESETS, EncoderConfig
from speechattn.model.encoder import Encoder


@pytest.mark.parametrize(
    "changes, left, right",
    [
        ({}, 10, 6),  # 2 * (3 + 2), 2 * (1 + 2)
        ({"conv_kernel": 0}, 6, 2),
        ({"conv_kernel": 1}, 6, 2),
        ({"layers": 1}, 5, 3),
        ({"layers": 3, "right": 0, "conv_kernel": 0}, 9, 0),
        ({"left": 0, "right": 0}, 4, 4),
        ({"left": 0, "right": 0, "conv_kernel": 0}, 0, 0),
        ({"position": "none"}, 10, 6),
        ({"position": "learned", "max_positions": 4}, 10, 6),
        ({"position": "relative"}, 10, 6),
        ({"position": "rotary", "heads": 2}, 10, 6),
        ({"score": "additive"}, 10, 6),
        ({"normaliser": "sigmoid", "activation": "swiglu"}, 10, 6),
        ({"activation": "gelu"}, 10, 6),
        ({"context": ((4, 0), (0, 3)), "conv_kernel": 0}, 4, 3),
        ({"context": ((1, 2), (5, 0), (0, 0)), "layers": 3, "conv_kernel": 3}, 9, 5),  # left and right: not used
        ({"context": ((0, 2), (6, 0))}, 10, 6),
        ({"context": ((2, 1), (None, 3)), "conv_kernel": 0}, None, 4),
        ({"context": ((None, 2), (1, None))}, None, None),
        ({"left": None}, None, 6),
        ({"right": None}, 10, None),
        ({"left": None, "right": None, "conv_kernel": 0}, None, None),
        ({"stack": 2}, 21, 13),  # (2 * (3 + 2) + 1) * 2 - 1, ...: to the far end of the last step, from its own far end
        ({"stack": 3, "layers": 1, "conv_kernel": 0}, 11, 5),
        ({"stack": 4, "left": 0, "right": 0, "conv_kernel": 0}, 3, 3),
        ({"stack": 2, "left": None}, None, 13),
        ({"input_context": 4}, 14, 10),
        ({"stack": 2, "input_context": 3}, 24, 16),
    ],
    ids=str,
)
def test_context_is_exactly_what_gradients_reach(changes: dict, left: int | None, right: int | None) -> None:
    body, num_frames = encoder(**changes), 60
    assert (body.left_context, body.right_context) == (left, right)
    assert (body.receptive_field is None) == (left is None or right is None)
    if body.receptive_field is not None:
        assert body.receptive_field == max(map(len, reach(body, num_frames)))
    for t, reached in enumerate(reach(body, num_frames)):
        begin = t - t % body.config.stack  # of the frame's step
        # Unlimited attention on one side still comes after a convolution that sees both.
        first = 0 if left is None else max(0, begin + body.config.stack - 1 - left)
        end = num_frames if right is None else min(num_frames, begin + right + 1)
        assert reached == list(range(first, end))


def test_each_layer_has_its_own_context() -> None:
    context = ((4, 0), (0, None), (None, 2))
    body = encoder(layers=3, context=context)
    assert tuple((block.attention.left, block.attention.right) for block in body.blocks) == context
    same, pairs = encoder(layers=2, context=((3, 1), (3, 1))), encoder(layers=2)
    same.load_state_dict(pairs.state_dict())
    features, lengths = torch.randn(1, 20, INPUT_DIM), torch.tensor([20])
    assert torch.equal(same(features, lengths), pairs(features, lengths))


def test_context_may_come_as_lists() -> None:
    config = dataclasses.replace(SMALL, context=[[16, 4], [None, 0]])
    assert config.context == ((16, 4), (None, 0)) and hash(config) is not None
    assert EncoderConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
    assert EncoderConfig(**json.loads(json.dumps(dataclasses.asdict(SMALL)))) == SMALL


# ------------------------------------------------------------------------------------------------- padding

OPTIONS = [
    {}, {"conv_kernel": 0}, {"left": None, "right": None}, {"position": "none"}, {"context": ((9, 0), (None, 2))},
    {"score": "additive"}, {"normaliser": "relu"}, {"normaliser": "sigmoid"}, {"activation": "gelu"},
    {"activation": "swiglu"}, {"position": "learned", "max_positions": 7}, {"position": "relative"},
    {"position": "rotary", "heads": 2}, {"stack": 2}, {"stack": 3, "position": "learned"},
    {"input_context": 4}, {"stack": 2, "input_context": 3},
]  # fmt: skip


@given(
    lengths=st.lists(st.integers(0, 90), min_size=1, max_size=4),
    changes=st.sampled_from(OPTIONS),
    extra=st.integers(0, 200),
    garbage=st.sampled_from([0.0, 1e3, 1e30, math.inf, math.nan]),
)
def test_batch_equals_alone(lengths: list[int], changes: dict, extra: int, garbage: float) -> None:
    body = encoder(**changes)
    features = torch.full((len(lengths), max(lengths) + extra, INPUT_DIM), garbage)
    for row, length in enumerate(lengths):
        features[row, :length] = torch.randn(length, INPUT_DIM)
    output = body(features, torch.tensor(lengths))
    assert output.shape == (*features.shape[:2], SMALL.dim) and output.isfinite().all()
    for row, length in enumerate(lengths):
        alone = body(features[row : row + 1, :length], torch.tensor([length]))[0]
        torch.testing.assert_close(output[row, :length], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", OPTIONS, ids=str)
@pytest.mark.parametrize("garbage", [0.0, math.nan])
def test_padding_takes_no_part_in_the_gradient(changes: dict, garbage: float) -> None:
    body, lengths = encoder(**changes), torch.tensor([40, 13, 0])
    real = torch.arange(40) < lengths[:, None]
    features = torch.randn(3, 40, INPUT_DIM).masked_fill(~real[..., None], garbage).requires_grad_()
    weight = torch.randn(3, 40, SMALL.dim)
    (body(features, lengths) * weight)[real].sum().backward()
    assert not features.grad[~real].any() and features.grad[real].all()
    in_batch = [parameter.grad.clone() for parameter in body.parameters()]
    body.zero_grad()
    for row, length in enumerate([40, 13]):
        alone = body(features[row : row + 1, :length].detach(), torch.tensor([length]))[0]
        (alone * weight[row, :length]).sum().backward()
    assert all(slope.isfinite().all() for slope in in_batch)
    for slope, parameter in zip(in_batch, body.parameters(), strict=True):
        torch.testing.assert_close(slope, parameter.grad, rtol=1e-3, atol=1e-3)


def test_no_frames_in_no_frames_out() -> None:
    for conv_kernel in (0, 15):
        output = encoder(conv_kernel=conv_kernel)(torch.zeros(2, 0, INPUT_DIM), torch.tensor([0, 0]))
        assert output.shape == (2, 0, SMALL.dim)


# -------------------------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize("activation", ["silu", "gelu", "swiglu"])
def test_feed_forward_by_its_formula(activation: str) -> None:
    module = encoder(activation=activation).double().blocks[0].feed_forward
    norm, first, last = module[0], module[1], module[4]
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, SMALL.dim, dtype=torch.float64)
    for frame, result in zip(x.flatten(0, 1).tolist(), module(x).flatten(0, 1).tolist(), strict=True):
        mean = sum(frame) / SMALL.dim
        deviation = math.sqrt(sum((value - mean) ** 2 for value in frame) / SMALL.dim + norm.eps)
        normal = norm.weight.detach().numpy() * ((np.array(frame) - mean) / deviation) + norm.bias.detach().numpy()
        hidden = first.weight.detach().numpy() @ normal + first.bias.detach().numpy()
        silu = [value / (1 + math.exp(-value)) for value in hidden]
        if activation == "silu":
            active = silu
        elif activation == "gelu":
            active = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in hidden]
        else:  # xW in the first half, xV in the second
            assert len(hidden) == 2 * SMALL.feed_forward
            active = [silu[i] * hidden[SMALL.feed_forward + i] for i in range(SMALL.feed_forward)]
        expected = last.weight.detach().numpy() @ np.array(active) + last.bias.detach().numpy()
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("option, value", [("score", "additive"), ("normaliser", "relu"), ("normaliser", "sigmoid")])
def test_score_and_normaliser_are_the_attentions(option: str, value: str) -> None:
    attention = encoder(**{option: value}, position="none").blocks[1].attention
    same = TruncatedSelfAttention(SMALL.dim, SMALL.heads, left=3, right=1, **{option: value})
    other = TruncatedSelfAttention(SMALL.dim, SMALL.heads, left=3, right=1)
    same.load_state_dict(attention.state_dict())
    other.load_state_dict(attention.state_dict(), strict=False)
    x = torch.randn(1, 20, SMALL.dim)
    assert torch.equal(attention(x), same(x)) and not torch.allclose(attention(x), other(x), atol=1e-4)


def test_saved_models_of_the_default_stay_readable() -> None:
    shapes = {name: tuple(value.shape) for name, value in encoder(layers=1).state_dict().items()}
    assert shapes == {
        "input.weight": (12, 7),
        "input.bias": (12,),
        "blocks.0.attention_norm.weight": (12,),
        "blocks.0.attention_norm.bias": (12,),
        "blocks.0.attention.query_key_value.weight": (36, 12),
        "blocks.0.attention.query_key_value.bias": (36,),
        "blocks.0.attention.output.weight": (12, 12),
        "blocks.0.attention.output.bias": (12,),
        "blocks.0.convolution.norm.weight": (12,),
        "blocks.0.convolution.norm.bias": (12,),
        "blocks.0.convolution.gate.weight": (24, 12),
        "blocks.0.convolution.gate.bias": (24,),
        "blocks.0.convolution.depthwise.weight": (12, 1, 5),
        "blocks.0.convolution.depthwise.bias": (12,),
        "blocks.0.convolution.depthwise_norm.weight": (12,),
        "blocks.0.convolution.depthwise_norm.bias": (12,),
        "blocks.0.convolution.output.weight": (12, 12),
        "blocks.0.convolution.output.bias": (12,),
        "blocks.0.feed_forward.0.weight": (12,),
        "blocks.0.feed_forward.0.bias": (12,),
        "blocks.0.feed_forward.1.weight": (16, 12),
        "blocks.0.feed_forward.1.bias": (16,),
        "blocks.0.feed_forward.4.weight": (12, 16),
        "blocks.0.feed_forward.4.bias": (12,),
        "norm.weight": (12,),
        "norm.bias": (12,),
    }


@pytest.mark.parametrize(
    "name, num_parameters", [("tiny", 96_912), ("small", 496_704), ("base", 1_698_720), ("large", 6_037_248)]
)
def test_presets_have_the_size_that_they_say(name: str, num_parameters: int) -> None:
    config = EncoderConfig.preset(name)
    assert sum(parameter.numel() for parameter in Encoder(39, config).parameters()) == num_parameters
    cells = next(line for line in EncoderConfig.preset.__doc__.splitlines() if f"`{name}`" in line).split("|")
    documented = [int(cell.replace(",", "")) for cell in cells[2:7]]
    assert documented == [config.dim, config.layers, config.heads, config.feed_forward, num_parameters]


def test_an_unknown_preset_is_named() -> None:
    assert list(ENCODER_PRESETS) == ["tiny", "small", "base", "large"]
    with pytest.raises(ValueError, match="preset must be one of tiny, small, base, large, got 'huge'"):
        EncoderConfig.preset("huge")


def test_without_dropout_nothing_is_drawn() -> None:
    body = encoder(dropout=0.0).train()
    before = torch.get_rng_state()
    body(torch.zeros(2, 10, INPUT_DIM), torch.tensor([10, 4]))
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------------------------- dropout


def test_variational_dropout_has_one_mask_for_all_frames() -> None:
    dropout, x = VariationalDropout(0.25).train(), torch.randn(6, 40, 500)
    y = dropout(x)
    mask = y / x
    torch.testing.assert_close(mask, mask[:, :1].expand_as(mask))
    values = mask[:, 0]
    kept = values > 0.5
    torch.testing.assert_close(values, kept / 0.75)  # zero, or made up for what is dropped
    assert kept.float().mean() == pytest.approx(0.75, abs=0.03)
    assert not torch.equal(kept[0], kept[1])  # utterances differ, and so does the next call
    assert not torch.equal(y, dropout(x))


def test_variational_dropout_is_off_in_eval_and_at_zero() -> None:
    x = torch.randn(2, 5, 8)
    assert torch.equal(VariationalDropout(0.5).eval()(x), x)
    assert torch.equal(VariationalDropout(0.0).train()(x), x)


def test_every_branch_goes_through_dropout() -> None:
    body, dropped = encoder(dropout=0.4), []
    for block in body.blocks:
        block.dropout.register_forward_hook(lambda module, arguments, result: dropped.append(module.share))
    body(torch.randn(1, 5, INPUT_DIM), torch.tensor([5]))
    assert dropped == 2 * 3 * [0.4]


def test_only_training_is_random() -> None:
    body = encoder(dropout=0.3, attention_dropout=0.3)
    features, lengths = torch.randn(1, 30, INPUT_DIM), torch.tensor([30])
    assert torch.equal(body(features, lengths), body(features, lengths))
    body.train()
    assert not torch.allclose(body(features, lengths), body(features, lengths), atol=1e-2)


def test_float64_stays_float64() -> None:
    def output(body: Encoder, dtype: torch.dtype) -> Tensor:
        return body.to(dtype)(torch.linspace(-1, 1, 30 * INPUT_DIM).view(1, 30, -1).to(dtype), torch.tensor([30]))

    body = encoder()
    single, double = output(body, torch.float32), output(body, torch.float64)
    assert double.dtype == torch.float64
    np.testing.assert_allclose(single.detach(), double.detach(), atol=1e-4)


# -------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"stack": 0}, "encoder.stack must be at least 1, got 0"),
        ({"input_context": -1}, "encoder.input_context must be 0 or more frames, got -1"),
        ({"dim": 0}, "encoder.dim must be at least 1, got 0"),
        ({"layers": 0}, "encoder.layers must be at least 1, got 0"),
        ({"feed_forward": -1}, "encoder.feed_forward must be at least 1, got -1"),
        ({"conv_kernel": 4}, "encoder.conv_kernel must be odd, or 0 for none, got 4"),
        ({"conv_kernel": -1}, "encoder.conv_kernel must be odd, or 0 for none, got -1"),
        (
            {"position": "alibi"},
            "encoder.position must be one of none, relative, rotary, sinusoidal, learned, got 'alibi'",
        ),
        ({"max_positions": 0}, "encoder.max_positions must be at least 1, got 0"),
        ({"activation": "relu"}, "encoder.activation must be one of silu, gelu, swiglu, got 'relu'"),
        ({"context": ((1, 2),)}, "encoder.context must have a pair for each of the 2 layers, got 1 pairs"),
        ({"context": ((1, 2), (3, 4), (5, 6))}, "pair for each of the 2 layers, got 3 pairs"),
        ({"context": [16, 4]}, r"encoder.context must be pairs of left and right, got \[16, 4\]"),
        ({"context": [[16], [4]]}, r"encoder.context must be pairs of left and right, got \[\[16\], \[4\]\]"),
        ({"context": ((1, 2), (3, -4))}, "right must be 0 or more frames, or None for all, got right=-4"),
        ({"right": 4, "rights": (0, 8)}, r"encoder.rights must lie in 0..4, encoder.right, got \[0, 8\]"),
        ({"right": 4, "rights": (-1, 4)}, r"encoder.rights must lie in 0..4"),
        ({"rights": (1,), "context": ((1, 2), (3, 4))}, "encoder.rights goes with encoder.right"),
        ({"score": "cosine"}, "score must be one of dot, additive, got score='cosine'"),
        ({"normaliser": "none"}, "normaliser must be one of softmax, relu, sigmoid, got normaliser='none'"),
        ({"dropout": 1.0}, r"encoder.dropout must lie in \[0, 1\), got 1.0"),
        ({"heads": 5}, "heads must divide dim, got dim=12 and heads=5"),
        ({"left": -1}, "left must be 0 or more frames"),
        ({"attention_dropout": -0.1}, r"dropout must lie in \[0, 1\)"),
    ],
)
def test_a_setting_out_of_range_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder(**changes)


def test_attention_weights_are_those_of_the_layer_asked_for() -> None:
    encoder = Encoder(3, EncoderConfig(dim=8, layers=2, heads=2, feed_forward=8, left=4, right=1)).double().eval()
    features, frame_lengths = torch.randn(2, 20, 3, dtype=torch.float64), torch.tensor([20, 13])
    seen = []
    for block in encoder.blocks:
        block.attention.register_forward_pre_hook(lambda module, arguments: seen.append((module, arguments[0])))
    encoder(features, frame_lengths)
    for layer, (attention, x) in enumerate(list(seen)):
        weights = encoder.attention_weights(features, frame_lengths, layer)
        assert torch.equal(weights, encoder.attention_weights(features, frame_lengths, layer - 2))
        expected = frame_mask(frame_lengths, 20)[:, None].expand(-1, 2, -1).double()
        torch.testing.assert_close(weights.sum(dim=-1), expected)
        offset = torch.arange(20)[None, :] - torch.arange(20)[:, None]
        assert not weights[..., (offset < -4) | (offset > 1)].any() and not weights[1, :, :13, 13:].any()
        query, key, _ = attention.project(x, torch.arange(20))
        score = (query[0, 1, 10] @ key[0, 1, 6:12].T) / 2  # sqrt of 4 features in a head
        torch.testing.assert_close(weights[0, 1, 10, 6:12], score.softmax(dim=0))


@pytest.mark.parametrize("position", ["sinusoidal", "relative", "rotary"])
@pytest.mark.parametrize("context", [(), ((3, 4), (None, 4))])
def test_a_limited_encoder_is_the_narrower_one(position: str, context: tuple) -> None:
    if position == "relative" and context:
        context = ((3, 4), (2, 4))
    config = EncoderConfig(
        dim=16, layers=2, heads=2, left=3, right=4, context=context, position=position, conv_kernel=3
    )
    wide = Encoder(5, config).eval()
    for block in wide.blocks:
        if position == "relative":
            torch.nn.init.normal_(block.attention.position.offset_bias)
    limited = copy.deepcopy(wide)
    limited.limit_right(2)
    fresh = Encoder(5, limited.config).eval()
    fresh.load_state_dict(limited.state_dict())
    features, lengths = torch.randn(1, 30, 5), torch.tensor([30])
    assert torch.equal(limited(features, lengths), fresh(features, lengths))
    assert not torch.allclose(limited(features, lengths), wide(features, lengths))
    assert limited.right_context == 2 * (2 + 1) and wide.right_context == 2 * (4 + 1)
    with pytest.raises(
        ValueError, match=r"right=3 must be 0 or more, and not above the layers' right contexts, \[2, 2\]"
    ):
        limited.limit_right(3)


def test_training_draws_a_right_context_a_batch_and_eval_has_the_widest() -> None:
    config = EncoderConfig(dim=16, layers=2, heads=2, left=3, right=4, rights=(0, 2, 4), dropout=0.0, conv_kernel=0)
    encoder = Encoder(5, config)
    narrow = {right: copy.deepcopy(encoder) for right in config.rights}
    for right, other in narrow.items():
        other.limit_right(right)
    features, lengths = torch.randn(1, 30, 5), torch.tensor([30])
    drawn = set()
    for seed in range(20):
        torch.manual_seed(seed)
        y = encoder.train()(features, lengths)
        drawn |= {right for right, other in narrow.items() if torch.equal(y, other(features, lengths))}
        assert torch.equal(encoder.eval()(features, lengths), narrow[4].eval()(features, lengths))
        for other in narrow.values():
            other.train()
    assert drawn == {0, 2, 4}
