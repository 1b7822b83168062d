"""Augmentation of training waveforms: less silence at the ends, other speeds, pauses, noise, another level.

The phones move along. All randomness derives from the utterance's seed, so any process may load it, and its new length
is known before its audio is read.
"""

from __future__ import annotations

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
    "cropped",
    "cropped_intervals",
    "plan_augmentation",
    "speech_bounds",
]


@dataclass(frozen=True)
class WaveAugmentConfig:
    """What happens to a training utterance before the front end sees it; by default nothing.

    Args:
        speeds: Playback speeds, one of which is drawn; the pitch changes too (Ko et al., "Audio augmentation for speech
            recognition", 2015).
        edge_silence_s: Maximum silence (s) kept at each end; each end draws its limit uniformly from [0, this]. Null
            keeps everything. Silence costs as much as speech and teaches little.
        pause_share: Share of the utterances that get a pause, labelled silence, at one end or inside a silence.
        pause_s: Shortest and longest pause (s); lengths are drawn evenly on a logarithmic scale. The pause holds the
            utterance's own background, another noise, or digital silence.
        noise_share: Share of the utterances that are replaced by noise of the same length, labelled silence.
        snr_db: Lowest and highest signal-to-noise ratio (dB) of the noise added to every utterance. Its spectrum falls
            by 0 to 6 dB per octave, drawn as well. Empty for no noise.
        gain_db: Maximum change of level up or down, dB.

    Raises:
        ValueError: When a field is out of its range.
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
        """Whether it adds frames that need a symbol for silence."""
        return self.pause_share > 0 or self.noise_share > 0


@dataclass(frozen=True)
class Plan:
    """The random choices that decide an utterance's new length.

    Attributes:
        start: First sample that is kept.
        end: The sample after the last one that is kept.
        speed: Playback speed.
        pause: Samples of the pause, at the new speed; 0 for none.
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
    """Draw the choices that decide an utterance's new length.

    Args:
        num_samples: Its length.
        speech: Where its speech starts and ends, see `speech_bounds`; None keeps its ends.
        config: What may be drawn.
        seed: For the utterance in this epoch.
        sample_rate: Hz.
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
        intervals: Its phones in samples; none for an utterance that has one label as a whole.
        config: What may be drawn.
        plan: By `plan_augmentation`, with the same seed.
        seed: For the utterance in this epoch.
        silences: The symbols of silence, without closures. Pauses may split these, and backgrounds come from them.
        pause_symbol: The symbol for pauses and noise alone; None if `config` adds neither.
        sample_rate: Hz.

    Returns:
        (waveform, intervals): (plan.num_samples,) float32 and the phones at their new places.
    """
    random = np.random.default_rng([seed, 1])  # a stream of its own: the plan draws from `seed`
    phones = list(intervals)
    if (plan.start, plan.end) != (0, len(waveform)):
        waveform, phones = cropped(waveform, phones, plan.start, plan.end)
    if plan.speed != 1:
        waveform, phones = at_speed(waveform, phones, plan.speed)
    power = float(np.square(waveform, dtype=np.float64).mean()) if len(waveform) else 0.0
    if config.noise_share and random.random() < config.noise_share:
        waveform = _silence(waveform, phones, silences, plan.num_samples, sample_rate, random)
        phones = [Interval(0, len(waveform), str(pause_symbol))]
    elif plan.pause:
        pause = _silence(waveform, phones, silences, plan.pause, sample_rate, random)
        waveform, phones = _inserted(waveform, phones, pause, silences, str(pause_symbol), random)
    if config.snr_db:
        lowest, highest = config.snr_db
        waveform = add_noise(waveform, random.uniform(lowest, highest), random.uniform(0, 2), random, power=power)
    if config.gain_db:
        waveform = waveform * np.float32(10 ** (random.uniform(-config.gain_db, config.gain_db) / 20))
    return waveform, phones


