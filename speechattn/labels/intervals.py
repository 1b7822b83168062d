"""A phone and its time: `Interval` in samples, `Segment` in seconds."""

from typing import NamedTuple

__all__ = ["Interval", "Seconds", "Segment"]

Seconds = float


class Interval(NamedTuple):
    """A phone in a signal, in integer samples, half-open: [start, end)."""

    start: int
    end: int
    symbol: str


class Segment(NamedTuple):
    """A phone in a file, in seconds, with a model's confidence in [0, 1]."""

    phone: str
    start: Seconds
    end: Seconds
    confidence: float = 1.0
