"""Scoring on another phone set than the model's own: decisions and references are folded, frame by frame."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from speechattn.alignment import Interval
from speechattn.classifier import ClassifierConfig, FrameClassifier
from speechattn.cli import main
from speechattn.corpora.manifest import alignment_items, phone_intervals, read_cuts, save_cuts
from speechattn.encoder import EncoderConfig
from speechattn.evaluation import evaluate
from speechattn.phones import PhoneSet

AS_TIMIT = {"SIL": "h#", "AA": "q", "IY": "ix", "S": "tcl"}


def timit_model(phones: str) -> FrameClassifier:
    encoder = EncoderConfig(dim=16, layers=1, heads=2, left=4, right=4, feed_forward=16, conv_kernel=3)
    model = FrameClassifier(ClassifierConfig(phones=phones, encoder=encoder)).eval()
    with torch.no_grad():
        for symbol, bias in (("q", 3.0), ("ix", 1.0), ("ih", 1.0), ("tcl", 1.0), ("h#", 1.0), ("cl", 1.0)):
            if symbol in model.phones.symbols:
                model.output.bias[model.phones.symbols.index(symbol)] = bias
    return model


@pytest.fixture(scope="module")
def timit_cuts(tone_corpus, tmp_path_factory):
    """The tones, called by TIMIT's symbols."""
    cuts = list(read_cuts(tone_corpus / "test.jsonl.gz"))
    for cut in cuts:
        intervals = [Interval(start, end, AS_TIMIT[symbol]) for start, end, symbol in phone_intervals(cut)]
        cut.supervisions[0].alignment["phone"] = alignment_items(intervals)
    path = tmp_path_factory.mktemp("timit") / "test.jsonl.gz"
    save_cuts(path, cuts)
    return path


@pytest.mark.parametrize("phones", ["timit61", "timit48", "timit39"])
def test_decisions_of_any_timit_model_are_scored_on_the_39(timit_cuts, phones):
    model, scored = timit_model(phones), PhoneSet.load("timit39")
    figures, confusion = evaluate(model, timit_cuts, phones=scored)
    expected = np.zeros_like(confusion)
    answers = set()
    for cut in read_cuts(timit_cuts):
        posteriors = model.posteriors(cut.load_audio()[0])
        intervals = phone_intervals(cut)
        for frame, row in enumerate(posteriors):
            centre = 160 * frame + 200
            (symbol,) = (i.symbol for i in intervals if i.start <= centre < i.end)
            if symbol == "q":
                continue
            # The likeliest class first; q, which has no place, is passed over.
            for index in sorted(range(len(row)), key=lambda number: -row[number]):
                answer = scored.fold(model.phones.symbols[index])
                if answer is not None:
                    break
            answers.add(model.phones.symbols[index])
            expected[scored.symbols.index(scored.fold(symbol)), scored.symbols.index(answer)] += 1
    assert (confusion == expected).all() and confusion.shape == (39, 39)
    assert figures["frame_accuracy"] == expected.trace() / expected.sum() > 0
    assert figures["num_frames"] == expected.sum() and figures["phones"].keys() == {"sil", "ih"}
    assert figures["silence_share"] == expected[scored.symbols.index("sil")].sum() / expected.sum()
    assert len(answers) > 1 and "q" not in answers


def test_the_models_own_phones_by_name_change_nothing(timit_cuts):
    model = timit_model("timit48")
    own, named = evaluate(model, timit_cuts), evaluate(model, timit_cuts, phones=PhoneSet.load("timit48"))
    assert own[0] == named[0] and (own[1] == named[1]).all()


def test_the_command_scores_on_other_phones(timit_cuts, tmp_path, capsys):
    timit_model("timit61").save_pretrained(tmp_path / "model")
    command = ["evaluate", str(tmp_path / "model"), "--cuts", str(timit_cuts)]
    main([*command, "--json", str(tmp_path / "own.json")])
    main([*command, "--report", str(tmp_path / "report"), "--phones", "timit39"])
    own, folded = (json.loads((tmp_path / name).read_text()) for name in ("own.json", "report/test.json"))
    assert own["phones"].keys() == {"h#", "ix", "q", "tcl"} and folded["phones"].keys() == {"ih", "sil"}
    stamp = json.loads((tmp_path / "report/test.done.json").read_text())
    assert stamp["options"]["phones"] == "timit39"  # so that other phones are scored anew
    for name, reason in (("timit40", "unknown phone set 'timit40'"), ("arpabet41", "is not of set 'arpabet41'")):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--phones", name])
        assert stop.value.code == 2 and reason in capsys.readouterr().err


def test_utterances_have_no_phones_to_fold(timit_cuts):
    model = FrameClassifier(ClassifierConfig(symbols=("a", "b"), pooling="mean", kind="linear")).eval()
    with pytest.raises(ValueError, match="no frames to score on other phones"):
        evaluate(model, timit_cuts, phones=PhoneSet.load("timit39"))
