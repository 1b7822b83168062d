"""Figures of a model against counting frame by frame, on its own phones and on others that these are folded to."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from timit_model import timit_model

from speechattn.commands.inference import BOXED
from speechattn.commands.main import main
from speechattn.corpora import download_corpus, prepare_corpus
from speechattn.cuts.files import alignment_items, phone_intervals, read_cuts, save_cuts
from speechattn.cuts.model_inputs import cut_labels, cut_waveform
from speechattn.decoding.smoothing import phonotactics_of
from speechattn.evaluation.bootstrap import accuracy_interval
from speechattn.evaluation.boundaries import boundary_figures, count_boundaries
from speechattn.evaluation.evaluate import evaluate
from speechattn.evaluation.phone_errors import count_phone_errors
from speechattn.labels.frames import frame_labels
from speechattn.labels.intervals import Interval
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig
from speechattn.phones import PhoneSet

AS_TIMIT = {"SIL": "h#", "AA": "q", "IY": "ix", "S": "tcl"}


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


def test_evaluate_and_score_agree_on_hand_labels(timit_archive, mirror, tmp_path):
    """The files of `predict` hold every frame's centre in the segment of its phone, so that all frames are the same.

    Only where the model decides for SPN, `score` finds no label and `evaluate` takes the next likeliest phone.
    """
    download_corpus("timit_sample", tmp_path / "corpus", str(mirror))
    prepare_corpus("timit_sample", tmp_path / "data", corpus_dir=tmp_path / "corpus")
    cuts, found, options = str(tmp_path / "data/test.jsonl.gz"), str(tmp_path / "found"), ["--phones", "timit39"]
    main(["predict", "--cuts", cuts, "--output", found, "--format", "ctm", "--num-jobs", "1"])
    has_spn = any(" SPN " in path.read_text() for path in Path(found).glob("*.ctm"))
    agreements = []
    for closures in ([], ["--closures-as-stops"]):
        paths = [str(tmp_path / name) for name in ("evaluate.json", "score.json")]
        main(["evaluate", BOXED, "--cuts", cuts, *options, *closures, "--json", paths[0]])
        main(["score", cuts, found, *options, *closures, "--json", paths[1]])
        evaluated, scored = (json.loads(Path(path).read_text()) for path in paths)
        assert evaluated["num_frames"] == scored["num_frames"] == 9402
        for ending in ("", "_no_silence"):
            accuracy, agreement = evaluated[f"frame_accuracy{ending}"], scored[f"frame_agreement{ending}"]
            assert accuracy >= agreement if has_spn else accuracy == agreement
        assert {symbol: row["num_frames"] for symbol, row in evaluated["phones"].items()} == {
            symbol: row["num_frames"] for symbol, row in scored["phones"].items()
        }
        agreements.append(scored["frame_agreement"])
    assert abs(agreements[0] - agreements[1]) > 0.01  # the option matters here


def calibration_error_by_loops(decisions: list[tuple[float, bool]]) -> float:
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for confidence, right in decisions:
        bins[max(int(np.ceil(15 * confidence)) - 1, 0)].append((confidence, right))
    return sum(abs(sum(r for _, r in own) - sum(c for c, _ in own)) for own in bins) / len(decisions)


@pytest.mark.parametrize("phones", ["timit61", "timit39"])
def test_every_figure_equals_counting_one_utterance_at_a_time(timit_cuts, phones):
    """The model has 61 phones; of the 39, `q` has no place, and `ix` and `ih` are one."""
    model, scored = timit_model("timit61"), PhoneSet.load(phones)
    model.config = replace(model.config, temperature=0.6)
    figures, _ = evaluate(model, timit_cuts, phones=scored)
    places = scored.ids(model.phones.symbols)
    classes = [places[symbol] for symbol in model.phones.symbols]
    decisions: dict[float, list] = {0.6: [], 1.0: []}
    in_top, boundaries, errors, speakers = [], np.zeros(3, dtype=int), np.zeros(4, dtype=int), {}
    for cut in read_cuts(timit_cuts):
        samples = cut.load_audio()[0]
        with torch.no_grad():
            logits = model(torch.from_numpy(samples))[0][0].double().numpy()
        intervals = [i._replace(symbol=scored.fold(i.symbol)) for i in phone_intervals(cut)]
        intervals = [interval for interval in intervals if interval.symbol]
        labels = frame_labels(intervals, len(samples), scored.ids(scored.symbols))
        decided = np.array(
            [classes[max(range(61), key=lambda k: row[k] if classes[k] >= 0 else -np.inf)] for row in logits]
        )
        for temperature, seen in decisions.items():
            for row, label, answer in zip(logits, labels, decided, strict=True):
                if label < 0:
                    continue
                posteriors = [0.0] * len(scored)
                for score, place in zip(row, classes, strict=True):
                    if place >= 0:
                        posteriors[place] += np.exp(score / temperature)
                seen.append((posteriors[answer] / sum(posteriors), answer == label))
                if temperature == 0.6:
                    in_top.append(label in sorted(range(len(scored)), key=lambda k: -posteriors[k])[:3])
        boundaries += count_boundaries(intervals, labels, decided, model.frontend.geometry)
        errors += count_phone_errors(intervals, labels, decided, scored.symbols, scored.silences)
        counts = speakers.setdefault(cut.supervisions[0].speaker, np.zeros(4, dtype=int))
        speech = [y >= 0 and scored.symbols[y] not in scored.silences for y in labels]
        counts += [(decided == labels).sum(), (labels >= 0).sum(), (decided == labels)[speech].sum(), sum(speech)]
    table = np.array([*speakers.values()])
    assert figures["num_utterances"] == 6 and figures["num_speakers"] == len(table) == 2
    assert figures["frame_accuracy_interval"] == accuracy_interval(table[:, 0], table[:, 1]) is not None
    assert figures["frame_accuracy_no_silence_interval"] == accuracy_interval(table[:, 2], table[:, 3])
    assert figures["temperature"] == 0.6
    assert figures["expected_calibration_error"] == pytest.approx(calibration_error_by_loops(decisions[0.6]), abs=1e-4)
    untempered = calibration_error_by_loops(decisions[1.0])
    assert figures["expected_calibration_error_at_temperature_1"] == pytest.approx(untempered, abs=1e-4)
    assert abs(untempered - figures["expected_calibration_error"]) > 1e-2
    assert figures["top3_accuracy"] == pytest.approx(np.mean(in_top)) and np.mean(in_top) > 0
    assert figures["boundaries"] == {"20": boundary_figures(*boundaries.tolist())}
    assert figures["num_boundaries"] == {"reference": boundaries[1], "hypothesis": boundaries[2]}
    assert figures["segments_per_phone"] == (errors[3] + errors[1] - errors[2]) / errors[3] > 0
    assert figures["phone_error_rate"] is figures["phone_errors"] is None  # the model cannot smooth
    json.dumps(figures)  # plain numbers


def test_without_the_speakers_there_are_no_intervals(tone_corpus, model_folder, tmp_path):
    model, cuts = FrameClassifier.from_pretrained(model_folder), list(read_cuts(tone_corpus / "test.jsonl.gz"))
    cuts[1].supervisions[0].speaker = None
    save_cuts(tmp_path / "one-unknown.jsonl.gz", cuts)
    save_cuts(
        tmp_path / "one-speaker.jsonl.gz", [cut for cut in cuts if cut.supervisions[0].speaker == "test-speaker-0"]
    )
    for name, num_speakers in (("one-unknown", None), ("one-speaker", 1)):
        figures, _ = evaluate(model, tmp_path / f"{name}.jsonl.gz")
        assert figures["num_speakers"] == num_speakers
        assert figures["frame_accuracy_interval"] is None and figures["frame_accuracy_no_silence_interval"] is None


def test_smoothed_decisions_are_scored_beside_those_by_frame(tone_corpus, model_folder):
    model, cuts = FrameClassifier.from_pretrained(model_folder), tone_corpus / "test.jsonl.gz"
    with pytest.raises(ValueError, match="the model cannot smooth: it has no phonotactics.json"):
        evaluate(model, cuts, smooth=True)
    labels = [
        cut_labels(cut, model.phones, model.frontend.geometry) for cut in read_cuts(tone_corpus / "train.jsonl.gz")
    ]
    model.phonotactics = phonotactics_of(labels, len(model.phones))
    plain, _ = evaluate(model, cuts)
    figures, _ = evaluate(model, cuts, smooth=True)
    smoothed = figures.pop("smoothed")
    assert figures == plain
    right = frames = 0
    errors, with_silence = np.zeros(4, dtype=int), np.zeros(4, dtype=int)
    for cut in read_cuts(cuts):
        decided = model.smoothed(model.posteriors(cut_waveform(cut)))
        expected = cut_labels(cut, model.phones, model.frontend.geometry)
        right, frames = right + int((decided == expected).sum()), frames + len(expected)
        track = (phone_intervals(cut), expected, decided, model.phones.symbols)
        errors += count_phone_errors(*track, model.phones.silences)
        with_silence += count_phone_errors(*track, ())
    assert smoothed["frame_accuracy"] == right / frames
    assert figures["phone_error_rate"] == errors[:3].sum() / errors[3] > 0
    assert list(figures["phone_errors"].values()) == errors.tolist()
    assert figures["phone_error_rate_with_silence"] == with_silence[:3].sum() / with_silence[3]
    assert with_silence[3] > errors[3]
    assert smoothed["num_boundaries"]["hypothesis"] < figures["num_boundaries"]["hypothesis"]
    json.dumps(smoothed)


def test_smoothed_decisions_are_folded_and_never_go_without_a_place(timit_cuts):
    """61 phones scored on the 39: where the path goes through `q`, the likeliest phone with a place is taken."""
    model, scored = timit_model("timit61"), PhoneSet.load("timit39")
    q, ix = (model.phones.symbols.index(symbol) for symbol in ("q", "ix"))
    model.phonotactics = phonotactics_of([np.repeat([q, ix, q], 20)], 61)
    figures, _ = evaluate(model, timit_cuts, phones=scored, smooth=True)
    places, right, frames, through_q = scored.ids(model.phones.symbols), 0, 0, 0
    for cut in read_cuts(timit_cuts):
        posteriors = model.posteriors(cut.load_audio()[0])
        path = model.smoothed(posteriors)
        through_q += int((path == q).sum())
        posteriors[:, q] = 0
        decided = [posteriors[t].argmax() if index == q else index for t, index in enumerate(path)]
        folded = np.array([places[model.phones.symbols[index]] for index in decided])
        labels = cut_labels(cut, scored, model.frontend.geometry)
        right, frames = right + int((folded == labels).sum()), frames + int((labels >= 0).sum())
    assert through_q > 100
    assert figures["smoothed"]["frame_accuracy"] == right / frames


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
    for name, reason in (("timit40", "unknown phone set 'timit40'"), ("arpabet41", "is not in set 'arpabet41'")):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--phones", name])
        assert stop.value.code == 2 and reason in capsys.readouterr().err


def test_a_phone_that_the_model_lacks_names_the_cut(timit_cuts, model_folder):
    with pytest.raises(ValueError, match=r"^cut test-\d: phone '\S+' is not in set 'arpabet41'"):
        evaluate(FrameClassifier.from_pretrained(model_folder), timit_cuts)


def test_utterances_have_no_phones_to_fold(timit_cuts):
    model = FrameClassifier(ClassifierConfig(symbols=("a", "b"), pooling="mean", kind="linear")).eval()
    with pytest.raises(ValueError, match="cannot be scored on other phones"):
        evaluate(model, timit_cuts, phones=PhoneSet.load("timit39"))
