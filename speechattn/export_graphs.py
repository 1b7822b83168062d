"""The whole model in a form that exports: for any batch and any length, also of less than one frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.classifier import FrameClassifier

__all__ = ["FeatureModel", "WaveformModel"]

# A graph must not ask how many frames there are. So that the body always has some, it gets two more than the input has;
# as padding they change nothing, and are cut off in the end. With two there is neither none nor one, which torch.export
# makes special cases of.
MORE_FRAMES = 2


class WaveformModel(nn.Module):
    """The model from waveforms to logits.

    Args:
        model: The model, in eval mode.
    """

    inputs = {"waveforms": {0: "batch", 1: "samples"}, "lengths": {0: "batch"}}  # with their dynamic axes
    outputs = ("logits", "frame_lengths")

    def __init__(self, model: FrameClassifier) -> None:
        super().__init__()
        self.model = model

    def example(self) -> tuple[Tensor, Tensor]:
        """Input to export with."""
        size = 100 * self.model.frontend.geometry.hop
        return torch.zeros(2, size), torch.tensor([size, size // 2])

    def forward(self, waveforms: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """(B, N) float in [-1, 1] and (B,) samples -> `logits` (B, T, P) or (B, P), `frame_lengths` (B,)."""
        geometry, num_samples = self.model.frontend.geometry, waveforms.shape[1]
        num_frames = torch.sym_min(num_samples // geometry.window, 1) * geometry.windows(num_samples)
        more = geometry.window + (MORE_FRAMES - 1) * geometry.hop
        return _scored(self.model, F.pad(waveforms, (0, more)), lengths, num_frames)


class FeatureModel(nn.Module):
    """The model from ready features to logits, where it has no front end.

    Args:
        model: The model, in eval mode.
    """

    inputs = {"features": {0: "batch", 1: "frames"}, "lengths": {0: "batch"}}
    outputs = ("logits", "frame_lengths")

    def __init__(self, model: FrameClassifier) -> None:
        super().__init__()
        self.model = model

    def example(self) -> tuple[Tensor, Tensor]:
        """Input to export with."""
        return torch.zeros(2, 100, self.model.frontend.dim), torch.tensor([100, 50])

    def forward(self, features: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """(B, T, D) and (B,) frames -> `logits` (B, T, P) or (B, P), `frame_lengths` (B,)."""
        return _scored(self.model, F.pad(features, (0, 0, 0, MORE_FRAMES)), lengths, features.shape[1])


def _scored(
    model: FrameClassifier, inputs: Tensor, lengths: Tensor, num_frames: int | torch.SymInt
) -> dict[str, Tensor]:
    """Logits and frame lengths by name, without the frames that were added."""
    logits, frame_lengths = model(inputs, lengths)
    return {"logits": logits if model.pooling is not None else logits[:, :num_frames], "frame_lengths": frame_lengths}
