"""Reports and pictures: what they show is what was counted."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
import torch

from speechattn.commands.main import main
from speechattn.cuts.files import read_cuts, save_cuts
from speechattn.cuts.model_inputs import cut_labels
from speechattn.cuts.shards import read_shards, write_shards
from speechattn.decoding.smoothing import phonotactics_of
from speechattn.evaluation.evaluate import evaluate, evaluate_in_detail
from speechattn.evaluation.metrics import frame_figures, percent
from speechattn.evaluation.worst_utterances import WorstUtterances
from speechattn.geometry import Geometry
from speechattn.labels.intervals import Segment
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig
from speechattn.plots import (
    plot_comparison,
    plot_confusion,
    plot_curves,
    plot_phones,
    plot_prediction,
    plot_reliability,
    plot_speakers,
)
from speechattn.reports import evaluation_report as report_module
from speechattn.reports.evaluation_page import Source, evaluation_page
from speechattn.reports.evaluation_report import evaluate_and_report, format_figures


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
        "test.clean.html",
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
    assert table[5] == "  no phone error rate: the model cannot smooth its decisions"
    decoded = {"phone_error_rate": 0.2, "phone_error_rate_with_silence": 0.15, "phone_errors": {"num_phones": 1234}}
    expected = "phone error rate 20.00 % without silence, 15.00 % with silence, over 1,234 phones, smoothed; frame by"
    assert expected in format_figures("dev", figures | decoded | {"segments_per_phone": 1.5})
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
    # A part: samples 3200 to 4799, frames that own some of them, segments that lie in it.
    above, below = plot_prediction(
        samples[3200:4800], posteriors, segments, model.phones.symbols, model.frontend.geometry, start=3200
    ).axes
    assert above.get_xlim() == below.get_xlim() == (0.2, 0.3)
    assert [text.get_text() for text in above.texts] == [s.phone for s in segments if s.end > 0.2 and s.start < 0.3]
    assert all(0.2 < text.get_position()[0] < 0.3 for text in above.texts)
    frames = [t for t in range(len(posteriors)) if 160 * t + 280 > 3200 and 160 * t + 120 < 4800]
    shown = np.unique(posteriors[frames].argmax(axis=1))
    np.testing.assert_array_equal(below.images[0].get_array(), posteriors[np.ix_(frames, shown)].T)
    assert below.images[0].get_extent()[:2] == pytest.approx([frames[0] * 0.01 + 0.0075, frames[-1] * 0.01 + 0.0175])


def test_further_pictures_show_the_numbers_they_are_given():
    counts = np.array([[10, 4, 5.0], [0, 0, 0], [5, 5, 4.5]])
    diagonal, before, after = plot_reliability({2.0: counts, 1.0: counts}).axes[0].lines
    np.testing.assert_allclose(before.get_xydata(), [[0.5, 0.4], [0.9, 1.0]])
    speakers = {"b$$": np.array([1, 2]), "a": np.array([1, 2]), "c": np.array([1, 4])}
    axes = plot_speakers({name: speakers[name] for name in ("c", "a", "b$$")}).axes[0]
    assert list(axes.lines[0].get_ydata()) == [0.25, 0.5, 0.5] and axes.lines[1].get_ydata()[0] == 3 / 8
    assert [label.get_text() for label in axes.get_xticklabels()] == ["c", "a", "b$$"]
    reference = [Segment("a", 0.0, 0.2), Segment("b", 0.2, 0.5), Segment("c", 0.6, 0.9)]
    decided = [Segment("a", 0.0, 0.3), Segment("b", 0.3, 0.9)]
    _, lanes = plot_comparison(np.ones(8000, np.float32), reference, decided, Geometry()).axes
    assert [text.get_text() for text in lanes.texts] == ["a", "b", "a", "b"]  # half a second
    differing = [path.get_extents().intervalx.tolist() for path in lanes.collections[0].get_paths()]
    assert differing == [[0.2, 0.3]]


class Page(HTMLParser):
    """What a page is made of: tags with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


EVIL = "<script>alert('&')</script>"


