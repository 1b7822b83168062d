"""Phones from frames that arrive in pieces: each as soon as the frame that ends it is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speechattn.alignment import Segment
from speechattn.geometry import Geometry

__all__ = ["LiveSegments"]


class LiveSegments:
    """Segments of one recording; together those that `frames_to_segments` makes of its frames.

    Args:
        symbols: Name of every class.
        geometry: Where the frames lie.
    """

    def __init__(self, symbols: Sequence[str], geometry: Geometry) -> None:
        self.symbols, self.geometry = symbols, geometry
        self._num_frames = 0
        self._class = -1  # of the segment that has not ended yet
        self._first = 0  # its first frame
        self._confidence = 0.0  # sum over its frames

    @property
    def unfinished(self) -> Segment | None:
        """The segment that has not ended yet, up to its latest frame; None before the first frame."""
        if self._num_frames == 0:
            return None
        return self._segment(self._time(self._num_frames))

    def push(self, posteriors: np.ndarray) -> list[Segment]:
        """The segments that new frames end.

        Args:
            posteriors: (n, P) float, n >= 0.
        """
        ended = []
        for row in posteriors:
            winner = int(row.argmax())
            if winner != self._class:
                if self._num_frames:
                    ended.append(self._segment(self._time(self._num_frames)))
                self._class, self._first, self._confidence = winner, self._num_frames, 0.0
            self._confidence += float(row[winner])
            self._num_frames += 1
        return ended

    def flush(self, duration: float) -> list[Segment]:
        """The last segment, which ends with the recording; none of one without frames.

        Args:
            duration: Of the recording, in seconds.
        """
        return [self._segment(duration)] if self._num_frames else []

    def _segment(self, end: float) -> Segment:
        start = self._time(self._first) if self._first else 0.0
        return Segment(self.symbols[self._class], start, end, self._confidence / (self._num_frames - self._first))

    def _time(self, frame: int) -> float:
        """Where the hop that a frame owns begins, in seconds."""
        return self.geometry.first_owned(frame) / self.geometry.sample_rate
