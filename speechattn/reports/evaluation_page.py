"""An evaluation as one HTML page: figures, classes, confusions, calibration, speakers, the worst utterances."""

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
)  # fmt: skip
from speechattn.reports.html import Html, audio, definitions, details, element, page, picture, table

__all__ = ["Source", "evaluation_page", "format_interval"]

NUM_CONFUSIONS = 3  # per class
UNKNOWN_SPEAKER = "(unknown)"


class Source(NamedTuple):
    """What was evaluated, and how.

    Attributes:
        model: Name of the model, as for `FrameClassifier.from_pretrained`.
        cuts: The file of cuts, or the shards.
        command: The command line of the evaluation.
        geometry: Of the model's frames.
        epochs: Rows of the model's training log; empty if there is none.
    """

    model: str
    cuts: str
    command: Sequence[str]
    geometry: Geometry
    epochs: Sequence[Mapping[str, float]]


def evaluation_page(name: str, evaluation: Evaluation, source: Source) -> str:
    """The page, in one self-contained file.

    Args:
        name: Of the evaluated set, such as `test`.
        evaluation: From `evaluate_in_detail`.
        source: What was evaluated, and how.
    """
    sections = {
        "Data": _data(evaluation, source),
        "Figures": _figures(evaluation.figures),
        "Classes": _classes(evaluation),
        "Confusions": _confusions(evaluation),
        "Calibration": _calibration(evaluation),
        "Speakers": _speakers(evaluation),
        "Worst utterances": _worst(evaluation, source.geometry),
        "Training": _training(source.epochs),
        "How to reproduce": _reproduce(evaluation.figures, source),
    }
    return page(f"{source.model} on {name}", {heading: parts for heading, parts in sections.items() if parts})


def format_interval(ends: Sequence[float] | None) -> str:
    """Format a confidence interval."""
    return "-" if ends is None else " to ".join(map(percent, ends))


def _data(evaluation: Evaluation, source: Source) -> list[Html]:
    figures, phones = evaluation.figures, evaluation.phones
    speakers = f"{len(evaluation.speakers.keys() - {''}):,}"
    if "" in evaluation.speakers:
        speakers += ", and utterances by unknown speakers"
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
    if num_seen := figures.get("utterances_of_training_speakers"):
        parts.append(element("p", f"{num_seen:,} of the utterances are by speakers of the training set."))
    return parts


def _figures(figures: Mapping[str, Any]) -> list[Html]:
    majority = figures["majority"]
    if "accuracy" in figures:  # over utterances
        rows = [_headline("Accuracy", "correct utterances", figures["accuracy"], None, majority["accuracy"])]
        always = repr(majority["label"])
    else:
        rows = [
            _headline(
                "Frame accuracy", "correct frames", figures["frame_accuracy"],
                figures["frame_accuracy_interval"], majority["frame_accuracy"],
            ),
            _headline(
                "without silence", "frames whose reference is not silence",
                figures["frame_accuracy_no_silence"], figures["frame_accuracy_no_silence_interval"],
                majority["frame_accuracy_no_silence"],
            ),
            _headline("Mean over phones", "rare phones count as much as common ones", figures["macro_accuracy"]),
            _headline("Top-3 accuracy", "reference among the three likeliest phones", figures["top3_accuracy"]),
            *(
                _headline(f"Boundaries within {tolerance} ms: {title}", meaning, row[key])
                for tolerance, row in figures["boundaries"].items()
                for key, title, meaning in (
                    ("precision", "precision", "predicted boundaries that are in the reference"),
                    ("recall", "recall", "boundaries of the reference that are predicted"),
                    ("f1", "F1", "harmonic mean of precision and recall"),
                    ("r_value", "R-value", "unlike recall, penalises random insertions"),
                )
            ),
            _headline(
                "Phone error rate", "edits per phone of the reference, smoothed, without silence",
                figures["phone_error_rate"],
            ),
            _headline(
                "with silence", "silence counted as a phone, as in Kaldi's TIMIT recipe",
                figures["phone_error_rate_with_silence"],
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
                    ("frame_accuracy", "frame accuracy", "smoothed with durations and transitions of phones"),
                    ("frame_accuracy_no_silence", "without silence", "the same without silence"),
                )
            ]
        always = f"{majority['phone']!r}, and {majority['phone_no_silence']!r} where silence does not count"
    meaning = f"The majority class column is the accuracy of always predicting {always}."
    if "accuracy" not in figures:
        meaning += " Intervals are by bootstrap over speakers; they need two or more speakers, all of them known."
    header = ["figure", "model", "95 % interval", "majority class"]
    return [table("Figures of the whole set", header, rows), element("p", meaning)]


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
        confused = [index for index in np.argsort(-counts, kind="stable")[:NUM_CONFUSIONS] if counts[index]]
        wrong = [f"{symbols[index]} {percent(counts[index] / total)}" for index in confused]
        wrong += ["-"] * (NUM_CONFUSIONS - len(wrong))
        rows.append([symbol, percent(row["accuracy"]), f"{row[f'num_{unit}']:,}", *wrong])
    header = ["class", "accuracy", unit, "confused with", "second", "third"]
    listing = table(f"Classes by frequency, with their most frequent confusions as shares of {unit}", header, rows)
    if "phones" not in figures:
        return [listing]
    bars = picture(
        plot_phones(figures), "bars: frame accuracy of each phone; numbers in the table below",
        "Frame accuracy of each phone, most frequent first.",
    )  # fmt: skip
    return [bars, listing]


