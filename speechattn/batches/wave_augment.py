"""Augmentation of training waveforms and their labels: trimmed silence, speed, pauses, noise, level.

All randomness derives from the utterance's seed, so any process may load it. Its new length is known before its audio
is read.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from speechattn.audio import import_torchaudio
from speechattn.batches.noise import any_noise, background, coloured_noise, looped
from speechattn.labels.intervals import Interval

__all__ = [
    "Plan",
    "WaveAugmentConfig",
    "add_noise",
    "at_speed",
    "augment_waveform",
    "cropped_intervals",
    "plan_augmentation",
    "speech_bounds",
]


@dataclass(frozen=True)
class WaveAugmentConfig:
    """Augmentation of the training waveforms; none by default.

    Args:
        speeds: Playback speeds, 0.5 to 2, one of which is drawn; the pitch changes too (Ko et al., "Audio augmentation
            for speech recognition", 2015).
        edge_silence_s: Maximum silence (s) kept at each end; each end draws its limit uniformly from [0, this]. Null
            keeps everything. Silence costs as much as speech and teaches little.
        pause_share: Fraction of the utterances that get a pause, labelled silence, at one end or inside a silence.
        pause_s: Shortest and longest pause (s), drawn log-uniformly. The pause holds the utterance's own background,
            other noise, or digital silence.
        noise_share: Fraction of the utterances that are replaced by noise of the same length, labelled silence.
        snr_db: Lowest and highest signal-to-noise ratio (dB) of the noise added to every utterance. Its spectrum falls
            by 0 to 6 dB per octave, drawn uniformly. Empty for no noise.
        gain_db: Maximum change of level up or down (dB).

    Raises:
        ValueError: If a field is out of range.
    """

    speeds: tuple[float, ...] = (1.0,)
    edge_silence_s: float | None = None
    pause_share: float = 0.0
    pause_s: tuple[float, ...] = (2.0, 30.0)
    noise_share: float = 0.0
    snr_db: tuple[float, ...] = ()
    gain_db: float = 0.0

    def __post_init__(self) -> None:
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ValueError(f"wave_augment.speeds must be one or more of 0.5 to 2, got {list(self.speeds)}")
        if self.edge_silence_s is not None and self.edge_silence_s < 0:
            raise ValueError(f"wave_augment.edge_silence_s must not be negative, got {self.edge_silence_s}")
        for name in ("pause_share", "noise_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"wave_augment.{name} must lie in [0, 1], got {getattr(self, name)}")
        if len(self.pause_s) != 2 or not 0 < self.pause_s[0] <= self.pause_s[1]:
            raise ValueError(f"wave_augment.pause_s must be the shortest and the longest, got {list(self.pause_s)}")
        if self.snr_db and (len(self.snr_db) != 2 or self.snr_db[0] > self.snr_db[1]):
            raise ValueError(f"wave_augment.snr_db must be the lowest and the highest, got {list(self.snr_db)}")
        if self.gain_db < 0:
            raise ValueError(f"wave_augment.gain_db must not be negative, got {self.gain_db}")

    @property
    def adds_silence(self) -> bool:
        """Whether it adds frames that need a phone for silence."""
        return self.pause_share > 0 or self.noise_share > 0


@dataclass(frozen=True)
class Plan:
    """The random choices that determine an utterance's new length.

    Attributes:
        start: First sample to keep.
        end: Sample after the last one to keep.
        speed: Playback speed.
        pause: Length of the pause in samples, after the change of speed; 0 for none.
        num_samples: New length.
    """

    start: int
    end: int
    speed: Fraction
    pause: int
    num_samples: int


def plan_augmentation(
    num_samples: int,
    speech: tuple[int, int] | None,
    config: WaveAugmentConfig,
    *,
    seed: int,
    sample_rate: int,
    shortest: int = 1,
) -> Plan:
    """Draw the choices that determine an utterance's new length.

    Args:
        num_samples: Its length.
        speech: Start and end of its speech in samples, see `speech_bounds`; None keeps its ends.
        config: The augmentation.
        seed: Seed of the utterance in this epoch.
        sample_rate: Sample rate (Hz).
        shortest: Minimum length in samples; cropping or a higher speed that would leave less is skipped.
    """
    random = np.random.default_rng(seed)
    start, end = 0, num_samples
    if config.edge_silence_s is not None:
        before, after = (int(samples) for samples in random.uniform(0, config.edge_silence_s, 2) * sample_rate)
        if speech is not None:
            first, last = max(0, speech[0] - before), min(num_samples, speech[1] + after)
            if last - first >= shortest:
                start, end = first, last
    speed = _ratio(config.speeds[seed % len(config.speeds)])
    length = _played_length(end - start, speed)
    if speed > 1 and length < shortest:
        speed, length = Fraction(1), end - start
    pause = 0
    if config.pause_share and random.random() < config.pause_share:
        pause = round(np.exp(random.uniform(*np.log(config.pause_s))) * sample_rate)
    return Plan(start, end, speed, pause, length + pause)


def augment_waveform(
    waveform: np.ndarray,
    intervals: Sequence[Interval],
    config: WaveAugmentConfig,
    plan: Plan,
    *,
    seed: int,
    silences: Collection[str],
    pause_symbol: str | None,
    sample_rate: int,
) -> tuple[np.ndarray, list[Interval]]:
    """Augment one utterance.

    Args:
        waveform: (N,) float32.
        intervals: Its phones in samples; empty if the utterance has one label as a whole.
        config: The augmentation.
        plan: From `plan_augmentation`, with the same seed.
        seed: Seed of the utterance in this epoch.
        silences: Symbols for silence, without closures. They may be split by pauses, and give the background noise.
        pause_symbol: Symbol for pauses and pure noise; None if `config` adds neither.
        sample_rate: Sample rate (Hz).

    Returns:
        (waveform, intervals): (plan.num_samples,) float32 and the phones at their new places.
    """
    random = np.random.default_rng([seed, 1])  # independent of the plan, which draws from `seed`
    phones = list(intervals)
    if (plan.start, plan.end) != (0, len(waveform)):
        waveform, phones = waveform[plan.start : plan.end], cropped_intervals(phones, plan.start, plan.end)
    if plan.speed != 1:
        waveform, phones = at_speed(waveform, phones, plan.speed)
    power = float(np.square(waveform, dtype=np.float64).mean()) if len(waveform) else 0.0
    quiet = [interval for interval in phones if interval.symbol in silences]
    if config.noise_share and random.random() < config.noise_share:
        waveform = _silence(waveform, quiet, plan.num_samples, sample_rate, random)
        phones = [Interval(0, len(waveform), str(pause_symbol))]
    elif plan.pause:
        pause = _silence(waveform, quiet, plan.pause, sample_rate, random)
        middles = [(i.start + i.end) // 2 for i in quiet if 0 < i.start < i.end < len(waveform)]
        place = 0 if random.random() < 0.5 else int(random.choice([len(waveform), *middles]))
        phones = [
            *cropped_intervals(phones, 0, place),
            Interval(place, place + len(pause), str(pause_symbol)),
            *cropped_intervals(phones, place, len(waveform), origin=-len(pause)),
        ]
        waveform = np.concatenate([waveform[:place], pause, waveform[place:]])
    if config.snr_db:
        lowest, highest = config.snr_db
        waveform = add_noise(waveform, random.uniform(lowest, highest), random.uniform(0, 2), random, power=power)
    if config.gain_db:
        waveform = waveform * np.float32(10 ** (random.uniform(-config.gain_db, config.gain_db) / 20))
    return waveform, phones


def _silence(
    waveform: np.ndarray, quiet: Sequence[Interval], num_samples: int, sample_rate: int, random: np.random.Generator
) -> np.ndarray:
    """(num_samples,) float32: digital silence, other noise, or the utterance's own background from its silences."""
    kind = random.random()
    if kind < 0.1:
        return np.zeros(num_samples, dtype=np.float32)
    if kind < 0.4:
        return any_noise(num_samples, sample_rate, random)
    loop = looped(waveform, quiet, num_samples, random) if kind < 0.7 else None
    return background(waveform, quiet, num_samples, random) if loop is None else loop


def speech_bounds(intervals: Sequence[Interval], silences: Collection[str]) -> tuple[int, int] | None:
    """[start, end) of the speech in samples; None if all phones are silences."""
    speech = [interval for interval in intervals if interval.symbol not in silences]
    if not speech:
        return None
    return min(interval.start for interval in speech), max(interval.end for interval in speech)


def cropped_intervals(
    intervals: Sequence[Interval], start: int, end: int, *, origin: int | None = None
) -> list[Interval]:
    """Crop phones to samples [start, end), with new times relative to `origin` (default: `start`)."""
    origin = start if origin is None else origin
    inside = (Interval(max(i.start, start) - origin, min(i.end, end) - origin, i.symbol) for i in intervals)
    return [interval for interval in inside if interval.start < interval.end]


def at_speed(
    waveform: np.ndarray, intervals: Sequence[Interval], speed: float | Fraction
) -> tuple[np.ndarray, list[Interval]]:
    """Play a waveform faster (speed > 1) or slower; the pitch changes too.

    Args:
        waveform: (N,) float32.
        intervals: Its phones in samples.
        speed: Playback speed, rounded to hundredths.

    Returns:
        (waveform, intervals): about (N / speed,) float32, and the phones, without any that became empty.
    """
    ratio = _ratio(speed)
    resample = import_torchaudio().functional.resample
    played = resample(torch.from_numpy(waveform), ratio.numerator, ratio.denominator).numpy()
    scaled = (Interval(round(i.start / ratio), round(i.end / ratio), i.symbol) for i in intervals)
    return played, [interval for interval in scaled if interval.start < interval.end]


def _ratio(speed: float | Fraction) -> Fraction:
    return Fraction(speed).limit_denominator(100)


def _played_length(num_samples: int, speed: Fraction) -> int:
    """Length after `at_speed`: rounded up from float32, as in torchaudio's resampling."""
    if speed == 1:
        return num_samples
    return int(torch.ceil(torch.as_tensor(speed.denominator * num_samples / speed.numerator)))


def add_noise(
    waveform: np.ndarray, snr_db: float, slope: float, random: np.random.Generator, *, power: float
) -> np.ndarray:
    """Add Gaussian noise whose power falls with frequency as f ** -slope: 0 is white, 1 pink, 2 brown.

    Args:
        waveform: (N,) float32.
        snr_db: Ratio (dB) of `power` to the power of the noise.
        slope: At least 0.
        random: Random generator.
        power: Mean square of the speech.

    Returns:
        (N,) float32; unchanged if `power` is 0.
    """
    return waveform + coloured_noise(len(waveform), slope, random) * np.float32(np.sqrt(power / 10 ** (snr_db / 10)))
