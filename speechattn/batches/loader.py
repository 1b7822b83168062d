"""Lhotse cuts -> batches of waveforms, or of ready features, and labels, of frames or of utterances."""

from __future__ import annotations

import logging
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from speechattn.batches.chunks import Chunking, chunk_cut, num_chunks
from speechattn.batches.shards import ShardBatches
from speechattn.batches.spec_augment import cut_seed
from speechattn.batches.wave_augment import (
    Plan,
    WaveAugmentConfig,
    augment_waveform,
    plan_augmentation,
    speech_bounds,
)
from speechattn.cuts.files import phone_intervals
from speechattn.cuts.model_inputs import cut_features, cut_label, cut_labels, cut_length, cut_waveform
from speechattn.cuts.shards import Shards
from speechattn.geometry import Geometry
from speechattn.jobs.processes import SIGNALS, end_with_parent, start_forkserver
from speechattn.labels.folding import CLOSURES
from speechattn.labels.intervals import Interval
from speechattn.phones import IGNORED, PhoneSet

__all__ = ["Batch", "Batches"]

log = logging.getLogger("speechattn")
ALIKE_S = 0.32  # utterances are shuffled within length bins of this width


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
        batch_seconds: Maximum padded duration of a batch: longest utterance times batch size. Only a single utterance
            may exceed it.
        shuffle: Whether to draw another order in every epoch.
        seed: Of the order and of the utterances' seeds.
        chunking: How long utterances are cut, for cuts with phones; None: they are left whole.
        wave_augment: Augmentation of the waveforms and their labels, drawn anew in every epoch; None for none. Pieces
            of a long utterance keep the silence at their ends and get no pauses. The cap counts the augmented lengths.
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
            self.source = ShardBatches(
                cuts,
                utterances.__getitem__,
                utterances.seconds,
                geometry,
                batch_seconds,
                shuffle,
                seed,
                chunking,
                rank,
                world_size,
            )
            order = {"dataset": self.source}
        else:
            cuts = list(cuts) if chunking is None else _chunked(cuts, chunking)
            self.source = _Turns(cuts, utterances, batch_seconds, shuffle, seed, rank, world_size)
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
        if isinstance(self.source, ShardBatches):
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


def _chunked(cuts: Any, chunking: Chunking) -> list[Any]:
    """All the cuts, long ones in pieces."""
    pieces = [chunk_cut(cut, chunking) for cut in cuts]
    if long := [len(chunks) for chunks in pieces if len(chunks) > 1]:
        seconds = chunking.size / chunking.geometry.sample_rate
        log.info("%d utterances of more than %g s are cut into %d pieces", len(long), seconds, sum(long))
    return [chunk for chunks in pieces for chunk in chunks]


@dataclass
class _Turns:
    """A sampler of cuts in memory: this process's turns among the batches of an epoch.

    Cuts are sorted by their length after augmentation, and as many as fit make a batch. Each batch carries the epoch's
    number, which a worker cannot know. The first `skip` of this process's batches are left out.
    """

    cuts: Sequence[Any]
    utterances: _Utterances
    batch_seconds: float
    shuffle: bool
    seed: int
    rank: int
    world_size: int
    epoch: int = 0
    skip: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, before iterating."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        batches = self._batches()
        for batch in islice(batches, self.skip * self.world_size + self.rank, None, self.world_size):
            yield self.epoch, batch

    def _batches(self) -> list[list[Any]]:
        order = random.Random(f"{self.seed} {self.epoch}")
        seconds = [self.utterances.seconds(self.epoch, cut) for cut in self.cuts]
        numbers = list(range(len(self.cuts)))
        if self.shuffle:
            order.shuffle(numbers)
        numbers.sort(key=lambda number: seconds[number] // ALIKE_S)
        batches: list[list[Any]] = []
        longest = 0.0
        for number in numbers:
            longest = max(longest, seconds[number])
            if not batches or (len(batches[-1]) + 1) * longest > self.batch_seconds:
                batches.append([])
                longest = seconds[number]
            batches[-1].append(self.cuts[number])
        if self.shuffle:
            order.shuffle(batches)
        return batches


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
        self._speech: dict[str, tuple[int, int] | None] = {}  # cut id -> where its speech starts and ends

    def seconds(self, epoch: int, cut: Any) -> float:
        """Length of a cut after augmentation, without reading its audio."""
        if self.ready_features or self.wave_augment == WaveAugmentConfig():
            return cut.duration
        if cut.id not in self._speech:
            self._speech[cut.id] = self._bounds(self._intervals(cut))
        plan = self._plan(cut, self._speech[cut.id], cut_seed(self.seed, epoch, cut.id))
        return plan.num_samples / self.geometry.sample_rate

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
        intervals = self._intervals(cut)
        if self.wave_augment != WaveAugmentConfig():
            self._labels(cut)  # refuses wrong labels, which augmentation would drop
        waveform, intervals = augment_waveform(
            cut_waveform(cut), intervals, self._config(cut), self._plan(cut, self._bounds(intervals), seed),
            seed=seed, silences=self._silences(intervals), pause_symbol=self.phones.pause,
            sample_rate=self.geometry.sample_rate,
        )  # fmt: skip
        return waveform, self._labels(cut, intervals, len(waveform))

    def _intervals(self, cut: Any) -> list[Interval]:
        return [] if self.per_utterance else phone_intervals(cut, self.geometry.sample_rate)

    def _silences(self, intervals: Sequence[Interval]) -> set[str]:
        """The silences among the symbols that occur, without closures, which belong to their stops."""
        # Unknown symbols are refused with the labels, whose message names the cut.
        symbols = {interval.symbol for interval in intervals} - CLOSURES
        return {symbol for symbol in symbols if self.phones.folding.get(symbol) in self.phones.silences}

    def _bounds(self, intervals: Sequence[Interval]) -> tuple[int, int] | None:
        return speech_bounds(intervals, self._silences(intervals))

    def _config(self, cut: Any) -> WaveAugmentConfig:
        """Leave the ends of a piece of a long utterance alone: they have no labels but hold speech."""
        if num_chunks(cut) == 1:
            return self.wave_augment
        return replace(self.wave_augment, edge_silence_s=None, pause_share=0.0)

    def _plan(self, cut: Any, speech: tuple[int, int] | None, seed: int) -> Plan:
        return plan_augmentation(
            cut_length(cut), speech, self._config(cut),
            seed=seed, sample_rate=self.geometry.sample_rate, shortest=self.geometry.window,
        )  # fmt: skip

    def _labels(
        self, cut: Any, intervals: Sequence[Interval] | None = None, num_samples: int | None = None
    ) -> np.ndarray | int:
        if self.per_utterance:
            return cut_label(cut, self.phones.symbols)
        return cut_labels(cut, self.phones, self.geometry, intervals=intervals, num_samples=num_samples)


def _begin_work(worker: int) -> None:
    end_with_parent()
    torch.set_num_threads(1)
    for number in SIGNALS:  # blocked already, unless the forkserver is somebody else's
        signal.signal(number, signal.SIG_IGN)
