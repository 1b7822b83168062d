"""The command from outside: what it prints, its exit codes, and that bad input leaves nothing behind."""

import json
import subprocess
import sys

import numpy as np
import parselmouth
import pytest
import soundfile
from refused import refused

from speechattn.commands.main import main
from speechattn.labels.files import read_csv, read_ctm, read_json, read_textgrid


def noise(path, rate=16000, seconds=1.0, channels=1):
    samples = 0.1 * np.random.default_rng(0).standard_normal((round(rate * seconds), channels))
    soundfile.write(path, samples, rate)
    return path


def test_help_and_import_load_nothing_heavy():
    script = (
        "import sys, speechattn, speechattn.commands.main\n"
        "try: speechattn.commands.main.main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "print(sorted({'torch', 'torchaudio', 'lhotse', 'matplotlib', 'librosa', 'accelerate'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
    for command in ("prepare", "align", "train", "evaluate", "compare", "predict", "export"):
        assert command in run.stdout


def test_the_frontend_and_prediction_load_only_what_they_need(model_folder, tmp_path):
    noise(tmp_path / "a.wav")
    script = (
        "import sys, speechattn.frontend\n"
        "heavy = {'lhotse', 'matplotlib', 'librosa', 'accelerate', 'pocketsphinx', 'praatio'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "from speechattn.commands.main import main\n"
        f"main(['predict', {str(tmp_path / 'a.wav')!r}, '--model', {str(model_folder)!r}])\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_predict_writes_all_formats_of_any_audio(model_folder, tmp_path, rate, channels, suffix):
    path = noise(tmp_path / f"x{suffix}", rate, 0.73, channels)
    output = tmp_path / "out"
    main(
        [
            "predict",
            str(path),
            "--model",
            str(model_folder),
            "--format",
            "textgrid,ctm,json,csv",
            "--output",
            str(output),
        ]
    )
    duration = soundfile.info(path).frames / rate
    for segments in (read_textgrid(output / "x.TextGrid"), read_json(output / "x.json"), read_csv(output / "x.csv")):
        assert segments[0].start == 0 and segments[-1].end == pytest.approx(duration, abs=1e-9)
        assert all(a.end == b.start for a, b in zip(segments, segments[1:], strict=False))
    (ctm,) = read_ctm(output / "x.ctm").values()
    assert [segment.phone for segment in ctm] == [segment.phone for segment in segments]
    grid = parselmouth.read(str(output / "x.TextGrid"))
    assert grid.xmax == parselmouth.Sound(str(path)).xmax
    assert sorted(file.name for file in output.iterdir()) == ["x.TextGrid", "x.csv", "x.ctm", "x.json"]


def test_predict_prints_lines_and_draws(model_folder, tmp_path, capsys, monkeypatch):
    path = noise(tmp_path / "x.wav")
    main(["predict", str(path), "--model", str(model_folder)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert float(rows[0][0]) == 0 and float(rows[-1][1]) == 1
    assert all(len(row) == 4 and 0 <= float(row[3]) <= 1 for row in rows)
    main(["predict", str(path), "--model", str(model_folder), "--output", str(tmp_path / "out"), "--plot"])
    assert (tmp_path / "out/x.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("speechattn.prediction.files.LONGEST_PICTURE_S", 0.6)
    main(["predict", str(path), "--model", str(model_folder), "--output", str(tmp_path / "several"), "--plot"])
    assert {file.name for file in (tmp_path / "several").iterdir()} == {"x.001.png", "x.002.png", "x.TextGrid"}


def test_predict_goes_on_after_a_bad_file(model_folder, tmp_path, capsys):
    good, bad, output = noise(tmp_path / "good.wav"), tmp_path / "None-bad.wav", tmp_path / "out"
    bad.write_text("not audio")
    message = refused(capsys, "predict", bad, good, "--model", model_folder, "--format", "json", "--output", output)
    assert f"{bad}: not an audio file" in message
    assert [file.name for file in output.iterdir()] == ["good.json"]


def test_predict_refuses_two_inputs_of_one_stem_before_any_work(model_folder, tmp_path, capsys):
    (tmp_path / "b").mkdir()
    paths = noise(tmp_path / "x.wav"), noise(tmp_path / "b/x.flac")
    message = refused(capsys, "predict", *paths, "--model", model_folder, "--output", tmp_path / "out")
    assert "x.wav" in message and "x.flac" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"hello", "not an audio file"),
        (b"", "empty"),
        ("no samples", "empty"),
        ("100 samples", "less than one frame"),
    ],
)
def test_predict_refuses_bad_audio_by_name(model_folder, tmp_path, capsys, content, reason):
    path = tmp_path / "bad.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        noise(path, seconds=0 if content == "no samples" else 100 / 16000)
    message = refused(capsys, "predict", path, "--model", model_folder, "--output", tmp_path / "out")
    assert "bad.wav" in message and reason in message
    assert not (tmp_path / "out").exists()


def test_bad_options_are_one_line_each(model_folder, tmp_path, capsys, tone_corpus):
    audio = noise(tmp_path / "x.wav")
    config = tmp_path / "conf.yaml"
    config.write_text("model:\n  encoder:\n    dmi: 3\n")
    assert "dmi" in refused(capsys, "train", "--config", config)
    assert "epcohs" in refused(capsys, "train", "--optim.epcohs", "3")
    assert "optim.epochs" in refused(capsys, "train", "--optim.epochs", "many")
    assert "must be at least 1" in refused(capsys, "train", "--optim.epochs", "0")
    assert "gone.jsonl" in refused(capsys, "train", "--data.train", "gone.jsonl", "--output", tmp_path / "m")
    assert "gone.yaml" in refused(capsys, "train", "--config", tmp_path / "gone.yaml")
    assert "nosuch" in refused(capsys, "predict", audio, "--model", tmp_path / "nosuch")
    assert "mp4" in refused(capsys, "predict", audio, "--model", model_folder, "--format", "mp4", "--output", tmp_path)
    assert "channel" in refused(capsys, "predict", audio, "--model", model_folder, "--channel", "3")
    assert "gone.jsonl" in refused(capsys, "evaluate", model_folder, "--cuts", tmp_path / "gone.jsonl")
    assert "esepak" in refused(capsys, "prepare", "esepak", "--output", tmp_path / "o")
    refused(capsys, "no-such-command")
    assert not (tmp_path / "m").exists() and not (tmp_path / "o").exists()


def test_a_folder_that_is_no_corpus_is_refused(tmp_path, capsys):
    (tmp_path / "stray").mkdir()
    for corpus in ("timit_sample", "speechocean762"):
        message = refused(capsys, "prepare", corpus, "--corpus-dir", tmp_path / "stray", "--output", tmp_path / "out")
        assert "stray" in message
    assert not (tmp_path / "out").exists()


def test_evaluate_writes_figures_and_pictures_once(model_folder, tmp_path, capsys, tone_corpus):
    report = tmp_path / "report"
    argv = ["evaluate", str(model_folder), "--cuts", str(tone_corpus / "test.jsonl.gz"), "--report", str(report)]
    main([*argv, "--json", str(tmp_path / "figures.json")])
    printed = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures == json.loads((report / "test.json").read_text())
    assert set(figures) == {
        "num_utterances", "frame_accuracy", "frame_accuracy_no_silence", "num_frames", "silence_share", "majority",
        "phones", "num_speakers", "macro_accuracy", "top3_accuracy", "frame_accuracy_interval",
        "frame_accuracy_no_silence_interval", "temperature", "expected_calibration_error",
        "expected_calibration_error_at_temperature_1", "boundaries", "num_boundaries", "phone_error_rate",
        "phone_errors", "phone_error_rate_with_silence", "segments_per_phone",
    }  # fmt: skip
    assert figures["num_utterances"] == 6
    assert sum(phone["num_frames"] for phone in figures["phones"].values()) == figures["num_frames"]
    assert f"{100 * figures['frame_accuracy']:.2f} %" in printed
    pictures = sorted(report.glob("*.png"))
    assert [path.name for path in pictures] == ["test_confusion.png", "test_example.png", "test_phones.png"]
    made = [path.stat().st_mtime_ns for path in pictures]
    main(argv)
    assert capsys.readouterr().out == printed
    assert [path.stat().st_mtime_ns for path in pictures] == made


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError, match="no model at"):
        main(["--debug", "predict", "x.wav", "--model", str(tmp_path)])


@pytest.mark.parametrize(
    "yaml, option", [("    preset: librosa\n", None), ("", "librosa"), ("    preset: htk\n", "librosa")]
)
def test_a_preset_in_yaml_or_on_the_command_line_brings_its_own_values(tmp_path, tone_corpus, yaml, option):
    config, output = tmp_path / "conf.yaml", tmp_path / "model"
    config.write_text(f"model:\n  kind: linear\n  frontend:\n{yaml}    num_mels: 40\n")
    data = [f"--data.{split}={tone_corpus / split}.jsonl.gz" for split in ("train", "dev")]
    more = [] if option is None else [f"--model.frontend.preset={option}"]
    train = ["train", f"--config={config}", "--optim.epochs=1", f"--output={output}", "--data.num_workers=0"]
    main([*train, *data, *more])
    frontend = json.loads((output / "config.json").read_text())["frontend"]
    assert None not in frontend.values()  # resolved
    assert (frontend["preset"], frontend["num_mels"], frontend["mel_filters"]) == ("librosa", 40, "slaney")
    assert frontend["floor"] == 1e-10 and frontend["scale"] == 1.0
