"""Lhotse cuts -> batches of waveforms, or of ready features, and labels, of frames or of utterances."""

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
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from speechattn.alignment import Interval, frame_labels
from speechattn.augmentation import cut_seed
from speechattn.corpora.manifest import phone_intervals, read_cuts
from speechattn.corpora.shards import Shards, is_sharded, read_shards
from speechattn.geometry import Geometry
from speechattn.phones import IGNORED, PhoneSet
from speechattn.torch_pair import import_torchaudio

__all__ = [
    "Batch",
    "Batches",
    "at_speed",
    "check_labels",
    "cut_features",
    "cut_label",
    "cut_labels",
    "cut_waveform",
    "long_enough",
]

log = logging.getLogger("speechattn")
MAX_BUCKETS = 8
SHARD_BUFFER = 1000  # cuts from shards that wait, with their audio, for company of their length


@dataclass
class Batch:
    """Utterances padded to the longest.

    Attributes:
        ids: The cuts' ids.
        waveforms: (B, N) float32 in [-1, 1]; for a model without a front end features, (B, T, D) float32.
        lengths: (B,) int64, samples, or frames of the features.
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
        return frame_labels(intervals, num_samples or _num_samples(cut), ids, geometry=geometry)
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


def check_labels(cuts: Any, phones: PhoneSet, geometry: Geometry, *, per_utterance: bool = False) -> None:
    """Refuse labels that do not fit now rather than in an hour.

    Of shards only the phones are looked at, which their list names.

    Args:
        cuts: What `long_enough` gives.
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


def long_enough(path: str | Path, geometry: Geometry, *, feature_dim: int | None = None) -> Any:
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
        (cuts if geometry.num_frames(_num_samples(cut)) else short).append(cut)
    if short:
        log.warning("%s: %d cuts below one frame left out: %s", path, len(short), " ".join(c.id for c in short))
    if not cuts:
        raise ValueError(f"{path} holds no utterance of at least one frame")
    return CutSet.from_cuts(cuts)


def _num_samples(cut: Any) -> int:
    """Samples that a cut lasts; Lhotse does not say for one without a recording."""
    return round(cut.duration * cut.sampling_rate)


def _check_features(cut: Any, path: str | Path, geometry: Geometry, feature_dim: int) -> None:
    """Refuse a cut without features such as the model takes, a row for every frame of its duration."""
    if not cut.has_features:
        raise ValueError(f"{path}: cut {cut.id} has no features, which a model without a front end takes")
    expected = (geometry.num_frames(_num_samples(cut)), feature_dim)
    if (cut.features.num_frames, cut.features.num_features) != expected:
        raise ValueError(
            f"{path}: cut {cut.id} has {cut.features.num_frames} frames of {cut.features.num_features} features, not "
            f"{expected[0]} (its duration's) of {expected[1]} (the model's)"
        )


class Batches:
    """Batches of a set of cuts, capped by the longest utterance times their number.

    Where processes share the cuts, each gets as many batches; to that end Lhotse may repeat cuts under other ids, see
    `is_repetition`. With shards, each process, and each of its data-loading processes, reads shards of its own instead,
    so that their numbers of batches differ.

    Args:
        cuts: Lhotse cuts with phone alignments, or with a label each; each at least one frame long; or `Shards`.
        phones: The inventory of the labels.
        geometry: Where the frames lie.
        batch_seconds: Cap of longest x count, padding included. Lhotse closes a batch when another utterance as
            long as its longest would not fit, so that the last one, if longer than all before, may exceed it.
        shuffle: Whether to draw another order in every epoch.
        seed: Of the order and of the utterances' seeds.
        speeds: Each utterance is played at one of these speeds, drawn anew in every epoch; its labels follow. The
            cap counts it at speed 1.
        per_utterance: Whether to take one label for each utterance, see `cut_label`, instead of one for each frame.
        ready_features: Whether to take the cuts' features, as they are, instead of their recordings.
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
        ready_features: bool = False,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_cuts = len(cuts)
        utterances = _Utterances(phones, geometry, seed, speeds, per_utterance, ready_features)
        self.source: Any
        order: dict[str, Any]
        if isinstance(cuts, Shards):
            self.ids = None
            self.source = _ShardBatches(cuts, utterances, batch_seconds, shuffle, seed, rank, world_size)
            order = {"dataset": self.source}
        else:
            self.ids = frozenset(cut.id for cut in cuts)
            many = len(cuts) >= 100
            self.source = _sampler(
                cuts,
                {"num_buckets": min(MAX_BUCKETS, len(cuts) // 50)} if many else {},
                max_duration=batch_seconds,
                shuffle=shuffle,
                seed=seed,
                rank=rank,
                world_size=world_size,
            )
            order = {"dataset": utterances, "sampler": _WithEpoch(self.source)}
        self.loader = DataLoader(
            **order,
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_one_thread if num_workers else None,
            multiprocessing_context="forkserver" if num_workers else None,
        )

    def is_repetition(self, cut_id: str) -> bool:
        """Whether a cut of a batch is one that Lhotse repeated."""
        return self.ids is not None and cut_id not in self.ids

    def epoch(self, number: int = 0) -> Iterator[Batch]:
        """The batches of an epoch; their order is a function of the seed and the epoch's number."""
        self.source.set_epoch(number)
        yield from self.loader


