"""Batches from shards, by Lhotse's samplers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from speechattn.batches.chunks import Chunking, chunk_cut
from speechattn.cuts.shards import Shards
from speechattn.geometry import Geometry

__all__ = ["ShardBatches"]

log = logging.getLogger("speechattn")
MAX_BUCKETS = 8
BUCKET_CUTS = 50  # mean number in a bucket, at least
SHARD_BUFFER = 1000  # cuts from shards that wait, with their audio, for company of their length


@dataclass(eq=False)
class ShardBatches(IterableDataset):
    """The batches of an epoch, made in the process that reads the shards, so that waiting audio never changes process.

    Args:
        shards: What to read.
        make_batch: (epoch, cuts) -> batch.
        seconds: (epoch, cut) -> length after augmentation.
        geometry: Where the frames lie.
        batch_seconds: Maximum padded duration of a batch.
        shuffle: Whether to draw another order in every epoch.
        seed: For the order.
        chunking: How to cut long utterances; None leaves them whole.
        rank: Index of this process.
        world_size: Number of processes.
    """

    shards: Shards
    make_batch: Callable[[tuple[int, Any]], Any]
    seconds: Callable[[int, Any], float]
    geometry: Geometry
    batch_seconds: float
    shuffle: bool
    seed: int
    chunking: Chunking | None
    rank: int
    world_size: int

    def __post_init__(self) -> None:
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
            for part in self._parts(list(batch), sampler.epoch):
                yield self.make_batch((sampler.epoch, part))

    def _parts(self, cuts: list[Any], epoch: int) -> Iterable[list[Any]]:
        """Halve a batch until its parts fit: batches of similar size give gradients of similar noise.

        Lhotse's batches can exceed the cap: the last utterance may be longer than all before, and augmentation may add
        a pause.
        """
        if len(cuts) == 1 or len(cuts) * max(self.seconds(epoch, cut) for cut in cuts) <= self.batch_seconds:
            return [cuts]
        half = len(cuts) // 2
        return [*self._parts(cuts[:half], epoch), *self._parts(cuts[half:], epoch)]

    def _pieces(self, cuts: Iterator[Any]) -> Iterator[Any]:
        for cut in cuts:
            if self.geometry.num_frames(cut.num_samples):
                yield from [cut] if self.chunking is None else chunk_cut(cut, self.chunking)
            elif self.epoch == 0 and cut.id not in self._named:  # in which all are read, and dev more than once
                self._named.add(cut.id)
                log.warning("%s: cut below one frame left out: %s", self.shards.location, cut.id)


def _sampler(cuts: Any, buckets: dict[str, Any], *, max_duration: float, shuffle: bool, seed: int) -> Any:
    """Lhotse's sampler, which stratifies by length where there are buckets to do so."""
    from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler

    kind, options = (
        (DynamicBucketingSampler, buckets) if buckets else (DynamicCutSampler, {"shuffle_buffer_size": SHARD_BUFFER})
    )
    return kind(cuts, **options, max_duration=max_duration, shuffle=shuffle, seed=seed, rank=0, world_size=1)
