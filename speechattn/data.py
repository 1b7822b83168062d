"""Lhotse cuts -> batches of waveforms and labels, of frames or of utterances."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from speechattn.alignment import Interval, frame_labels
from speechattn.augmentation import cut_seed
from speechattn.corpora.manifest import phone_intervals, read_cuts
from speechattn.geometry import Geometry
from speechattn.phones import IGNORED, PhoneSet
from speechattn.torch_pair import import_torchaudio

__all__ = ["Batch", "Batches", "at_speed", "cut_label", "cut_labels", "cut_waveform", "long_enough"]

log = logging.getLogger("speechattn")
MAX_BUCKETS = 8


@dataclass
class Batch:
    """Utterances padded to the longest.

    Attributes:
        ids: The cuts' ids.
        waveforms: (B, N) float32 in [-1, 1].
        lengths: (B,) int64, samples.
        labels: (B, T) int64, -100 where a frame is not scored or is padding; (B,) when utterances have one label.
        seeds: For whatever is random about each utterance in this epoch.
    """

    ids: list[str]
    waveforms: Tensor
    lengths: Tensor
    labels: Tensor
    seeds: list[int]

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return replace(
            self,
            waveforms=self.waveforms.to(device),
            lengths=self.lengths.to(device),
            labels=self.labels.to(device),
        )


def cut_labels(
    cut: Any, phones: PhoneSet, geometry: Geometry, *, speed: float = 1.0, num_samples: int | None = None
) -> np.ndarray:
    """The class of every frame of a cut, (T,) int64, -100 where none.

    Args:
        cut: A Lhotse cut with phones.
        phones: The inventory.
        geometry: Where the frames lie.
        speed: The cut is played at this speed, see `at_speed`.
        num_samples: Its length then; None: the cut's own.

    Raises:
        ValueError: When a symbol cannot be folded to `phones`; the message names the cut.
    """
    intervals = phone_intervals(cut, geometry.sample_rate)
    if speed != 1:
        ratio = Fraction(speed).limit_denominator(100)
        scaled = [Interval(round(start / ratio), round(end / ratio), symbol) for start, end, symbol in intervals]
        intervals = [interval for interval in scaled if interval.start < interval.end]
    try:
        ids = phones.ids(interval.symbol for interval in intervals)
        return frame_labels(intervals, num_samples or cut.num_samples, ids, geometry=geometry)
    except ValueError as error:
        raise ValueError(f"cut {cut.id}: {error}") from error


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


def long_enough(path: str | Path, geometry: Geometry) -> Any:
    """The cuts of a file that have at least one frame; the others are counted and listed.

    Raises:
        ValueError: When the file is not one of cuts, none is left, or a cut has another sample rate.
    """
    from lhotse import CutSet

    cuts: list[Any] = []
    short: list[Any] = []
    for cut in read_cuts(path):
        if cut.sampling_rate != geometry.sample_rate:
            raise ValueError(
                f"{path}: cut {cut.id} is at {cut.sampling_rate} Hz, the model at {geometry.sample_rate} Hz"
            )
        (cuts if geometry.num_frames(cut.num_samples) else short).append(cut)
    if short:
        log.warning("%s: %d cuts below one frame left out: %s", path, len(short), " ".join(c.id for c in short))
    if not cuts:
        raise ValueError(f"{path} holds no utterance of at least one frame")
    return CutSet.from_cuts(cuts)


class Batches:
    """Batches of a set of cuts, capped by the longest utterance times their number.

    Where processes share the cuts, each gets as many batches; to that end Lhotse may repeat cuts under other ids, which
    are then not among `ids`.

    Args:
        cuts: Lhotse cuts with phone alignments, or with a label each; each at least one frame long.
        phones: The inventory of the labels.
        geometry: Where the frames lie.
        batch_seconds: Cap of longest x count, padding included. Lhotse closes a batch when another utterance as
            long as its longest would not fit, so that the last one, if longer than all before, may exceed it.
        shuffle: Whether to draw another order in every epoch.
        seed: Of the order and of the utterances' seeds.
        speeds: Each utterance is played at one of these speeds, drawn anew in every epoch; its labels follow. The
            cap counts it at speed 1.
        per_utterance: Whether to take one label for each utterance, see `cut_label`, instead of one for each frame.
        num_workers: Data-loading processes, 0 to load in this one.
        rank: Index of this process among `world_size` that share the cuts.
        world_size: Number of such processes.
    """

    def __init__(
        self,
        cuts: Any,
        phones: PhoneSet,
        geometry: Geometry,
        *,
        batch_seconds: float,
        shuffle: bool,
        seed: int = 0,
        speeds: Sequence[float] = (1.0,),
        per_utterance: bool = False,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler

        self.ids = frozenset(cut.id for cut in cuts)
        order = dict(max_duration=batch_seconds, shuffle=shuffle, seed=seed, rank=rank, world_size=world_size)
        buckets = min(MAX_BUCKETS, len(self.ids) // 50)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are using Dynamic")  # with cuts in memory: as we mean to
            if buckets > 1:
                self.sampler = DynamicBucketingSampler(cuts, num_buckets=buckets, **order)
            else:
                self.sampler = DynamicCutSampler(cuts, **order)
        self.loader = DataLoader(
            _Utterances(phones, geometry, seed, speeds, per_utterance),
            sampler=_WithEpoch(self.sampler),
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,  # the sampler runs in this process, so that epochs still differ
            worker_init_fn=_one_thread if num_workers else None,
            multiprocessing_context="forkserver" if num_workers else None,
        )

    def epoch(self, number: int = 0) -> Iterator[Batch]:
        """The batches of an epoch; their order is a function of the seed and the epoch's number."""
        self.sampler.set_epoch(number)
        yield from self.loader


