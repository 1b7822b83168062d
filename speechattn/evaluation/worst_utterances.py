"""Keep the utterances with the lowest accuracy, for the report."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from speechattn.geometry import Geometry
from speechattn.labels.intervals import Interval

__all__ = ["WorstUtterance", "WorstUtterances"]

NUM_WORST = 5
SHORTEST_S = 1.0  # accuracies of shorter utterances are mostly chance
EXCERPT_S = 10
EXCERPT_SAMPLES = 160_000  # 10 s at 16 kHz; shorter at higher rates, to bound the size of the report


class WorstUtterance(NamedTuple):
    """An utterance with its reference and decisions.

    Attributes:
        id: Of the cut.
        speaker: None if unknown.
        text: None if unknown.
        seconds: Duration.
        accuracy: Frame accuracy without silence, in [0, 1].
        intervals: The reference, folded to the scored phones, in samples at the geometry's rate.
        decided: (T,) int64, the decided class of every frame.
        excerpt: (N,) float32 in [-1, 1], the first 10 s at most; None for a model that takes features.
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
    """The five utterances of at least 1 s with the lowest frame accuracy without silence; ties go to the lower id.

    Args:
        geometry: Of the frames.
        with_audio: Whether to keep an excerpt of each waveform.

    Attributes:
        found: The worst utterances added so far, worst first.
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
        """Add an utterance; one without speech frames is ignored.

        Args:
            cut: A Lhotse cut.
            waveform: (N,), or features, which are not kept.
            intervals: See `WorstUtterance`.
            decided: See `WorstUtterance`.
            num_right: Correct frames among the speech frames.
            num_speech: Frames whose reference is not silence.
        """
        if cut.duration < SHORTEST_S or not num_speech:
            return
        accuracy = num_right / num_speech
        if len(self.found) == NUM_WORST and (accuracy, cut.id) > (self.found[-1].accuracy, self.found[-1].id):
            return
        supervision = cut.supervisions[0]
        excerpt = None if self._excerpt is None else waveform[: self._excerpt].copy()  # a view would keep the batch
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
