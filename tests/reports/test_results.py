"""Models side by side, from folders made by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from speechattn.frontend import FrontendConfig
from speechattn.model.config import BlstmConfig, ClassifierConfig, EncoderConfig
from speechattn.reports.results import main, read_results, results_plot, results_table

ENCODER = ClassifierConfig(
    phones="timit39",
    frontend=FrontendConfig(normalisation="global", delta_order=0),
    encoder=EncoderConfig(dim=8, layers=1, heads=2, feed_forward=8, left=4, right=3, conv_kernel=3, stack=2),
)
BLSTM = ClassifierConfig(phones="timit39", kind="blstm", blstm=BlstmConfig(width=4, layers=1))
# By hand: stacked input 26 * 8 + 8; the block: 16 + 24 * 8 + 24 + 72 (attention), 16 + 16 * 8 + 16 + 24 + 8 + 16 + 72
# (convolution), 16 + 2 * 72 (feed-forward); 16 + 8 * 16 + 16 (norm, unstack); output 39 * 8 + 39.
ENCODER_PARAMETERS = 216 + 304 + 280 + 160 + 160 + 351
BLSTM_PARAMETERS = 2 * (4 * 4 * (39 + 4) + 2 * 16) + 351


def made(
    folder: Path, name: str, seed: int, config: ClassifierConfig, dev: float, test: tuple[float, float] | None
) -> None:
    """A training of two epochs, the second the better, and its evaluation."""
    run = folder / name / f"seed-{seed}"
    (run / "report").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(asdict(config)))
    (run / "log.csv").write_text(
        "epoch,train_loss,dev_accuracy,dev_accuracy_no_silence,seconds,frames_per_s,data_wait\n"
        f"1,3.0,0.1,0.1,60,1000,0\n2,2.0,{dev + 0.1},{dev},120,2000,0\n"
    )
    (run / "train.done.json").write_text("{}")
    if test is not None:
        figures = {"frame_accuracy": test[0], "frame_accuracy_no_silence": test[1]}
        (run / "report" / "test.json").write_text(json.dumps(figures))


def test_rows_by_hand_the_best_on_dev_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, "encoder", 0, ENCODER, 0.5, (0.7, 0.55))
    made(tmp_path, "encoder", 1, ENCODER, 0.52, (0.72, 0.59))
    made(tmp_path, "blstm", 0, BLSTM, 0.4, (0.6, 0.6))
    assert main([str(tmp_path)]) == 0
    expected = f"""\
| model | look-ahead, ms | parameters | epochs | training, min | frames/s | seeds | dev | dev, no silence | test \
| test, no silence |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| blstm | unlimited | {BLSTM_PARAMETERS:,} | 2 | 3.0 | 1,500 | 0 | 50.00 | 40.00 | 60.00 | 60.00 |
| encoder | 102.5 | {ENCODER_PARAMETERS:,} | 2 | 3.0 | 1,500 | 0, 1 | 61.00 (60.00 to 62.00) | 51.00 (50.00 to 52.00) \
| 71.00 (70.00 to 72.00) | 57.00 (55.00 to 59.00) |
"""
    assert capsys.readouterr().out == expected == (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").stat().st_size > 5000


def test_points_of_the_plot(tmp_path: Path) -> None:
    made(tmp_path, "encoder", 0, ENCODER, 0.5, (0.7, 0.55))
    made(tmp_path, "encoder", 1, ENCODER, 0.52, (0.72, 0.59))
    made(tmp_path, "blstm", 0, BLSTM, 0.4, (0.6, 0.6))
    figure = results_plot(read_results(tmp_path))
    points = [[tuple(container[0].get_xydata()[0]) for container in axes.containers] for axes in figure.axes]
    assert points[0] == [(pytest.approx(1.5 * 102.5), 60.0), (102.5, pytest.approx(57.0))]
    assert points[1] == [(3.0, 60.0), (3.0, pytest.approx(57.0))]
    labels = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert labels == ["102.5", "unlimited"]


def test_what_was_not_evaluated_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, "encoder", 0, ENCODER, 0.5, None)
    assert main([str(tmp_path)]) == 2
    folder = tmp_path / "encoder" / "seed-0"
    assert capsys.readouterr().err == f"results: error: {folder} has no report/test.json: evaluate it on test first\n"
    assert results_table([]).count("\n") == 2
