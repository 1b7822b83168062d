"""How a model behaves in noise without speech, and in speech after a pause.

    python benchmarks/noise.py [MODEL] --cuts CUTS [--pause 10] [--seconds 60] [--takes 3] [--output FOLDER]

MODEL defaults to the boxed model. CUTS have phones, as `speechattn prepare` leaves them; their silences are the
background noise. All signals are rounded to 16 bits, as in a WAV file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import circumstances
from lhotse import CutSet
from scipy.signal import welch

from speechattn.agreement import fold_intervals, merge_closures
from speechattn.alignment import Interval
from speechattn.classifier import FrameClassifier
from speechattn.commands.use import BOXED
from speechattn.corpora.manifest import phone_intervals
from speechattn.cuts import cut_labels, cut_waveform, long_enough
from speechattn.evaluation import Folding
from speechattn.phones import PhoneSet

LEVELS = (-50.0, -66.0)  # dBFS, RMS
MARGIN_S, SHORTEST_S, FADE_S = 0.02, 0.05, 0.02  # cut off a silence's ends; shortest silence left; cross-fade
BROWN_FROM = 20.0  # Hz; flat below, so that the level is not all in what nobody hears
HARMONICS, HUM_NOISE_DB = 10, -20.0  # the noise is relative to the hum
SEGMENT = 512  # samples of Welch's method

Row = dict[str, Any]
Stretch = tuple[str, np.ndarray]  # speaker, samples


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default=BOXED, help=f"folder or name (default: {BOXED})")
    parser.add_argument("--cuts", type=Path, required=True, help="cuts with phones")
    parser.add_argument("--pause", type=float, default=10.0, help="seconds before each utterance (default: 10)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of noise without speech (default: 60)")
    parser.add_argument("--takes", type=int, default=3, help="seeds, and speakers' backgrounds (default: 3)")
    parser.add_argument("--num-cuts", type=int, help="utterances after a pause (default: all)")
    parser.add_argument("--output", type=Path, help="folder for noise_figures.json")
    args = parser.parse_args()
    model = FrameClassifier.from_pretrained(args.model)
    cuts = long_enough(args.cuts, model.frontend.geometry)
    phones = scored_phones(model.phones, cuts)
    noise = noise_alone(model, backgrounds(cuts, phones, args.takes), args.seconds, args.takes)
    pause = after_pause(model, phones, list(cuts)[: args.num_cuts], args.pause)
    print(table(noise, pause))
    if args.output:
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
        report = {**circumstances(["torch"]), **settings, "noise": noise, "pause": pause}
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "noise_figures.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def scored_phones(own: PhoneSet, cuts: CutSet) -> PhoneSet:
    """The model's own phones where they cover the cuts' labels; else `timit39`, which here also takes the model's."""
    symbols = {interval.symbol for cut in cuts for interval in phone_intervals(cut)}
    if symbols <= set(own.folding):
        return own
    timit = PhoneSet.load("timit39")
    folding: dict[str, str | None] = dict.fromkeys(own.symbols)
    folding |= {own.symbols[i.start]: i.symbol for i in fold_intervals(numbered(own.symbols), timit)}
    return replace(timit, folding=folding | dict(timit.folding))


def numbered(symbols: Sequence[str]) -> list[Interval]:
    """One interval per symbol."""
    return [Interval(number, number + 1, symbol) for number, symbol in enumerate(symbols)]


def scored_intervals(cut: Any, model: FrameClassifier, phones: PhoneSet) -> list[Interval]:
    """A cut's phones; TIMIT's closures count as their stops, unless the model itself has TIMIT's phones."""
    intervals = phone_intervals(cut, model.frontend.geometry.sample_rate)
    return intervals if model.phones.name.startswith("timit") else merge_closures(intervals)


# Backgrounds


def longest_silence(cut: Any, phones: PhoneSet) -> np.ndarray:
    """The longest silence by the labels, without its margins; empty if there is none of `SHORTEST_S`."""
    rate = cut.sampling_rate
    margin, longest = round(MARGIN_S * rate), (0, 0)
    start = end = 0
    for interval in fold_intervals(merge_closures(phone_intervals(cut, rate)), phones):
        if interval.symbol not in phones.silences:
            continue
        start, end = start if interval.start == end else interval.start, interval.end
        longest = max(longest, (start, end), key=lambda stretch: stretch[1] - stretch[0])
    stretch = cut_waveform(cut)[longest[0] + margin : max(longest[1] - margin, 0)]
    return stretch if len(stretch) >= SHORTEST_S * rate else stretch[:0]


