"""Score a model on cuts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechattn.classifier import FrameClassifier
from speechattn.data import Batches, long_enough
from speechattn.metrics import confusion_matrix, frame_figures, utterance_figures

__all__ = ["count_confusions", "evaluate"]

BATCH_SECONDS = 60.0


def evaluate(model: FrameClassifier, cuts: str | Path) -> tuple[dict[str, Any], np.ndarray]:
    """Accuracy of a model on a file of cuts, over frames or, with pooling, over utterances.

    Args:
        model: In eval mode, on any device.
        cuts: A Lhotse cuts file whose supervisions carry phone alignments. Their symbols are folded to the
            model's inventory. With pooling, they carry labels instead, see `data.cut_label`.

    Returns:
        (figures, confusion): what `frame_figures` gives, with `num_utterances`, or with pooling what
            `utterance_figures` gives; and the (P, P) counts.

    Raises:
        ValueError: When the file is not one of cuts, a symbol cannot be folded, a label is missing or is not the
            model's, or there is nothing to score.
    """
    data = long_enough(cuts, model.frontend.geometry)
    batches = Batches(
        data, model.phones, model.frontend.geometry,
        batch_seconds=BATCH_SECONDS, shuffle=False, per_utterance=model.pooling is not None,
    )  # fmt: skip
    confusion = count_confusions(model, batches, model.output.weight.device)
    if not confusion.any():
        raise ValueError(f"{cuts}: no frame has a label that can be scored")
    if model.pooling is not None:
        return utterance_figures(confusion, model.phones.symbols), confusion
    figures = frame_figures(confusion, model.phones.symbols, model.phones.silences)
    return {"num_utterances": len(batches.ids), **figures}, confusion


@torch.inference_mode()
def count_confusions(model: FrameClassifier, batches: Batches, device: torch.device) -> np.ndarray:
    """Reference against predicted classes, (P, P) int64, in frames or, with pooling, in utterances; see `metrics`."""
    num_classes = len(model.phones)
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    for batch in batches.epoch():
        logits, _ = model(batch.waveforms.to(device), batch.lengths.to(device))
        own = [cut_id in batches.ids for cut_id in batch.ids]  # not Lhotse's repetitions
        predicted = logits.argmax(dim=-1).numpy(force=True)
        confusion += confusion_matrix(batch.labels.numpy()[own], predicted[own], num_classes)
    return confusion
