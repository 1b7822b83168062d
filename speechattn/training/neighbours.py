"""A second task in training: tell also the phone before and the phone after the one that is on.

A model that must know its phone's neighbours learns how context colours a phone (Seltzer & Droppo, "Multi-task learning
in deep neural networks for improved phoneme recognition", 2013). The task's output layer does not stay in the model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.frontend import LogMelTransform
from speechattn.model.classifier import FrameClassifier, single_precision
from speechattn.phones import IGNORED

__all__ = ["WithNeighbours", "neighbour_labels"]


class WithNeighbours(nn.Module):
    """A model, and an output layer more for the phones before and after.

    Args:
        model: Without pooling; it learns along, and stays as it is otherwise.
    """

    def __init__(self, model: FrameClassifier) -> None:
        super().__init__()
        self.model = model
        self.output = nn.Linear(model.body.output_dim, 2 * len(model.phones))

    def forward(
        self, waveforms: Tensor, lengths: Tensor, *, log_mel_transform: LogMelTransform | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score every phone for every frame, and for its neighbours.

        Args:
            waveforms: As for `FrameClassifier.forward`.
            lengths: Likewise.
            log_mel_transform: Likewise.

        Returns:
            (logits, neighbours, frame_lengths): (B, T, P) and (B,) as the model gives them, and (B, T, 2, P) float32,
            for the phone before and the one after.
        """
        hidden, frame_lengths = self.model.hidden(waveforms, lengths, log_mel_transform=log_mel_transform)
        logits, neighbours = (single_precision(layer(hidden)) for layer in (self.model.output, self.output))
        return logits, neighbours.unflatten(-1, (2, -1)), frame_lengths


def neighbour_labels(labels: Tensor) -> Tensor:
    """The phones before and after each frame's own: the labels of the runs of equal labels to either side.

    Args:
        labels: (B, T) int64, -100 (IGNORED) for none. Frames without a label are a run, too: what is next to it has
            no neighbour there.

    Returns:
        (B, T, 2) int64; -100 where there is no neighbour, or no label.

    Example:
        >>> neighbour_labels(torch.tensor([[7, 7, 3, -100]])).squeeze(0).T
        tensor([[-100, -100,    7, -100],
                [   3,    3, -100, -100]])
    """
    num_frames = labels.shape[1]
    changes = labels[:, 1:] != labels[:, :-1]
    times = torch.arange(num_frames, device=labels.device)
    first = torch.where(F.pad(changes, (1, 0)), times, 0).cummax(dim=1).values  # of the frame's own run
    last = torch.where(F.pad(changes, (0, 1)), times, num_frames - 1).flip(1).cummin(dim=1).values.flip(1)
    bordered = F.pad(labels, (1, 1), value=IGNORED)  # frame t stands at t + 1
    neighbours = torch.stack([bordered.gather(1, first), bordered.gather(1, last + 2)], dim=2)
    return neighbours.masked_fill((labels == IGNORED)[..., None], IGNORED)
