"""Lhotse cuts -> one padded batch of waveforms or ready features, with labels per frame or per utterance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from speechattn.batches.chunks import num_chunks
from speechattn.batches.spec_augment import cut_seed
from speechattn.batches.wave_augment import Plan, WaveAugmentConfig, augment_waveform, plan_augmentation, speech_bounds
from speechattn.cuts.files import phone_intervals
from speechattn.cuts.model_inputs import cut_features, cut_label, cut_labels, cut_length, cut_waveform
from speechattn.geometry import Geometry
from speechattn.labels.folding import CLOSURES
from speechattn.labels.intervals import Interval
from speechattn.phones import IGNORED, PhoneSet

__all__ = ["Batch", "Utterances"]

ROUND_FRAMES = 32  # batches are padded to a multiple of it: PyTorch keeps memory for every shape that it has seen


@dataclass
class Batch:
    """Utterances padded to the longest.

    Attributes:
        ids: The cuts' ids.
        waveforms: (B, N) float32 in [-1, 1]; for a model without a front end features, (B, T, D) float32.
        lengths: (B,) int64, in samples, or in frames of the features.
        labels: (B, T) int64, -100 for unscored frames and padding; (B,) with one label per utterance.
        seeds: One seed per utterance in this epoch, for everything random.
        num_utterances: Number of utterances; a chunk of a long one counts as a fraction.
        cuts: The Lhotse cuts, without their recordings and before augmentation.
    """

    ids: list[str]
    waveforms: Tensor
    lengths: Tensor
    labels: Tensor
    seeds: list[int]
    num_utterances: float
    cuts: list[Any] = field(default_factory=list)

    def to(self, device: torch.device) -> Batch:
        """Copy the tensors to a device."""
        tensors = {name: getattr(self, name).to(device) for name in ("waveforms", "lengths", "labels")}
        return replace(self, **tensors)


@dataclass(eq=False)
class Utterances(Dataset):
    """Maps an epoch and the cuts of one batch to a `Batch`; arguments as for `Batches`."""

    phones: PhoneSet
    geometry: Geometry
    seed: int
    wave_augment: WaveAugmentConfig
    per_utterance: bool
    ready_features: bool

    def __post_init__(self) -> None:
        self._speech: dict[str, tuple[int, int] | None] = {}  # cut id -> start and end of its speech

    def seconds(self, epoch: int, cut: Any) -> float:
        """Padded length of a cut (s), alone in its batch, after augmentation. Does not read the audio."""
        num_samples = cut_length(cut)
        if not self.ready_features and self.wave_augment != WaveAugmentConfig():
            if cut.id not in self._speech:
                self._speech[cut.id] = self._speech_bounds(self._intervals(cut))
            plan = self._plan(cut, self._speech[cut.id], cut_seed(self.seed, epoch, cut.id))
            num_samples = plan.num_samples
        return self._padded_samples(num_samples) / self.geometry.sample_rate

    def _padded_samples(self, num_samples: int) -> int:
        frames = -(-self.geometry.num_frames(num_samples) // ROUND_FRAMES) * ROUND_FRAMES
        return max(self.geometry.num_samples(frames), num_samples)

    def __getitem__(self, batch: tuple[int, Any]) -> Batch:
        epoch, cuts = batch
        seeds = [cut_seed(self.seed, epoch, cut.id) for cut in cuts]
        pairs = [self._load(cut, seed) for cut, seed in zip(cuts, seeds, strict=True)]
        waveforms, labels = ([torch.as_tensor(part) for part in parts] for parts in zip(*pairs, strict=True))
        longest = max(map(len, waveforms))
        padded = self._padded_samples(self.geometry.num_samples(longest) if self.ready_features else longest)
        num_frames = self.geometry.num_frames(padded)
        return Batch(
            ids=[cut.id for cut in cuts],
            waveforms=_padded(waveforms, num_frames if self.ready_features else padded, 0.0),
            lengths=torch.tensor([len(waveform) for waveform in waveforms]),
            labels=torch.stack(labels) if self.per_utterance else _padded(labels, num_frames, IGNORED),
            seeds=seeds,
            num_utterances=sum(1 / num_chunks(cut) for cut in cuts),
            cuts=[replace(cut, recording=None) for cut in cuts],
        )

    def _load(self, cut: Any, seed: int) -> tuple[np.ndarray, np.ndarray | int]:
        """Read one cut: (waveform or features, labels or label)."""
        if self.ready_features:
            return cut_features(cut), self._labels(cut)
        intervals = self._intervals(cut)
        if self.wave_augment != WaveAugmentConfig():
            self._labels(cut)  # refuse wrong labels, which augmentation might drop
        plan = self._plan(cut, self._speech_bounds(intervals), seed)
        waveform, intervals = augment_waveform(
            cut_waveform(cut), intervals, self._augmentation(cut), plan,
            seed=seed, silences=self._silences(intervals), pause_symbol=self.phones.pause,
            sample_rate=self.geometry.sample_rate,
        )  # fmt: skip
        return waveform, self._labels(cut, intervals, len(waveform))

    def _intervals(self, cut: Any) -> list[Interval]:
        return [] if self.per_utterance else phone_intervals(cut, self.geometry.sample_rate)

    def _silences(self, intervals: Sequence[Interval]) -> set[str]:
        """The symbols that mean silence, without closures, which belong to their stops. Ignores unknown symbols."""
        symbols = {interval.symbol for interval in intervals} - CLOSURES
        return {symbol for symbol in symbols if self.phones.folding.get(symbol) in self.phones.silences}

    def _speech_bounds(self, intervals: Sequence[Interval]) -> tuple[int, int] | None:
        return speech_bounds(intervals, self._silences(intervals))

    def _augmentation(self, cut: Any) -> WaveAugmentConfig:
        """Leave the ends of chunks alone: they hold speech but have no labels."""
        if num_chunks(cut) == 1:
            return self.wave_augment
        return replace(self.wave_augment, edge_silence_s=None, pause_share=0.0)

    def _plan(self, cut: Any, speech: tuple[int, int] | None, seed: int) -> Plan:
        return plan_augmentation(
            cut_length(cut), speech, self._augmentation(cut),
            seed=seed, sample_rate=self.geometry.sample_rate, shortest=self.geometry.window,
        )  # fmt: skip

    def _labels(
        self, cut: Any, intervals: Sequence[Interval] | None = None, num_samples: int | None = None
    ) -> np.ndarray | int:
        if self.per_utterance:
            return cut_label(cut, self.phones.symbols)
        return cut_labels(cut, self.phones, self.geometry, intervals=intervals, num_samples=num_samples)


def _padded(rows: Sequence[Tensor], size: int, value: float) -> Tensor:
    """Stack rows of up to `size` elements -> (B, size, ...), with `value` after the end of each."""
    padded = pad_sequence(list(rows), batch_first=True, padding_value=value)
    missing = (0, 0) * (padded.ndim - 2) + (0, size - padded.shape[1])
    return nn.functional.pad(padded, missing, value=value)
