"""How a model behaves in noise without speech, and in speech after a pause.

    python benchmarks/noise.py [MODEL] --cuts CUTS [--pause 10] [--seconds 60] [--takes 3] [--output FOLDER]

MODEL defaults to the boxed model. CUTS have phones, as `speechattn prepare` leaves them; their silences are the
background noise. Noise is rounded to 16 bits, as in a WAV file. It is not made by `speechattn.batches.noise`, which
models are trained with.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import circumstances
from scipy.signal import welch

from speechattn.commands.inference import BOXED
from speechattn.cuts.files import phone_intervals
from speechattn.cuts.model_inputs import cut_labels, cut_waveform, load_cuts
from speechattn.evaluation.class_folding import ClassFolding
from speechattn.geometry import Geometry
from speechattn.labels.folding import merge_closures
from speechattn.model.classifier import FrameClassifier
from speechattn.phones import PhoneSet

LEVELS = (-50, -66)  # dBFS, RMS
BROWN_FROM = 20  # Hz; flat below, where 1/f^2 would put nearly all of the power
HARMONICS, HUM_NOISE_DB = 10, -20  # the noise is relative to the hum
MARGIN, SHORTEST, FADE = 320, 800, 320  # samples: cut off both ends of a silence; shortest one left; cross-fade
BLOCK, STEADY_DB = 320, 10.0  # samples per level; how far above the quietest tenth of a silence its steady part may be
WELCH = 512  # samples per segment

Row = dict[str, Any]
Noise = Callable[[np.random.Generator, int, int], np.ndarray]  # generator, number of samples, rate
Signal = tuple[str, str, int, Noise]  # kind, take, seed, maker


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default=BOXED, help=f"folder or name (default: {BOXED})")
    parser.add_argument("--cuts", type=Path, required=True, help="cuts with phones")
    parser.add_argument("--pause", type=float, default=10.0, help="seconds before each utterance (default: 10)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of noise without speech (default: 60)")
    parser.add_argument("--takes", type=int, default=3, help="seeds, and speakers' backgrounds (default: 3)")
    parser.add_argument("--num-cuts", type=int, help="number of utterances (default: all)")
    parser.add_argument("--output", type=Path, help="folder for noise_figures.json")
    args = parser.parse_args()
    model = FrameClassifier.from_pretrained(args.model)
    cuts = list(load_cuts(args.cuts, model.frontend.geometry))[: args.num_cuts]
    phones = scored_phones(model.phones, cuts)
    noise = noise_alone(model, signals(cuts, phones, model.frontend.geometry, args.takes), args.seconds)
    pause = after_pause(model, phones, cuts, args.pause)
    print(table(noise, pause))
    if args.output:
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
        report = {**circumstances(["torch"]), **settings, "noise": noise, "after_pause": pause}
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "noise_figures.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def scored_phones(own: PhoneSet, cuts: Sequence[Any]) -> PhoneSet:
    """The model's phones if they cover the cuts' labels; else `timit39`."""
    if {interval.symbol for cut in cuts for interval in phone_intervals(cut)} <= own.folding.keys():
        return own
    return PhoneSet.load("timit39").accepting_arpabet()


def longest_silence(cut: Any, phones: PhoneSet, geometry: Geometry) -> np.ndarray:
    """Samples of the longest silence by the labels, without its margins; empty if that leaves less than `SHORTEST`."""
    intervals = merge_closures(phone_intervals(cut, geometry.sample_rate))
    labels = cut_labels(cut, phones, geometry, intervals=intervals)
    start, end = geometry.first_owned(longest_run(np.isin(labels, silent_classes(phones)))).tolist()
    stretch = cut_waveform(cut)[start + MARGIN : max(end - MARGIN, 0)]
    return stretch if len(stretch) >= SHORTEST else stretch[:0]


def silent_classes(phones: PhoneSet) -> list[int]:
    """The classes that count as silence."""
    return [number for number, symbol in enumerate(phones.symbols) if symbol in phones.silences]


def longest_run(mask: np.ndarray) -> np.ndarray:
    """Start and end of the longest run of True, the first of equal ones; (0, 0) without any."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False)).reshape(-1, 2)
    return edges[np.diff(edges).argmax()] if len(edges) else np.zeros(2, dtype=np.int64)


