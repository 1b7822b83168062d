"""Detect label files whose whole-number times are in another unit than their format's own."""

from collections.abc import Sequence

from speechattn.labels.intervals import Seconds, Segment

__all__ = ["SAMPLE_RATES", "check_units"]

SAMPLE_RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000)  # common ones
COMMON_UNITS = (1000, *SAMPLE_RATES, 1_000_000, 10_000_000)  # per second: ms, samples, microseconds, HTK's 100 ns
TOLERANCE = 0.05  # of the duration, by which the labels may end earlier or later
MIN_COVERAGE = 0.05  # of the duration, up to which labels must reach


def check_units(segments: Sequence[Segment], rate: float, duration: Seconds) -> None:
    """Refuse labels that do not fit the audio.

    Args:
        segments: The labels, in seconds.
        rate: Units per second with which they were read.
        duration: Of the audio.

    Raises:
        ValueError: If the labels would fit with another common unit and do not fit with theirs, or end far too early.
    """
    end = max((segment.end for segment in segments), default=0.0)
    if abs(end - duration) <= TOLERANCE * duration:
        return
    what = f"labels end at {end:g} s of {duration:g} s of audio"
    for other in COMMON_UNITS:
        if abs(end * rate / other - duration) <= TOLERANCE * duration / 5:
            raise ValueError(f"{what}; with {other:,} units per second they would fit: use --label-rate {other}")
    if end < MIN_COVERAGE * duration:
        raise ValueError(f"{what}: in another unit? --label-rate sets the units per second")
