"""Recipes: every folder is complete, every configuration builds a model, and run.sh goes from download to scores."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections import ChainMap
from pathlib import Path

import parselmouth
import pytest
import yaml
from in_process_recipe import RECIPES, run_recipe
from tiny_configuration import write_tiny

from speechattn.commands.main import main
from speechattn.corpora import corpus_options
from speechattn.cuts.files import read_cuts
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


BETWEEN = {"librispeech/conf/cpc.yaml": "clean100.yaml", "speechocean762/conf/ablation.yaml": "small.yaml"}


def bases(path: Path) -> list[Path]:
    """The configurations that this one is applied over."""
    conf = path.parent if path.parent.name == "conf" else path.parents[1]
    if path.parent.name == "ablation":
        return [conf / "base.yaml", conf / "ablation.yaml"]
    between = BETWEEN.get(path.relative_to(RECIPES).as_posix())
    return [conf / name for name in ("base.yaml", between) if name and name != path.name]


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_configuration_builds_a_model(path, monkeypatch):
    models = []
    monkeypatch.setattr(
        "speechattn.training.run.train",
        lambda config, init, overwrite, processes: models.append(FrameClassifier(config.model)),
    )
    main(["train", *(word for file in [*bases(path), path] for word in ("--config", str(file)))])
    assert len(models) == 1


OVERLAYS = [path for path in CONFIGURATIONS if path.parent.name == "conf" and bases(path)]


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_configuration_says_only_what_differs(path):
    def leaves(tree: dict, prefix: str = "") -> dict[str, str]:
        found = {}
        for name, value in tree.items():
            found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: repr(value)}
        return found

    *below, overlay = (leaves(yaml.safe_load(file.read_text())) for file in (*bases(path), path))
    assert not ChainMap(*reversed(below)).items() & overlay.items()


def test_commands_in_readmes_name_files_and_options_that_exist():
    options = set(re.findall(r"--[a-z-]+", (RECIPES / "stages.sh").read_text()))
    for folder in FOLDERS:
        for line in re.findall(r"^bash .*$", (folder / "README.md").read_text(), flags=re.M):
            command, _, after_dashes = line.partition(" -- ")
            words = command.split()
            assert (RECIPES.parent / words[1]).is_file(), line
            assert {word for word in words if word.startswith("--")} <= options, line
            if after_dashes:
                names, values = after_dashes.split()[::2], after_dashes.split()[1::2]
                options_of_corpus = dict(zip((name.removeprefix("--") for name in names), values, strict=True))
                corpus_options(folder.name)(**options_of_corpus)  # raises on an unknown option or value
            for word in words:
                assert not word.endswith(".yaml") or (RECIPES.parent / word).is_file(), line


def test_from_download_to_scores_and_a_rerun_does_nothing(timit_archive, mirror, tmp_path):
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
    first_time = weights.stat().st_mtime_ns
    times = {path: path.stat().st_mtime_ns for path in exp.rglob("*") if path.is_file()}
    second = run_recipe("timit_sample", *options, folder=tmp_path)  # in this process, for speed
    assert second.returncode == 0, second.stderr
    assert times == {path: path.stat().st_mtime_ns for path in exp.rglob("*") if path.is_file()}
    assert "epoch=" in first.stderr and "epoch=" not in second.stderr

    write_tiny(conf, phones="timit39", learning_rate=4e-3)  # a finished model is not trained over
    third = run_recipe("timit_sample", *options, "--stage", "3", "--stop-stage", "3", folder=tmp_path)
    assert third.returncode == 2 and weights.stat().st_mtime_ns == first_time
    assert "holds a finished model of another run (other optim.learning_rate)" in third.stderr

    (exp / "data/train.jsonl.gz").write_bytes(b"half")  # a damaged output is prepared again
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


def test_a_missing_mirror_stops_the_recipe(tmp_path):
    result = run(
        "timit_sample", "--mirror", tmp_path / "nowhere", "--corpus-dir", tmp_path / "c", "--exp-dir", tmp_path / "e"
    )
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and "nowhere" in result.stderr
    assert not (tmp_path / "e").exists()


def commands_of(stages: str, *options: str, folder: Path) -> list[str]:
    """The arguments of each call of `speechattn` that the stages make."""
    stub = folder / "bin/speechattn"
    stub.parent.mkdir(parents=True, exist_ok=True)
    stub.write_text(f'#!/bin/sh\necho "$@" >> {folder}/commands\n')
    stub.chmod(0o755)
    script = f"corpus=timit_sample recipe=timit_sample; source {RECIPES}/stages.sh {' '.join(options)}; {stages}"
    environment = {**os.environ, "PATH": f"{stub.parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", script, "run.sh"], env=environment, check=True)
    return (folder / "commands").read_text().splitlines()


@pytest.mark.parametrize("init", ["", "some/model"])
def test_training_may_start_from_a_model(init, tmp_path):
    options = ["--exp-dir", f"{tmp_path}/exp", "--conf", "my.yaml", "--stage", "3", "--stop-stage", "3"]
    (command,) = commands_of("train_and_evaluate", *options, *(["--init", init] if init else []), folder=tmp_path)
    assert command.startswith("train --config my.yaml " + (f"--init {init} --output" if init else "--output"))


def test_later_configurations_override_earlier_ones(tmp_path):
    conf = RECIPES / "timit_sample/conf"

    def configs(folder: str, *files: str | Path) -> str:
        options = [word for file in files for word in ("--conf", str(file))]
        options += ["--exp-dir", f"{tmp_path}/exp", "--stage", "3", "--stop-stage", "3"]
        (command,) = commands_of("train_and_evaluate", *options, folder=tmp_path / folder)
        return command.removeprefix("train ").split(" --output")[0]

    assert configs("default") == f"--config {conf}/base.yaml"
    assert configs("overlay", conf / "mlp.yaml") == f"--config {conf}/base.yaml --config {conf}/mlp.yaml"
    written_out = [conf / "base.yaml", conf / "mlp.yaml", "my.yaml"]
    assert configs("all", *written_out) == f"--config {conf}/base.yaml --config {conf}/mlp.yaml --config my.yaml"
    assert configs("own", "my.yaml") == "--config my.yaml"


def test_an_ablation_changes_its_common_setting(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to("/bin/true")
    recipe, setting = RECIPES / "timit_sample/conf", RECIPES / "timit_sample/conf/ablation/right-0.yaml"
    (command,) = commands_of(f'ablate 3 "{setting}"', "--exp-dir", f"{tmp_path}/exp", folder=tmp_path)
    assert command.startswith(
        f"train --config {recipe}/base.yaml --config {recipe}/ablation.yaml --config {setting} --seed 3 "
        f"--output {tmp_path}/exp/ablation/right-0/seed-3 "
    )


def test_models_are_trained_and_scored_seed_by_seed(tmp_path):
    commands = commands_of('compare_models "0 7" linear mlp', "--exp-dir", f"{tmp_path}/exp", folder=tmp_path)
    expected = []
    conf = RECIPES / "timit_sample/conf"
    for name in ("linear", "mlp"):
        for seed in (0, 7):
            folder = f"{tmp_path}/exp/models/{name}/seed-{seed}"
            data = f"{tmp_path}/exp/data"
            expected += [
                f"train --config {conf}/base.yaml --config {conf}/{name}.yaml --seed {seed} --output {folder} "
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
    command = ["bash", f"{RECIPES}/english/run.sh", "--corpus-dir", f"{tmp_path}/in", "--exp-dir", f"{tmp_path}/exp"]
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
