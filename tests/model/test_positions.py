import math

import pytest
import torch
from encoder_under_test import INPUT_DIM, SMALL, encoder
from torch import Tensor

from speechattn.attention import TruncatedSelfAttention
from speechattn.model.encoder import sinusoidal_positions


@pytest.mark.parametrize("num_frames, dim", [(1, 2), (50, 8), (50, 7), (3, 1), (1500, 16)])
def test_positions_equal_the_formula(num_frames: int, dim: int) -> None:
    positions = sinusoidal_positions(torch.arange(num_frames), dim)
    assert positions.shape == (num_frames, dim) and positions.dtype == torch.float64
    for t in range(num_frames):
        for d in range(dim):
            angle = t / 10000 ** (2 * (d // 2) / dim)
            expected = math.sin(angle) if d % 2 == 0 else math.cos(angle)
            assert abs(float(positions[t, d]) - expected) < 1e-12


@pytest.mark.parametrize("position", ["none", "sinusoidal", "learned", "relative", "rotary"])
def test_what_positions_add_to_the_input(position: str) -> None:
    body, features = encoder(position=position, heads=2, max_positions=5), torch.randn(2, 13, INPUT_DIM)
    entered: list[Tensor] = []
    body.blocks[0].register_forward_pre_hook(lambda block, arguments: entered.append(arguments[0]))
    body(features, torch.tensor([13, 13]))
    for row in range(2):
        for t in range(13):
            expected = body.input.weight @ features[row, t] + body.input.bias
            if position == "sinusoidal":
                expected = expected + sinusoidal_positions(torch.arange(13), SMALL.dim)[t].float()
            elif position == "learned":
                expected = expected + body.positions.weight[t % 5]
            torch.testing.assert_close(entered[0][row, t], expected, rtol=1e-5, atol=1e-5)
    handed = position if position in ("relative", "rotary") else "none"
    plain = TruncatedSelfAttention(SMALL.dim, 2, left=3, right=1, position=handed)
    assert repr(body.blocks[1].attention) == repr(plain)
    assert body.blocks[1].attention.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("position", ["none", "sinusoidal", "learned"])
def test_embedding_goes_by_the_times_given(position: str) -> None:
    body, features = encoder(position=position, max_positions=5), torch.randn(2, 13, INPUT_DIM)
    whole = body.embed(features, torch.arange(13))
    pieces = [body.embed(features[:, a:b], torch.arange(a, b)) for a, b in ((0, 4), (4, 4), (4, 13))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)


@pytest.mark.parametrize(
    "position, alike", [("none", True), ("relative", True), ("rotary", True), ("sinusoidal", False), ("learned", False)]
)
def test_only_positions_in_the_input_tell_where_the_recording_began(position: str, alike: bool) -> None:
    features, shift = torch.randn(1, 80, INPUT_DIM), 9
    body = encoder(position=position, heads=2)
    if position == "learned":
        torch.nn.init.normal_(body.positions.weight)
    whole = body(features, torch.tensor([80]))[0, shift + body.left_context :]
    part = body(features[:, shift:], torch.tensor([80 - shift]))[0, body.left_context :]
    assert torch.allclose(whole, part, atol=1e-4) == alike


@pytest.mark.parametrize("position", ["sinusoidal", "learned"])
def test_training_starts_every_utterance_at_a_random_time(position: str) -> None:
    body, features = encoder(position=position, max_positions=50), torch.randn(1, 13, INPUT_DIM).expand(2, -1, -1)
    lengths = torch.tensor([13, 13])
    entered: list[Tensor] = []
    body.blocks[0].register_forward_pre_hook(lambda block, arguments: entered.append(arguments[0]))
    body.train()(features, lengths)
    body(features, lengths)
    starts = set()
    period = 65536 if position == "sinusoidal" else 50
    for x in (*entered[0], *entered[1]):
        expected = body.embed(features[:1], torch.arange(period)[:, None] + torch.arange(13)).squeeze()
        matching = (expected - x).abs().amax(dim=(1, 2)) < 1e-4
        starts.add(int(matching.nonzero()[0]))
    assert len(starts) == 4  # fails by chance once in ten with 50 rows; the seed is fixed
    assert torch.equal(body.eval()(features, lengths), body(features, lengths))


@pytest.mark.parametrize("position", ["relative", "rotary"])
def test_positions_in_the_layers_tell_the_order(position: str) -> None:
    body = encoder(position=position, heads=2, layers=1, left=30, right=30, conv_kernel=0)
    for name, parameter in body.named_parameters():
        if "position" in name:
            torch.nn.init.normal_(parameter)
    features, lengths = torch.randn(1, 12, INPUT_DIM), torch.tensor([12])
    order = torch.cat([torch.tensor([0]), 1 + torch.randperm(11)])
    assert not torch.allclose(body(features, lengths)[0, 0], body(features[:, order], lengths)[0, 0], atol=1e-4)
    body = encoder(position="none", layers=1, left=30, right=30, conv_kernel=0)
    assert torch.allclose(body(features, lengths)[0, 0], body(features[:, order], lengths)[0, 0], atol=1e-4)
