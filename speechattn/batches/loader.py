"""The batches of an epoch: order, size, sharing between processes, and data-loading processes."""

import logging
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from speechattn.batches.chunks import Chunking, chunk_cut
from speechattn.batches.shards import ShardBatches
from speechattn.batches.utterances import Batch, Utterances
from speechattn.batches.wave_augment import WaveAugmentConfig
from speechattn.cuts.shards import Shards
from speechattn.geometry import Geometry
from speechattn.jobs.processes import SIGNALS, end_with_parent, start_forkserver
from speechattn.phones import IGNORED, PhoneSet

__all__ = ["Batch", "Batches"]

log = logging.getLogger("speechattn")
BIN_S = 0.32  # utterances are shuffled within length bins of this width


class Batches:
    """Padded batches from a set of cuts, limited by their padded duration.

    Processes take turns: process r of W gets batches r, r + W, r + 2 W ... of an order that does not depend on W. With
    shards, each process, and each of its data-loading processes, reads its own shards instead. In both cases some
    processes may get more batches than others.

    Args:
        cuts: Lhotse cuts, at least one frame long, with phone alignments or a label each; or `Shards`.
        phones: The phone set.
        geometry: The model's frame geometry.
        batch_seconds: Maximum padded duration of a batch (s), after augmentation: longest utterance times batch size.
            Only a single utterance may exceed it.
        shuffle: Whether to use a new order in every epoch.
        seed: Seed for the order and for the utterances' seeds.
        chunking: How to cut long utterances, for cuts with phones; None leaves them whole.
        wave_augment: Augmentation of the waveforms and their labels, new in every epoch; None for none. Chunks get no
            pauses and keep the silence at their ends.
        per_utterance: Whether to give one label per utterance, see `cut_label`, instead of one per frame.
        ready_features: Whether to read the cuts' features instead of their recordings.
        num_workers: Data-loading processes; 0 to load in this process.
        rank: Index of this process among `world_size`.
        world_size: Number of processes that share the cuts.
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
        augmentation = wave_augment or WaveAugmentConfig()
        utterances = Utterances(phones, geometry, seed, augmentation, per_utterance, ready_features)
        shortest = geometry.num_samples(1)
        self.idle_shape = (1, next(iter(cuts)).num_features) if ready_features else (shortest,)
        self.idle_labels = () if per_utterance else (geometry.num_frames(shortest),)
        self.source: ShardBatches | _CutBatches
        order: dict[str, Any]
        if isinstance(cuts, Shards):
            self.source = ShardBatches(cuts, utterances, batch_seconds, shuffle, chunking, rank, world_size)
            order = {"dataset": self.source}
        else:
            cuts = list(cuts) if chunking is None else _chunked(cuts, chunking)
            self.source = _CutBatches(cuts, utterances, batch_seconds, shuffle, rank, world_size)
            order = {"dataset": utterances, "sampler": self.source}
        if num_workers:
            start_forkserver()
        self.loader = DataLoader(
            **order,
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_start_worker if num_workers else None,
            multiprocessing_context="forkserver" if num_workers else None,
        )

    def epoch(self, number: int = 0, *, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch; their order is a function of the seed and the epoch.

        Args:
            number: Index of the epoch.
            skip: Number of batches to skip at its start. Skipped batches of shards are still read.
        """
        self.source.set_epoch(number)
        try:
            if isinstance(self.source, ShardBatches):
                yield from islice(self.loader, skip, None)
            else:
                self.source.skip = skip
                yield from self.loader
        except ValueError as error:  # of a data-loading process, PyTorch adds the traceback to the message
            raise ValueError(str(error).rstrip().rpartition("ValueError: ")[2]) from error

    def idle(self) -> Batch:
        """An unlabelled batch of silence, for a process that must take part in a step but has no data left."""
        return Batch(
            ids=[],
            waveforms=torch.zeros(1, *self.idle_shape),
            lengths=torch.tensor([self.idle_shape[0]]),
            labels=torch.full((1, *self.idle_labels), IGNORED),
            seeds=[0],
            num_utterances=0.0,
        )


def _chunked(cuts: Any, chunking: Chunking) -> list[Any]:
    """All cuts, long ones in chunks."""
    chunks = [chunk_cut(cut, chunking) for cut in cuts]
    if counts := [len(parts) for parts in chunks if len(parts) > 1]:
        seconds = chunking.size / chunking.geometry.sample_rate
        log.info("%d utterances of more than %g s are cut into %d chunks", len(counts), seconds, sum(counts))
    return [chunk for parts in chunks for chunk in parts]


@dataclass
class _CutBatches:
    """A sampler for cuts in memory: this process's batches of an epoch, each with the epoch's number, for workers."""

    cuts: Sequence[Any]
    utterances: Utterances
    batch_seconds: float
    shuffle: bool
    rank: int
    world_size: int
    epoch: int = 0
    skip: int = 0  # batches of this process

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, before iterating."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        batches = self._batches()
        for batch in islice(batches, self.skip * self.world_size + self.rank, None, self.world_size):
            yield self.epoch, batch

    def _batches(self) -> list[list[Any]]:
        """Sort the cuts by their augmented length, and fill batches in that order."""
        order = random.Random(f"{self.utterances.seed} {self.epoch}")
        seconds = [self.utterances.seconds(self.epoch, cut) for cut in self.cuts]
        indices = list(range(len(self.cuts)))
        if self.shuffle:
            order.shuffle(indices)
        indices.sort(key=lambda index: seconds[index] // BIN_S)
        batches: list[list[Any]] = []
        longest = 0.0
        for index in indices:
            longest = max(longest, seconds[index])
            if not batches or (len(batches[-1]) + 1) * longest > self.batch_seconds:
                batches.append([])
                longest = seconds[index]
            batches[-1].append(self.cuts[index])
        if self.shuffle:
            order.shuffle(batches)
        return batches


def _start_worker(worker: int) -> None:
    end_with_parent()
    torch.set_num_threads(1)
    for number in SIGNALS:  # blocked already, unless another program started the forkserver
        signal.signal(number, signal.SIG_IGN)
