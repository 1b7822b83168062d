"""An evaluation on disk: figures as JSON, and the pictures that explain them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechattn.classifier import CONFIG_FILE, WEIGHTS_FILE, FrameClassifier
from speechattn.evaluation import evaluate
from speechattn.plots import plot_confusion, plot_phones, plot_prediction, save_figure
from speechattn.prediction import by_cut
from speechattn.stages import atomic_path, is_done, mark_done

__all__ = ["evaluate_and_report", "format_figures", "write_report"]


def evaluate_and_report(
    model_name: str, cuts: str | Path, *, report: str | Path | None = None, json_file: str | Path | None = None
) -> None:
    """Score a model on a file of cuts and print its figures; write them, and pictures, where that is wanted.

    With a report and a model in a folder, an evaluation that has been made already is only printed again.

    Args:
        model_name: What `FrameClassifier.from_pretrained` takes.
        cuts: The cuts; their file's name without suffixes names the figures.
        report: Folder for `<name>.json` and the pictures.
        json_file: Another place for the figures.

    Raises:
        ValueError: As for `from_pretrained` and `evaluate`.
    """
    name = Path(cuts).name.split(".")[0]
    options = {"model": str(model_name)}
    inputs = [Path(cuts), Path(model_name) / CONFIG_FILE, Path(model_name) / WEIGHTS_FILE]
    stamp = None if report is None else Path(report) / f"{name}.done.json"
    if report is not None and stamp is not None and is_done(stamp, options, inputs):
        figures = json.loads((Path(report) / f"{name}.json").read_text(encoding="utf-8"))
    else:
        model = FrameClassifier.from_pretrained(model_name)
        figures, confusion = evaluate(model, cuts)
        if report is not None and stamp is not None:
            stamp.unlink(missing_ok=True)
            outputs = write_report(report, name, figures, confusion, model.phones.symbols)
            outputs.append(_write_example(report, name, model, cuts))
            if inputs[1].is_file():  # not so for a model of the Hub
                mark_done(stamp, options, inputs, outputs)
    if json_file is not None:
        _write_json(json_file, figures)
    print(format_figures(name, figures))


def write_report(
    folder: str | Path, name: str, figures: dict[str, Any], confusion: np.ndarray, symbols: Sequence[str]
) -> list[Path]:
    """Write `<name>.json`, `<name>_confusion.png` and `<name>_phones.png`.

    Args:
        folder: Where to; made when missing.
        name: Of the scored set, such as `test`.
        figures: From `evaluation.evaluate`.
        confusion: (P, P) counts, from the same.
        symbols: Name of each of the P phones.

    Returns:
        The files.
    """
    paths = [Path(folder) / f"{name}{suffix}" for suffix in ("_confusion.png", "_phones.png", ".json")]
    save_figure(plot_confusion(confusion, symbols), paths[0])
    save_figure(plot_phones(figures), paths[1])
    _write_json(paths[2], figures)
    return paths


def _write_example(folder: str | Path, name: str, model: FrameClassifier, cuts: str | Path) -> Path:
    """Draw what the model makes of the first recording: `<name>_example.png`."""
    samples = model.samples(next(iter(by_cut(cuts).values())))
    posteriors = model.posteriors(samples)
    geometry = model.frontend.geometry
    segments = model.segments(posteriors, len(samples) / geometry.sample_rate)
    path = Path(folder) / f"{name}_example.png"
    save_figure(plot_prediction(samples, posteriors, segments, model.phones.symbols, geometry), path)
    return path


def _write_json(path: str | Path, figures: dict[str, Any]) -> None:
    """Write figures as JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def format_figures(name: str, figures: dict[str, Any]) -> str:
    """The figures that matter, for a terminal."""
    majority = figures["majority"]
    rows = [
        ("", "all frames", "without silence"),
        ("model", figures["frame_accuracy"], figures["frame_accuracy_no_silence"]),
        ("majority class", majority["frame_accuracy"], majority["frame_accuracy_no_silence"]),
    ]
    title = (
        f"{name}: frame accuracy over {figures['num_frames']:,} frames of {figures['num_utterances']} utterances, "
        f"{100 * figures['silence_share']:.1f} % of them silence"
    )
    return "\n".join([title, *("  {:<16}{:>12}{:>18}".format(*map(_percent, row)) for row in rows)])


def _percent(value: str | float | None) -> str:
    if isinstance(value, str):
        return value
    return "-" if value is None else f"{100 * value:.2f} %"
