"""Predicting files and cuts: what is refused, and what is not done twice."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile
import torch
from refused import refused

from speechattn.commands.main import main
from speechattn.cuts.files import read_cuts
from speechattn.cuts.shards import read_shards, write_shards
from speechattn.decoding.smoothing import phonotactics_of
from speechattn.frontend import FrontendConfig
from speechattn.labels.files import read_audacity, read_json
from speechattn.labels.ipa import in_ipa, speech_and_silence
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig
from speechattn.prediction.cuts import predict_cuts, predict_frames
from speechattn.prediction.files import OutputOptions, predict_files
from speechattn.prediction.long_audio import recording_segments
from speechattn.prediction.recordings import find_recordings


def edited(tone_corpus, tmp_path, edit):
    """The dev cuts with the first one's JSON changed."""
    rows = [cut.to_dict() for cut in read_cuts(tone_corpus / "dev.jsonl.gz")]
    edit(rows[0])
    path = tmp_path / "cuts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_files_are_the_frames_of_the_model(model_folder, tmp_path):
    model = FrameClassifier.from_pretrained(model_folder)
    samples = 0.1 * np.random.default_rng(0).standard_normal(9000).astype(np.float32)
    soundfile.write(tmp_path / "a b.wav", samples, 16000, subtype="FLOAT")
    recordings = find_recordings([tmp_path / "a b.wav"])
    assert predict_files(model, recordings, OutputOptions(["json", "ctm"]), output=tmp_path / "out") == []
    segments = read_json(tmp_path / "out/a b.json")
    posteriors = model.posteriors(samples)
    frames = [model.phones.symbols[index] for index in posteriors.argmax(axis=1)]
    found = []
    for segment in segments:
        first, end = (round((time * 16000 - 120) / 160) for time in (segment.start, segment.end))
        owned = posteriors[max(first, 0) : min(end, len(frames)), model.phones.symbols.index(segment.phone)]
        assert segment.confidence == pytest.approx(owned.mean(), abs=1e-5)
        found += [segment.phone] * len(owned)
    assert found == frames
    assert (tmp_path / "out/a b.ctm").read_text().startswith("a_b 1 ")


