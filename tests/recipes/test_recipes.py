"""Recipes: each folder is whole, each configuration can be built, and run.sh goes from download to scores."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import parselmouth
import pytest
from in_process_recipe import RECIPES, run_recipe
from tiny_configuration import write_tiny

from speechattn.commands.main import main
from speechattn.corpora import corpus_options
from speechattn.cuts.manifest import read_cuts
from speechattn.model.classifier import FrameClassifier

FOLDERS = sorted(path.parent for path in RECIPES.glob("*/run.sh"))
CONFIGURATIONS = sorted(RECIPES.rglob("*.yaml"))


def run(recipe: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", str(RECIPES / recipe / "run.sh"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_recipe_has_all_its_parts(folder):
    for name in ("README.md", "RESULTS.md", "run.sh", "conf/base.yaml"):
        assert (folder / name).is_file(), name
    assert len((folder / "run.sh").read_text().splitlines()) <= 60
    assert "set -euo pipefail" in (RECIPES / "stages.sh").read_text()


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_configuration_can_be_built(path, monkeypatch):
    models = []
    monkeypatch.setattr(
        "speechattn.training.run.train", lambda config, init: models.append(FrameClassifier(config.model))
    )
    main(["train", "--config", str(path)])
    assert len(models) == 1


def test_commands_in_readmes_name_files_and_options_that_exist():
    options = set(re.findall(r"--[a-z-]+", (RECIPES / "stages.sh").read_text()))
    for folder in FOLDERS:
        for line in re.findall(r"^bash .*$", (folder / "README.md").read_text(), flags=re.M):
            command, _, of_corpus = line.partition(" -- ")
            words = command.split()
            assert (RECIPES.parent / words[1]).is_file(), line
            assert {word for word in words if word.startswith("--")} <= options, line
            if of_corpus:
                names, values = of_corpus.split()[::2], of_corpus.split()[1::2]
                given = dict(zip((name.removeprefix("--") for name in names), values, strict=True))
                corpus_options(folder.name)(**given)  # raises when there is no such option, or value
            for word in words:
                assert not word.endswith(".yaml") or (RECIPES.parent / word).is_file(), line


def test_from_download_to_scores_and_again_without_work(timit_archive, mirror, tmp_path):
    conf = write_tiny(tmp_path / "tiny.yaml", phones="timit39")
    exp = tmp_path / "exp"
    options = ["--mirror", mirror, "--corpus-dir", tmp_path / "corpus", "--exp-dir", exp, "--conf", conf]
    first = run("timit_sample", *options)
    assert first.returncode == 0, first.stderr
    test_cuts = read_cuts(exp / "data/test.jsonl.gz")
    for split, frames in (("dev", 5612), ("test", 9582)):
        figures = json.loads((exp / f"report/{split}.json").read_text())
        assert 0.9 * frames < figures["num_frames"] < frames  # q is not scored
        assert figures["frame_accuracy"] > 0.1
        assert (exp / f"report/{split}_confusion.png").is_file()
    assert sorted(path.stem for path in (exp / "textgrid").glob("*.TextGrid")) == sorted(cut.id for cut in test_cuts)
    cut = next(iter(test_cuts))
    grid = parselmouth.read(str(exp / f"textgrid/{cut.id}.TextGrid"))
    assert grid.xmax == cut.num_samples / 16000
    assert "CC BY-NC-SA" in first.stdout

    weights = exp / "model/model.safetensors"
    made = weights.stat().st_mtime_ns
    times = {path: path.stat().st_mtime_ns for path in exp.rglob("*") if path.is_file()}
    second = run_recipe("timit_sample", *options, folder=tmp_path)  # once as it is; then in this process, for speed
    assert second.returncode == 0, second.stderr
    assert times == {path: path.stat().st_mtime_ns for path in exp.rglob("*") if path.is_file()}
    assert "epoch=" in first.stderr and "epoch=" not in second.stderr

    write_tiny(conf, phones="timit39", learning_rate=4e-3)  # a changed option runs the training again
    third = run_recipe("timit_sample", *options, "--stage", "3", "--stop-stage", "3", folder=tmp_path)
    assert third.returncode == 0 and weights.stat().st_mtime_ns > made

    (exp / "data/train.jsonl.gz").write_bytes(b"half")  # a damaged output runs the preparation again
    fourth = run_recipe("timit_sample", *options, "--stage", "2", "--stop-stage", "2", folder=tmp_path)
    assert fourth.returncode == 0 and len(read_cuts(exp / "data/train.jsonl.gz")) == 100


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--stagge", "2"], "unknown option --stagge"),
        (["--stage"], "--stage needs a value"),
        (["--stage", "two"], "must be 1 to 4"),
        (["--stage", "4", "--stop-stage", "3"], "in order"),
    ],
)
def test_a_bad_option_is_one_line(options, reason):
    result = run("timit_sample", *options)
    assert result.returncode == 2
    assert reason in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_mirror_that_is_not_there_stops_the_recipe(tmp_path):
    result = run(
        "timit_sample", "--mirror", tmp_path / "nowhere", "--corpus-dir", tmp_path / "c", "--exp-dir", tmp_path / "e"
    )
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and "nowhere" in result.stderr
    assert not (tmp_path / "e").exists()


def commands_of(stages: str, *options: str, folder: Path) -> list[str]:
    """What stages ask `speechattn` for."""
    stub = folder / "bin/speechattn"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\necho "$@" >> {folder}/commands\n')
    stub.chmod(0o755)
    script = f"corpus=timit_sample recipe=timit_sample; source {RECIPES}/stages.sh {' '.join(options)}; {stages}"
    environment = {**os.environ, "PATH": f"{stub.parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", script, "run.sh"], env=environment, check=True)
    return (folder / "commands").read_text().splitlines()


@pytest.mark.parametrize("init", ["", "some/model"])
def test_a_training_may_start_from_a_model(init, tmp_path):
    options = ["--exp-dir", f"{tmp_path}/exp", "--conf", "my.yaml", "--stage", "3", "--stop-stage", "3"]
    (command,) = commands_of("train_and_evaluate", *options, *(["--init", init] if init else []), folder=tmp_path)
    assert command.startswith("train --config my.yaml " + (f"--init {init} --output" if init else "--output"))


def test_models_are_trained_and_scored_seed_by_seed(tmp_path):
    commands = commands_of('compare_models "0 7" linear mlp', "--exp-dir", f"{tmp_path}/exp", folder=tmp_path)
    expected = []
    for conf in ("linear", "mlp"):
        for seed in (0, 7):
            folder = f"{tmp_path}/exp/models/{conf}/seed-{seed}"
            data = f"{tmp_path}/exp/data"
            expected += [
                f"train --config {RECIPES}/timit_sample/conf/{conf}.yaml --seed {seed} --output {folder} "
                f"--data.train {data}/train.jsonl.gz --data.dev {data}/dev.jsonl.gz",
                f"evaluate {folder} --cuts {data}/test.jsonl.gz --report {folder}/report",
            ]
    assert commands == expected


STUB_THAT_PREPARES = """#!/bin/sh
echo "$@" >> {folder}/commands
[ "$1" = prepare ] || exit 0
for split in train dev test; do
  mkdir -p "$6" && echo "$2 $split" | gzip > "$6/$split.jsonl.gz"