def _silence(
    waveform: np.ndarray,
    intervals: Sequence[Interval],
    silences: Collection[str],
    num_samples: int,
    sample_rate: int,
    random: np.random.Generator,
) -> np.ndarray:
    """(num_samples,) float32: the utterance's own background, another noise, or digital silence."""
    kind = random.random()
    if kind < 0.1:
        return np.zeros(num_samples, dtype=np.float32)
    if kind < 0.4:
        return any_noise(num_samples, sample_rate, random)
    quiet = [interval for interval in intervals if interval.symbol in silences]
    loop = looped(waveform, quiet, num_samples, random) if kind < 0.7 else None
    return background(waveform, quiet, num_samples, random) if loop is None else loop


def _inserted(
    waveform: np.ndarray,
    intervals: Sequence[Interval],
    pause: np.ndarray,
    silences: Collection[str],
    symbol: str,
    random: np.random.Generator,
) -> tuple[np.ndarray, list[Interval]]:
    """Insert a pause: half of the time before the utterance, else at its end or in the middle of a silence."""
    inside = [(i.start + i.end) // 2 for i in intervals if i.symbol in silences and 0 < i.start < i.end < len(waveform)]
    place = 0 if random.random() < 0.5 else int(random.choice([len(waveform), *inside]))
    size = len(pause)
    moved = [
        *cropped_intervals(intervals, 0, place),
        Interval(place, place + size, symbol),
        *cropped_intervals(intervals, place, len(waveform), origin=-size),
    ]
    return np.concatenate([waveform[:place], pause, waveform[place:]]), moved


def speech_bounds(intervals: Sequence[Interval], silences: Collection[str]) -> tuple[int, int] | None:
    """[start, end) of the speech in samples; None if all phones are silences."""
    speech = [interval for interval in intervals if interval.symbol not in silences]
    if not speech:
        return None
    return min(interval.start for interval in speech), max(interval.end for interval in speech)


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


def at_speed(
    waveform: np.ndarray, intervals: Sequence[Interval], speed: float | Fraction
) -> tuple[np.ndarray, list[Interval]]:
    """Play a waveform faster (speed > 1) or slower, pitch and all.

    Args:
        waveform: (N,) float32.
        intervals: Its phones in samples.
        speed: Rounded to hundredths.

    Returns:
        (waveform, intervals): about (N / speed,) float32, and the phones; one of less than a sample is gone.
    """
    ratio = _ratio(speed)
    resample = import_torchaudio().functional.resample
    played = resample(torch.from_numpy(waveform), ratio.numerator, ratio.denominator).numpy()
    scaled = (Interval(round(i.start / ratio), round(i.end / ratio), i.symbol) for i in intervals)
    return played, [interval for interval in scaled if interval.start < interval.end]


def _ratio(speed: float | Fraction) -> Fraction:
    return Fraction(speed).limit_denominator(100)


def _played_length(num_samples: int, speed: Fraction) -> int:
    """Length after `at_speed`. Like torchaudio's resampling, compute it in float32 and round up."""
    if speed == 1:
        return num_samples
    return int(torch.ceil(torch.as_tensor(speed.denominator * num_samples / speed.numerator)))


def add_noise(
    waveform: np.ndarray,
    snr_db: float,
    slope: float,
    random: np.random.Generator,
    *,
    power: float,
) -> np.ndarray:
    """Add Gaussian noise whose power falls with frequency as f ** -slope: 0 is white, 1 pink, 2 brown.

    Args:
        waveform: (N,) float32.
        snr_db: Ratio (dB) of `power` to the power of the noise.
        slope: 0 or more.
        random: Draws the noise.
        power: Mean square of the speech.

    Returns:
        (N,) float32; unchanged when `power` is 0.
    """
    return waveform + coloured_noise(len(waveform), slope, random) * np.float32(np.sqrt(power / 10 ** (snr_db / 10)))
