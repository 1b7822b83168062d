"""Figures of a model against counting frame by frame, on its own phones and on others that these are folded to."""

from __future__ import annotations

import html
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from refused import refused

from speechattn.commands.inference import BOXED
from speechattn.commands.main import main
from speechattn.corpora import download_corpus, prepare_corpus
from speechattn.cuts.files import alignment_items, phone_intervals, read_cuts, save_cuts
from speechattn.cuts.model_inputs import cut_labels, cut_waveform
from speechattn.cuts.shards import write_shards
from speechattn.decoding.smoothing import phonotactics_of
from speechattn.evaluation.agreement import agreement_figures
from speechattn.evaluation.bootstrap import accuracy_interval
from speechattn.evaluation.boundaries import boundary_figures, count_boundaries
from speechattn.evaluation.class_folding import ClassFolding
from speechattn.evaluation.evaluate import evaluate, learn_temperature
from speechattn.evaluation.phone_errors import count_phone_errors
from speechattn.labels.frames import frame_labels
from speechattn.labels.intervals import Interval
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig
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


@pytest.fixture(scope="module")
def closure_cuts(tone_corpus, tmp_path_factory):
    """The tones, called by TIMIT's symbols, closures among them: before their stop, before another phone, alone."""
    cuts = list(read_cuts(tone_corpus / "test.jsonl.gz"))
    for cut in cuts:
        intervals = phone_intervals(cut)
        names = itertools.cycle(["h#", "tcl", "t", "kcl", "iy", "dcl", "jh", "dx"])
        renamed = [Interval(start, end, name) for (start, end, _), name in zip(intervals, names, strict=False)]
        cut.supervisions[0].alignment["phone"] = alignment_items(renamed)
    path = tmp_path_factory.mktemp("closures") / "test.jsonl.gz"
    save_cuts(path, cuts)
    return path


def arpabet_model() -> FrameClassifier:
    """It likes SPN best, which has no place among TIMIT's phones."""
    encoder = EncoderConfig(dim=16, layers=1, heads=2, left=4, right=4, feed_forward=16, conv_kernel=3)
    model = FrameClassifier(ClassifierConfig(phones="arpabet41", encoder=encoder)).eval()
    with torch.no_grad():
        for symbol, bias in (("SPN", 4.0), ("T", 2.0), ("JH", 1.8), ("IY", 1.9), ("SIL", 2.0)):
            model.output.bias[model.phones.symbols.index(symbol)] = bias
    return model


WITHOUT_CLOSURES = {"tcl": "t", "kcl": "k", "dcl": "jh"}  # in `closure_cuts`, where dcl stands before jh


@pytest.mark.parametrize("closures_as_stops", [False, True])
def test_an_arpabet_model_is_scored_on_timits_labels(closure_cuts, closures_as_stops):
    model, scored = arpabet_model(), PhoneSet.load("timit39")
    figures, confusion = evaluate(model, closure_cuts, phones=scored, closures_as_stops=closures_as_stops)
    expected = np.zeros_like(confusion)
    reference, hypothesis = {}, {}
    for cut in read_cuts(closure_cuts):
        intervals = phone_intervals(cut)
        if closures_as_stops:
            intervals = [i._replace(symbol=WITHOUT_CLOSURES.get(i.symbol, i.symbol)) for i in intervals]
        reference[cut.id], hypothesis[cut.id] = intervals, []
        for frame, row in enumerate(model.posteriors(cut.load_audio()[0])):
            centre = 160 * frame + 200
            (symbol,) = (i.symbol for i in intervals if i.start <= centre < i.end)
            row[model.phones.symbols.index("SPN")] = 0
            answer = model.phones.symbols[row.argmax()]
            hypothesis[cut.id].append(Interval(160 * frame + 120, 160 * frame + 280, answer))
            folded = "sil" if answer == "SIL" else answer.lower()
            expected[scored.symbols.index(scored.fold(symbol)), scored.symbols.index(scored.fold(folded))] += 1
    assert (confusion == expected).all() and 0 < expected.trace() < expected.sum()
    assert figures["silence_share"] == expected[scored.symbols.index("sil")].sum() / expected.sum()
    assert ("k" in figures["phones"]) == closures_as_stops and "dx" in figures["phones"]
    # What `score` says of the same decisions. It also counts what lies after the centre of the last frame.
    agreement = agreement_figures(reference, hypothesis, scored)
    assert figures["num_frames"] == agreement["num_frames"]
    assert figures["frame_accuracy"] == agreement["frame_agreement"]
    assert figures["frame_accuracy_no_silence"] == agreement["frame_agreement_no_silence"]


