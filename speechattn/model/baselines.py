"""What the encoder must beat, behind its interface: linear, MLP, time-delay network, bidirectional LSTM.

In each an utterance alone and in a padded batch come out the same: what lies past its ends counts as zero frames, or is
never read, and nothing is normalised over a batch or over time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.frontend.masks import take_frames, zero_padding
from speechattn.frontend.stream import Stage

__all__ = ["Blstm", "BlstmConfig", "Linear", "Mlp", "MlpConfig", "Tdnn", "TdnnConfig"]


@dataclass(frozen=True)
class MlpConfig:
    """Shape of an `Mlp`.

    Args:
        width: Units of each hidden layer.
        layers: Hidden layers.
        dropout: Share of units dropped in training, [0, 1).
        left: Frames of left context that go in along with each frame.
        right: Frames of right context, likewise.

    Raises:
        ValueError: When a field is out of its range.
    """

    width: int = 512
    layers: int = 3
    dropout: float = 0.2
    left: int = 0
    right: int = 0

    def __post_init__(self) -> None:
        if self.width < 1 or self.layers < 1:
            raise ValueError(f"mlp.width and mlp.layers must be at least 1, got {self.width} and {self.layers}")
        if self.left < 0 or self.right < 0:
            raise ValueError(f"mlp.left and mlp.right must be 0 or more frames, got {self.left} and {self.right}")
        _check_dropout("mlp", self.dropout)


@dataclass(frozen=True)
class TdnnConfig:
    """Shape of a `Tdnn`.

    Args:
        width: Units of each layer.
        layers: (kernel, dilation) of each layer, first layer first: how many frames it sees, an odd number, and how far
            these lie apart. A layer reaches kernel // 2 * dilation frames to either side.
        dropout: Share of units dropped in training, [0, 1).

    Raises:
        ValueError: When a field is out of its range.
    """

    width: int = 256
    layers: tuple[tuple[int, int], ...] = ((5, 1), (3, 1), (3, 2), (3, 4), (3, 8), (1, 1))
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"tdnn.width must be at least 1, got {self.width}")
        object.__setattr__(self, "layers", _pairs(self.layers))  # lists, when they come from YAML or JSON
        for kernel, dilation in self.layers:
            if kernel < 1 or kernel % 2 == 0 or dilation < 1:
                raise ValueError(
                    f"tdnn.layers must have an odd kernel and a dilation of at least 1, got {[kernel, dilation]}"
                )
        _check_dropout("tdnn", self.dropout)


@dataclass(frozen=True)
class BlstmConfig:
    """Shape of a `Blstm`.

    Args:
        width: Units of each layer in each direction.
        layers: Number of layers.
        dropout: Share of units dropped between layers in training, [0, 1).

    Raises:
        ValueError: When a field is out of its range.
    """

    width: int = 256
    layers: int = 2
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if self.width < 1 or self.layers < 1:
            raise ValueError(f"blstm.width and blstm.layers must be at least 1, got {self.width} and {self.layers}")
        _check_dropout("blstm", self.dropout)


def _check_dropout(section: str, dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"{section}.dropout must lie in [0, 1), got {dropout}")


def _pairs(layers: Iterable[Iterable[int]]) -> tuple[tuple[int, int], ...]:
    try:
        pairs = tuple((kernel, dilation) for kernel, dilation in layers)
    except (TypeError, ValueError):
        raise ValueError(f"tdnn.layers must be pairs of kernel and dilation, got {layers!r}") from None
    if not pairs:
        raise ValueError("tdnn.layers must have a pair of kernel and dilation for at least one layer")
    return pairs


class Linear(nn.Module):
    """The frame itself: with the output layer on top, multinomial logistic regression."""

    left_context: int | None = 0
    right_context: int | None = 0

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.output_dim = input_dim

    def forward(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, D) -> the same."""
        return features

    def stages(self) -> list[Stage]:
        """What a stream applies to features as they come, one after the other."""
        return []


