"""Cuts as a model takes them: loading with checks, then the samples, features and labels of each cut."""

import logging
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import CutSet
from lhotse.audio import set_current_audio_backend
from lhotse.audio.backend import LibsndfileBackend

from speechattn.audio import seeks_exactly
from speechattn.cuts.files import phone_intervals, read_cuts, with_phones
from speechattn.cuts.shards import Shards, is_sharded, read_shards
from speechattn.geometry import Geometry
from speechattn.labels.folding import merge_closures
from speechattn.labels.frames import frame_labels
from speechattn.labels.intervals import Interval
from speechattn.phones import PhoneSet

__all__ = [
    "MODEL_ALIGNER",
    "check_coverage",
    "check_labels",
    "closures_merged",
    "cut_features",
    "cut_label",
    "cut_labels",
    "cut_length",
    "cut_waveform",
    "load_cuts",
    "refuse_realigned",
]

MODEL_ALIGNER = "model"  # custom["aligner"] of cuts that a model of ours has aligned

log = logging.getLogger("speechattn")


def load_cuts(path: str | Path, geometry: Geometry, *, feature_dim: int | None = None) -> Any:
    """Load the cuts that a model can take. Cuts below one frame are skipped, counted and listed.

    Args:
        path: A file of cuts, or shards (see `read_shards`). Shards are not opened here: short cuts are skipped later.
        geometry: The model's frames.
        feature_dim: D, for a model that takes ready features of this size; None: it takes recordings.

    Returns:
        A `CutSet`, or `Shards`.

    Raises:
        ValueError: When the file does not hold cuts, none has a frame, or a cut has another sample rate or other input
            than the model takes.
    """
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
        else:
            _check_seeking(cut, path)
        if cut.sampling_rate != geometry.sample_rate:
            rate = f"{cut.sampling_rate} Hz, the model at {geometry.sample_rate} Hz"
            raise ValueError(f"{path}: cut {cut.id} is at {rate}")
        (cuts if geometry.num_frames(cut_length(cut)) else short).append(cut)
    if short:
        log.warning("%s: %d cuts below one frame left out: %s", path, len(short), " ".join(c.id for c in short))
    if not cuts:
        raise ValueError(f"{path} holds no utterance of at least one frame")
    return CutSet.from_cuts(cuts)


def _check_seeking(cut: Any, path: str | Path) -> None:
    """Refuse a part of a file that cannot be read in parts exactly."""
    source, recording = cut.recording.sources[0], cut.recording
    is_part = cut.start > 0 or cut.duration < recording.duration - 1 / recording.sampling_rate
    if is_part and source.type == "file" and Path(source.source).is_file() and not _seeks(source.source):
        raise ValueError(
            f"{path}: cut {cut.id} is a part of {source.source}, whose format cannot be read in parts exactly; "
            "`speechattn prepare folder --cuts` makes FLAC files of the parts"
        )


@cache
def _seeks(path: str) -> bool:
    return seeks_exactly(path)


def cut_length(cut: Any) -> int:
    """Length of a cut in samples, also for one without a recording."""
    return round(cut.duration * cut.sampling_rate)


def _check_features(cut: Any, path: str | Path, geometry: Geometry, feature_dim: int) -> None:
    """Refuse a cut without features, or with another shape than its duration and the model call for."""
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
    """The class of every frame of a cut, (T,) int64; -100 where there is none.

    Args:
        cut: A Lhotse cut with phones.
        phones: The model's phones.
        geometry: The model's frames.
        intervals: The phones after augmentation has moved them; None: the cut's.
        num_samples: The length after augmentation.

    Raises:
        ValueError: When a symbol cannot be folded to `phones`; names the cut.
    """
    if intervals is None:
        intervals = phone_intervals(cut, geometry.sample_rate)
    try:
        ids = phones.ids(interval.symbol for interval in intervals)
        return frame_labels(intervals, num_samples or cut_length(cut), ids, geometry=geometry)
    except ValueError as error:
        raise ValueError(f"cut {cut.id}: {error}") from error


def closures_merged(cut: Any) -> Any:
    """Copy a cut with TIMIT's closures merged into their stops, see `merge_closures`."""
    rate = cut.sampling_rate
    return with_phones(cut, merge_closures(phone_intervals(cut, rate)), rate)