def test_the_commands_count_closures_as_stops(closure_cuts, tmp_path, capsys):
    arpabet_model().save_pretrained(tmp_path / "model")
    timit_model("timit39").save_pretrained(tmp_path / "other")
    common = ["--cuts", str(closure_cuts), "--phones", "timit39"]
    found = {}
    for option in ([], ["--closures-as-stops"]):
        paths = [str(tmp_path / f"{name}{len(option)}.json") for name in ("evaluate", "compare")]
        main(
            ["evaluate", str(tmp_path / "model"), *common, *option, "--report", str(tmp_path / "r"), "--json", paths[0]]
        )
        main(["compare", str(tmp_path / "model"), str(tmp_path / "other"), *common, *option, "--json", paths[1]])
        evaluated, compared = (json.loads(Path(path).read_text()) for path in paths)
        assert compared["frame_accuracy"]["a"] == evaluated["frame_accuracy"]
        other = evaluate(
            timit_model("timit39"), closure_cuts, phones=PhoneSet.load("timit39"), closures_as_stops=bool(option)
        )
        assert compared["frame_accuracy"]["b"] == other[0]["frame_accuracy"]
        stamp = json.loads((tmp_path / "r/test.done.json").read_text())
        assert ("closures_as_stops" in stamp["options"]) == bool(option)  # reports from before the option stay valid
        found[len(option)] = evaluated
        command = html.unescape((tmp_path / "r/test.html").read_text())
        assert ("--closures-as-stops" in command) == bool(option)
    assert found[0]["silence_share"] > found[1]["silence_share"] and found[1]["phones"]["k"]["num_frames"] > 0
    write_shards(closure_cuts, tmp_path / "shards", size=100)
    pooled = FrameClassifier(ClassifierConfig(symbols=("a", "b"), pooling="mean", kind="linear"))
    pooled.save_pretrained(tmp_path / "pooled")
    for model, cuts in (("model", tmp_path / "shards"), ("pooled", closure_cuts)):
        error = refused(capsys, "evaluate", tmp_path / model, "--cuts", cuts, "--closures-as-stops")
        assert "closures can be counted as stops in a file of cuts" in error


def merged_by_samples(intervals: list[Interval]) -> list[Interval]:
    """`closure_cuts` without closures: every sample gets its symbol, equal neighbours are one interval."""
    painted = [WITHOUT_CLOSURES.get(i.symbol, i.symbol) for i in intervals for _ in range(i.start, i.end)]
    merged, time = [], 0
    for symbol, run in itertools.groupby(painted):
        length = len(list(run))
        merged.append(Interval(time, time + length, symbol))
        time += length
    return merged