def backgrounds(cuts: CutSet, phones: PhoneSet, count: int) -> list[Stretch]:
    """The longest silence of each speaker; of these the `count` longest, longest first."""
    longest: dict[str, np.ndarray] = {}
    for cut in cuts:
        speaker, stretch = cut.supervisions[0].speaker or "", longest_silence(cut, phones)
        if stretch.any() and len(stretch) > len(longest.get(speaker, ())):
            longest[speaker] = stretch
    return sorted(longest.items(), key=lambda item: (-len(item[1]), item[0]))[:count]


def tiled(stretch: np.ndarray, num_samples: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """The stretch over and over, with cross-fades of equal power."""
    fade = min(round(FADE_S * rate), len(stretch) // 2)
    ramp = np.sin(np.pi / 2 * (np.arange(fade) + 0.5) / fade)
    faded = stretch.astype(np.float64)
    faded[:fade] *= ramp
    faded[-fade:] *= ramp[::-1]
    period = faded[:-fade]
    period[:fade] += faded[-fade:]
    return np.resize(period, num_samples)


def like_spectrum(stretch: np.ndarray, num_samples: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise with the power spectrum and level of the stretch."""
    frequencies, power = welch(stretch, rate, nperseg=min(SEGMENT, len(stretch)))
    noise = shaped(lambda f: np.interp(f, frequencies, np.sqrt(power)), num_samples, rate, rng)
    return noise * rms(stretch - stretch.mean())


EXTENSIONS = {"tiled": tiled, "Gaussian": like_spectrum}


# Noises, at any level


def shaped(
    amplitude: Callable[[np.ndarray], np.ndarray], num_samples: int, rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Gaussian noise with an amplitude per frequency (Hz), at an RMS of 1."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    frequencies = np.fft.rfftfreq(num_samples, 1 / rate)
    noise = np.fft.irfft(spectrum * amplitude(frequencies) * (frequencies > 0), num_samples)
    return noise / rms(noise)


def hum(frequency: float, num_samples: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Mains hum: the k-th harmonic at 1/k of the first one's amplitude, and white noise."""
    times = np.arange(num_samples) / rate
    harmonics = np.arange(1, HARMONICS + 1)
    phases = rng.uniform(0, 2 * np.pi, HARMONICS)
    tones = sum(
        np.sin(2 * np.pi * k * frequency * times + phase) / k for k, phase in zip(harmonics, phases, strict=True)
    )
    return tones / rms(tones) + 10 ** (HUM_NOISE_DB / 20) * rng.standard_normal(num_samples)


NOISES: dict[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {
    "white": lambda n, rate, rng: shaped(np.ones_like, n, rate, rng),
    "brown": lambda n, rate, rng: shaped(lambda f: 1 / np.maximum(f, BROWN_FROM), n, rate, rng),
    "hum 50 Hz": lambda n, rate, rng: hum(50, n, rate, rng),
    "hum 60 Hz": lambda n, rate, rng: hum(60, n, rate, rng),
}


def rms(samples: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def pcm(samples: np.ndarray, level: float | None = None) -> np.ndarray:
    """(N,) float32, rounded to 16 bits; at an RMS level in dBFS, or as loud as it is."""
    gain = 1.0 if level is None else 10 ** (level / 20) / rms(samples)
    return (np.clip(np.round(gain * samples * 32768), -32768, 32767) / 32768).astype(np.float32)


# What is measured


def noise_alone(model: FrameClassifier, stretches: list[Stretch], seconds: float, takes: int) -> list[Row]:
    """One row per kind of noise, level and take."""
    rate = model.frontend.geometry.sample_rate
    num_samples = round(seconds * rate)
    signals = {
        (kind, f"seed {seed}"): make(num_samples, rate, np.random.default_rng(seed))
        for kind, make in NOISES.items()
        for seed in range(takes)
    } | {
        (f"background, {way}", speaker): extend(stretch, num_samples, rate, np.random.default_rng(0))
        for way, extend in EXTENSIONS.items()
        for speaker, stretch in stretches
    }
    rows = [
        heard(model, np.zeros(num_samples, dtype=np.float32), {"kind": "digital silence", "level": None, "take": ""})
    ]
    for (kind, take), signal in signals.items():
        rows += [heard(model, pcm(signal, level), {"kind": kind, "level": level, "take": take}) for level in LEVELS]
    return rows


def heard(model: FrameClassifier, samples: np.ndarray, row: Row) -> Row:
    """Share of frames decided as not silence; phones per minute after smoothing, None if the model cannot smooth."""
    posteriors = model.posteriors(samples)
    speech = np.array([symbol not in model.phones.silences for symbol in model.phones.symbols])
    row["not_silence"] = float(speech[posteriors.argmax(axis=1)].mean())
    row["phones_per_minute"] = None
    if model.phonotactics is not None:
        minutes = model.duration(samples) / 60
        segments = model.segments(posteriors, 60 * minutes, smooth=True)
        row["phones_per_minute"] = sum(s.phone not in model.phones.silences for s in segments) / minutes
    return row


@torch.inference_mode()
def after_pause(model: FrameClassifier, phones: PhoneSet, cuts: Sequence[Any], seconds: float) -> Row:
    """Frame accuracy without silence, alone and after a pause in each utterance's own background."""
    geometry, folding = model.frontend.geometry, Folding(model.phones, phones)
    silences = [phones.symbols.index(symbol) for symbol in phones.silences]
    num_frames = round(seconds * geometry.sample_rate / geometry.hop)
    right, total, left_out = dict.fromkeys(("alone", *EXTENSIONS), 0), 0, 0
    for number, cut in enumerate(cuts):
        stretch = longest_silence(cut, phones)
        if not stretch.any():
            left_out += 1
            continue
        labels = cut_labels(cut, phones, geometry, intervals=scored_intervals(cut, model, phones))
        spoken = (labels >= 0) & ~np.isin(labels, silences)
        total += int(spoken.sum())
        waveform = cut_waveform(cut)
        pauses = {"alone": waveform[:0]}
        for way, extend in EXTENSIONS.items():
            rng = np.random.default_rng(number)
            pauses[way] = pcm(extend(stretch, num_frames * geometry.hop, geometry.sample_rate, rng))
        for way, pause in pauses.items():
            logits, _ = model(torch.from_numpy(np.concatenate([pause, waveform]))[None])
            decided = folding.decide(logits[0, -len(labels) :])
            right[way] += int((decided == labels)[spoken].sum())
    accuracies = {way: count / total for way, count in right.items()}
    return {"phones": phones.name, "utterances": len(cuts) - left_out, "without_background": left_out, "frames": total,
            "seconds": seconds, "accuracy": accuracies}  # fmt: skip


def table(noise: list[Row], pause: Row) -> str:
    """Means and maxima over the takes for each noise, the worst of all, and the accuracies."""
    lines = [f"{'noise alone':24}{'dBFS':>6}{'takes':>7}{'not silence':>13}{'most':>8}{'phones/min':>12}{'most':>8}"]
    for kind, level in dict.fromkeys((row["kind"], row["level"]) for row in noise):
        lines.append(line(kind, level, [row for row in noise if (row["kind"], row["level"]) == (kind, level)]))
    for figure in ("not_silence", "phones_per_minute"):
        if all(row[figure] is not None for row in noise):
            worst = max(noise, key=lambda row: row[figure])
            lines.append(line(f"worst: {worst['kind']}", worst["level"], [worst]) + f"  {worst['take']}")
    lines += [
        "",
        f"accuracy without silence, {pause['phones']}, {pause['utterances']} utterances, {pause['frames']} frames",
    ]
    alone = pause["accuracy"]["alone"]
    for way, accuracy in pause["accuracy"].items():
        name = way if way == "alone" else f"after {pause['seconds']:g} s, {way}"
        change = "" if way == "alone" else f"{100 * (accuracy - alone):+10.1f}"
        lines.append(f"{name:30}{accuracy:8.1%}{change}")
    if pause["without_background"]:
        lines.append(f"left out, for lack of a silence: {pause['without_background']} utterances")
    return "\n".join(lines)


def line(kind: str, level: float | None, rows: list[Row]) -> str:
    """Mean and maximum of some rows."""
    shares, rates = [row["not_silence"] for row in rows], [row["phones_per_minute"] for row in rows]
    text = f"{kind:24}{'' if level is None else f'{level:g}':>6}{len(rows):7}{np.mean(shares):13.1%}{max(shares):8.1%}"
    return text if None in rates else f"{text}{np.mean(rates):12.1f}{max(rates):8.1f}"


if __name__ == "__main__":
    main()
