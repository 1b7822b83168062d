"""An evaluation on disk: figures as JSON, and the pictures that explain them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechattn.classifier import FrameClassifier, model_files
from speechattn.corpora.shards import checksum_or_path
from speechattn.cuts import cut_waveform, long_enough
from speechattn.evaluation import evaluate
from speechattn.phones import PhoneSet
from speechattn.plots import plot_confusion, plot_phones, plot_prediction, save_figure
from speechattn.stages import is_done, mark_done, save_json

__all__ = ["evaluate_and_report", "format_figures", "write_report"]

EXAMPLE_SECONDS = 20
FIGURES_VERSION = 2  # a report with the figures of another version is made anew


def evaluate_and_report(
    model_name: str,
    cuts: str | Path,
    *,
    phones: str | None = None,
    report: str | Path | None = None,
    json_file: str | Path | None = None,
    smooth: bool = False,
) -> None:
    """Score a model on a file of cuts and print its figures; write them, and pictures, where that is wanted.

    With a report and a model in a folder, an evaluation that has been made already is only printed again.

    Args:
        model_name: What `FrameClassifier.from_pretrained` takes.
        cuts: The cuts; their file's name without suffixes names the figures.
        phones: Name of the set to score on; None: the model's own. See `evaluate`.
        report: Folder for `<name>.json` and the pictures.
        json_file: Another place for the figures.
        smooth: See `evaluate`.

    Raises:
        ValueError: As for `from_pretrained`, `PhoneSet.load` and `evaluate`.
    """
    name = Path(cuts).name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
    figures = (
        evaluate(FrameClassifier.from_pretrained(model_name), cuts, phones=_phone_set(phones), smooth=smooth)[0]
        if report is None
        else _report(model_name, cuts, name, phones, Path(report), smooth)
    )
    if json_file is not None:
        save_json(json_file, figures)
    print(format_figures(f"{model_name} on {name}", figures))


def _phone_set(name: str | None) -> PhoneSet | None:
    return None if name is None else PhoneSet.load(name)


def _report(
    model_name: str, cuts: str | Path, name: str, phones: str | None, folder: Path, smooth: bool
) -> dict[str, Any]:
    """The figures of an evaluation whose report lies in the folder, made now if it is not there."""
    stamp = folder / f"{name}.done.json"
    options = {"model": str(model_name), "phones": phones, "smooth": smooth, "figures": FIGURES_VERSION}
    inputs = {"cuts": checksum_or_path(cuts), **model_files(model_name)}
    if is_done(stamp, options, inputs):
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    model = FrameClassifier.from_pretrained(model_name)
    scored = _phone_set(phones)
    figures, confusion = evaluate(model, cuts, phones=scored, smooth=smooth)
    stamp.unlink(missing_ok=True)
    outputs = write_report(folder, name, figures, confusion, (scored or model.phones).symbols)
    if model.pooling is None and model.feature_dim is None:  # else there are no posteriors or no sound to draw
        outputs.append(_write_example(folder, name, model, cuts))
    mark_done(stamp, options, inputs, outputs)
    return figures


def write_report(
    folder: str | Path, name: str, figures: dict[str, Any], confusion: np.ndarray, symbols: Sequence[str]
) -> list[Path]:
    """Write `<name>.json`, `<name>_confusion.png` and, where there are frames, `<name>_phones.png`.

    Args:
        folder: Where to; made when missing.
        name: Of the scored set, such as `test`.
        figures: From `evaluation.evaluate`.
        confusion: (P, P) counts, from the same.
        symbols: Name of each of the P phones.

    Returns:
        The files.
    """
    pictures = {"confusion": plot_confusion(confusion, symbols)}
    if "phones" in figures:
        pictures["phones"] = plot_phones(figures)
    paths = [Path(folder) / f"{name}_{kind}.png" for kind in pictures]
    for path, picture in zip(paths, pictures.values(), strict=True):
        save_figure(picture, path)
    json_path = Path(folder) / f"{name}.json"
    save_json(json_path, figures)
    return [*paths, json_path]


def _write_example(folder: str | Path, name: str, model: FrameClassifier, cuts: str | Path) -> Path:
    """Draw what the model makes of the first utterance, or of its first seconds: `<name>_example.png`."""
    geometry = model.frontend.geometry
    # Shards still hold the cuts that are too short.
    cut = next(cut for cut in long_enough(cuts, geometry) if geometry.num_frames(cut.num_samples))
    samples = cut_waveform(cut)[: EXAMPLE_SECONDS * geometry.sample_rate]
    posteriors = model.posteriors(samples)
    segments = model.segments(posteriors, len(samples) / geometry.sample_rate)
    path = Path(folder) / f"{name}_example.png"
    save_figure(plot_prediction(samples, posteriors, segments, model.phones.symbols, geometry), path)
    return path


def format_figures(name: str, figures: dict[str, Any]) -> str:
    """The figures that matter, for a terminal."""
    majority = figures["majority"]
    if "accuracy" in figures:  # over utterances
        lines = [
            f"  {row:<16}{_percent(score['accuracy']):>12}"
            for row, score in (("model", figures), ("majority class", majority))
        ]
        return "\n".join([f"{name}: accuracy over {figures['num_utterances']:,} utterances", *lines])
    rows = [
        ("", "all frames", "without silence"),
        ("model", _percent(figures["frame_accuracy"]), _percent(figures["frame_accuracy_no_silence"])),
        (
            "95 % interval",
            _interval(figures["frame_accuracy_interval"]),
            _interval(figures["frame_accuracy_no_silence_interval"]),
        ),
        ("majority class", _percent(majority["frame_accuracy"]), _percent(majority["frame_accuracy_no_silence"])),
    ]
    title = (
        f"{name}: frame accuracy over {figures['num_frames']:,} frames of {figures['num_utterances']} utterances, "
        f"{100 * figures['silence_share']:.1f} % of them silence"
    )
    lines = [title, *("  {:<16}{:>20}{:>20}".format(*row) for row in rows)]
    lines += [
        f"  mean over phones {_percent(figures['macro_accuracy'])}, "
        f"reference among the likeliest three {_percent(figures['top3_accuracy'])}",
        *_sequence_lines(figures),
        f"  expected calibration error {_percent(figures['expected_calibration_error'])} at temperature "
        f"{figures['temperature']:.3f}, {_percent(figures['expected_calibration_error_at_temperature_1'])} without",
    ]
    if smoothed := figures.get("smoothed"):
        accuracies = (_percent(smoothed[name]) for name in ("frame_accuracy", "frame_accuracy_no_silence"))
        lines += ["  {:<16}{:>20}{:>20}".format("smoothed", *accuracies), *_sequence_lines(smoothed)]
    if known := figures.get("utterances_of_training_speakers"):
        lines.append(f"  {known} of the {figures['num_utterances']} utterances are by speakers that were trained on")
    return "\n".join(lines)


def _sequence_lines(figures: dict[str, Any]) -> list[str]:
    """Boundaries and phone errors of one way to decide."""
    lines = [
        f"  boundaries within {tolerance} ms: precision {_percent(row['precision'])}, "
        f"recall {_percent(row['recall'])}, F1 {_percent(row['f1'])}, R-value {_percent(row['r_value'])}"
        for tolerance, row in figures["boundaries"].items()
    ]
    number = figures["phone_errors"]["num_phones"]
    return [*lines, f"  phone error rate {_percent(figures['phone_error_rate'])} over {number:,} phones"]


def _interval(ends: Sequence[float] | None) -> str:
    return "-" if ends is None else " to ".join(map(_percent, ends))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"
