"""Two models on the same cuts, against counting frame by frame."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from refused import refused

from speechattn.commands.main import main
from speechattn.cuts.files import read_cuts, save_cuts
from speechattn.cuts.model_inputs import cut_labels
from speechattn.cuts.shards import write_shards
from speechattn.evaluation.bootstrap import paired_difference
from speechattn.evaluation.comparison import compare
from speechattn.evaluation.evaluate import evaluate
from speechattn.frontend import FrontendConfig
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig

NAMES = ("frame_accuracy", "frame_accuracy_no_silence")


def linear(seed: int, **fields) -> FrameClassifier:
    """A model that answers at random, by few of the phones, so that it is right at times."""
    torch.manual_seed(seed)
    model = FrameClassifier(ClassifierConfig(kind="linear", **fields)).eval()
    with torch.no_grad():
        for symbol in ("SIL", "AA", "IY", "S"):
            model.output.bias[model.phones.symbols.index(symbol)] += 30
    return model


@pytest.fixture(scope="module")
def models() -> tuple[FrameClassifier, FrameClassifier]:
    return linear(0), linear(1)


def test_figures_equal_counting_frame_by_frame(models, tone_corpus):
    cuts = tone_corpus / "test.jsonl.gz"
    figures = compare(*models, cuts)
    alone, speakers = [0, 0], {}
    for cut in read_cuts(cuts):
        labels = cut_labels(cut, models[0].phones, models[0].frontend.geometry)
        answers = [model.posteriors(cut.load_audio()[0]).argmax(axis=1) for model in models]
        counts = speakers.setdefault(cut.supervisions[0].speaker, np.zeros(6, dtype=int))
        for label, a, b in zip(labels, *answers, strict=True):
            alone[0] += a == label != b
            alone[1] += b == label != a
            counts[:3] += [a == label, b == label, 1]
            if models[0].phones.symbols[label] != "SIL":
                counts[3:] += [a == label, b == label, 1]
    table = np.array([*speakers.values()])
    assert [figures["only_a_right"], figures["only_b_right"]] == alone and min(alone) > 0
    assert (figures["num_utterances"], figures["num_speakers"], figures["num_frames"]) == (6, 2, table[:, 2].sum())
    for name, (right_a, right_b, scored) in zip(NAMES, (table[:, :3].T, table[:, 3:].T), strict=True):
        assert figures[name] == {
            "a": right_a.sum() / scored.sum(),
            "b": right_b.sum() / scored.sum(),
            **paired_difference(right_a, right_b, scored),
        }
        assert figures[name]["difference"] == pytest.approx(figures[name]["b"] - figures[name]["a"])
        for side, model in zip("ab", models, strict=True):
            assert figures[name][side] == evaluate(model, cuts)[0][name]


def test_a_model_does_not_differ_from_itself(models, tone_corpus):
    figures = compare(models[0], models[0], tone_corpus / "test.jsonl.gz")
    assert figures["only_a_right"] == figures["only_b_right"] == 0
    for name in NAMES:
        assert (figures[name]["difference"], figures[name]["interval"], figures[name]["p_value"]) == (0, [0, 0], 1)


def test_shards_give_the_same_figures(models, tone_corpus, tmp_path):
    write_shards(tone_corpus / "test.jsonl.gz", tmp_path / "shards", size=4)
    assert compare(*models, tmp_path / "shards") == compare(*models, tone_corpus / "test.jsonl.gz")


def test_models_of_other_phones_are_compared_on_common_ones(tone_corpus, tmp_path, capsys):
    cuts = list(read_cuts(tone_corpus / "test.jsonl.gz"))
    for cut in cuts:
        items = cut.supervisions[0].alignment["phone"]
        cut.supervisions[0].alignment["phone"] = [item._replace(symbol=item.symbol.lower()) for item in items]
    path = tmp_path / "cuts.jsonl.gz"
    save_cuts(path, cuts)
    for size in (48, 39):
        torch.manual_seed(size)
        FrameClassifier(ClassifierConfig(phones=f"timit{size}", kind="linear")).save_pretrained(tmp_path / f"{size}")
    command = ["compare", str(tmp_path / "48"), str(tmp_path / "39"), "--cuts", str(path)]
    message = refused(capsys, *command)
    assert "different phones, 48 (timit48) and 39 (timit39): choose those to score on with --phones" in message
    main([*command, "--phones", "timit39", "--json", str(tmp_path / "compared.json")])
    figures = json.loads((tmp_path / "compared.json").read_text())
    assert (figures["model_a"], figures["model_b"]) == (str(tmp_path / "48"), str(tmp_path / "39"))
    printed = capsys.readouterr().out
    row = figures["frame_accuracy"]
    assert f"{100 * row['a']:.2f} %" in printed and f"{100 * row['difference']:+.2f}" in printed
    assert f"{row['p_value']:.4f}" in printed and f"{figures['num_frames']:,} frames of 6 utterances by 2" in printed
    assert f"only A is right in {figures['only_a_right']:,} frames" in printed


def test_one_speaker_is_not_enough_for_an_interval(tone_corpus, model_folder, tmp_path, capsys):
    cuts = [cut for cut in read_cuts(tone_corpus / "test.jsonl.gz") if cut.supervisions[0].speaker.endswith("0")]
    save_cuts(tmp_path / "cuts.jsonl.gz", cuts)
    main(["compare", str(model_folder), str(model_folder), "--cuts", str(tmp_path / "cuts.jsonl.gz")])
    assert "they need at least two speakers" in capsys.readouterr().out


def test_models_that_cannot_be_compared_are_refused(models, tone_corpus):
    cuts, frames, features = tone_corpus / "test.jsonl.gz", "frames lie at different times", "39 features per frame"
    pooled = FrameClassifier(ClassifierConfig(symbols=("low", "high"), pooling="mean", kind="linear")).eval()
    for other, reason, reversed_reason in (
        (linear(2, frontend=FrontendConfig(preset="librosa")), frames, frames),
        (linear(2, frontend=None), f"waveforms and {features}", f"{features} and waveforms"),
        (pooled, "models with pooling", "models with pooling"),
    ):
        with pytest.raises(ValueError, match=reason):
            compare(models[0], other, cuts)
        with pytest.raises(ValueError, match=reversed_reason):
            compare(other, models[0], cuts)


def test_calibration_plays_no_part(models, tone_corpus):
    hot = linear(1)
    hot.config = replace(hot.config, temperature=5.0)
    assert compare(models[0], hot, tone_corpus / "test.jsonl.gz") == compare(*models, tone_corpus / "test.jsonl.gz")