def test_boundaries_phone_errors_and_smoothed_decisions_have_the_closures_as_stops(closure_cuts):
    model, scored = arpabet_model(), PhoneSet.load("timit39")
    index = model.phones.symbols.index
    spn, spoken = index("SPN"), [index(symbol) for symbol in ("SIL", "T", "IY", "SPN", "JH", "IY", "T")]
    model.phonotactics = phonotactics_of([np.repeat(spoken, 4)] * 3, 41)
    figures, plain = (
        evaluate(model, closure_cuts, phones=scored, closures_as_stops=option, smooth=True)[0]
        for option in (True, False)
    )
    places = np.array(
        [-1 if s == "SPN" else scored.symbols.index(scored.fold(s.lower())) for s in model.phones.symbols]
    )
    counts = {way: [np.zeros(3, dtype=int), np.zeros(4, dtype=int), 0, 0] for way in ("frame", "smoothed")}
    for cut in read_cuts(closure_cuts):
        intervals = [i._replace(symbol=scored.fold(i.symbol)) for i in merged_by_samples(phone_intervals(cut))]
        labels = frame_labels(intervals, cut.num_samples, scored.ids(scored.symbols))
        posteriors = model.posteriors(cut.load_audio()[0])
        path = model.smoothed(posteriors)
        posteriors[:, spn] = 0
        likeliest = posteriors.argmax(axis=1)
        for way, decided in (("frame", likeliest), ("smoothed", np.where(path == spn, likeliest, path))):
            decided = places[decided]
            counts[way][0] += count_boundaries(intervals, labels, decided, model.frontend.geometry)
            counts[way][1] += count_phone_errors(intervals, labels, decided, scored.symbols, scored.silences)
            counts[way][2] += int((decided == labels).sum())
            counts[way][3] += int((labels >= 0).sum())
    for found, (boundaries, errors, right, frames) in (
        (figures, counts["frame"]),
        (figures["smoothed"], counts["smoothed"]),
    ):
        assert found["frame_accuracy"] == right / frames
        assert found["boundaries"] == {"20": boundary_figures(*boundaries.tolist())}
        assert found["num_boundaries"]["reference"] == boundaries[1] < plain["num_boundaries"]["reference"]
        assert list(found["phone_errors"].values()) == errors.tolist()
    assert figures["smoothed"] != plain["smoothed"] and figures["phone_errors"] != plain["phone_errors"]


def test_closures_that_a_model_decides_for_become_the_stops_that_they_belong_to():
    own, scored = PhoneSet.load("timit61"), PhoneSet.load("timit39")
    decided = "h# tcl tcl t tcl ch kcl s bcl pcl p q iy gcl"
    without_q = [own.symbols.index("dh" if symbol == "q" else symbol) for symbol in decided.split()]
    logits = torch.nn.functional.one_hot(torch.tensor(without_q), 61) * 5.0
    logits[11, own.symbols.index("q")] = 9.0  # likeliest, but without a place: dh comes next
    for option, expected in (
        (True, "sil t t t ch ch k s b p p dh iy g"),
        (False, "sil sil sil t sil ch sil s sil sil p dh iy sil"),
    ):
        folding = ClassFolding(own, scored, closures_as_stops=option)
        assert [scored.symbols[index] for index in folding.decide(logits)] == expected.split()
        stop = scored.symbols[folding.posteriors(logits[1:2], 1.0)[0].argmax()]
        assert stop == ("t" if option else "sil")


def test_closures_as_stops_is_harmless_on_cuts_without_closures(tone_corpus, model_folder):
    model, cuts = FrameClassifier.from_pretrained(model_folder), tone_corpus / "test.jsonl.gz"
    assert evaluate(model, cuts, closures_as_stops=True)[0] == evaluate(model, cuts)[0]


def test_a_cut_of_two_supervisions_is_refused_by_name(closure_cuts, tmp_path):
    cuts = list(read_cuts(closure_cuts))
    cuts[0].supervisions.append(cuts[0].supervisions[0])
    save_cuts(tmp_path / "cuts.jsonl.gz", cuts)
    with pytest.raises(ValueError, match=r"cut test-\d: expected one supervision with phones"):
        evaluate(arpabet_model(), tmp_path / "cuts.jsonl.gz", phones=PhoneSet.load("timit39"), closures_as_stops=True)


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
    assert figures["phone_error_rate"] == errors[:3].sum() / errors[3] > 0
    assert list(figures["phone_errors"].values()) == errors.tolist()
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
    for cut in read_cuts(cuts):
        decided = model.smoothed(model.posteriors(cut_waveform(cut)))
        expected = cut_labels(cut, model.phones, model.frontend.geometry)
        right, frames = right + int((decided == expected).sum()), frames + len(expected)
    assert smoothed["frame_accuracy"] == right / frames
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
    monkeypatch.setattr("speechattn.evaluation.evaluate.TEMPERATURE_LABELS", 300)  # of some 1,000
    assert learn_temperature(model, dev) == learn_temperature(model, dev) == pytest.approx(temperature, rel=0.2)


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
    with pytest.raises(ValueError, match="no frames to score on other phones"):
        evaluate(model, timit_cuts, phones=PhoneSet.load("timit39"))
