"""The temperature learned on dev."""

from dataclasses import replace

import pytest
import torch

from speechattn.cuts.files import read_cuts, save_cuts
from speechattn.evaluation.evaluate import evaluate, learn_temperature
from speechattn.model.classifier import FrameClassifier


def test_a_temperature_is_not_learned_on_phones_that_a_model_placed(tone_corpus, model_folder, tmp_path):
    cuts = list(read_cuts(tone_corpus / "dev.jsonl.gz"))
    cuts[0].supervisions[0].custom = {"aligner": "model"}
    save_cuts(tmp_path / "cuts.jsonl.gz", cuts)
    with pytest.raises(ValueError, match="were placed by a model"):
        learn_temperature(FrameClassifier.from_pretrained(model_folder), tmp_path / "cuts.jsonl.gz")


def test_the_temperature_learned_makes_posteriors_fit(tone_corpus, model_folder, monkeypatch):
    model, dev = FrameClassifier.from_pretrained(model_folder), tone_corpus / "dev.jsonl.gz"
    with torch.no_grad():
        model.output.weight *= 8  # sure of itself, and wrong
    temperature = learn_temperature(model, dev)
    model.config = replace(model.config, temperature=temperature)
    assert learn_temperature(model, dev) == temperature > 2
    figures, _ = evaluate(model, dev)
    assert figures["expected_calibration_error"] < figures["expected_calibration_error_at_temperature_1"] / 2
    monkeypatch.setattr("speechattn.evaluation.evaluate.MAX_TEMPERATURE_LABELS", 300)  # of some 1,000
    assert learn_temperature(model, dev) == learn_temperature(model, dev) == pytest.approx(temperature, rel=0.2)
