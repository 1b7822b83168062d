"""Cuts as a model takes them: which of them it can take, their samples or features, and their labels."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechattn.cuts.manifest import alignment_items, phone_intervals, read_cuts
from speechattn.cuts.shards import Shards, is_sharded, read_shards
from speechattn.geometry import Geometry
from speechattn.labels.folding import merge_closures
from speechattn.labels.frames import frame_labels
from speechattn.labels.intervals import Interval
from speechattn.phones import PhoneSet

__all__ = [
    "MODEL_ALIGNER",
    "refuse_realigned",
    "check_labels",
    "closures_merged",
    "cut_features",
    "cut_label",
    "cut_labels",
    "cut_length",
    "cut_waveform",
    "load_cuts",
]

MODEL_ALIGNER = "model"  # custom["aligner"] of cuts whose phones a model placed

log = logging.getLogger("speechattn")


def load_cuts(path: str | Path, geometry: Geometry, *, feature_dim: int | None = None) -> Any:
    """The cuts of a file that have at least one frame; the others are counted and listed.

    Args:
        path: A file of cuts; or shards, see `read_shards`, which are left as they are: what is too short is left out,
            and named, as it is met.
        geometry: What makes a frame.
        feature_dim: D, when the model takes ready features of so many values; None: it takes the recordings.

    Raises:
        ValueError: When the file is not one of cuts, none is left, or a cut has another sample rate or not what the
            model takes.
    """
    from lhotse import CutSet

    if is_sharded(path):
        if feature_dim is not None:
            raise ValueError(f"{path}: shards hold recordings, and the model, without a front end, takes features")
        shards = read_shards(path)
        if other := set(shards.sample_rates) - {geometry.sample_rate}:
            raise ValueError(f"{path}: has cuts at {min(other)} Hz, the model is at {geometry.sample_rate} Hz")
        return shards
    cuts: list[Any] = []
    short: list[Any] = []
    for cut in read_cuts(path):
        if feature_dim is not None:
            _check_features(cut, path, geometry, feature_dim)
        elif not cut.has_recording:
            raise ValueError(f"{path}: cut {cut.id} has features but no recording, which is what the model takes")
        if cut.sampling_rate != geometry.sample_rate:
            raise ValueError(
                f"{path}: cut {cut.id} is at {cut.sampling_rate} Hz, the model at {geometry.sample_rate} Hz"
            )
        (cuts if geometry.num_frames(cut_length(cut)) else short).append(cut)
    if short:
        log.warning("%s: %d cuts below one frame left out: %s", path, len(short), " ".join(c.id for c in short))
    if not cuts:
        raise ValueError(f"{path} holds no utterance of at least one frame")
    return CutSet.from_cuts(cuts)


def cut_length(cut: Any) -> int:
    """Samples that a cut lasts; Lhotse does not say for one without a recording."""
    return round(cut.duration * cut.sampling_rate)


def _check_features(cut: Any, path: str | Path, geometry: Geometry, feature_dim: int) -> None:
    """Refuse a cut without features such as the model takes, a row for every frame of its duration."""
    if not cut.has_features:
        raise ValueError(f"{path}: cut {cut.id} has no features, which a model without a front end takes")
    expected = (geometry.num_frames(cut_length(cut)), feature_dim)
    if (cut.features.num_frames, cut.features.num_features) != expected:
        raise ValueError(
            f"{path}: cut {cut.id} has {cut.features.num_frames} frames of {cut.features.num_features} features, not "
            f"{expected[0]} (its duration's) of {expected[1]} (the model's)"
        )


def cut_labels(
    cut: Any,
    phones: PhoneSet,
    geometry: Geometry,
    *,
    intervals: Sequence[Interval] | None = None,
    num_samples: int | None = None,
) -> np.ndarray:
    """The class of every frame of a cut, (T,) int64, -100 where none.

    Args:
        cut: A Lhotse cut with phones.
        phones: The inventory.
        geometry: Where the frames lie.
        intervals: The phones where augmentation has moved them to; None: the cut's own.
        num_samples: Its length then.

    Raises:
        ValueError: When a symbol cannot be folded to `phones`; the message names the cut.
    """
    if intervals is None:
        intervals = phone_intervals(cut, geometry.sample_rate)
    try:
        ids = phones.ids(interval.symbol for interval in intervals)
        return frame_labels(intervals, num_samples or cut_length(cut), ids, geometry=geometry)
    except ValueError as error:
        raise ValueError(f"cut {cut.id}: {error}") from error


def closures_merged(cut: Any) -> Any:
    """Copy a cut, with TIMIT's closures merged into their stops, see `merge_closures`."""
    from lhotse.utils import fastcopy

    rate = cut.sampling_rate
    phones = alignment_items(merge_closures(phone_intervals(cut, rate)), rate)  # or refuse more than one supervision
    (supervision,) = cut.supervisions
    return fastcopy(cut, supervisions=[fastcopy(supervision, alignment={**supervision.alignment, "phone": phones})])