class Mlp(nn.Module):
    """A multi-layer perceptron on each frame, or on a window of frames around it; past an utterance's ends are zeros.

    Args:
        input_dim: Features of a frame.
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
        return self.layers[1:](self.windows(features, frame_lengths))

    def windows(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
        """The first linear map, of windows of frames in order of time: shapes as for `forward`.

        As a convolution, which does not write out the windows.
        """
        first = cast(nn.Linear, self.layers[0])
        features = zero_padding(features, frame_lengths)
        left, right = self.config.left, self.config.right
        if left == right == 0:
            return first(features)
        if features.shape[1] == 0:  # nothing that a convolution would take
            return features.new_zeros(*features.shape[:2], self.output_dim)
        weight = first.weight.unflatten(1, (left + 1 + right, -1)).transpose(1, 2)  # (width, D, window)
        padded = F.pad(features, (0, 0, left, right))
        return F.conv1d(padded.transpose(1, 2), weight, first.bias).transpose(1, 2)

    def stages(self) -> list[Stage]:
        """What a stream applies to features as they come, one after the other."""
        return [
            Stage(self.windows, self.config.left, self.config.right),
            Stage(lambda x, frame_lengths: self.layers[1:](x)),
        ]


class Tdnn(nn.Module):
    """A time-delay neural network (Waibel et al. 1989; Peddinti et al. 2015): a stack of `TdnnLayer`.

    Args:
        input_dim: Features of a frame.
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

    def stages(self) -> list[Stage]:
        """What a stream applies to features as they come, one after the other."""
        layers = [cast(TdnnLayer, layer) for layer in self.layers]
        return [Stage(layer, layer.reach, layer.reach) for layer in layers]


class TdnnLayer(nn.Module):
    """Dilated convolution over time, normalisation of each frame, ReLU, dropout; past an utterance's ends are zeros.

    Args:
        input_dim: Features of a frame.
        width: Units.
        kernel: Frames that a frame sees, odd.
        dilation: How far these lie apart.
        dropout: Share of units dropped in training.
    """

    def __init__(self, input_dim: int, width: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.reach = kernel // 2 * dilation
        self.convolution = nn.Conv1d(input_dim, width, kernel, dilation=dilation, padding=self.reach)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, input_dim) and (B,) frames -> (B, T, width)."""
        if x.shape[1] == 0:  # nothing that a convolution would take
            return x.new_zeros(*x.shape[:2], self.convolution.out_channels)
        x = zero_padding(x, frame_lengths)
        x = self.convolution(x.transpose(1, 2)).transpose(1, 2)
        return self.dropout(F.relu(self.norm(x)))


class Blstm(nn.Module):
    """A bidirectional LSTM (Graves & Schmidhuber 2005; Graves, Mohamed & Hinton 2013, sec. 2).

    The backward half reads every utterance from its own last frame to its first, so that neither half meets padding
    before it is through. PyTorch's packed sequences give the same, but on a CPU training with them takes several
    times as long.

    Args:
        input_dim: Features of a frame.
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
        if features.shape[1] == 0:  # nothing that an LSTM would take
            return features.new_zeros(*features.shape[:2], self.output_dim)
        times = torch.arange(features.shape[1], device=features.device)
        last = frame_lengths[:, None] - 1
        reverse = torch.where(times <= last, last - times, times)  # its own inverse; padding stays where it is
        x = zero_padding(features, frame_lengths)
        for index, (forwards, backwards) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            if index:
                x = self.dropout(x)
            ahead, back = forwards(x)[0], backwards(take_frames(x, reverse))[0]
            x = torch.cat([ahead, take_frames(back, reverse)], dim=2)
        return x

    def stages(self) -> NoReturn:
        """Nothing to stream with: a ValueError."""
        raise ValueError("a model of kind 'blstm' cannot stream: it also reads the recording from its end")