class _WithEpoch:
    """The sampler's batches, each with the number of the epoch, which a worker cannot know."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        for cuts in self.sampler:
            yield self.sampler.epoch, cuts


class _ShardBatches(IterableDataset):
    """The batches of an epoch of shards, made where the shards are read: audio in waiting never changes process."""

    def __init__(
        self,
        shards: Shards,
        utterances: _Utterances,
        batch_seconds: float,
        shuffle: bool,
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        self.shards = shards
        self.utterances = utterances
        self.batch_seconds = batch_seconds
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # for workers that have started, too

    @property
    def epoch(self) -> int:
        """The epoch that iterating gives."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, before iterating."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        num_parts = self.world_size * num_workers
        cuts = self.shards.share(
            part=number * self.world_size + self.rank,  # processes first, so that their shares are as equal as can be
            num_parts=num_parts,
            seed=f"{self.seed} {self.epoch}" if self.shuffle else None,
        )
        many = len(self.shards) >= 50 * MAX_BUCKETS * num_parts
        sampler = _sampler(
            self._long_enough(cuts),
            {"duration_bins": list(self.shards.duration_bounds), "buffer_size": SHARD_BUFFER} if many else {},
            max_duration=self.batch_seconds,
            shuffle=self.shuffle,
            seed=self.seed,
            rank=0,
            world_size=1,
        )
        sampler.set_epoch(self.epoch)
        for batch in sampler:
            yield self.utterances[sampler.epoch, batch]

    def _long_enough(self, cuts: Iterator[Any]) -> Iterator[Any]:
        for cut in cuts:
            if self.utterances.geometry.num_frames(cut.num_samples):
                yield cut
            elif self.epoch == 0:
                log.warning("%s: cut below one frame left out: %s", self.shards.location, cut.id)


def _sampler(cuts: Any, buckets: dict[str, Any], **order: Any) -> Any:
    """Lhotse's sampler, which stratifies by length where there are buckets to do so."""
    from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using Dynamic")  # with cuts in memory: as we mean to
        if buckets:
            return DynamicBucketingSampler(cuts, **buckets, **order)
        return DynamicCutSampler(cuts, shuffle_buffer_size=SHARD_BUFFER, **order)


class _Utterances(Dataset):
    """A map from an epoch and a Lhotse CutSet (one batch of the sampler) to a `Batch`."""

    def __init__(
        self,
        phones: PhoneSet,
        geometry: Geometry,
        seed: int,
        speeds: Sequence[float],
        per_utterance: bool,
        ready_features: bool,
    ) -> None:
        self.phones = phones
        self.geometry = geometry
        self.seed = seed
        self.speeds = speeds
        self.per_utterance = per_utterance
        self.ready_features = ready_features

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
        if self.ready_features:
            given, num_samples = cut_features(cut), None
        else:
            given = cut_waveform(cut)
            if speed != 1:
                given = at_speed(given, speed)
            num_samples = len(given)
        if self.per_utterance:
            return given, cut_label(cut, self.phones.symbols)
        return given, cut_labels(cut, self.phones, self.geometry, speed=speed, num_samples=num_samples)


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


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