@pytest.fixture(scope="module")
def many_cuts(tone_corpus, tmp_path_factory):
    """The tones, some of them with little speech; what cuts say of themselves is not to be trusted in a page."""
    cuts = []
    for split in ("train", "test"):
        for cut in read_cuts(tone_corpus / f"{split}.jsonl.gz"):
            supervision = replace(cut.supervisions[0], text=EVIL, speaker=f"{EVIL}{len(cuts) % 3}")
            cuts.append(replace(cut, id=f"{EVIL}{cut.id}", supervisions=[supervision]))
    path = tmp_path_factory.mktemp("many") / "test.jsonl.gz"
    save_cuts(path, cuts)
    return path


def worst_by_force(model, path) -> list[tuple[float, str]]:
    """Accuracy and id of the five worst utterances, a frame at a time."""
    scores = []
    for cut in read_cuts(path):
        decided = model.posteriors(cut.load_audio()[0]).argmax(axis=1)
        counts = Counter()
        for label, answer in zip(cut_labels(cut, model.phones, model.frontend.geometry), decided, strict=True):
            if label >= 0 and model.phones.symbols[label] != "SIL":
                counts[bool(label == answer)] += 1
        if cut.num_samples >= 16000 and counts:
            scores.append((counts[True] / counts.total(), cut.id))
    return sorted(scores)[:5]


def test_the_worst_utterances_are_the_worst(model, many_cuts):
    with torch.no_grad():
        model.output.bias[model.phones.symbols.index("AA")] += 1.0  # right now and then, and many utterances alike
    cuts = {cut.id: cut for cut in read_cuts(many_cuts)}
    evaluation = evaluate_in_detail(model, many_cuts)
    found = evaluation.worst
    assert [(each.accuracy, each.id) for each in found] == worst_by_force(model, many_cuts) and len(found) == 5
    for each in found:
        samples = cuts[each.id].load_audio()[0]
        assert (each.excerpt == samples[:160000]).all() and each.excerpt.base is None
        assert (each.decided == model.posteriors(samples).argmax(axis=1)).all()
        assert each.seconds == cuts[each.id].duration and each.speaker == cuts[each.id].supervisions[0].speaker
    assert evaluation.seconds == pytest.approx(sum(cut.duration for cut in cuts.values()))
    assert evaluation.figures == evaluate(model, many_cuts)[0]


@pytest.mark.parametrize(("rate", "kept"), [(8000, 80000), (16000, 160000), (48000, 160000)])
def test_of_long_utterances_the_beginning_is_kept(tone_corpus, rate, kept):
    cut = next(iter(read_cuts(tone_corpus / "test.jsonl.gz")))
    worst = WorstUtterances(Geometry(rate), with_audio=True)
    for name, seconds, num_speech in (("b", 12, 4), ("a", 12, 4), ("short", 0.99, 4), ("silent", 12, 0), ("c", 12, 8)):
        worst.add(
            replace(cut, id=name, duration=seconds), np.zeros(12 * rate, np.float32), [], np.zeros(1),
            num_right=2, num_speech=num_speech,
        )  # fmt: skip
    assert [each.id for each in worst.found] == ["c", "a", "b"] and len(worst.found[0].excerpt) == kept


@pytest.fixture(scope="module")
def report(many_cuts, model_folder, tmp_path_factory):
    """Figures and page of a model with a temperature and the log of its training."""
    folder = tmp_path_factory.mktemp("reported")
    model = FrameClassifier.from_pretrained(model_folder)
    model.config = replace(model.config, temperature=0.5)
    model.save_pretrained(folder / EVIL.replace("/", ""))
    log = "epoch,train_loss,dev_accuracy,dev_accuracy_no_silence\n1,2.5,0.5,\n2,1.5,0.625,\n"
    (folder / EVIL.replace("/", "") / "log.csv").write_text(log)
    evaluate_and_report(str(folder / EVIL.replace("/", "")), many_cuts, report=folder / "report")
    return folder / "report"


