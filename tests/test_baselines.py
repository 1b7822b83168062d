"""The bodies without context: each frame's output is a function of that frame alone."""

from __future__ import annotations

import torch

from speechattn.baselines import Linear, Mlp, MlpConfig


def test_linear_is_the_frame_itself() -> None:
    features = torch.randn(2, 5, 7)
    body = Linear(7)
    assert torch.equal(body(features, torch.tensor([5, 3])), features)
    assert body.output_dim == 7 and (body.left_context, body.right_context) == (0, 0)
    assert not list(body.parameters())


def test_mlp_sees_one_frame_at_a_time() -> None:
    body = Mlp(7, MlpConfig(width=12, layers=2)).eval()
    assert body.output_dim == 12 and (body.left_context, body.right_context) == (0, 0)
    features = torch.randn(2, 9, 7, requires_grad=True)
    output = body(features, torch.tensor([9, 4]))
    assert output.shape == (2, 9, 12)
    for t in range(9):
        torch.testing.assert_close(output[:, t], body(features[:, t : t + 1], torch.tensor([1, 1]))[:, 0])
        (gradient,) = torch.autograd.grad(output[0, t].sum(), features, retain_graph=True)
        assert gradient.any(dim=2).nonzero().tolist() == [[0, t]]


def test_mlp_has_the_layers_it_was_asked_for() -> None:
    for layers in (1, 2, 4):
        body = Mlp(7, MlpConfig(width=5, layers=layers))
        shapes = [tuple(parameter.shape) for parameter in body.parameters() if parameter.ndim == 2]
        assert shapes == [(5, 7), *[(5, 5)] * (layers - 1)]


def test_mlp_drops_units_in_training_only() -> None:
    body, features = Mlp(7, MlpConfig(width=50, layers=1, dropout=0.5)), torch.randn(1, 9, 7)
    assert not torch.equal(body.train()(features, None), body(features, None))
    assert torch.equal(body.eval()(features, None), body(features, None))
