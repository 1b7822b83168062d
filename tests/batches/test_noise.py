"""Noise without speech: levels, spectra, and that a background sounds like the silence it was taken from."""

import numpy as np
import pytest

from speechattn.batches.noise import any_noise, background, coloured_noise, hum, looped
from speechattn.labels.intervals import Interval


def decibels(waveform):
    return 10 * np.log10(np.square(waveform, dtype=np.float64).mean())


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_coloured_noise_falls_as_asked(slope):
    noise = coloured_noise(160000, slope, np.random.default_rng(0))
    assert noise.dtype == np.float32 and decibels(noise) == pytest.approx(0, abs=0.01)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [power[first : 2 * first].mean() for first in (2000, 4000, 8000, 16000, 32000)]
    steps = [10 * np.log10(high / low) for low, high in zip(octaves, octaves[1:], strict=False)]
    assert steps == pytest.approx([-10 * np.log10(2) * slope] * 4, abs=0.4)


def test_hum_stands_on_the_mains_frequency():
    bases = set()
    for seed in range(8):
        wave = hum(160000, 16000, np.random.default_rng(seed))
        assert decibels(wave) == pytest.approx(0, abs=0.01)
        power = np.abs(np.fft.rfft(wave)) ** 2  # 0.1 Hz per bin
        lines = {base: power[base * 10 : base * 130 : base * 10].sum() / power.sum() for base in (50, 60)}
        bases.add(max(lines, key=lines.__getitem__))
        assert max(lines.values()) > 0.95 and min(lines.values()) < 0.95
    assert bases == {50, 60}


def test_any_noise_keeps_its_level_between_the_bounds_and_the_seed_decides():
    levels = []
    for seed in range(60):
        noise, again = (any_noise(8000, 16000, np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(noise, again)
        levels.append(decibels(noise))
    assert -90 <= min(levels) < -80 and -45 < max(levels) <= -35


def test_a_background_has_the_level_and_the_spectrum_of_the_silence():
    generator = np.random.default_rng(0)
    quiet = 0.001 * coloured_noise(16000, 2.0, generator)
    speech = 0.1 * coloured_noise(16000, 0.0, generator)
    waveform = np.concatenate([quiet, speech]).astype(np.float32)
    made = background(waveform, [Interval(0, 16000, "SIL")], 80000, generator)
    assert made.shape == (80000,) and made.dtype == np.float32
    assert decibels(made) == pytest.approx(-60, abs=1)
    assert decibels(made) < decibels(background(waveform, [Interval(16000, 32000, "AA")], 80000, generator)) - 30
    bands = []
    for noise in (made, quiet):
        power = np.abs(np.fft.rfft(noise)) ** 2 / len(noise) ** 2
        edges = (np.array([0.1, 0.2, 0.4, 0.8]) * len(power)).astype(int)
        bands.append([10 * np.log10(power[a:b].sum()) for a, b in zip(edges, edges[1:], strict=False)])
    assert bands[0] == pytest.approx(bands[1], abs=1.5)


@pytest.mark.parametrize("length", [1, 300, 511, 512, 3000])
def test_without_a_silence_the_quietest_windows_stand_for_it(length):
    waveform = np.full(length, 0.5, dtype=np.float32)
    if length > 2000:
        waveform[1000:2000] = 1e-4
    made = background(waveform, [Interval(0, min(length, 100), "SIL")], 1600, np.random.default_rng(0))
    assert made.shape == (1600,) and np.isfinite(made).all()
    if length > 2000:
        assert decibels(made) < -60


def test_a_loop_repeats_one_silence_at_its_level():
    generator = np.random.default_rng(0)
    waveform = generator.standard_normal(32000, dtype=np.float32)
    waveform[4000:10000] *= 0.01
    silences = [Interval(0, 1000, "SIL"), Interval(4000, 10000, "SIL")]
    made = looped(waveform, silences, 30000, generator)
    assert made.shape == (30000,) and made.dtype == np.float32
    period = 6000 - 2 * 320 - 320
    assert np.array_equal(made[period : 2 * period], made[:period])
    assert np.array_equal(made[320:period], waveform[4000 + 320 + 320 : 10000 - 320 - 320])
    for n in range(320):  # the silence fades in over its own end
        rise, fall = np.sin(np.pi / 2 * (n + 0.5) / 320), np.cos(np.pi / 2 * (n + 0.5) / 320)
        assert made[n] == pytest.approx(rise * waveform[4320 + n] + fall * waveform[9360 + n], abs=1e-6)
    assert looped(waveform, silences[:1], 30000, generator) is None
    assert looped(waveform, [], 30000, generator) is None
    assert looped(waveform[:5000], silences, 30000, generator) is None  # the silence goes on past the end
    assert looped(waveform, silences, 100, generator).shape == (100,)