def test_the_page_stands_alone_and_can_be_read_by_all(report):
    text = (report / "test.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(text) < 5e6 and "<script" not in text
    assert len(page.of("h1")) == 1 and page.of("html") == [{"lang": "en"}] and page.of("title")
    assert all(each["alt"] for each in page.of("img")) and len(page.of("img")) == 5 + 5
    assert all(each.get("scope") in ("col", "row") for each in page.of("th"))
    assert len(page.of("caption")) == len(page.of("table")) == 4
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for _, attributes in page.tags:
        for name in {"src", "href"} & attributes.keys():
            inside = attributes[name].startswith("#") and attributes[name][1:] in anchors
            assert inside or attributes[name].startswith(("data:image/png;base64,", "data:audio/flac;base64,"))
    assert not {"link", "script", "iframe", "object"} & {tag for tag, _ in page.tags}
    for player in page.of("audio"):
        assert "controls" in player and player["aria-label"]
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(player["src"].split(",")[1])))
        assert rate == 16000 and 16000 <= len(samples) <= 160000


def test_the_numbers_of_the_page_are_those_of_the_json(report, many_cuts):
    figures = json.loads((report / "test.json").read_text())
    page = Page((report / "test.html").read_text(encoding="utf-8"))
    texts = set(page.text)
    row = figures["boundaries"]["20"]
    expected = [figures[name] for name in ("frame_accuracy", "frame_accuracy_no_silence", "macro_accuracy")]
    expected += [figures["top3_accuracy"], figures["expected_calibration_error"]]
    expected += [row[name] for name in ("precision", "recall", "f1", "r_value")]
    expected += [figures["majority"][name] for name in ("frame_accuracy", "frame_accuracy_no_silence")]
    expected += [phone["accuracy"] for phone in figures["phones"].values()]
    assert {percent(value) for value in expected} <= texts
    for name in ("frame_accuracy_interval", "frame_accuracy_no_silence_interval"):
        assert " to ".join(map(percent, figures[name])) in texts
    assert {f"{phone['num_frames']:,}" for phone in figures["phones"].values()} <= texts
    whole = " ".join(page.text)
    assert f"{percent(figures['expected_calibration_error_at_temperature_1'])} before" in whole
    assert "Dev accuracy is highest, 62.50 %, in epoch 2 of 2." in whole
    cuts = list(read_cuts(many_cuts))
    assert {f"{EVIL}0", f"{EVIL}1", f"{EVIL}2", EVIL, f"{sum(cut.duration for cut in cuts) / 3600:.2f}"} <= texts
    assert whole.count("speechattn evaluate '") == 1


def test_the_page_lists_what_each_phone_is_taken_for(model, many_cuts):
    with torch.no_grad():
        model.output.bias[model.phones.symbols.index("AA")] += 1.0  # right now and then
    evaluation = evaluate_in_detail(model, many_cuts)
    page = evaluation_page("test", evaluation, Source("m", "c", [], model.frontend.geometry, []))
    symbols = evaluation.phones.symbols
    for symbol, phone in evaluation.figures["phones"].items():
        row = evaluation.confusion[symbols.index(symbol)]
        wrong = sorted((-count, index) for index, count in enumerate(row) if count and symbols[index] != symbol)[:3]
        expected = [percent(phone["accuracy"]), f"{phone['num_frames']:,}"]
        expected += [f"{symbols[index]} {100 * -count / row.sum():.2f} %" for count, index in wrong]
        [cells] = re.findall(f'<th scope="row">{symbol}</th>(.*?)</tr>', page)
        assert re.findall("<td>(.*?)</td>", cells) == expected + ["-"] * (5 - len(expected))
    assert evaluation.figures["phones"]["AA"]["accuracy"] > 0.1
    assert ">Training</h2>" not in page and ">Worst utterances</h2>" in page


