"""Score a model on cuts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechattn.classifier import FrameClassifier
from speechattn.corpora.manifest import speaker_in_train
from speechattn.cuts import cut_length, long_enough
from speechattn.data import Batches
from speechattn.metrics import confusion_matrix, frame_figures, utterance_figures
from speechattn.phones import IGNORED, PhoneSet
from speechattn.realignment import refuse_realigned

__all__ = ["count_confusions", "evaluate"]

BATCH_SECONDS = 60.0


def evaluate(
    model: FrameClassifier, cuts: str | Path, *, phones: PhoneSet | None = None
) -> tuple[dict[str, Any], np.ndarray]:
    """Accuracy of a model on a file of cuts, over frames or, with pooling, over utterances.

    Args:
        model: In eval mode, on any device.
        cuts: A Lhotse cuts file, or shards, whose supervisions carry phone alignments. Their symbols are folded to the
            model's inventory. With pooling, they carry labels instead, see `cuts.cut_label`.
        phones: The P phones to score on, if not the model's own: symbols and decisions are folded to them, as usual
            for models of TIMIT's 61 or 48 phones (Lee & Hon 1989). It is the decided class that is folded:
            posteriors are not added up. A class without a place among them, such as `q`, is never decided for; its
            frames are not scored either.

    Returns:
        (figures, confusion): what `frame_figures` gives, with `num_utterances` and, where the cuts are marked so, how
            many of these are `utterances_of_training_speakers`; or with pooling what `utterance_figures` gives; and
            the (P, P) counts.

    Raises:
        ValueError: When the file is not one of cuts, a symbol cannot be folded, a label is missing or is not the
            model's, a model placed the phones (see `realignment`), or there is nothing to score.
    """
    if phones is not None and model.pooling is not None:
        raise ValueError(
            "there are no frames to score on other phones: the model, with pooling, has utterances' labels"
        )
    phones, geometry = phones or model.phones, model.frontend.geometry
    data = long_enough(cuts, geometry, feature_dim=model.feature_dim)
    if model.pooling is None:
        refuse_realigned(data, cuts)
    batches = Batches(
        data, phones, geometry,
        batch_seconds=BATCH_SECONDS, shuffle=False, per_utterance=model.pooling is not None,
        ready_features=model.feature_dim is not None,
    )  # fmt: skip
    confusion = count_confusions(model, batches, model.output.weight.device, phones=phones)
    if not confusion.any():
        raise ValueError(f"{cuts}: no frame has a label that can be scored")
    if model.pooling is not None:
        return utterance_figures(confusion, model.phones.symbols), confusion
    # Shards still hold the cuts that are too short.
    known = [speaker_in_train(cut) for cut in data if geometry.num_frames(cut_length(cut))]
    figures = {"num_utterances": len(known), **frame_figures(confusion, phones.symbols, phones.silences)}
    if any(known):
        figures["utterances_of_training_speakers"] = sum(known)
    return figures, confusion


@torch.inference_mode()
def count_confusions(
    model: FrameClassifier, batches: Batches, device: torch.device, *, phones: PhoneSet | None = None
) -> np.ndarray:
    """Reference against predicted classes, (P, P) int64, in frames or, with pooling, in utterances; see `metrics`.

    The batches' labels are classes of `phones`, None: the model's own; decisions are folded to them, see `evaluate`.
    """
    phones = phones or model.phones
    num_classes, ids = len(phones), phones.ids(model.phones.symbols)
    folded = np.array([ids[symbol] for symbol in model.phones.symbols])
    homeless = torch.as_tensor(folded == IGNORED, device=device)
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    for batch in batches.epoch():
        logits, _ = model(batch.waveforms.to(device), batch.lengths.to(device))
        predicted = folded[logits.masked_fill(homeless, -torch.inf).argmax(dim=-1).numpy(force=True)]
        confusion += confusion_matrix(batch.labels.numpy(), predicted, num_classes)
    return confusion
