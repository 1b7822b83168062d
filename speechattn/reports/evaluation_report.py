"""Write an evaluation to disk: figures as JSON, pictures, and an HTML page; print the figures."""

import json
from pathlib import Path
from typing import Any

from speechattn.cuts.model_inputs import cut_waveform, load_cuts
from speechattn.cuts.shards import checksum_or_path
from speechattn.evaluation.evaluate import Evaluation, evaluate, evaluate_in_detail
from speechattn.evaluation.metrics import percent
from speechattn.jobs.atomic import save_json, save_text
from speechattn.jobs.stamps import is_done, mark_done
from speechattn.model.classifier import FrameClassifier
from speechattn.model.device import checked_device
from speechattn.model.files import model_files
from speechattn.phones import PhoneSet
from speechattn.plots import plot_confusion, plot_phones, plot_prediction, save_figure
from speechattn.reports.evaluation_page import Source, evaluation_page, format_interval
from speechattn.training.log import LOG_FILE, read_log

__all__ = ["evaluate_and_report", "format_figures", "write_report"]

EXAMPLE_SECONDS = 20
FIGURES_VERSION = 3  # reports of another version are written again


def evaluate_and_report(
    model_name: str,
    cuts: str | Path,
    *,
    phones: str | None = None,
    closures_as_stops: bool = False,
    report: str | Path | None = None,
    json_file: str | Path | None = None,
    smooth: bool = False,
    right: int | None = None,
    device: str = "cpu",
) -> None:
    """Evaluate a model on cuts, print its figures, and optionally write a report.

    With `report` and a model in a folder, an unchanged evaluation is not repeated, only printed.

    Args:
        model_name: As for `FrameClassifier.from_pretrained`.
        cuts: As for `evaluate`; the file name without suffixes names the report.
        phones: Name of the phone set to score on; None: the model's own. See `evaluate`.
        closures_as_stops: See `evaluate`.
        report: Folder for `<name>.json`, `<name>.html` and pictures; None: no report.
        json_file: If given, save the figures there.
        smooth: See `evaluate`.
        right: Limit of the right context, see `FrameClassifier.limit_right`; None: unchanged.
        device: Of the computation, such as `cuda`.

    Raises:
        ValueError: As for `from_pretrained`, `limit_right`, `PhoneSet.load` and `evaluate`; or if the log beside the
            model cannot be read.
    """
    name = Path(cuts).name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
    if report is None:
        model = _model(model_name, right, device)
        scored = _phone_set(phones)
        figures, _ = evaluate(model, cuts, phones=scored, closures_as_stops=closures_as_stops, smooth=smooth)
    else:
        figures = _report(model_name, cuts, name, phones, closures_as_stops, Path(report), smooth, right, device)
    if json_file is not None:
        save_json(json_file, figures)
    print(format_figures(f"{model_name} on {name}", figures))


def _model(name: str, right: int | None, device: str) -> FrameClassifier:
    model = FrameClassifier.from_pretrained(name)
    if right is not None:
        model.limit_right(right)
    return model.to(checked_device(device))


def _phone_set(name: str | None) -> PhoneSet | None:
    return None if name is None else PhoneSet.load(name)


def _report(
    model_name: str,
    cuts: str | Path,
    name: str,
    phones: str | None,
    closures_as_stops: bool,
    folder: Path,
    smooth: bool,
    right: int | None,
    device: str,
) -> dict[str, Any]:
    """The figures of the report in the folder; it is written if it is missing or outdated."""
    stamp = folder / f"{name}.done.json"
    options = {
        "model": str(model_name), "phones": phones, "smooth": smooth, "right": right, "figures": FIGURES_VERSION
    }  # fmt: skip
    options |= {"closures_as_stops": True} if closures_as_stops else {}  # absent in older stamps
    log_file = Path(model_name) / LOG_FILE
    logs = {LOG_FILE: log_file} if log_file.is_file() else {}
    phone_file = {} if phones is None or not Path(phones).is_file() else {"phones": Path(phones)}
    model_inputs = model_files(model_name)
    inputs = {"cuts": checksum_or_path(cuts), **model_inputs, **logs, **phone_file}
    if model_inputs and is_done(stamp, options, inputs):  # without files, a model on the Hub may have changed
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    model = _model(model_name, right, device)
    command = ["speechattn", "evaluate", str(model_name), "--cuts", str(cuts), "--report", str(folder)]
    command += [] if phones is None else ["--phones", phones]
    command += ["--closures-as-stops"] if closures_as_stops else []
    command += [] if right is None else ["--right", str(right)]
    command += ["--smooth"] if smooth else []
    epochs = read_log(log_file) if logs else []
    source = Source(str(model_name), str(cuts), command, model.frontend.geometry, epochs)
    scored = _phone_set(phones)
    evaluation = evaluate_in_detail(model, cuts, phones=scored, closures_as_stops=closures_as_stops, smooth=smooth)
    stamp.unlink(missing_ok=True)
    outputs = write_report(folder, name, evaluation, source)
    if model.pooling is None and model.feature_dim is None:  # else there are no frames or no audio to draw
        outputs.append(_write_example(folder, name, model, cuts))
    mark_done(stamp, options, inputs, outputs)
    return evaluation.figures


