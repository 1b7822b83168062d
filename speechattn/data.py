"""Lhotse cuts -> batches of waveforms, or of ready features, and labels, of frames or of utterances."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from speechattn.alignment import Interval
from speechattn.augmentation import cut_seed
from speechattn.chunks import Chunking, chunk_cut, num_chunks
from speechattn.corpora.manifest import phone_intervals
from speechattn.corpora.shards import Shards
from speechattn.cuts import cut_features, cut_label, cut_labels, cut_waveform
from speechattn.geometry import Geometry
from speechattn.phones import IGNORED, PhoneSet
from speechattn.processes import SIGNALS, start_forkserver
from speechattn.wave_augmentation import WaveAugmentConfig, augment_waveform

__all__ = ["Batch", "Batches"]

log = logging.getLogger("speechattn")
MAX_BUCKETS = 8
BUCKET_CUTS = 50  # mean number in a bucket, at least
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
        num_utterances: How many they are, a piece of a long one counting as its part of it.
        cuts: The Lhotse cuts, without their recordings and before any augmentation.
    """

    ids: list[str]
    waveforms: Tensor
    lengths: Tensor
    labels: Tensor
    seeds: list[int]
    num_utterances: float
    cuts: list[Any] = field(default_factory=list)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return replace(
            self,
            waveforms=self.waveforms.to(device),
            lengths=self.lengths.to(device),
            labels=self.labels.to(device),
        )


class Batches:
    """Batches of a set of cuts, capped by the longest utterance times their number.

    Processes that share the cuts take turns: of W processes, number r gets batches r, r + W, r + 2 W ... of an order
    that is the same for any W. With shards, each process, and each of its data-loading processes, reads shards of its
    own instead. Either way some processes may have more batches than others.

    Args:
        cuts: Lhotse cuts with phone alignments, or with a label each; each at least one frame long; or `Shards`.
        phones: The inventory of the labels.
        geometry: Where the frames lie.
        batch_seconds: Cap of longest x count, padding included. Only a single utterance may exceed it.
        shuffle: Whether to draw another order in every epoch.
        seed: Of the order and of the utterances' seeds.
        chunking: How long utterances are cut, for cuts with phones; None: they are left whole.
        wave_augment: What becomes of each utterance, drawn anew in every epoch; its labels follow. The cap counts it
            as it was before. None: nothing. The pieces of a long utterance keep the silence at their ends.
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
        chunking: Chunking | None = None,
        wave_augment: WaveAugmentConfig | None = None,
        per_utterance: bool = False,
        ready_features: bool = False,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_cuts = len(cuts)
        utterances = _Utterances(
            phones, geometry, seed, wave_augment or WaveAugmentConfig(), per_utterance, ready_features
        )
        shortest = geometry.num_samples(1)
        self.idle_shape = (1, next(iter(cuts)).num_features) if ready_features else (shortest,)
        self.idle_labels = () if per_utterance else (geometry.num_frames(shortest),)
        self.source: Any
        order: dict[str, Any]
        if isinstance(cuts, Shards):
            self.source = _ShardBatches(cuts, utterances, batch_seconds, shuffle, seed, chunking, rank, world_size)
            order = {"dataset": self.source}
        else:
            if chunking is not None:
                cuts = _chunked(cuts, chunking)
            num_buckets = min(MAX_BUCKETS, len(cuts) // BUCKET_CUTS)
            sampler = _sampler(
                cuts,
                {"num_buckets": num_buckets} if num_buckets > 1 else {},
                max_duration=batch_seconds,
                shuffle=shuffle,
                seed=seed,
            )
            self.source = _Turns(sampler, rank, world_size)
            order = {"dataset": utterances, "sampler": self.source}
        if num_workers:
            start_forkserver()
        self.loader = DataLoader(
            **order,
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_begin_work if num_workers else None,
            multiprocessing_context="forkserver" if num_workers else None,
        )

    def epoch(self, number: int = 0, *, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch; their order is a function of the seed and the epoch's number.

        Args:
            number: Of the epoch.
            skip: Batches to leave out at its beginning. Those of shards are read all the same.
        """
        self.source.set_epoch(number)
        if isinstance(self.source, _ShardBatches):
            yield from islice(self.loader, skip, None)
        else:
            self.source.skip = skip
            yield from self.loader

    def idle(self) -> Batch:
        """Silence without cuts or labels, for a process that keeps step with others: it teaches nothing."""
        return Batch(
            ids=[],
            waveforms=torch.zeros(1, *self.idle_shape),
            lengths=torch.tensor([self.idle_shape[0]]),
            labels=torch.full((1, *self.idle_labels), IGNORED),
            seeds=[0],
            num_utterances=0.0,
        )


def _chunked(cuts: Any, chunking: Chunking) -> Any:
    """All the cuts, long ones in pieces."""
    from lhotse import CutSet

    pieces = [chunk_cut(cut, chunking) for cut in cuts]
    if long := [len(chunks) for chunks in pieces if len(chunks) > 1]:
        seconds = chunking.size / chunking.geometry.sample_rate
        log.info("%d utterances of more than %g s are cut into %d pieces", len(long), seconds, sum(long))
    return CutSet.from_cuts(chunk for chunks in pieces for chunk in chunks)


