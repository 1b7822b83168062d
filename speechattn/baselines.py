"""What the encoder must beat, behind its interface: bodies that see one frame at a time."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["Linear", "Mlp", "MlpConfig"]


@dataclass(frozen=True)
class MlpConfig:
    """Shape of an `Mlp`.

    Args:
        width: Units of each hidden layer.
        layers: Hidden layers.
        dropout: Share of units dropped in training, [0, 1).

    Raises:
        ValueError: When a field is out of its range.
    """

    width: int = 512
    layers: int = 3
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if self.width < 1 or self.layers < 1:
            raise ValueError(f"mlp.width and mlp.layers must be at least 1, got {self.width} and {self.layers}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"mlp.dropout must lie in [0, 1), got {self.dropout}")


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


class Mlp(nn.Module):
    """A multi-layer perceptron on each frame alone."""

    left_context: int | None = 0
    right_context: int | None = 0

    def __init__(self, input_dim: int, config: MlpConfig) -> None:
        super().__init__()
        self.output_dim = config.width
        layers: list[nn.Module] = []
        for index in range(config.layers):
            layers.append(nn.Linear(config.width if index else input_dim, config.width))
            layers += [nn.LayerNorm(config.width), nn.ReLU(), nn.Dropout(config.dropout)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor, frame_lengths: Tensor) -> Tensor:
        """(B, T, input_dim) -> (B, T, width)."""
        return self.layers(features)