def cut_label(cut: Any, symbols: Sequence[str]) -> int:
    """The class of a whole cut: the index of its supervision's `custom["label"]` among the symbols.

    Raises:
        ValueError: When the cut has not exactly one supervision with a label, or the label is no symbol; names the cut.
    """
    labels = [(supervision.custom or {}).get("label") for supervision in cut.supervisions]
    if len(labels) != 1 or labels[0] is None:
        raise ValueError(f"cut {cut.id}: expected one supervision with a label in custom['label']")
    if labels[0] not in symbols:
        shown = " ".join(symbols[:6]) + (" ..." if len(symbols) > 6 else "")
        raise ValueError(f"cut {cut.id}: label {labels[0]!r} is not among the model's {len(symbols)} symbols: {shown}")
    return symbols.index(labels[0])


def check_labels(cuts: Any, phones: PhoneSet, geometry: Geometry, *, per_utterance: bool = False) -> None:
    """Refuse labels that do not fit now rather than in an hour.

    Of shards only the phones are looked at, which their list names.

    Args:
        cuts: What `load_cuts` gives.
        phones: The inventory.
        geometry: Where the frames lie.
        per_utterance: Whether a cut has one label, instead of one for each frame.

    Raises:
        ValueError: When a label cannot be folded to `phones`, or is missing; names the cut or the shards.
    """
    if isinstance(cuts, Shards):
        if not per_utterance:
            try:
                phones.ids(cuts.symbols)
            except ValueError as error:
                raise ValueError(f"{cuts.location}: {error}") from error
        return
    for cut in cuts:
        if per_utterance:
            cut_label(cut, phones.symbols)
        else:
            cut_labels(cut, phones, geometry)


def cut_waveform(cut: Any) -> np.ndarray:
    """(N,) float32; another length than the manifest's is an error that names the cut."""
    from lhotse.audio import set_current_audio_backend
    from lhotse.audio.backend import LibsndfileBackend

    set_current_audio_backend(LibsndfileBackend())
    try:
        waveform = cut.load_audio()[0]
    except Exception as error:  # Lhotse wraps and re-raises whatever its reader and soundfile raise
        source = cut.recording.sources[0].source
        where = source if isinstance(source, str) else "in a shard"
        raise ValueError(f"cut {cut.id}: its audio {where} cannot be read any more") from error
    if len(waveform) != cut.num_samples:
        raise ValueError(f"cut {cut.id} has {len(waveform)} samples, its manifest says {cut.num_samples}")
    return waveform


def cut_features(cut: Any) -> np.ndarray:
    """The ready features of a cut, (T, D) float32; another shape than the manifest's is an error that names the cut."""
    expected = (cut.features.num_frames, cut.features.num_features)
    try:
        features = cut.features.load()
    except Exception as error:  # whatever the storage at hand raises
        source = f"{cut.features.storage_path}/{cut.features.storage_key}"
        raise ValueError(f"cut {cut.id}: its features {source} cannot be read any more") from error
    if features.shape != expected:
        raise ValueError(f"cut {cut.id} has features of shape {features.shape}, its manifest says {expected}")
    return features.astype(np.float32, copy=False)


def refuse_realigned(cuts: Iterable[Any], path: str | Path) -> None:
    """Keep labels that a model made out of scores.

    Raises:
        ValueError: When a model of ours placed the phones of a cut; names it.
    """
    for cut in cuts:
        if any((supervision.custom or {}).get("aligner") == MODEL_ALIGNER for supervision in cut.supervisions):
            raise ValueError(
                f"{path}: the phones of cut {cut.id} were placed by a model (align --model): "
                "they may be trained on, not scored against"
            )