class _WithEpoch:
    """The sampler's batches, each with the number of the epoch, which a worker cannot know."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        for cuts in self.sampler:
            yield self.sampler.epoch, cuts


class _Utterances(Dataset):
    """A map from an epoch and a Lhotse CutSet (one batch of the sampler) to a `Batch`."""

    def __init__(
        self, phones: PhoneSet, geometry: Geometry, seed: int, speeds: Sequence[float], per_utterance: bool
    ) -> None:
        self.phones = phones
        self.geometry = geometry
        self.seed = seed
        self.speeds = speeds
        self.per_utterance = per_utterance

    def __getitem__(self, batch: tuple[int, Any]) -> Batch:
        epoch, cuts = batch
        seeds = [cut_seed(self.seed, epoch, cut.id) for cut in cuts]
        pairs = [self._utterance(cut, seed) for cut, seed in zip(cuts, seeds, strict=True)]
        waveforms, labels = ([torch.as_tensor(part) for part in parts] for parts in zip(*pairs, strict=True))
        return Batch(
            ids=[cut.id for cut in cuts],
            waveforms=pad_sequence(waveforms, batch_first=True),
            lengths=torch.tensor([len(waveform) for waveform in waveforms]),
            labels=torch.stack(labels)
            if self.per_utterance
            else pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            seeds=seeds,
        )

    def _utterance(self, cut: Any, seed: int) -> tuple[np.ndarray, np.ndarray | int]:
        speed = self.speeds[seed % len(self.speeds)]
        waveform = cut_waveform(cut)
        if speed != 1:
            waveform = at_speed(waveform, speed)
        if self.per_utterance:
            return waveform, cut_label(cut, self.phones.symbols)
        return waveform, cut_labels(cut, self.phones, self.geometry, speed=speed, num_samples=len(waveform))


def at_speed(waveform: np.ndarray, speed: float) -> np.ndarray:
    """Play a waveform faster (speed > 1) or slower, pitch and all: (N,) -> about (N / speed,) float32."""
    ratio = Fraction(speed).limit_denominator(100)
    resample = import_torchaudio().functional.resample
    return resample(torch.from_numpy(waveform), ratio.numerator, ratio.denominator).numpy()


def cut_waveform(cut: Any) -> np.ndarray:
    """(N,) float32; another length than the manifest's is an error that names the cut."""
    from lhotse.audio import set_current_audio_backend
    from lhotse.audio.backend import LibsndfileBackend

    set_current_audio_backend(LibsndfileBackend())
    try:
        waveform = cut.load_audio()[0]
    except Exception as error:  # Lhotse wraps and re-raises whatever its reader and soundfile raise
        source = cut.recording.sources[0].source
        raise ValueError(f"cut {cut.id}: its audio {source} cannot be read any more") from error
    if len(waveform) != cut.num_samples:
        raise ValueError(f"cut {cut.id} has {len(waveform)} samples, its manifest says {cut.num_samples}")
    return waveform


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
