"""Table and plot of an ablation: what each setting changes, and its accuracy on dev.

    python -m speechattn.reports.ablation FOLDER [--output DIR]

FOLDER holds a training run in each SETTING/seed-N/, as `ablate` in stages.sh creates them. ablation.md and ablation.png
are written to FOLDER or DIR.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from speechattn.jobs.atomic import save_text
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig
from speechattn.model.files import CONFIG_FILE
from speechattn.plots import save_figure
from speechattn.training.log import LOG_FILE, read_log
from speechattn.training.setup import TRAIN_STAMP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Setting", "ablation_plot", "ablation_table", "read_settings", "spread", "table_and_plot"]

Row = TypeVar("Row")
Value = TypeVar("Value")

CONTEXT = ("left", "right", "context")  # fields of the encoder that have their own column
ONE_SIDED_LEFT = 16  # left context, in frames, of the settings that vary only the right context
COLUMNS = (
    "setting", "left / right; other changes", "look-ahead of attention, ms", "parameters", "seeds",
    "dev accuracy, %", "without silence, %", "training, s",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """The finished runs of one setting; lists are in the order of `seeds`.

    Args:
        name: Of the setting.
        config: The model, the same for all seeds.
        training: Training options, the same for all seeds: `section.field` -> value.
        seeds: Seeds of the finished runs, ascending.
        accuracy: Frame accuracy on dev in %, of the saved epoch.
        accuracy_no_silence: The same without silence.
        seconds: Training time of all epochs.
        folders: Folders of the runs.
    """

    name: str
    config: ClassifierConfig
    training: dict[str, Any]
    seeds: list[int]
    accuracy: list[float]
    accuracy_no_silence: list[float]
    seconds: list[float]
    folders: list[Path]

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the encoder, except its context, and training options."""
        encoder = {name: value for name, value in asdict(self.config.encoder).items() if name not in CONTEXT}
        return encoder | self.training

    @property
    def lookahead_ms(self) -> float | None:
        """Total look-ahead of the attention layers in ms; None: unlimited."""
        rights = [right for _, right in self.config.encoder.layer_contexts if right is not None]
        if len(rights) < self.config.encoder.layers:
            return None
        geometry = self.config.geometry
        return sum(rights) * self.config.encoder.stack * 1000 * geometry.hop / geometry.sample_rate


def read_settings(folder: Path) -> list[Setting]:
    """Read the settings below a folder, in natural order of names. Unfinished runs are named on stderr.

    Raises:
        ValueError: If no run is finished, or the seeds of a setting trained different models.
    """
    runs: dict[str, dict[int, Path]] = {}
    for run in folder.glob("*/seed-*"):
        if (run / TRAIN_STAMP).is_file():
            runs.setdefault(run.parent.name, {})[int(run.name.removeprefix("seed-"))] = run
        else:
            print(f"{run} is skipped: its training is not finished", file=sys.stderr)
    if not runs:
        raise ValueError(f"{folder}: no finished training found (SETTING/seed-N/{TRAIN_STAMP})")
    by_number = sorted(runs, key=lambda name: re.sub(r"\d+", lambda digits: digits[0].zfill(9), name))
    return [_read_setting(name, runs[name]) for name in by_number]


def _read_setting(name: str, runs: dict[int, Path]) -> Setting:
    seeds = sorted(runs)
    files = [(runs[seed] / CONFIG_FILE).read_text(encoding="utf-8") for seed in seeds]
    # The temperature is learned, so it differs between seeds.
    configs = [replace(ClassifierConfig.from_dict(json.loads(file)), temperature=1.0) for file in files]
    trainings = [_training(runs[seed] / TRAIN_STAMP) for seed in seeds]
    for file, values in ((CONFIG_FILE, configs), (TRAIN_STAMP, trainings)):
        if any(value != values[0] for value in values):
            raise ValueError(f"{runs[seeds[0]].parent}: the seeds have different settings, see {file} of each")
    logs = [read_log(runs[seed] / LOG_FILE) for seed in seeds]
    # Training saves an epoch that is better than all before it. So does max, which takes the first among equals.
    best = [max(rows, key=lambda row: row["dev_accuracy"]) for rows in logs]
    return Setting(
        name,
        configs[0],
        trainings[0],
        seeds,
        [100 * row["dev_accuracy"] for row in best],
        [100 * row["dev_accuracy_no_silence"] for row in best],
        [sum(row["seconds"] for row in rows) for rows in logs],
        [runs[seed] for seed in seeds],
    )


def _training(stamp: Path) -> dict[str, Any]:
    """Options of augmentation and optimisation in a run's stamp; `section.field` -> value."""
    options = json.loads(stamp.read_text(encoding="utf-8")).get("options", {})
    sections = ("wave_augment", "spec_augment", "optim")
    return {f"{section}.{name}": value for section in sections for name, value in options.get(section, {}).items()}


