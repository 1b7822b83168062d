"""Batches from shards, by Lhotse's samplers."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from speechattn.batches.chunks import Chunking, chunk_cut
from speechattn.batches.spec_augment import cut_seed
from speechattn.batches.utterances import Batch, Utterances
from speechattn.cuts.shards import Shards

__all__ = ["ShardBatches"]

log = logging.getLogger("speechattn")
MAX_BUCKETS = 8
BUCKET_CUTS = 50  # minimum mean number of cuts per bucket
SHARD_BUFFER = 1000  # cuts, with their audio, that wait for others of similar length


@dataclass(eq=False)
class ShardBatches(IterableDataset):
    """The batches of an epoch, made in the process that reads the shards, so that no audio is sent between processes.

    Arguments as for `Batches`; `utterances` makes the batches and measures cuts.
    """

    shards: Shards
    utterances: Utterances
    batch_seconds: float
    shuffle: bool
    chunking: Chunking | None
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # shared with running workers
        self._reported: set[str] = set()  # ids of skipped cuts

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, before iterating."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        index, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        num_parts = self.world_size * num_workers
        cuts = self.shards.share(
            part=index * self.world_size + self.rank,  # keeps the processes' shares as equal as possible
            num_parts=num_parts,
            seed=f"{self.utterances.seed} {self.epoch}" if self.shuffle else None,
        )
        enough = len(self.shards) >= BUCKET_CUTS * MAX_BUCKETS * num_parts
        sampler = _sampler(
            self._chunked(cuts), self.shards.duration_bounds if enough else None,
            max_duration=self.batch_seconds, shuffle=self.shuffle,
            # Lhotse adds the epoch to the seed: with small seeds, runs would share their orders, shifted by an epoch.
            seed=cut_seed(self.utterances.seed, self.epoch, "order") >> 32,
        )  # fmt: skip
        sampler.set_epoch(self.epoch)
        for batch in sampler:
            for part in self._split_to_fit(list(batch), sampler.epoch):
                yield self.utterances[sampler.epoch, part]

    def _chunked(self, cuts: Iterator[Any]) -> Iterator[Any]:
        """The cuts, long ones in chunks, without those below one frame."""
        for cut in cuts:
            if self.utterances.geometry.num_frames(cut.num_samples):
                yield from [cut] if self.chunking is None else chunk_cut(cut, self.chunking)
            elif self.epoch == 0 and cut.id not in self._reported:  # epoch 0 reads all cuts; dev stays at epoch 0
                self._reported.add(cut.id)
                log.warning("%s: cut below one frame left out: %s", self.shards.location, cut.id)

    def _split_to_fit(self, cuts: list[Any], epoch: int) -> list[list[Any]]:
        """Halve a batch until its parts fit `batch_seconds`; halves of similar size give gradients of similar noise.

        Lhotse's batches can be too long: their last utterance may be the longest, and augmentation may add a pause.
        """
        longest = max(self.utterances.seconds(epoch, cut) for cut in cuts)
        if len(cuts) == 1 or len(cuts) * longest <= self.batch_seconds:
            return [cuts]
        half = len(cuts) // 2
        return [*self._split_to_fit(cuts[:half], epoch), *self._split_to_fit(cuts[half:], epoch)]


def _sampler(cuts: Any, bins: Sequence[float] | None, **options: Any) -> Any:
    """Lhotse's sampler; with bins, the one that groups cuts by length."""
    from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler

    if bins is None:
        return DynamicCutSampler(cuts, shuffle_buffer_size=SHARD_BUFFER, rank=0, world_size=1, **options)
    return DynamicBucketingSampler(
        cuts, duration_bins=list(bins), buffer_size=SHARD_BUFFER, rank=0, world_size=1, **options
    )