class _Turns:
    """A sampler's batches that are this process's turn, each with the number of the epoch, which a worker cannot know.

    `skip` of them are left out at the beginning.
    """

    def __init__(self, batches: _Capped, rank: int, world_size: int) -> None:
        self.batches = batches
        self.rank = rank
        self.world_size = world_size
        self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, before iterating."""
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        for cuts in islice(self.batches, self.skip * self.world_size + self.rank, None, self.world_size):
            yield self.batches.epoch, cuts


class _ShardBatches(IterableDataset):
    """The batches of an epoch of shards, made where the shards are read: audio in waiting never changes process."""

    def __init__(
        self,
        shards: Shards,
        utterances: _Utterances,
        batch_seconds: float,
        shuffle: bool,
        seed: int,
        chunking: Chunking | None,
        rank: int,
        world_size: int,
    ) -> None:
        self.shards = shards
        self.utterances = utterances
        self.batch_seconds = batch_seconds
        self.shuffle = shuffle
        self.seed = seed
        self.chunking = chunking
        self.rank = rank
        self.world_size = world_size
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # for workers that have started, too
        self._named: set[str] = set()  # cuts that were left out

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
        many = len(self.shards) >= BUCKET_CUTS * MAX_BUCKETS * num_parts
        sampler = _sampler(
            self._pieces(cuts),
            {"duration_bins": list(self.shards.duration_bounds), "buffer_size": SHARD_BUFFER} if many else {},
            max_duration=self.batch_seconds,
            shuffle=self.shuffle,
            seed=self.seed,
        )
        sampler.set_epoch(self.epoch)
        for batch in sampler:
            yield self.utterances[sampler.epoch, batch]

    def _pieces(self, cuts: Iterator[Any]) -> Iterator[Any]:
        for cut in cuts:
            if self.utterances.geometry.num_frames(cut.num_samples):
                yield from [cut] if self.chunking is None else chunk_cut(cut, self.chunking)
            elif self.epoch == 0 and cut.id not in self._named:  # in which all are read, and dev more than once
                self._named.add(cut.id)
                log.warning("%s: cut below one frame left out: %s", self.shards.location, cut.id)


class _Capped:
    """The batches of a Lhotse sampler, those beyond the cap in parts.

    Lhotse closes a batch when another utterance as long as its longest would not fit: the last one may be longer than
    all before.
    """

    def __init__(self, sampler: Any, max_duration: float) -> None:
        self.sampler = sampler
        self.max_duration = max_duration

    @property
    def epoch(self) -> int:
        """The epoch that iterating gives."""
        return self.sampler.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, before iterating."""
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[Any]]:
        for cuts in self.sampler:
            yield from self._parts(list(cuts))

    def _parts(self, cuts: list[Any]) -> Iterable[list[Any]]:
        """Halves, and halves of these, until all fit: batches of about equal size make steps of about equal noise."""
        if len(cuts) == 1 or len(cuts) * max(cut.duration for cut in cuts) <= self.max_duration:
            return [cuts]
        half = len(cuts) // 2
        return [*self._parts(cuts[:half]), *self._parts(cuts[half:])]


def _sampler(cuts: Any, buckets: dict[str, Any], *, max_duration: float, shuffle: bool, seed: int) -> _Capped:
    """Lhotse's sampler, which stratifies by length where there are buckets to do so."""
    from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler

    kind, options = (
        (DynamicBucketingSampler, buckets)
        if buckets
        else (
            DynamicCutSampler,
            {"shuffle_buffer_size": SHARD_BUFFER},
        )
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using Dynamic")  # with cuts in memory: as we mean to
        sampler = kind(cuts, **options, max_duration=max_duration, shuffle=shuffle, seed=seed, rank=0, world_size=1)
    return _Capped(sampler, max_duration)


class _Utterances(Dataset):
    """A map from an epoch and Lhotse cuts (one batch of the sampler) to a `Batch`."""

    def __init__(
        self,
        phones: PhoneSet,
        geometry: Geometry,
        seed: int,
        wave_augment: WaveAugmentConfig,
        per_utterance: bool,
        ready_features: bool,
    ) -> None:
        self.phones = phones
        self.geometry = geometry
        self.seed = seed
        self.wave_augment = wave_augment
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
            num_utterances=sum(1 / num_chunks(cut) for cut in cuts),
            cuts=[replace(cut, recording=None) for cut in cuts],
        )

    def _utterance(self, cut: Any, seed: int) -> tuple[np.ndarray, np.ndarray | int]:
        if self.ready_features:
            return cut_features(cut), self._labels(cut)
        intervals = [] if self.per_utterance else phone_intervals(cut, self.geometry.sample_rate)
        waveform, intervals = augment_waveform(
            cut_waveform(cut),
            intervals,
            # What a piece is not scored on is no silence, though it has no phones.
            self.wave_augment if num_chunks(cut) == 1 else replace(self.wave_augment, edge_silence_s=None),
            seed=seed,
            # A symbol that is unknown is refused with the labels, which name the cut.
            silences={i.symbol for i in intervals if self.phones.folding.get(i.symbol) in self.phones.silences},
            sample_rate=self.geometry.sample_rate,
            shortest=self.geometry.window,
        )
        return waveform, self._labels(cut, intervals, len(waveform))

    def _labels(
        self, cut: Any, intervals: Sequence[Interval] | None = None, num_samples: int | None = None
    ) -> np.ndarray | int:
        if self.per_utterance:
            return cut_label(cut, self.phones.symbols)
        return cut_labels(cut, self.phones, self.geometry, intervals=intervals, num_samples=num_samples)


def _begin_work(worker: int) -> None:
    torch.set_num_threads(1)
    for number in SIGNALS:  # blocked already, unless the forkserver is somebody else's
        signal.signal(number, signal.SIG_IGN)