def cut_label(cut: Any, symbols: Sequence[str]) -> int:
    """The class of a whole cut: the index of its supervision's `custom["label"]` in `symbols`.

    Raises:
        ValueError: When the cut does not have exactly one supervision with a label among the symbols; names the cut.
    """
    labels = [(supervision.custom or {}).get("label") for supervision in cut.supervisions]
    if len(labels) != 1 or labels[0] is None:
        raise ValueError(f"cut {cut.id}: expected one supervision with a label in custom['label']")
    if labels[0] not in symbols:
        shown = " ".join(symbols[:6]) + (" ..." if len(symbols) > 6 else "")
        raise ValueError(f"cut {cut.id}: label {labels[0]!r} is not among the model's {len(symbols)} symbols: {shown}")
    return symbols.index(labels[0])


def check_labels(cuts: Any, phones: PhoneSet, geometry: Geometry, *, per_utterance: bool = False) -> None:
    """Validate all labels up front. For shards, check the phones in their index.

    Args:
        cuts: The result of `load_cuts`.
        phones: The model's phones.
        geometry: The model's frames.
        per_utterance: Whether each cut has one label instead of one per frame.

    Raises:
        ValueError: When a label is missing or cannot be folded to `phones`; names the cut or the shards.
    """
    if isinstance(cuts, Shards):
        try:
            if not per_utterance:
                phones.ids(cuts.symbols)
        except ValueError as error:
            raise ValueError(f"{cuts.location}: {error}") from error
        return
    for cut in cuts:
        if per_utterance:
            cut_label(cut, phones.symbols)
        else:
            cut_labels(cut, phones, geometry)
            check_coverage(cut, geometry)


def check_coverage(cut: Any, geometry: Geometry) -> None:
    """Refuse a cut none of whose frames has a phone, ignored or not: its times are wrong.

    Raises:
        ValueError: If there is no such frame; names the cut.
    """
    centres = geometry.centres(cut_length(cut))
    intervals = phone_intervals(cut, geometry.sample_rate)
    if not any(((centres >= start) & (centres < end)).any() for start, end, _ in intervals):
        end_s = max((interval.end for interval in intervals), default=0) / geometry.sample_rate
        raise ValueError(f"cut {cut.id}: no frame has a label; the labels end at {end_s:g} s of {cut.duration:g} s")


def cut_waveform(cut: Any) -> np.ndarray:
    """Read the samples of a cut, (N,) float32.

    Raises:
        ValueError: When the audio cannot be read, or its length is not the manifest's; names the cut.
    """
    set_current_audio_backend(LibsndfileBackend())
    try:
        waveform = cut.load_audio()[0]
    except Exception as error:  # Lhotse and soundfile raise anything
        source = cut.recording.sources[0].source
        where = source if isinstance(source, str) else "in a shard"
        raise ValueError(f"cut {cut.id}: its audio {where} cannot be read") from error
    if len(waveform) != cut.num_samples:
        raise ValueError(f"cut {cut.id} has {len(waveform)} samples, its manifest says {cut.num_samples}")
    return waveform


def cut_features(cut: Any) -> np.ndarray:
    """Read the ready features of a cut, (T, D) float32.

    Raises:
        ValueError: When they cannot be read, or their shape is not the manifest's; names the cut.
    """
    expected = (cut.features.num_frames, cut.features.num_features)
    try:
        features = cut.features.load()
    except Exception as error:  # depends on the storage
        source = f"{cut.features.storage_path}/{cut.features.storage_key}"
        raise ValueError(f"cut {cut.id}: its features {source} cannot be read") from error
    if features.shape != expected:
        raise ValueError(f"cut {cut.id} has features of shape {features.shape}, its manifest says {expected}")
    return features.astype(np.float32, copy=False)


def refuse_realigned(cuts: Iterable[Any], path: str | Path) -> None:
    """Refuse to score against labels that a model produced.

    Raises:
        ValueError: When a model of ours has aligned a cut; names it.
    """
    for cut in cuts:
        if any((supervision.custom or {}).get("aligner") == MODEL_ALIGNER for supervision in cut.supervisions):
            raise ValueError(
                f"{path}: the phones of cut {cut.id} were placed by a model (align --model): "
                "they may be trained on, not scored against"
            )
