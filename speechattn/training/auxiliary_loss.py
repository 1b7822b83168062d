"""Auxiliary loss: classify also the previous and the next phone of every frame.

It teaches the model how context changes a phone (Seltzer & Droppo, "Multi-task learning in deep neural networks for
improved phoneme recognition", 2013). The auxiliary output layer is dropped after training.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.frontend import LogMelTransform
from speechattn.frontend.execution import single_precision
from speechattn.model.classifier import FrameClassifier
from speechattn.phones import IGNORED

__all__ = ["WithAuxiliaryOutput", "neighbour_labels"]


class WithAuxiliaryOutput(nn.Module):
    """A model with a second output layer, for the previous and the next phone.

    Args:
        model: A model without pooling; shared, not copied.
    """

    def __init__(self, model: FrameClassifier) -> None:
        super().__init__()
        self.model = model
        self.output = nn.Linear(model.body.output_dim, 2 * len(model.phones))

    def forward(
        self, waveforms: Tensor, lengths: Tensor, *, log_mel_transform: LogMelTransform | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score every phone as the current, the previous and the next one of each frame.

        Args:
            waveforms: As for `FrameClassifier.forward`.
            lengths: Likewise.
            log_mel_transform: Likewise.

        Returns:
            (logits, neighbours, frame_lengths): (B, T, P) and (B,) as from the model, and (B, T, 2, P) float32 for the
            previous and the next phone.
        """
        hidden, frame_lengths = self.model.hidden(waveforms, lengths, log_mel_transform=log_mel_transform)
        logits, neighbours = (single_precision(layer(hidden)) for layer in (self.model.output, self.output))
        return logits, neighbours.unflatten(-1, (2, -1)), frame_lengths


def neighbour_labels(labels: Tensor) -> Tensor:
    """Label every frame with its previous and its next phone: the labels of the adjacent runs of equal labels.

    Args:
        labels: (B, T) int64, -100 (IGNORED) for unlabelled frames. These form runs too, so a frame next to an
            unlabelled run has no neighbour on that side.

    Returns:
        (B, T, 2) int64; -100 where the frame is unlabelled or has no neighbour.

    Example:
        >>> neighbour_labels(torch.tensor([[7, 7, 3, -100]])).squeeze(0).T
        tensor([[-100, -100,    7, -100],
                [   3,    3, -100, -100]])
    """
    num_frames = labels.shape[1]
    changes = labels[:, 1:] != labels[:, :-1]
    times = torch.arange(num_frames, device=labels.device)
    first = torch.where(F.pad(changes, (1, 0)), times, 0).cummax(dim=1).values  # first frame of each frame's run
    last = torch.where(F.pad(changes, (0, 1)), times, num_frames - 1).flip(1).cummin(dim=1).values.flip(1)
    padded = F.pad(labels, (1, 1), value=IGNORED)  # frame t is at t + 1
    neighbours = torch.stack([padded.gather(1, first), padded.gather(1, last + 2)], dim=2)
    return neighbours.masked_fill((labels == IGNORED)[..., None], IGNORED)