done
"""


def test_english_joins_its_corpora(tmp_path):
    stub = tmp_path / "bin/speechattn"
    stub.parent.mkdir()
    stub.write_text(STUB_THAT_PREPARES.format(folder=tmp_path))
    stub.chmod(0o755)
    environment = {**os.environ, "PATH": f"{stub.parent}:{os.environ['PATH']}"}
    command = [
        "bash",
        str(RECIPES / "english/run.sh"),
        "--corpus-dir",
        f"{tmp_path}/in",
        "--exp-dir",
        f"{tmp_path}/exp",
    ]
    subprocess.run([*command, "--mirror", "m"], env=environment, check=True, capture_output=True)
    commands = (tmp_path / "commands").read_text().splitlines()
    for corpus, number in (("librispeech", 0), ("speechocean762", 3)):
        download, prepare, inspect = commands[number : number + 3]
        folder = f"{tmp_path}/exp/data/{corpus}"
        assert download.startswith(f"download {corpus} --corpus-dir {tmp_path}/in/{corpus} --mirror m")
        assert prepare.startswith(f"prepare {corpus} --corpus-dir {tmp_path}/in/{corpus} --output {folder}")
        assert inspect == f"inspect {folder}/train.jsonl.gz {folder}/dev.jsonl.gz {folder}/test.jsonl.gz --strict"
    assert "--subsets train-clean-5,test-clean --labels align" in commands[1]
    assert "--subsets" not in commands[4]
    for split in ("train", "dev", "test"):
        joined = gzip.decompress((tmp_path / f"exp/data/{split}.jsonl.gz").read_bytes()).decode()
        assert joined == f"librispeech {split}\nspeechocean762 {split}\n"
    joined = [f"{tmp_path}/exp/data/{split}.jsonl.gz" for split in ("train", "dev", "test")]
    assert commands[6] == f"inspect {' '.join(joined)} --strict"
    assert commands[7].startswith(f"train --config {RECIPES}/english/conf/base.yaml --output {tmp_path}/exp/model")
    scored = [command.split("--cuts ")[1].split()[0] for command in commands if command.startswith("evaluate")]
    data = f"{tmp_path}/exp/data"
    assert scored == [f"{data}/{name}.jsonl.gz" for name in ("dev", "test", "librispeech/test", "speechocean762/test")]