def ablation_table(settings: Sequence[Setting]) -> str:
    """A Markdown table, one row per setting: mean, minimum and maximum over the seeds."""
    usual = _usual(settings)
    rows: list[tuple[str, ...]] = [COLUMNS, ("---",) * len(COLUMNS)]
    for setting in settings:
        lookahead_ms = setting.lookahead_ms
        rows.append((
            setting.name,
            "; ".join([_context(setting), *_changes(setting, usual)]),
            "unlimited" if lookahead_ms is None else f"{lookahead_ms:g}",
            f"{sum(p.numel() for p in FrameClassifier(setting.config).parameters()):,}",
            ", ".join(map(str, setting.seeds)),
            spread(setting.accuracy),
            spread(setting.accuracy_no_silence),
            f"{mean(setting.seconds):.0f}",
        ))  # fmt: skip
    varied = [f"{name} {value}" for name, value in usual.items() if any(s.fields[name] != value for s in settings)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if varied:
        lines = [f"Unless a row says otherwise: {', '.join(varied)}.", "", *lines]
    return "\n".join(lines) + "\n"


def _usual(settings: Sequence[Setting]) -> dict[str, Any]:
    """The most frequent value of each field that all settings have; stamps of older versions have fewer fields."""
    names = [name for name in settings[0].fields if all(name in setting.fields for setting in settings)]
    return {name: _mode([setting.fields[name] for setting in settings]) for name in names}


def _mode(values: Sequence[Value]) -> Value:
    """The most frequent value, also of unhashable ones; the first among equals."""
    return max(values, key=values.count)


def _changes(setting: Setting, usual: dict[str, Any]) -> list[str]:
    return [f"{name} {setting.fields[name]}" for name, value in usual.items() if setting.fields[name] != value]


def _context(setting: Setting) -> str:
    """`16 / 4`; a list of these if the layers differ."""
    pairs = [" / ".join("all" if n is None else str(n) for n in pair) for pair in setting.config.encoder.layer_contexts]
    return pairs[0] if len(set(pairs)) == 1 else ", ".join(pairs)


def spread(values: Sequence[float]) -> str:
    """The mean, and minimum and maximum if there are several values."""
    ends = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{mean(values):.2f}{ends}"


def ablation_plot(settings: Sequence[Setting]) -> Figure:
    """Dev accuracy over look-ahead, for settings that change only the context, and all layers alike.

    Points are means over the seeds; bars range from minimum to maximum.
    """
    from matplotlib.figure import Figure

    usual = _usual(settings)
    contexts = {
        setting.config.encoder.layer_contexts[0]: setting
        for setting in settings
        if len(set(setting.config.encoder.layer_contexts)) == 1 and not _changes(setting, usual)
    }
    limited = {pair: setting for pair, setting in contexts.items() if None not in pair}
    symmetric = [setting for (left, right), setting in limited.items() if left == right]
    one_sided = [setting for (left, _), setting in limited.items() if left == ONE_SIDED_LEFT]
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.subplots()
    ticks = {setting.lookahead_ms or 0.0 for setting in symmetric + one_sided} | {0.0}
    step = min(ticks - {0.0}, default=1.0)
    axes.set_xscale("symlog", base=2, linthresh=step, linscale=0.5)  # the first step is as wide as a doubling
    _errorbars(axes, symmetric, "left = right", fmt="o-", color="#0072b2")
    if len(one_sided) > 1:  # a single one is a point of the first line
        _errorbars(axes, one_sided, f"left {ONE_SIDED_LEFT} frames", fmt="s--", color="#d55e00")
    labels = {tick: f"{tick:g}" for tick in sorted(ticks)}
    if (None, None) in contexts:
        edge = 2 * max(max(ticks), step)
        _errorbars(axes, [contexts[None, None]], "unlimited", at=edge, fmt="D", color="black")
        labels[edge] = "unlimited"
    axes.set_xticks(list(labels), list(labels.values()))
    axes.set_xticks([], minor=True)
    axes.set(xlabel="look-ahead of attention, all layers, ms", ylabel="dev frame accuracy, %")
    axes.grid(axis="y", color="0.9")
    axes.legend()
    return figure


def _errorbars(
    axes: Axes, settings: Sequence[Setting], label: str, *, fmt: str, color: str, at: float | None = None
) -> None:
    """Draw a line through settings by look-ahead, or at `at` ms."""
    if not settings:
        return
    points = sorted(
        (each.lookahead_ms if at is None else at, mean(each.accuracy), min(each.accuracy), max(each.accuracy))
        for each in settings
    )
    x, middle, low, high = np.array(points, dtype=float).T
    axes.errorbar(x, middle, [middle - low, high - middle], label=label, fmt=fmt, color=color, capsize=3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and write table and plot; returns the exit code."""
    return table_and_plot("ablation", arguments, read_settings, ablation_table, ablation_plot)


def table_and_plot(
    name: str,
    arguments: Sequence[str] | None,
    read: Callable[[Path], list[Row]],
    table: Callable[[Sequence[Row]], str],
    plot: Callable[[Sequence[Row]], Figure],
) -> int:
    """Run a command that reads a folder, prints a table, and writes `<name>.md` and `<name>.png`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=f"Table and plot: {name}.")
    parser.add_argument("folder", type=Path, help="folder with SETTING/seed-N/")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help=f"folder for {name}.md and {name}.png; default: FOLDER"
    )
    options = parser.parse_args(arguments)
    output = options.output or options.folder
    try:
        rows = read(options.folder)
    except (OSError, ValueError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    print(table(rows), end="")
    save_text(output / f"{name}.md", table(rows))
    save_figure(plot(rows), output / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
