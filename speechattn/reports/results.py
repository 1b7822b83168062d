"""Table and plot of several models: accuracy on dev and test, look-ahead, training time.

    python -m speechattn.reports.results FOLDER [--output DIR]

FOLDER holds a training run in each SETTING/seed-N/, with a report on test in report/, as `compare_models` in stages.sh
creates them. results.md and results.png are written to FOLDER or DIR.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from speechattn.model.classifier import FrameClassifier
from speechattn.reports.ablation import Setting, read_settings, spread, table_and_plot
from speechattn.training.log import LOG_FILE, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Result", "read_results", "results_plot", "results_table"]

TEST_FILE = Path("report") / "test.json"
COLUMNS = (
    "model", "look-ahead, ms", "parameters", "epochs", "training, min", "frames/s", "seeds",
    "dev", "dev, no silence", "test", "test, no silence",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """A setting and its results on test; lists are in the order of its seeds.

    Args:
        setting: Name, model, seeds, and figures on dev.
        parameters: Number of parameters.
        lookahead_ms: Of the whole model, front end included; None: unlimited.
        epochs: Number of epochs.
        frames_per_s: Training speed, mean over the seeds.
        test: Frame accuracy in %.
        test_no_silence: Frame accuracy without silence in %.
    """

    setting: Setting
    parameters: int
    lookahead_ms: float | None
    epochs: int
    frames_per_s: float
    test: list[float]
    test_no_silence: list[float]

    @property
    def minutes(self) -> list[float]:
        """Training times in minutes."""
        return [seconds / 60 for seconds in self.setting.seconds]


def read_results(folder: Path) -> list[Result]:
    """Read the results below a folder, the best on dev last.

    Raises:
        ValueError: As for `read_settings`, or if a run was not evaluated on test.
    """
    results = [_read_result(setting) for setting in read_settings(folder)]
    return sorted(results, key=lambda result: mean(result.setting.accuracy_no_silence))


def _read_result(setting: Setting) -> Result:
    reports = []
    for folder in setting.folders:
        if not (folder / TEST_FILE).is_file():
            raise ValueError(f"{folder} has no {TEST_FILE}: evaluate it on test first")
        reports.append(json.loads((folder / TEST_FILE).read_text(encoding="utf-8")))
    logs = [read_log(folder / LOG_FILE) for folder in setting.folders]
    model = FrameClassifier(setting.config)
    return Result(
        setting,
        sum(parameter.numel() for parameter in model.parameters()),
        model.lookahead_ms,
        max(len(rows) for rows in logs),
        mean(row["frames_per_s"] for rows in logs for row in rows),
        [100 * report["frame_accuracy"] for report in reports],
        [100 * report["frame_accuracy_no_silence"] for report in reports],
    )


def results_table(results: Sequence[Result]) -> str:
    """A Markdown table, one row per model: mean, minimum and maximum over the seeds."""
    rows: list[tuple[str, ...]] = [COLUMNS, ("---",) * len(COLUMNS)]
    for result in results:
        rows.append((
            result.setting.name,
            "unlimited" if result.lookahead_ms is None else f"{result.lookahead_ms:g}",
            f"{result.parameters:,}",
            str(result.epochs),
            f"{mean(result.minutes):.1f}",
            f"{result.frames_per_s:,.0f}",
            ", ".join(map(str, result.setting.seeds)),
            spread(result.setting.accuracy),
            spread(result.setting.accuracy_no_silence),
            spread(result.test),
            spread(result.test_no_silence),
        ))  # fmt: skip
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def results_plot(results: Sequence[Result]) -> Figure:
    """Test accuracy without silence over look-ahead, and over training time.

    Points are means over the seeds; bars range from minimum to maximum.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.5), layout="constrained")
    over_lookahead, over_cost = figure.subplots(1, 2, sharey=True)
    limited = [result.lookahead_ms for result in results if result.lookahead_ms is not None]
    unlimited = 1.5 * max(limited, default=100.0)
    for number, result in enumerate(results):
        _point(over_lookahead, unlimited if result.lookahead_ms is None else result.lookahead_ms, result, number)
        _point(over_cost, mean(result.minutes), result, number)
    ticks = {tick: f"{tick:g}" for tick in sorted(set(limited))}
    over_lookahead.set_xticks([*ticks, unlimited], [*ticks.values(), "unlimited"], rotation=45)
    over_lookahead.set(xlabel="look-ahead, ms", ylabel="test frame accuracy without silence, %")
    over_cost.set(xlabel="training time, min", xlim=(0, None))
    for axes in (over_lookahead, over_cost):
        axes.grid(color="0.9")
    over_cost.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _point(axes: Axes, x: float, result: Result, number: int) -> None:
    middle, low, high = mean(result.test_no_silence), min(result.test_no_silence), max(result.test_no_silence)
    axes.errorbar(
        [x], [middle], [[middle - low], [high - middle]],
        label=result.setting.name, fmt="osD^v<>p*hXP"[number % 12], color=f"C{number % 10}", capsize=3,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and write table and plot; returns the exit code."""
    return table_and_plot("results", arguments, read_results, results_table, results_plot)


if __name__ == "__main__":
    sys.exit(main())
