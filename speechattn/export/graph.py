"""The whole model as an exportable graph, for any batch size and any length, even below one frame."""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.model.baselines import Blstm
from speechattn.model.classifier import FrameClassifier
from speechattn.model.encoder import Encoder

__all__ = ["FeatureModel", "WaveformModel", "with_onnx_lstms"]


class WaveformModel(nn.Module):
    """The model from waveforms to logits; it must be in eval mode."""

    inputs = {"waveforms": {0: "batch", 1: "samples"}, "lengths": {0: "batch"}}  # dynamic axes

    def __init__(self, model: FrameClassifier) -> None:
        super().__init__()
        self.model, self.outputs = model, _outputs(model)

    def example(self) -> tuple[Tensor, Tensor]:
        """Example input for the export."""
        size = 100 * self.model.frontend.geometry.hop
        return torch.zeros(2, size), torch.tensor([size, size // 2])

    def forward(self, waveforms: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """(B, N) float in [-1, 1] and (B,) samples -> `logits` (B, T, P) or (B, P), `frame_lengths` (B,)."""
        geometry = self.model.frontend.geometry
        more = geometry.window + (_more_frames(self.model) - 1) * geometry.hop
        num_frames = geometry.num_frames(torch.full((), waveforms.shape[1]))
        return _scored(self.model, F.pad(waveforms, (0, more)), lengths, num_frames)


class FeatureModel(nn.Module):
    """A model without front end, from ready features to logits; it must be in eval mode."""

    inputs = {"features": {0: "batch", 1: "frames"}, "lengths": {0: "batch"}}

    def __init__(self, model: FrameClassifier) -> None:
        super().__init__()
        self.model, self.outputs = model, _outputs(model)

    def example(self) -> tuple[Tensor, Tensor]:
        """Example input for the export."""
        return torch.zeros(2, 100, self.model.frontend.dim), torch.tensor([100, 50])

    def forward(self, features: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """(B, T, D) and (B,) frames -> `logits` (B, T, P) or (B, P), `frame_lengths` (B,)."""
        num_frames = torch.full((), features.shape[1])
        return _scored(self.model, F.pad(features, (0, 0, 0, _more_frames(self.model))), lengths, num_frames)


def _outputs(model: FrameClassifier) -> dict[str, dict[int, str]]:
    """Names and dynamic axes of the outputs of `_scored`."""
    return {
        "logits": {0: "batch"} if model.pooling is not None else {0: "batch", 1: "frames"},
        "frame_lengths": {0: "batch"},
    }


def _more_frames(model: FrameClassifier) -> int:
    """Number of padding frames added to the input.

    torch.export specialises on sizes 0 and 1; with these frames an encoder always has at least two steps.
    """
    return 2 * (model.body.config.stack if isinstance(model.body, Encoder) else 1)


def _scored(model: FrameClassifier, inputs: Tensor, lengths: Tensor, num_frames: Tensor) -> dict[str, Tensor]:
    """Logits and frame lengths by name; logits only of the first `num_frames`, () int64, without the added frames."""
    logits, frame_lengths = model(inputs, lengths)
    if model.pooling is None:
        count = num_frames.item()  # unknown to torch.export, so it may be 0 or 1
        torch._check(count >= 0)
        torch._check(count <= logits.shape[1])
        logits = logits[:, :count]
    return {"logits": logits, "frame_lengths": frame_lengths}


def with_onnx_lstms(model: FrameClassifier) -> FrameClassifier:
    """Copy of a `blstm` model whose LSTMs export to ONNX for any number of frames; for export only."""
    model = copy.deepcopy(model)
    assert isinstance(model.body, Blstm)
    for layers in (model.body.forwards, model.body.backwards):
        for index, lstm in enumerate(layers):
            layers[index] = _OnnxLstm(cast(nn.LSTM, lstm))
    return model


class _OnnxLstm(nn.Module):
    """ONNX's LSTM in place of PyTorch's (one layer, one direction), which torch.export would unroll over time."""

    input_weights: Tensor
    hidden_weights: Tensor
    biases: Tensor

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.width = lstm.hidden_size
        weights = {name: _onnx_gates(weight) for name, weight in lstm.named_parameters()}
        self.register_buffer("input_weights", weights["weight_ih_l0"])
        self.register_buffer("hidden_weights", weights["weight_hh_l0"])
        self.register_buffer("biases", torch.cat([weights["bias_ih_l0"], weights["bias_hh_l0"]], dim=1))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """(B, T, D) -> (B, T, width), as a tuple like an LSTM's; meaningful only in an export."""
        batch, num_frames, _ = x.shape
        y = torch.onnx.ops.symbolic(
            "LSTM",
            (x.transpose(0, 1), self.input_weights, self.hidden_weights, self.biases),
            {"hidden_size": self.width},
            dtype=x.dtype,
            shape=(num_frames, 1, batch, self.width),  # time, directions, batch, width
        )
        return (y[:, 0].transpose(0, 1),)


def _onnx_gates(weights: Tensor) -> Tensor:
    """(4 * width, ...) with gates in PyTorch's order -> (1, 4 * width, ...) in ONNX's."""
    gate_in, forget, cell, out = weights.detach().chunk(4)
    return torch.cat([gate_in, out, forget, cell])[None]
