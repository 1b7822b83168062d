"""Lhotse cuts -> batches of waveforms, or of ready features, and labels, of frames or of utterances."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from speechattn.alignment import Interval
from speechattn.augmentation import cut_seed
from speechattn.corpora.manifest import phone_intervals
from speechattn.corpora.shards import Shards
from speechattn.cuts import cut_features, cut_label, cut_labels, cut_waveform
from speechattn.geometry import Geometry
from speechattn.phones import IGNORED, PhoneSet
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
        cuts: The Lhotse cuts, without their recordings and before any augmentation.
    """

    ids: list[str]
    waveforms: Tensor
    lengths: Tensor
    labels: Tensor
    seeds: list[int]
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
        wave_augment: What becomes of each utterance, drawn anew in every epoch; its labels follow. The cap counts it
            as it was before. None: nothing.
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
        self.source: Any
        order: dict[str, Any]
        if isinstance(cuts, Shards):
            self.ids = None
            self.source = _ShardBatches(cuts, utterances, batch_seconds, shuffle, seed, rank, world_size)
            order = {"dataset": self.source}
        else:
            self.ids = frozenset(cut.id for cut in cuts)
            num_buckets = min(MAX_BUCKETS, len(cuts) // BUCKET_CUTS)
            self.source = _sampler(
                cuts,
                {"num_buckets": num_buckets} if num_buckets > 1 else {},
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
        many = len(self.shards) >= BUCKET_CUTS * MAX_BUCKETS * num_parts
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
            cuts=[replace(cut, recording=None) for cut in cuts],
        )

    def _utterance(self, cut: Any, seed: int) -> tuple[np.ndarray, np.ndarray | int]:
        if self.ready_features:
            return cut_features(cut), self._labels(cut)
        intervals = [] if self.per_utterance else phone_intervals(cut, self.geometry.sample_rate)
        waveform, intervals = augment_waveform(
            cut_waveform(cut),
            intervals,
            self.wave_augment,
            seed=seed,
            silences={i.symbol for i in intervals if self.phones.fold(i.symbol) in self.phones.silences},
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


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
