"""TIMIT's closures counted as parts of their stops: evaluation against counting by hand."""

import html
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from refused import refused
from timit_model import timit_model

from speechattn.commands.main import main
from speechattn.cuts.files import alignment_items, phone_intervals, read_cuts, save_cuts
from speechattn.cuts.shards import write_shards
from speechattn.decoding.smoothing import phonotactics_of
from speechattn.evaluation.agreement import agreement_figures
from speechattn.evaluation.boundaries import boundary_figures, count_boundaries
from speechattn.evaluation.class_folding import ClassFolding
from speechattn.evaluation.evaluate import evaluate
from speechattn.evaluation.phone_errors import count_phone_errors
from speechattn.labels.frames import frame_labels
from speechattn.labels.intervals import Interval
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig
from speechattn.phones import PhoneSet

WITHOUT_CLOSURES = {"tcl": "t", "kcl": "k", "dcl": "jh"}  # in `closure_cuts`, where dcl stands before jh


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
        assert "closures can be counted as stops only in a file of cuts" in error


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
    for found, (boundaries, _, right, frames) in (
        (figures, counts["frame"]),
        (figures["smoothed"], counts["smoothed"]),
    ):
        assert found["frame_accuracy"] == right / frames
        assert found["boundaries"] == {"20": boundary_figures(*boundaries.tolist())}
        assert found["num_boundaries"]["reference"] == boundaries[1] < plain["num_boundaries"]["reference"]
    assert list(figures["phone_errors"].values()) == counts["smoothed"][1].tolist()
    errors = counts["frame"][1]
    assert figures["segments_per_phone"] == (errors[3] + errors[1] - errors[2]) / errors[3]
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
