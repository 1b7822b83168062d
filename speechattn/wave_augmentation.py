"""Augmentation of waveforms in training: less silence at the ends, other speeds, noise, another level.

Phones follow the waveform. All is drawn from the seed of the utterance: no matter which process loads it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from speechattn.alignment import Interval
from speechattn.torch_pair import import_torchaudio

__all__ = [
    "WaveAugmentConfig",
    "add_noise",
    "at_speed",
    "augment_waveform",
    "cropped",
    "cropped_intervals",
    "edges_to_crop",
]


@dataclass(frozen=True)
class WaveAugmentConfig:
    """What becomes of a training utterance before the front end hears it; nothing, by default.

    Args:
        speeds: Speeds at which it may be played, pitch and all; one is drawn (Ko et al., "Audio augmentation for speech
            recognition", 2015).
        edge_silence_s: Most silence that is left at either end, seconds: how much may stay is drawn from 0 to this, for
            each end anew, and only a silence that is no longer than what was drawn stays whole. Null leaves all: much
            of read speech is silence, which teaches little and costs as much.
        snr_db: Lowest and highest power of the whole waveform over that of the noise that is added, dB; the noise's
            spectrum falls by 0 to 6 dB an octave, which is drawn, too. Empty for no noise.
        gain_db: Greatest change of level up or down, dB.

    Raises:
        ValueError: When a field is out of its range.
    """

    speeds: tuple[float, ...] = (1.0,)
    edge_silence_s: float | None = None
    snr_db: tuple[float, ...] = ()
    gain_db: float = 0.0

    def __post_init__(self) -> None:
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ValueError(f"wave_augment.speeds must be one or more of 0.5 to 2, got {list(self.speeds)}")
        if self.edge_silence_s is not None and self.edge_silence_s < 0:
            raise ValueError(f"wave_augment.edge_silence_s must not be negative, got {self.edge_silence_s}")
        if self.snr_db and (len(self.snr_db) != 2 or self.snr_db[0] > self.snr_db[1]):
            raise ValueError(f"wave_augment.snr_db must be the lowest and the highest, got {list(self.snr_db)}")
        if self.gain_db < 0:
            raise ValueError(f"wave_augment.gain_db must not be negative, got {self.gain_db}")


def augment_waveform(
    waveform: np.ndarray,
    intervals: Sequence[Interval],
    config: WaveAugmentConfig,
    *,
    seed: int,
    silences: Collection[str],
    sample_rate: int,
    shortest: int = 1,
) -> tuple[np.ndarray, list[Interval]]:
    """Augment one utterance.

    Args:
        waveform: (N,) float32.
        intervals: Its phones in samples; none for an utterance with a label of its own, whose ends are then left.
        config: How.
        seed: Of the utterance in this epoch.
        silences: The symbols that count as silence.
        sample_rate: Hz.
        shortest: Samples that cropping and speed leave at least: what would leave fewer is not done.

    Returns:
        (waveform, intervals): (N',) float32 and the phones where they lie now.
    """
    random, phones = np.random.default_rng(seed), list(intervals)
    if config.edge_silence_s is not None:
        start, end = edges_to_crop(
            phones, silences, len(waveform), random.uniform(0, config.edge_silence_s, 2) * sample_rate
        )
        if end - start >= shortest:
            waveform, phones = cropped(waveform, phones, start, end)
    speed = config.speeds[seed % len(config.speeds)]
    if speed != 1:
        played, moved = at_speed(waveform, phones, speed)
        if speed < 1 or len(played) >= shortest:
            waveform, phones = played, moved
    if config.snr_db:
        lowest, highest = config.snr_db
        waveform = add_noise(waveform, random.uniform(lowest, highest), random.uniform(0, 2), random)
    if config.gain_db:
        waveform = waveform * np.float32(10 ** (random.uniform(-config.gain_db, config.gain_db) / 20))
    return waveform, phones


def edges_to_crop(
    intervals: Sequence[Interval], silences: Collection[str], num_samples: int, left_over: np.ndarray
) -> tuple[int, int]:
    """What of an utterance stays, [start, end) in samples, when so much silence is left before and after its speech.

    Args:
        intervals: Its phones.
        silences: The symbols that count as silence.
        num_samples: Its length.
        left_over: (2,), samples of silence that may stay before the first and behind the last phone of speech.

    Returns:
        All of it when there is no speech.
    """
    speech = [interval for interval in intervals if interval.symbol not in silences]
    if not speech:
        return 0, num_samples
    before, after = (int(samples) for samples in left_over)
    first, last = min(interval.start for interval in speech), max(interval.end for interval in speech)
    return max(0, first - before), min(num_samples, last + after)


def cropped(
    waveform: np.ndarray, intervals: Sequence[Interval], start: int, end: int
) -> tuple[np.ndarray, list[Interval]]:
    """Samples [start, end) of a waveform, (end - start,), and the phones, or their parts, that lie in them."""
    return waveform[start:end], cropped_intervals(intervals, start, end)


def cropped_intervals(
    intervals: Sequence[Interval], start: int, end: int, *, origin: int | None = None
) -> list[Interval]:
    """The phones, or their parts, that lie in samples [start, end), by their distance from `origin`; None: `start`."""
    origin = start if origin is None else origin
    inside = (Interval(max(i.start, start) - origin, min(i.end, end) - origin, i.symbol) for i in intervals)
    return [interval for interval in inside if interval.start < interval.end]


def at_speed(waveform: np.ndarray, intervals: Sequence[Interval], speed: float) -> tuple[np.ndarray, list[Interval]]:
    """Play a waveform faster (speed > 1) or slower, pitch and all.

    Args:
        waveform: (N,) float32.
        intervals: Its phones in samples.
        speed: Rounded to hundredths.

    Returns:
        (waveform, intervals): about (N / speed,) float32, and the phones; one of less than a sample is gone.
    """
    ratio = Fraction(speed).limit_denominator(100)
    resample = import_torchaudio().functional.resample
    played = resample(torch.from_numpy(waveform), ratio.numerator, ratio.denominator).numpy()
    scaled = (Interval(round(i.start / ratio), round(i.end / ratio), i.symbol) for i in intervals)
    return played, [interval for interval in scaled if interval.start < interval.end]


def add_noise(waveform: np.ndarray, snr_db: float, slope: float, random: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise whose power falls with frequency as f ** -slope: 0 is white, 1 pink, 2 brown.

    Args:
        waveform: (N,) float32.
        snr_db: Power of the whole waveform over that of the noise, dB.
        slope: 0 or more.
        random: Draws the noise.

    Returns:
        (N,) float32; a silent waveform as it is.
    """
    spectrum = np.fft.rfft(random.standard_normal(len(waveform), dtype=np.float32))
    # Flat below a hundredth of the band: what lies there is hardly heard and would take all the power.
    spectrum *= np.maximum(np.arange(len(spectrum)), len(spectrum) / 100) ** (-slope / 2)
    noise = np.fft.irfft(spectrum, len(waveform))
    power = np.square(waveform, dtype=np.float64).sum() / np.square(noise).sum()
    return waveform + (noise * np.sqrt(power / 10 ** (snr_db / 10))).astype(np.float32)
