"""The ablation's table and plot, from folders made by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from speechattn.model.config import ClassifierConfig, EncoderConfig
from speechattn.reports.ablation import Setting, ablation_plot, ablation_table, main, read_settings

HEAD = """\
| setting | left / right; other changes | look-ahead of attention, ms | parameters | seeds | dev accuracy, % | \
without silence, % | training, s |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
SMALL = {"dim": 8, "layers": 2, "heads": 2, "feed_forward": 8, "conv_kernel": 0, "position": "rotary"}
# By hand: input 39 * 8 + 8, two blocks of 16 + 24 * 8 + 24 + 8 * 8 + 8 (attention) + 16 + 2 * (8 * 8 + 8), the last
# normalisation 16, output 39 * 8 + 39.
PARAMETERS = 320 + 2 * (16 + 216 + 72 + 16 + 144) + 16 + 351


def configured(**encoder) -> ClassifierConfig:
    return ClassifierConfig(phones="timit39", encoder=EncoderConfig(**SMALL | encoder))


def made(
    folder: Path,
    name: str,
    seed: int,
    epochs: list[tuple[float, float, float]],
    training: dict | None = None,
    **encoder,
) -> Path:
    """A training as `ablate` leaves it; epochs: accuracy, accuracy without silence, seconds."""
    run = folder / name / f"seed-{seed}"
    run.mkdir(parents=True)
    learned = replace(configured(**encoder), temperature=1 + seed / 100)
    (run / "config.json").write_text(json.dumps(asdict(learned)))
    rows = [f"{i},3.5,{a},{no_silence},{s}\n" for i, (a, no_silence, s) in enumerate(epochs, start=1)]
    (run / "log.csv").write_text("epoch,train_loss,dev_accuracy,dev_accuracy_no_silence,seconds\n" + "".join(rows))
    (run / "train.done.json").write_text(json.dumps({"options": training or {}}))
    return run


def setting(name: str, accuracy: list[float], **encoder) -> Setting:
    seeds = list(range(len(accuracy)))
    folders = [Path(f"seed-{seed}") for seed in seeds]
    return Setting(name, configured(**encoder), {}, seeds, accuracy, accuracy, [1.0] * len(seeds), folders)


def test_rows_by_hand(tmp_path: Path) -> None:
    once = [(0.5, 0.4, 10.0)]
    made(tmp_path, "context-16", 0, [(0.5, 0.4, 10.0), (0.61, 0.5, 10.0)])
    made(tmp_path, "context-16", 10, [(0.64, 0.53, 13.0)])
    made(tmp_path, "context-16", 2, [(0.619, 0.509, 15.0)])
    made(tmp_path, "context-4", 0, [(0.55556, 0.44444, 9.6)], left=4, right=4)
    made(tmp_path, "context-unlimited", 0, once, left=None, right=None)
    made(tmp_path, "left-all", 0, once, left=None)
    made(tmp_path, "layers", 0, once, context=((16, 4), (32, 0)))
    made(tmp_path, "score-additive", 0, once, score="additive")
    made(tmp_path, "stack-2", 0, once, left=8, right=8, stack=2)
    made(tmp_path, "several", 0, once, right=0, normaliser="relu", position="sinusoidal")
    expected = f"""\
| context-4 | 4 / 4 | 80 | {PARAMETERS:,} | 0 | 55.56 | 44.44 | 10 |
| context-16 | 16 / 16 | 320 | {PARAMETERS:,} | 0, 2, 10 | 62.30 (61.00 to 64.00) | 51.30 (50.00 to 53.00) | 16 |
| context-unlimited | all / all | unlimited | {PARAMETERS:,} | 0 | 50.00 | 40.00 | 10 |
| layers | 16 / 4, 32 / 0 | 40 | {PARAMETERS:,} | 0 | 50.00 | 40.00 | 10 |
| left-all | all / 16 | 320 | {PARAMETERS:,} | 0 | 50.00 | 40.00 | 10 |
| score-additive | 16 / 16; score additive | 320 | {PARAMETERS + 16:,} | 0 | 50.00 | 40.00 | 10 |
| several | 16 / 0; normaliser relu; position sinusoidal | 0 | {PARAMETERS:,} | 0 | 50.00 | 40.00 | 10 |
| stack-2 | 8 / 8; stack 2 | 320 | {PARAMETERS + 39 * 8 + 8 * 16 + 16:,} | 0 | 50.00 | 40.00 | 10 |
"""
    usual = "Unless a row says otherwise: stack 1, score dot, normaliser softmax, position rotary.\n\n"
    assert ablation_table(read_settings(tmp_path)) == usual + HEAD + expected


def test_changes_of_the_training_are_told_and_do_not_enter_the_plot(tmp_path: Path) -> None:
    once = [(0.5, 0.4, 10.0)]
    usual = {"wave_augment": {"speeds": [0.9, 1.1]}, "optim": {"average": 0.9, "epochs": 3}, "seed": 1}
    made(tmp_path, "context-4", 0, once, usual, left=4, right=4)
    made(tmp_path, "context-16", 0, once, usual | {"optim": {"average": 0.9, "epochs": 3, "newer": 2}})
    made(tmp_path, "speeds", 0, [(0.1, 0.1, 1.0)], usual | {"wave_augment": {"speeds": [1.0]}})
    settings = read_settings(tmp_path)
    table = ablation_table(settings)
    assert table.startswith("Unless a row says otherwise: wave_augment.speeds [0.9, 1.1].\n\n")
    assert "| speeds | 16 / 16; wave_augment.speeds [1.0] | 320 |" in table
    assert "| context-16 | 16 / 16 | 320 |" in table and "newer" not in table
    (axes,) = ablation_plot(settings).axes
    assert [points(container) for container in axes.containers] == [[(80, 50, 50, 50), (320, 50, 50, 50)]]