def _confusions(evaluation: Evaluation) -> list[Html]:
    return [
        picture(
            plot_confusion(evaluation.confusion, evaluation.phones.symbols),
            "confusion matrix; the table of classes lists the most frequent confusions",
            "Each row shows how often a class of the reference was predicted as each class.",
        )
    ]


def _calibration(evaluation: Evaluation) -> list[Html]:
    if not evaluation.reliability:
        return []
    figures = evaluation.figures
    after, before = figures["expected_calibration_error"], figures["expected_calibration_error_at_temperature_1"]
    errors = (
        f"Expected calibration error: {percent(before)} before and {percent(after)} after temperature scaling "
        f"(temperature {figures['temperature']:.3f})."
    )
    diagram = picture(
        plot_reliability(evaluation.reliability),
        f"reliability diagram: accuracy over confidence. {errors}",
        f"Decisions in {NUM_BINS} bins of confidence; larger points stand for more decisions. Below the diagonal the "
        "model is overconfident.",
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
    header = ["confidence", "decisions", "mean confidence", "accuracy"]
    listing = table(f"Bins at temperature {figures['temperature']:.3f}", header, bins)
    return [element("p", errors), diagram, details("Numbers", listing)]


def _speakers(evaluation: Evaluation) -> list[Html]:
    by_frame = "phones" in evaluation.figures
    counts = {name or UNKNOWN_SPEAKER: row for name, row in evaluation.speakers.items()}
    # Speakers are compared without silence, which is easy for all.
    compared = {name: row[-2:] for name, row in counts.items() if row[-1]}
    if not compared:
        return []
    ranked = dict(sorted(compared.items(), key=lambda item: (item[1][0] / item[1][1], item[0])))
    rows = [
        [name, *(percent(right / scored) if scored else "-" for right, scored in np.reshape(counts[name], (-1, 2)))]
        + [f"{counts[name][1]:,}"]
        for name in [*ranked, *sorted(counts.keys() - ranked.keys())]
    ]
    header = (
        ["speaker", "all frames", "without silence", "frames"] if by_frame else ["speaker", "accuracy", "utterances"]
    )
    figure = "frame accuracy without silence" if by_frame else "accuracy"
    dots = picture(
        plot_speakers(ranked), f"dots: {figure} of each speaker, lowest first; numbers in the table below",
        f"{figure.capitalize()} of each speaker, lowest first; the line is that of all speakers together.",
    )  # fmt: skip
    return [dots, details("Numbers", table("Accuracy of each speaker, lowest first", header, rows))]


def _worst(evaluation: Evaluation, geometry: Geometry) -> list[Html]:
    if not evaluation.worst:
        return []
    parts = [element("p", "The utterances of at least 1 s with the lowest frame accuracies without silence.")]
    for utterance in evaluation.worst:
        facts = {
            "Accuracy": percent(utterance.accuracy),
            "Speaker": utterance.speaker or UNKNOWN_SPEAKER,
            "Text": utterance.text or "-",
            "Length": f"{utterance.seconds:.2f} s",
        }
        parts += [element("h3", utterance.id), definitions(facts)]
        if utterance.excerpt is not None:
            parts += _excerpt(utterance, utterance.excerpt, evaluation.phones.symbols, geometry)
    return parts


def _excerpt(utterance: WorstUtterance, samples: np.ndarray, symbols: Sequence[str], geometry: Geometry) -> list[Html]:
    """Spectrogram, phones and audio of an utterance."""
    rate = geometry.sample_rate
    reference = [Segment(symbol, start / rate, end / rate) for start, end, symbol in utterance.intervals]
    confidences = np.ones(len(utterance.decided))  # not drawn
    decided = frames_to_segments(utterance.decided, confidences, symbols, utterance.seconds, geometry=geometry)
    shown = len(samples) / rate
    part = "" if shown >= utterance.seconds else f" The first {shown:.1f} s."
    drawn = picture(
        plot_comparison(samples, reference, decided, geometry),
        f"spectrogram of {utterance.id} with reference and predicted phones",
        f"Spectrogram, reference, and prediction, hatched where it differs.{part}",
    )
    return [drawn, audio(samples, rate, f"recording of {utterance.id}")]


def _training(epochs: Sequence[Mapping[str, float]]) -> list[Html]:
    if not epochs:
        return []
    best = max(epochs, key=lambda row: row["dev_accuracy"])
    caption = (
        f"Dev accuracy is highest, {percent(best['dev_accuracy'])}, in epoch {best['epoch']:.0f} of {len(epochs)}."
    )
    return [picture(plot_curves(epochs), f"curves of training loss and dev accuracy by epoch. {caption}", caption)]


def _reproduce(figures: Mapping[str, Any], source: Source) -> list[Html]:
    pairs = {"Date": date.today().isoformat(), "speechattn": VERSION, "torch": torch.__version__}
    if "temperature" in figures:
        pairs["Temperature"] = f"{figures['temperature']:.3f}"
    return [definitions(pairs), element("p", element("code", shlex.join(source.command)))]