def write_report(folder: str | Path, name: str, evaluation: Evaluation, source: Source) -> list[Path]:
    """Write `<name>.json`, `<name>.html`, `<name>_confusion.png` and, for models of frames, `<name>_phones.png`.

    Args:
        folder: The folder; created if missing.
        name: Of the evaluated set, such as `test`.
        evaluation: From `evaluate_in_detail`.
        source: Model, cuts and command, for the page.

    Returns:
        The written files.
    """
    figures = evaluation.figures
    pictures = {"confusion": plot_confusion(evaluation.confusion, evaluation.phones.symbols)}
    if "phones" in figures:
        pictures["phones"] = plot_phones(figures)
    paths = [Path(folder) / f"{name}_{kind}.png" for kind in pictures]
    for path, picture in zip(paths, pictures.values(), strict=True):
        save_figure(picture, path)
    json_path, page_path = (Path(folder) / f"{name}.{suffix}" for suffix in ("json", "html"))
    save_json(json_path, figures)
    save_text(page_path, evaluation_page(name, evaluation, source))
    return [*paths, json_path, page_path]


def _write_example(folder: str | Path, name: str, model: FrameClassifier, cuts: str | Path) -> Path:
    """Draw the prediction for the first 20 s of the first utterance: `<name>_example.png`."""
    geometry = model.frontend.geometry
    # Shards still contain cuts below one frame.
    cut = next(cut for cut in load_cuts(cuts, geometry) if geometry.num_frames(cut.num_samples))
    samples = cut_waveform(cut)[: EXAMPLE_SECONDS * geometry.sample_rate]
    posteriors = model.posteriors(samples)
    segments = model.segments(posteriors, len(samples) / geometry.sample_rate)
    path = Path(folder) / f"{name}_example.png"
    save_figure(plot_prediction(samples, posteriors, segments, model.phones.symbols, geometry), path)
    return path


def format_figures(name: str, figures: dict[str, Any]) -> str:
    """Format the main figures as text."""
    majority = figures["majority"]
    if "accuracy" in figures:  # over utterances
        lines = [
            f"  {row:<16}{percent(score['accuracy']):>12}"
            for row, score in (("model", figures), ("majority class", majority))
        ]
        return "\n".join([f"{name}: accuracy over {figures['num_utterances']:,} utterances", *lines])
    rows = [
        ("", "all frames", "without silence"),
        ("model", percent(figures["frame_accuracy"]), percent(figures["frame_accuracy_no_silence"])),
        (
            "95 % interval",
            format_interval(figures["frame_accuracy_interval"]),
            format_interval(figures["frame_accuracy_no_silence_interval"]),
        ),
        ("majority class", percent(majority["frame_accuracy"]), percent(majority["frame_accuracy_no_silence"])),
    ]
    title = (
        f"{name}: frame accuracy over {figures['num_frames']:,} frames of {figures['num_utterances']} utterances, "
        f"{100 * figures['silence_share']:.1f} % of them silence"
    )
    lines = [title, *("  {:<16}{:>20}{:>20}".format(*row) for row in rows)]
    lines += [
        f"  mean over phones {percent(figures['macro_accuracy'])}, top-3 accuracy {percent(figures['top3_accuracy'])}",
        *_boundary_lines(figures),
        *_phone_error_lines(figures),
        f"  expected calibration error {percent(figures['expected_calibration_error'])} at temperature "
        f"{figures['temperature']:.3f}, {percent(figures['expected_calibration_error_at_temperature_1'])} without",
    ]
    if smoothed := figures.get("smoothed"):
        accuracies = (percent(smoothed[name]) for name in ("frame_accuracy", "frame_accuracy_no_silence"))
        lines += ["  {:<16}{:>20}{:>20}".format("smoothed", *accuracies), *_boundary_lines(smoothed)]
    if num_seen := figures.get("utterances_of_training_speakers"):
        lines.append(f"  {num_seen} of the {figures['num_utterances']} utterances are by speakers of the training set")
    return "\n".join(lines)


def _boundary_lines(figures: dict[str, Any]) -> list[str]:
    return [
        f"  boundaries within {tolerance} ms: precision {percent(row['precision'])}, "
        f"recall {percent(row['recall'])}, F1 {percent(row['f1'])}, R-value {percent(row['r_value'])}"
        for tolerance, row in figures["boundaries"].items()
    ]


def _phone_error_lines(figures: dict[str, Any]) -> list[str]:
    if figures["phone_errors"] is None:
        return ["  no phone error rate: the model cannot smooth its decisions"]
    return [
        f"  phone error rate {percent(figures['phone_error_rate'])} without silence, "
        f"{percent(figures['phone_error_rate_with_silence'])} with silence, over "
        f"{figures['phone_errors']['num_phones']:,} phones, smoothed; frame by frame "
        f"{figures['segments_per_phone']:.2f} segments per phone"
    ]
