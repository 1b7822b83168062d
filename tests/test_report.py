"""Reports and pictures: what they show is what was counted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from speechattn.classifier import FrameClassifier
from speechattn.corpora.manifest import read_cuts, save_cuts
from speechattn.corpora.shards import read_shards, write_shards
from speechattn.cuts import cut_labels
from speechattn.evaluation import evaluate
from speechattn.metrics import frame_figures
from speechattn.plots import plot_confusion, plot_curves, plot_phones, plot_prediction
from speechattn.report import evaluate_and_report, format_figures


@pytest.fixture
def model(model_folder):
    return FrameClassifier.from_pretrained(model_folder)


def test_an_evaluation_counts_every_labelled_frame_once(model, tone_corpus):
    figures, confusion = evaluate(model, tone_corpus / "test.jsonl.gz")
    expected = np.zeros_like(confusion)
    for cut in read_cuts(tone_corpus / "test.jsonl.gz"):  # one utterance, one frame at a time
        predicted = model.posteriors(cut.load_audio()[0]).argmax(axis=1)
        for reference, guess in zip(cut_labels(cut, model.phones, model.frontend.geometry), predicted, strict=True):
            expected[reference, guess] += 1
    assert (confusion == expected).all()
    assert figures["num_utterances"] == 6
    assert figures["frame_accuracy"] == expected.trace() / expected.sum()


def test_ids_that_look_like_lhotses_copies_are_scored(model, tone_corpus, tmp_path):
    cuts = [cut.with_id(f"{cut.id}_dup1") for cut in read_cuts(tone_corpus / "test.jsonl.gz")]
    save_cuts(tmp_path / "cuts.jsonl.gz", cuts)
    assert evaluate(model, tmp_path / "cuts.jsonl.gz")[0] == evaluate(model, tone_corpus / "test.jsonl.gz")[0]


def test_a_report_whose_first_cut_has_no_frame(model, tone_corpus, tmp_path):
    rows = [cut.to_dict() for cut in read_cuts(tone_corpus / "test.jsonl.gz")]
    rows[0]["duration"] = rows[0]["recording"]["duration"] = 300 / 16000
    rows[0]["recording"]["num_samples"] = 300
    (tmp_path / "test.clean.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model.save_pretrained(tmp_path / "model")
    evaluate_and_report(str(tmp_path / "model"), tmp_path / "test.clean.jsonl", report=tmp_path / "report")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "test.clean.done.json",
        "test.clean.json",
        "test.clean_confusion.png",
        "test.clean_example.png",
        "test.clean_phones.png",
    ]
    assert json.loads((tmp_path / "report/test.clean.json").read_text())["num_utterances"] == 5


def test_a_report_on_shards_whose_first_cut_has_no_frame(model_folder, tone_corpus, tmp_path):
    cuts = list(read_cuts(tone_corpus / "test.jsonl.gz"))
    for name in ("whole", "short"):
        save_cuts(tmp_path / f"{name}.jsonl.gz", cuts)
        write_shards(tmp_path / f"{name}.jsonl.gz", tmp_path / name, size=10)
        first = next(iter(read_shards(tmp_path / name)))
        cuts = [cut.truncate(duration=300 / 16000, preserve_id=True) if cut.id == first.id else cut for cut in cuts]
    assert first.num_samples == 300
    evaluate_and_report(str(model_folder), tmp_path / "short", report=tmp_path / "report")
    assert (tmp_path / "report/short_example.png").is_file()
    assert json.loads((tmp_path / "report/short.json").read_text())["num_utterances"] == 5


def test_figures_on_screen(model, tone_corpus):
    figures = evaluate(model, tone_corpus / "test.jsonl.gz")[0]
    figures |= frame_figures(np.array([[6, 2], [1, 1]]), ["SIL", "a"], {"SIL"})
    figures |= {"frame_accuracy_interval": [0.6, 0.75], "frame_accuracy_no_silence_interval": None, "temperature": 1.25}
    figures |= {"expected_calibration_error": 0.01, "expected_calibration_error_at_temperature_1": 0.05}
    title, _, *table = format_figures("dev", figures).splitlines()
    assert title == "dev: frame accuracy over 10 frames of 6 utterances, 80.0 % of them silence"
    assert table[0].split() == ["model", "70.00", "%", "50.00", "%"]
    assert table[1].split() == ["95", "%", "interval", *["60.00", "%", "to", "75.00", "%", "-"]]
    assert table[2].split() == ["majority", "class", "80.00", "%", "100.00", "%"]
    assert f"R-value {100 * figures['boundaries']['20']['r_value']:.2f} %" in table[4]
    assert f"phone error rate {100 * figures['phone_error_rate']:.2f} %" in table[5]
    assert table[6].endswith("calibration error 1.00 % at temperature 1.250, 5.00 % without")


def test_pictures_show_the_numbers_they_are_given(model):
    confusion = np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]])
    axes = plot_confusion(confusion, ["SIL", "a", "b"]).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.8, 0.2], [0.25, 0.75]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["SIL", "a"]
    bars = plot_phones(frame_figures(confusion, ["SIL", "a", "b"], {"SIL"})).axes[0].patches
    assert [bar.get_height() for bar in bars] == [0.8, 0.75]
    rows = [{"epoch": str(n), "train_loss": str(3 - n), "dev_accuracy": str(n / 4)} for n in (1, 2)]
    loss, accuracy = plot_curves(rows).axes
    assert list(loss.lines[0].get_ydata()) == [2, 1] and list(accuracy.lines[0].get_ydata()) == [0.25, 0.5]
    samples = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    posteriors = model.posteriors(samples)
    segments = model.segments(posteriors, 0.5)
    above, below = plot_prediction(samples, posteriors, segments, model.phones.symbols, model.frontend.geometry).axes
    assert [text.get_text() for text in above.texts] == [segment.phone for segment in segments]
    assert below.images[0].get_array().shape[1] == len(posteriors)
