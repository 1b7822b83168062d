"""Batches of an epoch of shards, by Lhotse's samplers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from speechattn.chunks import Chunking, chunk_cut
from speechattn.corpora.shards import Shards
from speechattn.geometry import Geometry

__all__ = ["ShardBatches"]

log = logging.getLogger("speechattn")
MAX_BUCKETS = 8
BUCKET_CUTS = 50  # mean number in a bucket, at least
SHARD_BUFFER = 1000  # cuts from shards that wait, with their audio, for company of their length


class ShardBatches(IterableDataset):
    """The batches of an epoch of shards, made where the shards are read: audio in waiting never changes process."""

    def __init__(
        self,
        shards: Shards,
        make_batch: Callable[[tuple[int, Any]], Any],
        geometry: Geometry,
        batch_seconds: float,
        shuffle: bool,
        seed: int,
        chunking: Chunking | None,
        rank: int,
        world_size: int,
    ) -> None:
        self.shards = shards
        self.make_batch = make_batch
        self.geometry = geometry
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

    def __iter__(self) -> Iterator[Any]:
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
            yield self.make_batch((sampler.epoch, batch))

    def _pieces(self, cuts: Iterator[Any]) -> Iterator[Any]:
        for cut in cuts:
            if self.geometry.num_frames(cut.num_samples):
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