def test_smoothed_figures_are_in_the_json_the_page_and_on_screen(model, tone_corpus, tmp_path, capsys):
    cuts = tone_corpus / "test.jsonl.gz"
    model.phonotactics = phonotactics_of([np.repeat([0, 1, 2, 0], [20, 9, 8, 12])], len(model.phones))
    model.save_pretrained(tmp_path / "model")
    for smooth in (False, True):  # another option makes it anew
        evaluate_and_report(str(tmp_path / "model"), cuts, report=tmp_path / "report", smooth=smooth)
        figures = json.loads((tmp_path / "report/test.json").read_text())
        page, printed = (tmp_path / "report/test.html").read_text(), capsys.readouterr().out
        on_screen = any(line.startswith("  smoothed") for line in printed.splitlines())
        assert ("smoothed" in figures) == ("Smoothed over time" in page) == on_screen == smooth
    assert figures["smoothed"] == evaluate(model, cuts, smooth=True)[0]["smoothed"]
    for text in (page, printed):
        assert (
            percent(figures["phone_error_rate"]) in text and percent(figures["phone_error_rate_with_silence"]) in text
        )
    assert "--smooth" in page


def test_less_right_context_is_scored_and_said(tone_corpus, tmp_path, capsys):
    torch.manual_seed(1)
    encoder = EncoderConfig(dim=16, layers=1, heads=2, left=4, right=9, feed_forward=16, conv_kernel=3)
    model = FrameClassifier(ClassifierConfig(encoder=encoder))
    with torch.no_grad():
        for parameter in model.parameters():  # strong weights, so that it matters what a frame attends to
            parameter.mul_(4)
    model.save_pretrained(tmp_path / "model")
    command = ["evaluate", str(tmp_path / "model"), "--cuts", str(tone_corpus / "dev.jsonl.gz")]
    found = {}
    for right in (9, 2):
        main([*command, "--report", str(tmp_path / "report"), "--right", str(right)])
        found[right] = json.loads((tmp_path / "report" / "dev.json").read_text())
        assert f"--right {right}" in (tmp_path / "report" / "dev.html").read_text()
    main([*command, "--json", str(tmp_path / "wide.json")])
    assert found[9] == json.loads((tmp_path / "wide.json").read_text())
    model.limit_right(2)
    assert found[2] == evaluate(model.eval(), tone_corpus / "dev.jsonl.gz")[0] != found[9]
    with pytest.raises(SystemExit):
        main([*command, "--right", "10"])
    assert "right=10 must be 0 or more, and not above the layers' right contexts, [9]" in capsys.readouterr().err


def test_a_page_on_ready_features_has_nothing_to_listen_to(model, many_cuts):
    evaluation = evaluate_in_detail(model, many_cuts)
    silent = [each._replace(excerpt=None, text=None, speaker=None) for each in evaluation.worst]
    evaluation = evaluation._replace(worst=silent, speakers={"": np.array([1, 2, 0, 0])})
    page = Page(evaluation_page("test", evaluation, Source("m", "c", [], model.frontend.geometry, [])))
    assert not page.of("audio") and len(page.of("img")) == 3 and len(page.of("h3")) == 5
    assert "(unknown)" in page.text and "Speakers" in page.text


def test_another_log_makes_another_page(model_folder, tone_corpus, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        report_module, "evaluation_page", lambda name, evaluation, source: made.append(source) or "page"
    )
    monkeypatch.setattr(report_module, "save_figure", lambda picture, path: path.touch())
    monkeypatch.setattr(report_module, "_write_example", lambda folder, *rest: folder / "test.html")
    model = tmp_path / "model"
    shutil.copytree(model_folder, model)
    (tmp_path / "report").mkdir()

    def report():
        evaluate_and_report(str(model), tone_corpus / "test.jsonl.gz", report=tmp_path / "report", phones="arpabet41")
        return made[-1].epochs

    assert report() == report() == [] and len(made) == 1
    assert made[0].command[-2:] == ["--phones", "arpabet41"]
    (model / "log.csv").write_text("epoch,train_loss,dev_accuracy\n1,2.5,0.25\n")
    assert report() == report() == [{"epoch": 1, "train_loss": 2.5, "dev_accuracy": 0.25}] and len(made) == 2
    (model / "log.csv").write_text("words\nmany\n")
    with pytest.raises(ValueError, match="a training log"):
        report()
