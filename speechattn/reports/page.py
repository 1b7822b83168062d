"""An evaluation as one HTML page: its figures, what they are made of, and the utterances that went worst."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import torch

from speechattn.evaluation.calibration import NUM_BINS
from speechattn.evaluation.evaluate import Evaluation
from speechattn.evaluation.metrics import percent
from speechattn.evaluation.worst_utterances import WorstUtterance
from speechattn.geometry import Geometry
from speechattn.jobs.stamps import VERSION
from speechattn.labels.frames import frames_to_segments
from speechattn.labels.intervals import Segment
from speechattn.plots import (
    plot_comparison,
    plot_confusion,
    plot_curves,
    plot_phones,
    plot_reliability,
    plot_speakers,
)
from speechattn.reports.html import Html, audio, definitions, details, element, page, picture, table

__all__ = ["Source", "evaluation_page", "format_interval"]

CONFUSIONS = 3
NOBODY = "(not named)"


class Source(NamedTuple):
    """Where an evaluation comes from.

    Attributes:
        model: What `FrameClassifier.from_pretrained` took.
        cuts: The file of cuts, or the shards.
        command: The words of the command that scores the one on the other.
        geometry: Where the model's frames lie.
        epochs: The rows of the log of the model's training; empty where there is none.
    """

    model: str
    cuts: str
    command: Sequence[str]
    geometry: Geometry
    epochs: Sequence[Mapping[str, float]]


def evaluation_page(name: str, evaluation: Evaluation, source: Source) -> str:
    """The page; it needs no other file.

    Args:
        name: Of the scored set, such as `test`.
        evaluation: From `evaluation.evaluate_in_detail`.
        source: What was scored, and how.
    """
    sections = {
        "What was scored": _scored(evaluation, source),
        "Figures": _headlines(evaluation.figures),
        "Classes": _classes(evaluation),
        "Confusions": _confusions(evaluation),
        "Calibration": _calibration(evaluation),
        "Speakers": _speakers(evaluation),
        "Worst utterances": _worst(evaluation, source.geometry),
        "Training": _training(source.epochs),
        "How this page was made": _made(evaluation.figures, source),
    }
    return page(f"{source.model} on {name}", {heading: parts for heading, parts in sections.items() if parts})


def format_interval(ends: Sequence[float] | None) -> str:
    """Both ends of a confidence interval for people to read."""
    return "-" if ends is None else " to ".join(map(percent, ends))


def _scored(evaluation: Evaluation, source: Source) -> list[Html]:
    figures, phones = evaluation.figures, evaluation.phones
    known = {name: counts for name, counts in evaluation.speakers.items() if name}
    speakers = f"{len(known):,}" + (
        ", and utterances by speakers that are not named" if "" in evaluation.speakers else ""
    )
    pairs = {
        "Model": source.model,
        "Cuts": source.cuts,
        "Classes": f"{len(phones.symbols)} ({phones.name})",
        "Hours": f"{evaluation.seconds / 3600:.2f}",
        "Speakers": speakers,
        "Utterances": f"{figures['num_utterances']:,}",
    }
    if "num_frames" in figures:
        pairs["Frames"] = f"{figures['num_frames']:,}, {100 * figures['silence_share']:.1f} % of them silence"
    parts = [definitions(pairs)]
    if trained_on := figures.get("utterances_of_training_speakers"):
        parts.append(element("p", f"{trained_on:,} of the utterances are by speakers that were trained on."))
    return parts


def _headlines(figures: Mapping[str, Any]) -> list[Html]:
    majority = figures["majority"]
    if "accuracy" in figures:  # over utterances
        rows = [_headline("Accuracy", "utterances that are right", figures["accuracy"], None, majority["accuracy"])]
        always = repr(majority["label"])
    else:
        rows = [
            _headline(
                "Frame accuracy", "scored frames that are right", figures["frame_accuracy"],
                figures["frame_accuracy_interval"], majority["frame_accuracy"],
            ),
            _headline(
                "without silence", "the same over frames whose reference is not silence",
                figures["frame_accuracy_no_silence"], figures["frame_accuracy_no_silence_interval"],
                majority["frame_accuracy_no_silence"],
            ),
            _headline("Mean over phones", "rare ones weigh as much as common ones", figures["macro_accuracy"]),
            _headline("Among the likeliest three", "frames whose reference is", figures["top3_accuracy"]),
            *(
                _headline(f"Boundaries within {tolerance} ms: {title}", meaning, row[key])
                for tolerance, row in figures["boundaries"].items()
                for key, title, meaning in (
                    ("precision", "precision", "decided ones that are in the reference"),
                    ("recall", "recall", "the reference's that were found"),
                    ("f1", "F1", "harmonic mean of the two"),
                    ("r_value", "R-value", "unlike recall, falls when boundaries are added at random"),
                )
            ),
            _headline(
                "Phone error rate", f"edits per phone, of {figures['phone_errors']['num_phones']:,} in the reference",
                figures["phone_error_rate"],
            ),
            _headline(
                "Calibration error", f"at temperature {figures['temperature']:.3f}; see below",
                figures["expected_calibration_error"],
            ),
        ]  # fmt: skip
        if smoothed := figures.get("smoothed"):
            rows += [
                _headline(f"Smoothed over time: {title}", meaning, smoothed[key])
                for key, title, meaning in (
                    ("frame_accuracy", "frame accuracy", "decisions that follow and last as in training"),
                    ("frame_accuracy_no_silence", "without silence", "the same without silence"),
                    ("phone_error_rate", "phone error rate", "of these decisions"),
                )
            ]
        always = f"{majority['phone']!r}, and {majority['phone_no_silence']!r} where silence does not count"
    meaning = f"The majority class is what always answering {always} would score."
    if "accuracy" not in figures:
        meaning += " Intervals come from bootstrap over speakers; there is none with fewer than two, or one not named."
    header = ["figure", "model", "95 % interval", "majority class"]
    return [table("Over what was scored", header, rows), element("p", meaning)]


def _headline(
    title: str,
    meaning: str,
    value: float | None,
    interval: Sequence[float] | None = None,
    majority: float | None = None,
) -> list[str]:
    return [
        Html(element("span", title) + element("small", meaning)),
        percent(value),
        format_interval(interval),
        percent(majority),
    ]


def _classes(evaluation: Evaluation) -> list[Html]:
    figures, symbols = evaluation.figures, evaluation.phones.symbols
    classes, unit = (figures["phones"], "frames") if "phones" in figures else (figures["labels"], "utterances")
    rows = []
    for symbol, row in sorted(classes.items(), key=lambda item: -item[1][f"num_{unit}"]):
        counts = evaluation.confusion[symbols.index(symbol)].copy()
        total = counts.sum()
        counts[symbols.index(symbol)] = 0
        commonest = [index for index in np.argsort(-counts, kind="stable")[:CONFUSIONS] if counts[index]]
        wrong = [f"{symbols[index]} {percent(counts[index] / total)}" for index in commonest]
        wrong += ["-"] * (CONFUSIONS - len(wrong))
        rows.append([symbol, percent(row["accuracy"]), f"{row[f'num_{unit}']:,}", *wrong])
    header = ["class", "accuracy", unit, "taken for", "next", "third"]
    listing = table(
        f"Each class, commonest first, and what it is mostly taken for, as shares of its {unit}", header, rows
    )
    if "phones" not in figures:
        return [listing]
    bars = picture(
        plot_phones(figures), "bars: frame accuracy of each phone; the table below has the numbers",
        "Frame accuracy of each phone, commonest first.",
    )  # fmt: skip
    return [bars, listing]


def _confusions(evaluation: Evaluation) -> list[Html]:
    return [
        picture(
            plot_confusion(evaluation.confusion, evaluation.phones.symbols),
            "confusion matrix; the table of classes names the commonest confusions",
            "Each row holds the shares of what a class of the reference was taken for.",
        )
    ]


def _calibration(evaluation: Evaluation) -> list[Html]:
    if not evaluation.reliability:
        return []
    figures = evaluation.figures
    after, before = figures["expected_calibration_error"], figures["expected_calibration_error_at_temperature_1"]
    errors = (
        f"Expected calibration error: {percent(before)} before and {percent(after)} after logits are divided by the "
        f"temperature, {figures['temperature']:.3f}."
    )
    diagram = picture(
        plot_reliability(evaluation.reliability),
        f"reliability diagram: share of right decisions over their confidence. {errors}",
        f"Decisions in {NUM_BINS} bins of confidence; the larger a point, the more decisions. Below the diagonal the "
        "model is too sure of itself.",
    )
    bins = [
        [
            f"{100 * number / NUM_BINS:.0f} to {100 * (number + 1) / NUM_BINS:.0f} %",
            f"{int(count):,}",
            percent(confidence / count),
            percent(right / count),
        ]
        for number, (count, right, confidence) in enumerate(evaluation.reliability[figures["temperature"]])
        if count
    ]
    header = ["confidence", "decisions", "mean confidence", "right"]
    listing = table(f"The bins at temperature {figures['temperature']:.3f}", header, bins)
    return [element("p", errors), diagram, details("The numbers", listing)]


def _speakers(evaluation: Evaluation) -> list[Html]:
    by_frame = "phones" in evaluation.figures
    counts = {name or NOBODY: row for name, row in evaluation.speakers.items()}
    # Silence is easy for everybody: what speakers differ in is the rest.
    compared = {name: row[-2:] for name, row in counts.items() if row[-1]}
    if not compared:
        return []
    ranked = dict(sorted(compared.items(), key=lambda item: (item[1][0] / item[1][1], item[0])))
    rows = [
        [name, *(percent(right / scored) if scored else "-" for right, scored in np.reshape(counts[name], (-1, 2)))]
        + [f"{counts[name][1]:,}"]
        for name in [*ranked, *sorted(counts.keys() - ranked.keys())]
    ]
    header = ["speaker", "all frames", "without silence", "frames"] if by_frame else ["speaker", "right", "utterances"]
    what = "frame accuracy without silence" if by_frame else "accuracy"
    dots = picture(
        plot_speakers(ranked), f"dots: {what} of each speaker, lowest first; a table below has the numbers",
        f"{what.capitalize()} of each speaker, lowest first; the line is that of all together.",
    )  # fmt: skip
    return [dots, details("The numbers", table("Accuracy of each speaker, lowest first", header, rows))]


def _worst(evaluation: Evaluation, geometry: Geometry) -> list[Html]:
    if not evaluation.worst:
        return []
    parts = [element("p", "The lowest frame accuracies without silence among utterances of at least a second.")]
    for utterance in evaluation.worst:
        facts = {
            "Accuracy": percent(utterance.accuracy),
            "Speaker": utterance.speaker or NOBODY,
            "Text": utterance.text or "-",
            "Length": f"{utterance.seconds:.2f} s",
        }
        parts += [element("h3", utterance.id), definitions(facts)]
        if utterance.excerpt is not None:
            parts += _shown(utterance, utterance.excerpt, evaluation.phones.symbols, geometry)
    return parts


def _shown(utterance: WorstUtterance, samples: np.ndarray, symbols: Sequence[str], geometry: Geometry) -> list[Html]:
    """What an utterance looks and sounds like."""
    rate = geometry.sample_rate
    reference = [Segment(symbol, start / rate, end / rate) for start, end, symbol in utterance.intervals]
    sure = np.ones(len(utterance.decided))  # how sure does not show
    decided = frames_to_segments(utterance.decided, sure, symbols, utterance.seconds, geometry=geometry)
    shown = len(samples) / rate
    part = "" if shown >= utterance.seconds else f" The first {shown:.1f} s."
    drawn = picture(
        plot_comparison(samples, reference, decided, geometry),
        f"spectrogram of {utterance.id}, with its reference phones and the decided ones",
        f"Spectrogram, reference, and what was decided, hatched where the two differ.{part}",
    )
    return [drawn, audio(samples, rate, f"recording of {utterance.id}")]


def _training(epochs: Sequence[Mapping[str, float]]) -> list[Html]:
    if not epochs:
        return []
    best = max(epochs, key=lambda row: row["dev_accuracy"])
    said = f"Dev accuracy is highest, {percent(best['dev_accuracy'])}, in epoch {best['epoch']:.0f} of {len(epochs)}."
    return [picture(plot_curves(epochs), f"curves of training loss and dev accuracy by epoch. {said}", said)]


def _made(figures: Mapping[str, Any], source: Source) -> list[Html]:
    pairs = {"Date": date.today().isoformat(), "speechattn": VERSION, "torch": torch.__version__}
    if "temperature" in figures:
        pairs["Temperature"] = f"{figures['temperature']:.3f}"
    return [definitions(pairs), element("p", element("code", shlex.join(source.command)))]
