"""The utterances that a model has most trouble with, to look at and listen to; only ever a few are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from speechattn.geometry import Geometry
from speechattn.labels.intervals import Interval

__all__ = ["WorstUtterance", "WorstUtterances"]

NUM_WORST = 5
SHORTEST_S = 1.0  # a shorter one is bad luck as often as bad work
EXCERPT_S = 10
EXCERPT_SAMPLES = 160_000  # 10 s at 16 kHz: at higher rates an excerpt is shorter, and takes no more room


class WorstUtterance(NamedTuple):
    """An utterance and what was made of it.

    Attributes:
        id: The cut's.
        speaker: None where the cut does not name them.
        text: None where the cut has none.
        seconds: Length of the whole utterance.
        accuracy: Share in [0, 1] of its frames without silence that are right.
        intervals: The reference, folded to the scored phones, in samples at the geometry's rate.
        decided: (T,) int64, the class decided for in every frame.
        excerpt: (N,) float32 in [-1, 1], its beginning, at most 10 s; None for a model of ready features.
    """

    id: str
    speaker: str | None
    text: str | None
    seconds: float
    accuracy: float
    intervals: Sequence[Interval]
    decided: np.ndarray
    excerpt: np.ndarray | None


class WorstUtterances:
    """The five of the lowest frame accuracy without silence among those of at least 1 s; of equal ones by id.

    Args:
        geometry: Where the frames lie.
        with_audio: Whether the utterances are waveforms, to keep a beginning of.

    Attributes:
        found: The worst of those that were added so far, the very worst first.
    """

    def __init__(self, geometry: Geometry, *, with_audio: bool) -> None:
        self.found: list[WorstUtterance] = []
        self._excerpt = min(EXCERPT_S * geometry.sample_rate, EXCERPT_SAMPLES) if with_audio else None

    def add(
        self,
        cut: Any,
        waveform: np.ndarray,
        intervals: Sequence[Interval],
        decided: np.ndarray,
        *,
        num_right: int,
        num_speech: int,
    ) -> None:
        """Look at an utterance.

        Args:
            cut: Lhotse's.
            waveform: (N,), or ready features, which are not looked at.
            intervals: See `WorstUtterance`.
            decided: See `WorstUtterance`.
            num_right: Frames, of those whose reference is not silence, that are right.
            num_speech: Frames whose reference is not silence; an utterance without any does not take part.
        """
        if cut.duration < SHORTEST_S or not num_speech:
            return
        accuracy = num_right / num_speech
        if len(self.found) == NUM_WORST and (accuracy, cut.id) > (self.found[-1].accuracy, self.found[-1].id):
            return
        supervision = cut.supervisions[0]
        excerpt = None if self._excerpt is None else waveform[: self._excerpt].copy()  # not the batch that it is of
        worst = WorstUtterance(
            cut.id,
            None if supervision.speaker is None else str(supervision.speaker),
            supervision.text,
            cut.duration,
            accuracy,
            intervals,
            decided,
            excerpt,
        )
        self.found = sorted([*self.found, worst], key=lambda each: (each.accuracy, each.id))[:NUM_WORST]
