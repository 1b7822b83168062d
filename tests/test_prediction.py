"""Predicting files and cuts: what is refused, and what is not done twice."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch

from speechattn.alignment_files import read_json
from speechattn.classifier import ClassifierConfig, FrameClassifier
from speechattn.cli import main
from speechattn.corpora.manifest import read_cuts
from speechattn.corpora.shards import read_shards, write_shards
from speechattn.cut_prediction import predict_cuts, predict_frames
from speechattn.encoder import EncoderConfig
from speechattn.frontend import MfccConfig
from speechattn.prediction import Wanted, predict_files
from speechattn.recordings import find_recordings
from speechattn.smoothing import phonotactics_of


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
    assert predict_files(model, find_recordings([tmp_path / "a b.wav"]), Wanted(["json", "ctm"]), output=tmp_path / "out") == []
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
    config = ClassifierConfig(encoder=encoder, frontend=MfccConfig(normalisation="none"))
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