def test_smoothed_segments_are_those_of_the_model_as_it_was_saved(model_folder, tmp_path, capsys):
    model = FrameClassifier.from_pretrained(model_folder)
    wav = tmp_path / "noise.wav"
    soundfile.write(wav, 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    with pytest.raises(SystemExit):
        main(["predict", str(wav), "--model", str(model_folder), "--smooth"])
    assert "the model cannot smooth: it has no phonotactics.json" in capsys.readouterr().err
    model.phonotactics = phonotactics_of([np.repeat([0, 5, 0], [10, 8, 10])], len(model.phones))
    model.save_pretrained(tmp_path / "model")
    again = FrameClassifier.from_pretrained(tmp_path / "model")
    assert again.phonotactics == model.phonotactics
    main(["predict", str(wav), "--model", str(tmp_path / "model"), "--smooth"])
    printed = [line.split()[2] for line in capsys.readouterr().out.splitlines()]
    assert printed == [segment.phone for segment in again.classify(wav, smooth=True)]
    assert len(printed) < len(again.classify(wav))


def test_less_right_context_is_for_audio_files(tmp_path, tone_corpus, capsys):
    encoder = EncoderConfig(dim=16, layers=2, heads=2, left=4, right=6, feed_forward=16, conv_kernel=0)
    config = ClassifierConfig(encoder=encoder, frontend=FrontendConfig(normalisation="none"))
    model = FrameClassifier(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # strong weights, so that it matters what a frame attends to
            parameter.mul_(4)
    model.save_pretrained(tmp_path / "model")
    wav = tmp_path / "noise.wav"
    soundfile.write(wav, 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    main(["predict", str(wav), "--model", str(tmp_path / "model"), "--right", "1"])
    printed = [float(line.split()[3]) for line in capsys.readouterr().out.splitlines()]
    wide = [segment.confidence for segment in model.classify(wav)]
    model.limit_right(1)
    narrow = [segment.confidence for segment in model.classify(wav)]
    assert printed == pytest.approx(narrow, abs=1e-3) and printed != pytest.approx(wide, abs=1e-3)
    cuts = ["--cuts", str(tone_corpus / "dev.jsonl.gz"), "--model", str(tmp_path / "model"), "--right", "1"]
    for where in (["--frames", str(tmp_path / "frames.csv")], ["--output", str(tmp_path / "out")]):
        with pytest.raises(SystemExit):
            main(["predict", *cuts, *where])
        assert "predict --" in capsys.readouterr().err and not (tmp_path / "frames.csv").exists()


def test_cuts_are_predicted_once_and_again_when_the_model_changes(model_folder, tmp_path, tone_corpus):
    cuts, output = tone_corpus / "dev.jsonl.gz", tmp_path / "out"
    predict_cuts(str(model_folder), cuts, output)
    grids = sorted(output.glob("*.TextGrid"))
    assert [path.stem for path in grids] == sorted(cut.id for cut in read_cuts(cuts))
    made = grids[0].stat().st_mtime_ns
    predict_cuts(str(model_folder), cuts, output)
    assert grids[0].stat().st_mtime_ns == made
    grids[1].unlink()
    predict_cuts(str(model_folder), cuts, output)
    assert grids[0].stat().st_mtime_ns > made and grids[1].is_file()


def test_cuts_are_predicted_several_at_a_time(model_folder, tmp_path, tone_corpus, monkeypatch):
    threads = set()

    def named(*arguments, **options):
        threads.add(threading.current_thread().name)
        time.sleep(0.02)  # so that another thread takes the next one
        return recording_segments(*arguments, **options)

    monkeypatch.setattr("speechattn.prediction.files.recording_segments", named)
    cuts = ["--cuts", str(tone_corpus / "dev.jsonl.gz"), "--model", str(model_folder)]
    for jobs in (1, 2):
        main(["predict", *cuts, "--output", str(tmp_path / str(jobs)), "--num-jobs", str(jobs)])
        assert len(threads) == jobs
        threads.clear()
    for path in (tmp_path / "1").glob("*.TextGrid"):
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()


def test_frames_of_shards_are_predicted_once(model_folder, tmp_path, tone_corpus, capsys):
    write_shards(tone_corpus / "dev.jsonl.gz", tmp_path / "dev", size=4)
    table = tmp_path / "frames.csv"
    predict_frames(str(model_folder), tmp_path / "dev", table)
    model, expected = FrameClassifier.from_pretrained(model_folder), []
    for cut in read_shards(tmp_path / "dev"):
        expected += [model.phones.symbols[index] for index in model.posteriors(cut.load_audio()[0]).argmax(axis=1)]
    rows = [line.split(",") for line in table.read_text().splitlines()]
    assert rows == [["Id", "Class"], *([str(number), symbol] for number, symbol in enumerate(expected))]
    predict_frames(str(model_folder), tmp_path / "dev", table)
    assert capsys.readouterr().out.endswith(f"{table}: predicted already\n")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda row: row.update(id="../escape"), "'../escape' occurs twice or cannot name a file"),
        (lambda row: row.update(id="dev-1"), "'dev-1'"),
        (lambda row: row.update(start=0.2, duration=0.5), "a whole recording is needed"),
        (lambda row: row.pop("recording"), "with a recording"),
        (lambda row: row["recording"]["sources"].clear(), "with a recording"),
    ],
)
def test_cuts_that_are_not_whole_files_are_refused(model_folder, tmp_path, tone_corpus, edit, message):
    cuts = edited(tone_corpus, tmp_path, edit)
    with pytest.raises(ValueError, match=message):
        predict_cuts(str(model_folder), cuts, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "escape.TextGrid").exists()


@pytest.fixture
def noises(tmp_path):
    """A folder of recordings of several lengths, one of them none."""
    folder = tmp_path / "noises"
    (folder / "b").mkdir(parents=True)
    for number, name in enumerate(["a.wav", "b/c.wav", "b/d.wav", "e.wav"]):
        samples = 0.1 * np.random.default_rng(number).standard_normal(3000 + 4000 * number)
        soundfile.write(folder / name, samples, 16000)
    (folder / "bad.wav").write_text("not audio")
    return folder


def test_files_at_a_time_give_what_one_after_the_other_gives(model_folder, noises, tmp_path, capsys):
    threads = torch.get_num_threads()
    printed = []
    for jobs in ("1", "3"):
        output = ["--output", str(tmp_path / jobs), "--format", "csv,npy,audacity"]
        for options in (output, []):
            with pytest.raises(SystemExit) as stop:
                main(["predict", str(noises), "--model", str(model_folder), "--num-jobs", jobs, *options])
            assert stop.value.code == 2
        out, err = capsys.readouterr()
        first, *lines = err.splitlines(keepends=True)
        assert first == f"speechattn: {tmp_path / jobs}: results of 4 recording(s)\n"
        printed.append((out, "".join(lines)))
    assert printed[0] == printed[1] and torch.get_num_threads() == threads
    assert printed[0][1].splitlines()[0].endswith("(WAV, FLAC, ...) (1 of 5 files failed)")
    names = [line for line in printed[0][0].splitlines() if line.startswith("#")]
    assert names == ["# a", "# b/c", "# b/d", "# e"]
    files = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file())
    assert len(files) == 12
    for name in files:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()
    model = FrameClassifier.from_pretrained(model_folder)
    posteriors = np.load(tmp_path / "3/b/d.npy")
    assert posteriors.dtype == np.float32 and np.array_equal(
        posteriors, model.posteriors(model.samples(noises / "b/d.wav"))
    )
    label_track = read_audacity(tmp_path / "1/b/d.txt")
    assert [segment.phone for segment in label_track] == [s.phone for s in model.classify(noises / "b/d.wav")]


