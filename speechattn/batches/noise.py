"""Noise without speech: coloured noise, mains hum, and the background of a recording."""

from collections.abc import Sequence

import numpy as np

from speechattn.labels.intervals import Interval

__all__ = ["any_noise", "background", "coloured_noise", "hum", "looped"]

LEVELS_DBFS = (-90.0, -35.0)  # range of `any_noise`
WINDOW = 512  # samples, for background spectra
QUIETEST_SHARE = 0.1  # fraction of the windows used if there is too little silence
HARMONICS = 12
FFT_BLOCK = 4096
MARGIN, FADE, SHORTEST_LOOP = 320, 320, 1600  # samples: margin cut off at each end, cross-fade, shortest remainder used


def coloured_noise(num_samples: int, slope: float, random: np.random.Generator) -> np.ndarray:
    """Gaussian noise whose power falls with frequency as f ** -slope: 0 is white, 1 pink, 2 brown.

    The spectrum is flat below a hundredth of the bandwidth; otherwise hardly audible frequencies would take all the
    power. Returns (num_samples,) float32 of mean square 1.
    """
    size = _fast_length(num_samples)
    spectrum = np.fft.rfft(random.standard_normal(size, dtype=np.float32))
    spectrum *= np.maximum(np.arange(len(spectrum)), len(spectrum) / 100) ** (-slope / 2)
    return _normalised(np.fft.irfft(spectrum, size)[:num_samples])


def hum(num_samples: int, sample_rate: int, random: np.random.Generator) -> np.ndarray:
    """Mains hum: 50 or 60 Hz with harmonics of random amplitudes that fall as 1/k, and pink noise 20 dB lower.

    Returns (num_samples,) float32 of mean square 1; `sample_rate` is in Hz.
    """
    numbers = np.arange(1, HARMONICS + 1)
    frequencies = random.choice([50.0, 60.0]) * numbers
    amplitudes = random.exponential(1.0, HARMONICS) / numbers
    phases = random.uniform(0, 2 * np.pi, HARMONICS)
    times = np.arange(num_samples) / sample_rate
    wave = np.zeros(num_samples)
    for frequency, amplitude, phase in zip(frequencies, amplitudes, phases, strict=True):
        wave += amplitude * np.sin(2 * np.pi * frequency * times + phase)
    return _normalised(_normalised(wave) + 0.1 * coloured_noise(num_samples, 1.0, random))


def any_noise(num_samples: int, sample_rate: int, random: np.random.Generator) -> np.ndarray:
    """Hum (in one of four draws) or coloured noise, (num_samples,) float32, at a random level from -90 to -35 dBFS."""
    level = 10 ** (random.uniform(*LEVELS_DBFS) / 20)
    if random.random() < 0.25:
        return np.float32(level) * hum(num_samples, sample_rate, random)
    return np.float32(level) * coloured_noise(num_samples, random.uniform(0, 2), random)


def background(
    waveform: np.ndarray, silences: Sequence[Interval], num_samples: int, random: np.random.Generator
) -> np.ndarray:
    """Gaussian noise with the spectrum and level of a recording's silences, (num_samples,) float32.

    The spectrum is the median over windows of 512 samples, which suppresses breaths and word edges. With fewer than
    four windows of silence, the quietest tenth of all windows is used instead.

    Args:
        waveform: (N,) float32.
        silences: Silences of the recording, in samples.
        num_samples: Length of the result; any.
        random: Random generator.
    """
    pieces = [waveform[interval.start : interval.end] for interval in silences]
    windows = [_windows(piece) for piece in pieces if len(piece) >= WINDOW]
    if sum(map(len, windows)) >= 4:
        quiet = np.concatenate(windows)
    else:
        everything = _windows(np.pad(waveform, (0, max(0, WINDOW - len(waveform)))))
        energies = np.square(everything).sum(axis=1)
        quiet = everything[np.argsort(energies)[: max(1, round(QUIETEST_SHARE * len(everything)))]]
    taper = np.hanning(WINDOW)
    powers = np.abs(np.fft.rfft(quiet * taper)) ** 2 / np.square(taper).sum()
    # The power in a bin has an exponential distribution, whose median is ln 2 times its mean.
    density = np.median(powers, axis=0) / np.log(2)
    size = _fast_length(num_samples)
    spectrum = np.fft.rfft(random.standard_normal(size, dtype=np.float32))
    bins = np.linspace(0, len(density) - 1, len(spectrum))
    spectrum *= np.sqrt(np.interp(bins, np.arange(len(density)), density))
    return np.fft.irfft(spectrum, size)[:num_samples].astype(np.float32)


def looped(
    waveform: np.ndarray, silences: Sequence[Interval], num_samples: int, random: np.random.Generator
) -> np.ndarray | None:
    """A random silence of a recording, with its breaths, repeated with cross-fades to (num_samples,) float32.

    Returns None if no silence has at least 2240 samples (140 ms at 16 kHz). Arguments as for `background`.
    """
    inner = [(i.start + MARGIN, min(i.end, len(waveform)) - MARGIN) for i in silences]
    usable = [(start, end) for start, end in inner if end - start >= SHORTEST_LOOP]
    if not usable:
        return None
    start, end = usable[random.integers(len(usable))]
    ramp = np.sin(np.pi / 2 * (np.arange(FADE, dtype=np.float32) + 0.5) / FADE)  # equal power
    period = waveform[start : end - FADE].copy()
    period[:FADE] = period[:FADE] * ramp + waveform[end - FADE : end] * ramp[::-1]
    return np.resize(period, num_samples)


def _fast_length(num_samples: int) -> int:
    """Round up to a multiple of 4096: an FFT whose length has large prime factors takes ten times as long."""
    return -(-num_samples // FFT_BLOCK) * FFT_BLOCK


def _windows(waveform: np.ndarray) -> np.ndarray:
    """(N,) -> (K, 512), overlapping by half."""
    return np.lib.stride_tricks.sliding_window_view(waveform, WINDOW)[:: WINDOW // 2]


def _normalised(noise: np.ndarray) -> np.ndarray:
    """Scale to mean square 1, float32; digital silence stays as it is."""
    power = np.square(noise, dtype=np.float64).mean() if len(noise) else 0.0
    return (noise / np.sqrt(power) if power else noise).astype(np.float32)