def test_where_only_the_context_varies_nothing_else_is_said() -> None:
    table = ablation_table([setting("context-0", [50.0], left=0, right=0), setting("context-16", [60.0])])
    assert table.startswith(HEAD)


def test_the_epoch_is_the_first_of_the_best_on_dev_as_in_training(tmp_path: Path) -> None:
    made(tmp_path, "a", 0, [(0.2, 0.9, 1.0), (0.6, 0.3, 1.0), (0.6, 0.4, 1.0), (0.5, 0.8, 1.0)])
    (only,) = read_settings(tmp_path)
    assert (only.accuracy, only.accuracy_no_silence, only.seconds) == ([60.0], [30.0], [4.0])


def test_seeds_rise_whatever_the_order_of_the_folders(tmp_path: Path) -> None:
    for seed in range(12):
        made(tmp_path, "a", seed, [(seed / 100, 0.1, 1.0)])
    (only,) = read_settings(tmp_path)
    assert only.seeds == list(range(12)) and only.accuracy == pytest.approx(only.seeds)


def test_unfinished_trainings_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, "a", 0, [(0.2, 0.1, 1.0)])
    unfinished = [made(tmp_path, name, 1, [(0.3, 0.1, 1.0)]) for name in ("a", "b")]
    for run in unfinished:
        (run / "train.done.json").unlink()
        (run / "config.json").unlink()  # not there yet, either
    (only,) = read_settings(tmp_path)
    assert (only.name, only.seeds) == ("a", [0])
    lines = capsys.readouterr().err.splitlines()
    assert sorted(lines) == [f"{run} is skipped: its training is not finished" for run in sorted(unfinished)]


def points(container) -> list[tuple[float, float, float, float]]:
    """Look-ahead, mean, lowest and highest of every point of a line."""
    line, _, (bars,) = container
    ends = [(low, high) for (_, low), (_, high) in bars.get_segments()]
    return [(x, y, *end) for x, y, end in zip(*line.get_data(), ends, strict=True)]


def test_lines_of_the_plot() -> None:
    figure = ablation_plot([
        setting("context-0", [50.0, 51.0, 55.0], left=0, right=0),
        setting("context-16", [60.0, 62.0]),
        setting("context-32", [61.0], left=32, right=32),
        setting("context-unlimited", [58.0, 59.0], left=None, right=None),
        setting("left-0", [1.0], left=0),
        setting("right-0", [52.0], right=0),
        setting("right-4", [54.0, 57.0], right=4),
        setting("right-all", [2.0], right=None),
        setting("layers", [3.0], context=((16, 4), (32, 0))),
        setting("heads-1", [4.0], heads=1),
    ])  # fmt: skip
    (axes,) = figure.axes
    lines = {container.get_label(): points(container) for container in axes.containers}
    unlimited = lines.pop("unlimited")
    assert lines == {
        "left = right": [(0, 52, 50, 55), (320, 61, 60, 62), (640, 61, 61, 61)],
        "left 16 frames": [(0, 52, 52, 52), (80, 55.5, 54, 57), (320, 61, 60, 62)],
    }
    assert unlimited == [(1280, 58.5, 58, 59)]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "80", "320", "640", "unlimited"]
    np.testing.assert_allclose(axes.get_xticks(), [0, 80, 320, 640, 1280])


@pytest.mark.parametrize("frames", [0, 16])
def test_a_single_setting_is_a_plot_of_one_line(frames: int) -> None:
    (axes,) = ablation_plot([setting("context", [50.0], left=frames, right=frames)]).axes
    assert [points(container) for container in axes.containers] == [[(20 * frames, 50, 50, 50)]]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_command_prints_and_writes(elsewhere: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "ablation"
    made(folder, "context-16", 0, [(0.5, 0.4, 1.0)])
    output = tmp_path / "out" if elsewhere else folder
    assert main([str(folder), *(["--output", str(output)] if elsewhere else [])]) == 0
    assert (output / "ablation.md").read_text() == capsys.readouterr().out
    assert (output / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "ablation.md").exists() != elsewhere


def test_what_cannot_be_summed_up_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err == (
        f"ablation: error: {tmp_path}/nothing: no finished training found (SETTING/seed-N/train.done.json)\n"
    )
    made(tmp_path, "a", 0, [(0.5, 0.4, 1.0)])
    made(tmp_path, "a", 1, [(0.5, 0.4, 1.0)], left=3)
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"ablation: error: {tmp_path}/a: the seeds have different settings, see config.json of each\n"
    )
    made(tmp_path / "other", "a", 0, [(0.5, 0.4, 1.0)], {"optim": {"epochs": 3}})
    made(tmp_path / "other", "a", 1, [(0.5, 0.4, 1.0)], {"optim": {"epochs": 4}})
    assert main([str(tmp_path / "other")]) == 2
    assert capsys.readouterr().err == (
        f"ablation: error: {tmp_path}/other/a: the seeds have different settings, see train.done.json of each\n"
    )
    assert not (tmp_path / "ablation.md").exists()