def steady(stretch: np.ndarray) -> np.ndarray:
    """The longest part of a silence that stays near its quietest level, without breaths and clicks."""
    if len(stretch) < BLOCK:
        return stretch[:0]
    blocks = stretch[: len(stretch) // BLOCK * BLOCK].reshape(-1, BLOCK)
    levels = 20 * np.log10(np.sqrt((blocks.astype(np.float64) ** 2).mean(axis=1)) + 1e-9)
    start, end = BLOCK * longest_run(levels <= np.quantile(levels, 0.1, method="higher") + STEADY_DB)
    return stretch[start:end]


def tiled(stretch: np.ndarray, rng: np.random.Generator, num_samples: int, rate: int) -> np.ndarray:
    """The stretch repeated, with equal-power cross-fades."""
    fade = min(FADE, len(stretch) // 2)
    ramp = np.sin(np.pi / 2 * (np.arange(fade) + 0.5) / fade)
    period = stretch[:-fade].astype(np.float64)
    period[:fade] = period[:fade] * ramp + stretch[-fade:] * ramp[::-1]
    return np.resize(period, num_samples)


def gaussian(stretch: np.ndarray, rng: np.random.Generator, num_samples: int, rate: int) -> np.ndarray:
    """Gaussian noise with the stretch's power spectrum and level."""
    frequencies, power = welch(stretch, rate, nperseg=min(WELCH, len(stretch)))
    noise = shaped(lambda f: np.interp(f, frequencies, np.sqrt(power)), rng, num_samples, rate)
    return noise * rms(stretch - stretch.mean())


def shaped(
    amplitude: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator, num_samples: int, rate: int
) -> np.ndarray:
    """Gaussian noise with an amplitude per frequency in Hz; its RMS is 1."""
    frequencies = np.fft.rfftfreq(num_samples, 1 / rate)
    spectrum = np.fft.rfft(rng.standard_normal(num_samples)) * amplitude(frequencies) * (frequencies > 0)
    noise = np.fft.irfft(spectrum, num_samples)
    return noise / rms(noise)


def hum(frequency: float, rng: np.random.Generator, num_samples: int, rate: int) -> np.ndarray:
    """Mains hum, the k-th harmonic at 1/k of the first one's amplitude, in white noise."""
    phases = 2 * np.pi * frequency * np.arange(num_samples) / rate
    tones = sum(np.sin(k * phases + rng.uniform(0, 2 * np.pi)) / k for k in range(1, HARMONICS + 1))
    return tones / rms(tones) + 10 ** (HUM_NOISE_DB / 20) * rng.standard_normal(num_samples)


def rms(samples: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def pcm(samples: np.ndarray, level: float | None = None) -> np.ndarray:
    """(N,) float32, rounded to 16 bits; scaled to an RMS level in dBFS unless that is None."""
    gain = 1.0 if level is None or not samples.any() else 10 ** (level / 20) / rms(samples)
    return (np.clip(np.round(gain * samples * 32768), -32768, 32767) / 32768).astype(np.float32)


EXTENSIONS: dict[str, Callable[..., np.ndarray]] = {
    "tiled": tiled,
    "gaussian": gaussian,
    "steady part tiled": lambda stretch, *rest: tiled(steady(stretch), *rest),
    "steady part gaussian": lambda stretch, *rest: gaussian(steady(stretch), *rest),
}
NOISES: dict[str, Noise] = {
    "white": partial(shaped, np.ones_like),
    "brown": partial(shaped, lambda f: 1 / np.maximum(f, BROWN_FROM)),
    "hum 50 Hz": partial(hum, 50),
    "hum 60 Hz": partial(hum, 60),
}


def signals(cuts: Sequence[Any], phones: PhoneSet, geometry: Geometry, takes: int) -> list[Signal]:
    """All noises. Backgrounds come from the speakers whose silences have the longest steady parts."""
    backgrounds: dict[str, np.ndarray] = {}
    for cut in cuts:
        speaker, stretch = cut.supervisions[0].speaker or "", longest_silence(cut, phones, geometry)
        before = backgrounds.get(speaker)
        if steady(stretch).any() and (before is None or len(steady(stretch)) > len(steady(before))):
            backgrounds[speaker] = stretch
    longest = sorted(backgrounds, key=lambda speaker: -len(steady(backgrounds[speaker])))[:takes]
    return [
        ("digital silence", "zeros", 0, lambda rng, num_samples, rate: np.zeros(num_samples)),
        *((kind, f"seed {seed}", seed, make) for kind, make in NOISES.items() for seed in range(takes)),
        *(
            (f"background, {way}", speaker, 0, partial(extend, backgrounds[speaker]))
            for way, extend in EXTENSIONS.items()
            for speaker in longest
        ),
    ]


def noise_alone(model: FrameClassifier, noises: list[Signal], seconds: float) -> list[Row]:
    """One row per noise and level: share of frames decided as not silence, and smoothed phones per minute."""
    rate, rows = model.frontend.geometry.sample_rate, []
    silences = silent_classes(model.phones)
    for kind, take, seed, make in noises:
        noise = make(np.random.default_rng(seed), round(seconds * rate), rate)
        for level in LEVELS if noise.any() else (None,):
            posteriors = model.posteriors(pcm(noise, level))
            row: Row = {"kind": kind, "take": take, "level": level, "phones_per_minute": None}
            row["not_silence"] = float(1 - np.isin(posteriors.argmax(axis=1), silences).mean())
            if model.phonotactics is not None:
                segments = model.segments(posteriors, seconds, smooth=True)
                row["phones_per_minute"] = 60 / seconds * sum(s.phone not in model.phones.silences for s in segments)
            rows.append(row)
    return rows


@torch.inference_mode()
def after_pause(model: FrameClassifier, phones: PhoneSet, cuts: Sequence[Any], seconds: float) -> Row:
    """Frame accuracy without silence, of utterances alone and after a pause in their own background."""
    geometry, folding = model.frontend.geometry, ClassFolding(model.phones, phones)
    num_samples = round(seconds * geometry.sample_rate / geometry.hop) * geometry.hop
    right, num_frames, left_out = dict.fromkeys(("alone", *EXTENSIONS), 0), 0, []
    for seed, cut in enumerate(cuts):
        stretch, waveform = longest_silence(cut, phones, geometry), cut_waveform(cut)
        if not steady(stretch).any():
            left_out.append(cut.id)
            continue
        intervals = phone_intervals(cut, geometry.sample_rate)
        if phones is not model.phones:  # TIMIT's labels for a model of other phones, which know no closures
            intervals = merge_closures(intervals)
        labels = cut_labels(cut, phones, geometry, intervals=intervals)
        spoken = (labels >= 0) & ~np.isin(labels, silent_classes(phones))
        num_frames += int(spoken.sum())
        for way in right:
            if way in EXTENSIONS:
                pause = EXTENSIONS[way](stretch, np.random.default_rng(seed), num_samples, geometry.sample_rate)
            else:
                pause = waveform[:0]
            logits, _ = model(torch.from_numpy(np.concatenate([pcm(pause), waveform]))[None])
            right[way] += int((folding.decide(logits[0, -len(labels) :]) == labels)[spoken].sum())
    return {
        "seconds": seconds,
        "phones": phones.name,
        "num_utterances": len(cuts) - len(left_out),
        "num_frames": num_frames,
        "accuracy_no_silence": {way: count / max(num_frames, 1) for way, count in right.items()},
        "without_background": left_out,
    }


def table(noise: list[Row], pause: Row) -> str:
    """Mean and maximum over the takes of each noise and level, the worst of all, and the accuracies."""
    lines = [f"{'noise alone':34}{'dBFS':>6}{'takes':>7}{'not silence':>13}{'most':>8}{'phones/min':>12}{'most':>8}"]
    for kind, level in dict.fromkeys((row["kind"], row["level"]) for row in noise):
        lines.append(line(kind, level, [row for row in noise if (row["kind"], row["level"]) == (kind, level)]))
    worst = max(noise, key=lambda row: row["not_silence"])
    lines.append(f"worst: {worst['not_silence']:.1%}, {worst['kind']}, {worst['take']}")
    counted = f"{pause['phones']}, {pause['num_frames']:,} frames of {pause['num_utterances']} utterances"
    lines += ["", f"frame accuracy without silence, {counted}"]
    alone = pause["accuracy_no_silence"]["alone"]
    for way, accuracy in pause["accuracy_no_silence"].items():
        name = way if way == "alone" else f"after {pause['seconds']:g} s, {way}"
        lines.append(f"{name:34}{accuracy:8.1%}{100 * (accuracy - alone):+8.1f}")
    if pause["without_background"]:
        lines.append(f"left out, without a silence that is long enough: {' '.join(pause['without_background'])}")
    return "\n".join(lines)


def line(kind: str, level: float | None, rows: list[Row]) -> str:
    """One line of the table."""
    shares, rates = [row["not_silence"] for row in rows], [row["phones_per_minute"] for row in rows]
    text = f"{kind:34}{'' if level is None else level:>6}{len(rows):7}{np.mean(shares):13.1%}{max(shares):8.1%}"
    return text if None in rates else f"{text}{np.mean(rates):12.1f}{max(rates):8.1f}"


if __name__ == "__main__":
    main()