def test_a_name_that_is_too_long_does_not_stop_the_others(model_folder, noises, tmp_path, capsys):
    (noises / f"{'n' * 248}.wav").write_bytes((noises / "a.wav").read_bytes())  # with .TextGrid it is too long
    (noises / "bad.wav").unlink()
    message = refused(capsys, "predict", noises, "--model", model_folder, "--output", tmp_path / "out", "--num-jobs", 1)
    assert f"{'n' * 248}.wav: file name too long" in message and "(1 of 5 files failed)" in message
    grids = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert grids == {"a.TextGrid", "b/c.TextGrid", "b/d.TextGrid", "e.TextGrid"}


def test_ctrl_c_does_not_wait_for_the_end_of_a_recording(model_folder, noises, monkeypatch):
    def hours(model, path, *, on_progress, **options):
        for number in range(1000):
            time.sleep(0.01)
            on_progress(60.0)
            if number == 20:  # the main thread waits for us by now
                os.kill(os.getpid(), signal.SIGINT)
        return []

    monkeypatch.setattr("speechattn.prediction.files.recording_segments", hours)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        predict_files(FrameClassifier.from_pretrained(model_folder), find_recordings([noises / "a.wav"]))
    assert time.monotonic() - began < 5


def test_other_names_for_segments(model_folder, noises, capsys):
    model, path = FrameClassifier.from_pretrained(model_folder), noises / "e.wav"
    segments = model.classify(path)
    for options, expected in (
        (["--symbols", "ipa"], in_ipa(segments)),
        (["--speech"], speech_and_silence(segments, {"SIL"})),
    ):
        main(["predict", str(path), "--model", str(model_folder), *options])
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert rows == [[f"{s.start:.4f}", f"{s.end:.4f}", s.phone, f"{s.confidence:.3f}"] for s in expected]


def test_a_file_on_standard_input(model_folder, noises):
    command = [sys.executable, "-m", "speechattn", "predict", "-", "--model", str(model_folder)]
    run = subprocess.run(command, input=(noises / "e.wav").read_bytes(), capture_output=True, check=True)
    segments = FrameClassifier.from_pretrained(model_folder).classify(noises / "e.wav")
    assert [line.split()[2] for line in run.stdout.decode().splitlines()] == [segment.phone for segment in segments]
    run = subprocess.run(command, input=b"not audio", capture_output=True, check=False)
    assert run.returncode == 2 and run.stderr.startswith(b"speechattn: error: standard input: not an audio file")


def test_a_folder_of_the_boxed_models_name_does_not_hide_it(noises, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "english-small").mkdir()  # of its results, say
    main(["predict", str(noises / "e.wav")])
    assert capsys.readouterr().out.startswith("0.0000 ")


def test_what_the_model_cannot_give_is_refused_before_any_work(noises, tmp_path, capsys):
    model = FrameClassifier(
        ClassifierConfig(symbols=("x", "17"), phones="custom", encoder=EncoderConfig(dim=8, layers=1))
    )
    model.save_pretrained(tmp_path / "model")
    common = ["predict", noises / "e.wav", "--model", tmp_path / "model"]
    assert "no IPA symbol for 17 x" in refused(capsys, *common, "--symbols", "ipa")
    assert "cannot find speech" in refused(capsys, *common, "--speech")
    assert "symbols must be model or ipa, got 'sampa'" in refused(capsys, *common, "--symbols", "sampa")
    assert "--format npy need --output" in refused(capsys, *common, "--format", "npy")
    assert "e.wav is a file: --output takes a folder" in refused(capsys, *common, "--output", noises / "e.wav")
    assert "--num-jobs must be 1 or more" in refused(capsys, *common, "--num-jobs", "0")
    cuts = tmp_path / "cuts.jsonl"
    message = refused(
        capsys, "predict", "--cuts", cuts, "--model", tmp_path / "model", "--output", tmp_path, "--speech"
    )
    assert "predict --cuts needs --output, and takes none of --channel" in message
    message = refused(
        capsys, "predict", "--cuts", cuts, "--model", tmp_path / "model", "--output", tmp_path, "--format", "npy"
    )
    assert "the formats for cuts are textgrid" in message
