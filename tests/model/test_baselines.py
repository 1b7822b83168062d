"""The baselines: each equals its formula by loops, sees exactly what it says, and no utterance sees its neighbours."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from speechattn.model.baselines import Blstm, Linear, Mlp, Tdnn
from speechattn.model.config import BlstmConfig, MlpConfig, TdnnConfig

INPUT_DIM = 3
EXACT = {"rtol": 1e-9, "atol": 1e-9}
MLP = MlpConfig(width=6, layers=2, dropout=0.0, left=2, right=1)
TDNN = TdnnConfig(width=6, layers=((5, 1), (3, 2), (1, 1)), dropout=0.0)
BLSTM = BlstmConfig(width=4, layers=2, dropout=0.0)


def mlp(**changes: object) -> Mlp:
    return Mlp(INPUT_DIM, dataclasses.replace(MLP, **changes))


def tdnn(**changes: object) -> Tdnn:
    return Tdnn(INPUT_DIM, dataclasses.replace(TDNN, **changes))


def blstm(**changes: object) -> Blstm:
    return Blstm(INPUT_DIM, dataclasses.replace(BLSTM, **changes))


BODIES = {
    "linear": lambda: Linear(INPUT_DIM),
    "mlp": lambda: mlp(left=0, right=0),
    "window": mlp,
    "window, left": lambda: mlp(right=0, layers=1),
    "tdnn": tdnn,
    "tdnn, wide": lambda: tdnn(layers=((3, 7), (3, 9))),
    "blstm": blstm,
    "blstm, three layers": lambda: blstm(layers=3),
}
LEARNED = [name for name in BODIES if name != "linear"]


def randomised(body: nn.Module) -> nn.Module:
    """Float64, eval mode, and parameters that all matter, also those that begin at 0 or 1."""
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.5)
    return body.double().eval()


def of_length(num_frames: int) -> Tensor:
    return torch.tensor([num_frames])


# ------------------------------------------------------------------------------------------- the formulas by loops


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}


def normalised(x: np.ndarray, norm: dict[str, np.ndarray]) -> np.ndarray:
    """Layer normalisation of one frame."""
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * norm["weight"] + norm["bias"]


def frame_at(x: np.ndarray, t: int) -> np.ndarray:
    """A frame, or zeros where there is none."""
    return x[t] if 0 <= t < len(x) else np.zeros(x.shape[1])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("left, right, layers", [(0, 0, 2), (2, 1, 2), (0, 4, 1), (5, 0, 3)])
def test_mlp_by_its_formula(left: int, right: int, layers: int) -> None:
    body, features = randomised(mlp(left=left, right=right, layers=layers)), np.random.randn(7, INPUT_DIM)
    expected = []
    for t in range(7):
        x = np.concatenate([frame_at(features, t + offset) for offset in range(-left, right + 1)])
        for layer in range(layers):
            linear, norm = arrays(body.layers[4 * layer]), arrays(body.layers[4 * layer + 1])
            x = np.maximum(normalised(linear["weight"] @ x + linear["bias"], norm), 0)
        expected.append(x)
    output = body(torch.from_numpy(features)[None], of_length(7))[0]
    np.testing.assert_allclose(output.detach(), expected, **EXACT)


@pytest.mark.parametrize("layers", [((1, 1),), ((3, 1),), ((5, 1), (3, 2), (1, 1)), ((3, 4), (5, 3))])
def test_tdnn_by_its_formula(layers: tuple[tuple[int, int], ...]) -> None:
    body, x = randomised(tdnn(layers=layers)), np.random.randn(9, INPUT_DIM)
    output = body(torch.from_numpy(x)[None], of_length(9))[0]
    for (kernel, dilation), layer in zip(layers, body.layers, strict=True):
        taps, rows = arrays(layer.convolution), []
        for t in range(len(x)):
            total = taps["bias"]
            for tap in range(kernel):
                total = total + taps["weight"][:, :, tap] @ frame_at(x, t + dilation * (tap - kernel // 2))
            rows.append(np.maximum(normalised(total, arrays(layer.norm)), 0))
        x = np.array(rows)
    np.testing.assert_allclose(output.detach(), x, **EXACT)


def lstm_by_loops(lstm: nn.LSTM, x: np.ndarray) -> np.ndarray:
    """Graves, Mohamed & Hinton 2013, eq. 3 to 7, without peepholes."""
    weights, width = arrays(lstm), lstm.hidden_size
    hidden, cell, rows = np.zeros(width), np.zeros(width), []
    for frame in x:
        gates = weights["weight_ih_l0"] @ frame + weights["weight_hh_l0"] @ hidden
        gates = (gates + weights["bias_ih_l0"] + weights["bias_hh_l0"]).reshape(4, width)
        cell = sigmoid(gates[1]) * cell + sigmoid(gates[0]) * np.tanh(gates[2])
        hidden = sigmoid(gates[3]) * np.tanh(cell)
        rows.append(hidden)
    return np.array(rows)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_blstm_by_its_formula(layers: int) -> None:
    body, x = randomised(blstm(layers=layers)), np.random.randn(8, INPUT_DIM)
    output = body(torch.from_numpy(x)[None], of_length(8))[0]
    for forwards, backwards in zip(body.forwards, body.backwards, strict=True):
        x = np.concatenate([lstm_by_loops(forwards, x), lstm_by_loops(backwards, x[::-1])[::-1]], axis=1)
    np.testing.assert_allclose(output.detach(), x, **EXACT)


def test_blstm_equals_packed_sequences() -> None:
    body, lengths = randomised(blstm()), torch.tensor([9, 1, 12, 5])
    packed = nn.LSTM(INPUT_DIM, BLSTM.width, BLSTM.layers, batch_first=True, bidirectional=True).double()
    for layer in range(BLSTM.layers):
        for lstms, suffix in ((body.forwards, ""), (body.backwards, "_reverse")):
            for name, parameter in lstms[layer].named_parameters():
                getattr(packed, name.replace("_l0", f"_l{layer}{suffix}")).data.copy_(parameter.data)
    features = torch.randn(4, 12, INPUT_DIM, dtype=torch.float64)
    sequences = nn.utils.rnn.pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(packed(sequences)[0], batch_first=True)
    real = torch.arange(12) < lengths[:, None]
    torch.testing.assert_close(body(features, lengths)[real], expected[real], **EXACT)


def test_linear_is_the_frame_itself() -> None:
    features = torch.randn(2, 5, INPUT_DIM)
    body = Linear(INPUT_DIM)
    assert torch.equal(body(features, torch.tensor([5, 3])), features)
    assert body.output_dim == INPUT_DIM and not list(body.parameters())


# --------------------------------------------------------------------------------------------------------- context


@pytest.mark.parametrize(
    "name, left, right",
    [
        ("linear", 0, 0),
        ("mlp", 0, 0),
        ("window", 2, 1),
        ("window, left", 2, 0),
        ("tdnn", 4, 4),  # 2 + 2 + 0
        ("tdnn, wide", 16, 16),
        ("blstm", None, None),
        ("blstm, three layers", None, None),
    ],
)
def test_context_is_exactly_what_gradients_reach(name: str, left: int | None, right: int | None) -> None:
    body, num_frames = randomised(BODIES[name]()), 12 if left is None else 40
    assert (body.left_context, body.right_context) == (left, right)
    features = torch.randn(1, num_frames, INPUT_DIM, dtype=torch.float64, requires_grad=True)
    output = body(features, of_length(num_frames))
    assert output.shape == (1, num_frames, body.output_dim)
    widest = set()
    for t in range(num_frames):
        (gradient,) = torch.autograd.grad(output[0, t].square().sin().sum(), features, retain_graph=True)
        reached = gradient[0].any(dim=1).nonzero().flatten().tolist()
        first = 0 if left is None else max(0, t - left)
        last = num_frames - 1 if right is None else min(num_frames - 1, t + right)
        assert first <= min(reached) and max(reached) <= last
        widest.update(frame - t for frame in reached)
    assert min(widest) == (1 - num_frames if left is None else -left)
    assert max(widest) == (num_frames - 1 if right is None else right)


# --------------------------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize("name", LEARNED)
def test_batch_equals_alone(name: str) -> None:
    body = randomised(BODIES[name]())

    @given(
        lengths=st.lists(st.integers(0, 25), min_size=1, max_size=4),
        extra=st.integers(0, 25),
        garbage=st.sampled_from([0.0, 1e3, 1e30, math.inf, math.nan]),
    )
    def check(lengths: list[int], extra: int, garbage: float) -> None:
        features = torch.full((len(lengths), max(lengths) + extra, INPUT_DIM), garbage, dtype=torch.float64)
        for row, length in enumerate(lengths):
            features[row, :length] = torch.randn(length, INPUT_DIM)
        output = body(features, torch.tensor(lengths))
        assert output.shape == (*features.shape[:2], body.output_dim) and output.isfinite().all()
        for row, length in enumerate(lengths):
            alone = body(features[row : row + 1, :length], of_length(length))[0]
            torch.testing.assert_close(output[row, :length], alone, **EXACT)

    check()


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("garbage", [0.0, math.nan])
def test_padding_takes_no_part_in_the_gradient(name: str, garbage: float) -> None:
    body, lengths = randomised(BODIES[name]()), torch.tensor([30, 13, 0])
    real = torch.arange(30) < lengths[:, None]
    features = torch.randn(3, 30, INPUT_DIM, dtype=torch.float64)
    features = features.masked_fill(~real[..., None], garbage).requires_grad_()
    weight = torch.randn(3, 30, body.output_dim, dtype=torch.float64)
    (body(features, lengths) * weight)[real].sum().backward()
    assert not features.grad[~real].any() and features.grad[real].any()
    in_batch = [parameter.grad.clone() for parameter in body.parameters()]
    body.zero_grad()
    for row, length in enumerate([30, 13]):
        alone = body(features[row : row + 1, :length].detach(), of_length(length))[0]
        (alone * weight[row, :length]).sum().backward()
    for slope, parameter in zip(in_batch, body.parameters(), strict=True):
        assert slope.isfinite().all()
        torch.testing.assert_close(slope, parameter.grad, **EXACT)


@pytest.mark.parametrize("name", BODIES)
def test_no_frames_in_no_frames_out(name: str) -> None:
    body = BODIES[name]()
    for batch in (1, 2):
        output = body(torch.zeros(batch, 0, INPUT_DIM), torch.zeros(batch, dtype=torch.int64))
        assert output.shape == (batch, 0, body.output_dim)


# ---------------------------------------------------------------------------------------------------------- shapes


def test_a_saved_mlp_without_window_stays_readable() -> None:
    shapes = {name: tuple(value.shape) for name, value in mlp(left=0, right=0).state_dict().items()}
    assert shapes == {
        "layers.0.weight": (6, 3),
        "layers.0.bias": (6,),
        "layers.1.weight": (6,),
        "layers.1.bias": (6,),
        "layers.4.weight": (6, 6),
        "layers.4.bias": (6,),
        "layers.5.weight": (6,),
        "layers.5.bias": (6,),
    }


def test_bodies_have_the_layers_they_were_asked_for() -> None:
    def matrices(body: nn.Module) -> list[tuple[int, ...]]:
        return [tuple(parameter.shape) for parameter in body.parameters() if parameter.ndim > 1]

    for layers in (1, 2, 4):
        assert matrices(mlp(layers=layers)) == [(6, 4 * INPUT_DIM), *[(6, 6)] * (layers - 1)]
        of_direction = [(16, INPUT_DIM), (16, 4), *[(16, 8), (16, 4)] * (layers - 1)]
        assert matrices(blstm(layers=layers)) == 2 * of_direction
    assert matrices(tdnn()) == [(6, INPUT_DIM, 5), (6, 6, 3), (6, 6, 1)]


@pytest.mark.parametrize(
    "body", [mlp(width=50, dropout=0.5), tdnn(width=50, dropout=0.5), blstm(width=50, dropout=0.5)], ids=repr
)
def test_units_are_dropped_in_training_only(body: nn.Module) -> None:
    features, lengths = torch.randn(1, 9, INPUT_DIM), of_length(9)
    assert not torch.equal(body.train()(features, lengths), body(features, lengths))
    assert torch.equal(body.eval()(features, lengths), body(features, lengths))


def test_one_layer_of_lstm_has_nothing_between_layers_to_drop() -> None:
    body, features = blstm(layers=1, dropout=0.5).train(), torch.randn(1, 9, INPUT_DIM)
    assert torch.equal(body(features, of_length(9)), body(features, of_length(9)))


@pytest.mark.parametrize("name", LEARNED)
def test_mixed_precision_is_close_and_learns(name: str) -> None:
    body = BODIES[name]().train()
    features, lengths = torch.randn(3, 20, INPUT_DIM), torch.tensor([20, 11, 0])
    real = torch.arange(20) < lengths[:, None]
    exact = body(features, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = body(features, lengths)
    torch.testing.assert_close(output.float()[real], exact[real], rtol=0.05, atol=0.05)
    output.float()[real].square().sum().backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in body.parameters())


# ---------------------------------------------------------------------------------------------------------- errors


def test_layers_may_come_as_lists() -> None:
    config = dataclasses.replace(TDNN, layers=[[5, 1], [3, 2]])
    assert config.layers == ((5, 1), (3, 2)) and hash(config) is not None
    for config in (MLP, TDNN, BLSTM):
        assert type(config)(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    "build, changes, message",
    [
        (mlp, {"width": 0}, "mlp.width and mlp.layers must be at least 1, got 0 and 2"),
        (mlp, {"layers": 0}, "mlp.width and mlp.layers must be at least 1, got 6 and 0"),
        (mlp, {"left": -1}, "mlp.left and mlp.right must be 0 or more frames, got -1 and 1"),
        (mlp, {"right": -3}, "mlp.left and mlp.right must be 0 or more frames, got 2 and -3"),
        (mlp, {"dropout": 1.0}, r"mlp.dropout must lie in \[0, 1\), got 1.0"),
        (tdnn, {"width": 0}, "tdnn.width must be at least 1, got 0"),
        (tdnn, {"layers": ()}, "tdnn.layers must have a pair of kernel and dilation for at least one layer"),
        (tdnn, {"layers": [3, 1]}, r"tdnn.layers must be pairs of kernel and dilation, got \[3, 1\]"),
        (tdnn, {"layers": [[3]]}, r"tdnn.layers must be pairs of kernel and dilation, got \[\[3\]\]"),
        (tdnn, {"layers": [[3, 1], [4, 1]]}, r"an odd kernel and a dilation of at least 1, got \[4, 1\]"),
        (tdnn, {"layers": [[-1, 1]]}, r"an odd kernel and a dilation of at least 1, got \[-1, 1\]"),
        (tdnn, {"layers": [[3, 0]]}, r"an odd kernel and a dilation of at least 1, got \[3, 0\]"),
        (tdnn, {"dropout": -0.1}, r"tdnn.dropout must lie in \[0, 1\), got -0.1"),
        (blstm, {"width": 0}, "blstm.width and blstm.layers must be at least 1, got 0 and 2"),
        (blstm, {"layers": -1}, "blstm.width and blstm.layers must be at least 1, got 4 and -1"),
        (blstm, {"dropout": 1.5}, r"blstm.dropout must lie in \[0, 1\), got 1.5"),
    ],
)
def test_a_setting_out_of_range_is_named(build, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**changes)
