"""Baselines with the encoder's interface: linear, MLP, time-delay network, bidirectional LSTM.

Each gives an utterance the same result alone and in a padded batch: frames past its ends count as zeros or are never
read, and nothing is normalised over a batch or over time.
"""

from typing import NoReturn, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.frontend.masks import take_frames, zero_padding
from speechattn.model.config import BlstmConfig, MlpConfig, TdnnConfig
from speechattn.model.step import Window

__all__ = ["Blstm", "Linear", "Mlp", "Tdnn"]


class Linear(nn.Module):
    """The identity: with the output layer, multinomial logistic regression on single frames."""

    left_context: int | None = 0
    right_context: int | None = 0

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.output_dim = input_dim

    def forward(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, D) -> the same."""
        return features

    def windows(self) -> list[Window]:
        """Its layers as functions of windows, for a stream."""
        return []


class Mlp(nn.Module):
    """A multi-layer perceptron on each frame or on a window of frames around it, zero-padded at the utterance's ends.

    Args:
        input_dim: Features per frame.
        config: The shape.
    """

    def __init__(self, input_dim: int, config: MlpConfig) -> None:
        super().__init__()
        self.config = config
        self.output_dim = config.width
        self.left_context: int | None = config.left
        self.right_context: int | None = config.right
        window = config.left + 1 + config.right
        layers: list[nn.Module] = []
        for index in range(config.layers):
            layers.append(nn.Linear(config.width if index else window * input_dim, config.width))
            layers += [nn.LayerNorm(config.width), nn.ReLU(), nn.Dropout(config.dropout)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, input_dim) and (B,) frames -> (B, T, width)."""
        return self.layers[1:](self.first_layer(features, frame_lengths))

    def first_layer(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
        """The first linear map, applied to windows of frames as a convolution; shapes as for `forward`."""
        first = cast(nn.Linear, self.layers[0])
        features = zero_padding(features, frame_lengths)
        left, right = self.config.left, self.config.right
        if left == right == 0:
            return first(features)
        if features.shape[1] == 0:  # convolutions refuse empty input
            return features.new_zeros(*features.shape[:2], self.output_dim)
        weight = first.weight.unflatten(1, (left + 1 + right, -1)).transpose(1, 2)  # (width, D, window)
        padded = F.pad(features, (0, 0, left, right))
        return F.conv1d(padded.transpose(1, 2), weight, first.bias).transpose(1, 2)

    def windows(self) -> list[Window]:
        """Its layers as functions of windows, for a stream."""
        return [
            Window(self.first_layer, self.config.left, self.config.right),
            Window(lambda x, frame_lengths: self.layers[1:](x)),
        ]


class Tdnn(nn.Module):
    """A time-delay neural network (Waibel et al. 1989; Peddinti et al. 2015): a stack of `TdnnLayer`.

    Args:
        input_dim: Features per frame.
        config: The shape.
    """

    def __init__(self, input_dim: int, config: TdnnConfig) -> None:
        super().__init__()
        self.output_dim = config.width
        self.layers = nn.ModuleList(
            TdnnLayer(config.width if index else input_dim, config.width, kernel, dilation, config.dropout)
            for index, (kernel, dilation) in enumerate(config.layers)
        )
        reach = sum(kernel // 2 * dilation for kernel, dilation in config.layers)
        self.left_context: int | None = reach
        self.right_context: int | None = reach

    def forward(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, input_dim) and (B,) frames -> (B, T, width)."""
        for layer in self.layers:
            features = layer(features, frame_lengths)
        return features

    def windows(self) -> list[Window]:
        """Its layers as functions of windows, for a stream."""
        layers = [cast(TdnnLayer, layer) for layer in self.layers]
        return [Window(layer, layer.reach, layer.reach) for layer in layers]


class TdnnLayer(nn.Module):
    """Dilated convolution over time, layer normalisation, ReLU, dropout; zero-padded at the utterance's ends."""

    def __init__(self, input_dim: int, width: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.reach = kernel // 2 * dilation
        self.convolution = nn.Conv1d(input_dim, width, kernel, dilation=dilation, padding=self.reach)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, input_dim) and (B,) frames -> (B, T, width)."""
        if x.shape[1] == 0:  # convolutions refuse empty input
            return x.new_zeros(*x.shape[:2], self.convolution.out_channels)
        x = zero_padding(x, frame_lengths)
        x = self.convolution(x.transpose(1, 2)).transpose(1, 2)
        return self.dropout(F.relu(self.norm(x)))


class Blstm(nn.Module):
    """A bidirectional LSTM (Graves & Schmidhuber 2005; Graves, Mohamed & Hinton 2013, sec. 2).

    The backward half reads every utterance from its own last frame, so that neither half reads padding first. PyTorch's
    packed sequences give the same but make training on a CPU several times slower.

    Args:
        input_dim: Features per frame.
        config: The shape.
    """

    left_context: int | None = None
    right_context: int | None = None

    def __init__(self, input_dim: int, config: BlstmConfig) -> None:
        super().__init__()
        self.output_dim = 2 * config.width
        dims = [input_dim, *[self.output_dim] * (config.layers - 1)]
        self.forwards = nn.ModuleList(nn.LSTM(dim, config.width, batch_first=True) for dim in dims)
        self.backwards = nn.ModuleList(nn.LSTM(dim, config.width, batch_first=True) for dim in dims)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, input_dim) and (B,) frames -> (B, T, 2 * width)."""
        if features.shape[1] == 0:  # LSTMs refuse empty input
            return features.new_zeros(*features.shape[:2], self.output_dim)
        times = torch.arange(features.shape[1], device=features.device)
        last = frame_lengths[:, None] - 1
        reverse = torch.where(times <= last, last - times, times)  # its own inverse; padding stays in place
        x = zero_padding(features, frame_lengths)
        for index, (forwards, backwards) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            if index:
                x = self.dropout(x)
            ahead, back = forwards(x)[0], backwards(take_frames(x, reverse))[0]
            x = torch.cat([ahead, take_frames(back, reverse)], dim=2)
        return x

    def windows(self) -> NoReturn:
        """Raise ValueError: it needs the whole utterance."""
        raise ValueError("a model of kind 'blstm' cannot stream: it reads the recording from its end, too")
