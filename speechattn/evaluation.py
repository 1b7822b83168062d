"""Score a model on cuts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechattn.classifier import FrameClassifier
from speechattn.data import Batches, long_enough
from speechattn.metrics import confusion_matrix, frame_figures

__all__ = ["count_confusions", "evaluate"]

BATCH_SECONDS = 60.0


def evaluate(model: FrameClassifier, cuts: str | Path) -> tuple[dict[str, Any], np.ndarray]:
    """Frame accuracy of a model on a file of cuts.

    Args:
        model: In eval mode, on any device.
        cuts: A Lhotse cuts file whose supervisions carry phone alignments. Their symbols are folded to the
            model's inventory.

    Returns:
        (figures, confusion): what `frame_figures` gives, with `num_utterances`; and the (P, P) counts.

    Raises:
        ValueError: When the file is not one of cuts, a symbol cannot be folded, or there is nothing to score.
    """
    data = long_enough(cuts, model.frontend.geometry)
    batches = Batches(data, model.phones, model.frontend.geometry, batch_seconds=BATCH_SECONDS, shuffle=False)
    confusion = count_confusions(model, batches, model.output.weight.device)
    if not confusion.any():
        raise ValueError(f"{cuts}: no frame has a label that can be scored")
    figures = frame_figures(confusion, model.phones.symbols, model.phones.silences)
    return {"num_utterances": len(batches.ids), **figures}, confusion


@torch.inference_mode()
def count_confusions(model: FrameClassifier, batches: Batches, device: torch.device) -> np.ndarray:
    """Reference against predicted phones in frames, (P, P) int64; see `metrics`."""
    num_classes = len(model.phones)
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    for batch in batches.epoch():
        logits, _ = model(batch.waveforms.to(device), batch.lengths.to(device))
        predicted = logits.argmax(dim=2).numpy(force=True)
        for cut_id, reference, row in zip(batch.ids, batch.labels.numpy(), predicted, strict=True):
            if cut_id in batches.ids:
                confusion += confusion_matrix(reference, row, num_classes)
    return confusion
