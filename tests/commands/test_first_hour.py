"""What a newcomer types wrong, and where the output cannot go: one line that says what to do."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from refused import refused

from speechattn.commands.main import main
from speechattn.corpora import CORPORA
from speechattn.model.classifier import FrameClassifier
from speechattn.plots import plot_prediction

COMMAND = [sys.executable, "-m", "speechattn"]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    return tmp_path / "a.wav"


@pytest.mark.parametrize(
    "line, message",
    [
        ("evaluate english-small", "missing: --cuts; see --help"),
        ("evaluate", "missing: MODEL, --cuts; see --help"),
        ("predict a.wav --outputt x", "unrecognized arguments: --outputt x; did you mean --output?"),
        ("train --optim.epoxs 3", "did you mean --optim.epochs?"),
        ("predict a.wav --device nonsense", "device nonsense: not available here"),
    ],
)
def test_mistyped_options_get_suggestions(line: str, message: str, capsys) -> None:
    assert message in refused(capsys, *line.split())


def test_choices_in_any_case_and_what_was_written(recording: Path, model_folder: Path, tmp_path: Path, capsys) -> None:
    options = [
        "--model",
        str(model_folder),
        "--format",
        "TextGrid, CSV",
        "--symbols",
        "IPA",
        "--output",
        str(tmp_path / "o"),
    ]
    main(["predict", str(recording), *options])
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["a.TextGrid", "a.csv"]
    assert "o: results of 1 recording(s)" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["prepare", "inspect", "align", "score", "train", "evaluate", "compare", "predict"])
def test_help_has_examples(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and f"examples:\n  speechattn {command} " in text


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True, env=environment, **options
    )


@pytest.mark.skipif(os.name != "posix", reason="closes and fills standard output as POSIX does")
def test_a_configuration_in_utf16_is_named(tmp_path: Path, capsys) -> None:
    (tmp_path / "a.yaml").write_text("optim:\n  epochs: 1\n", encoding="utf-16")
    for option in (["--config", tmp_path / "a.yaml"], [f"--config={tmp_path / 'a.yaml'}"]):
        assert "a.yaml: a configuration must be text in UTF-8" in refused(capsys, "train", *option)


@pytest.mark.parametrize("corpus", CORPORA)
def test_options_of_corpora_have_hyphens(corpus: str, capsys) -> None:
    """As those of every other command; messages and docs name `--label-rate` and `--ctm-channel` of `folder`."""
    with pytest.raises(SystemExit):
        main(["prepare", corpus, "--help"])
    options = re.findall(r"--[a-z_-]+", capsys.readouterr().out)
    assert not [option for option in options if "_" in option]
    assert corpus != "folder" or {"--label-rate", "--ctm-channel", "--speaker"} <= set(options)


def test_output_that_cannot_be_written_is_one_line(recording: Path, model_folder: Path) -> None:
    command = ("predict", recording, "--model", model_folder)
    closed = run(*command, preexec_fn=lambda: os.close(1))
    assert (closed.returncode, closed.stderr) == (2, "speechattn: error: standard output is closed\n")
    with open("/dev/full", "w") as full:
        done = run(*command, stdout=full)
    assert done.returncode == 2 and "standard output: No space left on device" in done.stderr.splitlines()[0]
    ascii_only = run(*command, "--symbols", "ipa", stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
    assert ascii_only.returncode == 2 and ascii_only.stdout == ""
    assert "set PYTHONIOENCODING=utf-8, or write files (--output)" in ascii_only.stderr


def test_a_model_names_no_files(model_folder: Path, tmp_path: Path) -> None:
    model = FrameClassifier.from_pretrained(model_folder)
    model.save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m/config.json").read_text())
    (tmp_path / "secret").write_text("my password\n")
    (tmp_path / "m/config.json").write_text(json.dumps(config | {"phones": str(tmp_path / "secret"), "symbols": []}))
    with pytest.raises(ValueError, match="unknown phone set") as caught:
        FrameClassifier.from_pretrained(tmp_path / "m")
    assert "password" not in str(caught.value)


def test_pictures_have_the_symbols_that_were_asked_for(
    recording: Path, model_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    drawn = []

    def watched(samples, posteriors, segments, symbols, *rest, **options):
        drawn.append(({segment.phone for segment in segments}, set(symbols)))
        return plot_prediction(samples, posteriors, segments, symbols, *rest, **options)

    monkeypatch.setattr("speechattn.prediction.files.plot_prediction", watched)
    for options in (["--symbols", "ipa"], ["--speech"]):
        main(
            [
                "predict",
                str(recording),
                "--model",
                str(model_folder),
                "--plot",
                "--output",
                str(tmp_path / "o"),
                *options,
            ]
        )
    assert drawn[0][0] <= drawn[0][1] and "ʃ" in drawn[0][1] and "SH" not in drawn[0][1]
    assert drawn[1][0] <= {"speech", "silence"}


SCRIPT = """
from speechattn.jobs.processes import process_map, start_forkserver
with process_map(2) as run:
    print(list(run(str, range(4))))
"""


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and 'under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
