"""Inspection: figures as counted by hand, and each fault found."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from speechattn.commands.main import main
from speechattn.cuts.files import phone_intervals, read_cuts, save_cuts, utterance_cut
from speechattn.labels.intervals import Interval
from speechattn.reports import inspection
from speechattn.reports.html import Html
from speechattn.reports.inspection import find_problems, format_inspection, inspect_cuts, inspect_files

SPLITS = ("train", "dev", "test")


def files(folder) -> list[str]:
    return [str(folder / f"{split}.jsonl.gz") for split in SPLITS]


@pytest.fixture
def make_cut(tmp_path):
    """A cut of one second (98 frames) of silence in sound, with the labels that are asked for."""
    path = tmp_path / "zeros.wav"
    soundfile.write(path, np.zeros(16000), 16000)

    def make(name, intervals=((0, 16000, "AA"),), *, speaker="her", text=""):
        intervals = None if intervals is None else [Interval(*interval) for interval in intervals]
        return utterance_cut(name, path, speaker=speaker, text=text, intervals=intervals)

    return make


def test_figures_are_those_of_a_count_by_hand(tone_corpus):
    sets = {split: list(read_cuts(path)) for split, path in zip(SPLITS, files(tone_corpus), strict=True)}
    figures = inspect_cuts(sets)
    assert figures["phones"] == "arpabet41"
    for split, cuts in sets.items():
        counts: Counter[str] = Counter()
        for cut in cuts:
            for frame in range(1 + (cut.num_samples - 400) // 160):
                [symbol] = [i.symbol for i in phone_intervals(cut) if i.start <= 160 * frame + 200 < i.end]
                counts[symbol] += 1
        found = figures["splits"][split]
        assert found["frames"] == counts.total() and found["frames_ignored"] == 0
        assert found["shares"] == pytest.approx({symbol: n / counts.total() for symbol, n in counts.items()})
        assert list(found["shares"]) == [symbol for symbol, _ in counts.most_common()]
        assert found["silence_share"] == pytest.approx(counts["SIL"] / counts.total())
        assert found["hours"] == pytest.approx(sum(cut.num_samples for cut in cuts) / 16000 / 3600)
        assert (found["utterances"], found["speakers"], found["unlabelled"]) == (len(cuts), 2, [])
        longest, shortest = (pick(cuts, key=lambda cut: cut.num_samples) for pick in (max, min))
        assert found["longest"] == [longest.id, longest.duration]
        assert found["shortest"] == [shortest.id, shortest.duration]
    assert list(figures["overlaps"]) == ["train, dev", "train, test", "dev, test"]
    assert not any(items for shared in figures["overlaps"].values() for items in shared.values())
    assert find_problems(figures, max_share=0.6) == []


def test_what_has_no_label_is_counted_and_listed(make_cut):
    cuts = [make_cut("none", None), make_cut("empty", []), make_cut("half", [(0, 8000, "AA")])]
    figures = inspect_cuts({"train": cuts})
    split = figures["splits"]["train"]
    assert split["unlabelled"] == ["none", "empty"]
    assert split["frames"] == 3 * 98 and split["frames_ignored"] == 2 * 98 + 98 - 49  # centres 160 t + 200 < 8000
    assert split["shares"] == {"AA": 1.0} and split["silence_share"] == 0
    assert "train: without labels: none empty" in format_inspection(figures)


@pytest.mark.parametrize(
    ("symbols", "phones", "name", "shares", "silence"),
    [
        ("h# q", None, "timit61", {"h#": 0.5, "q": 0.5}, 0.5),
        ("q h#", "timit39", "timit39", {"sil": 1.0}, 1.0),
        ("AO1 SIL", "timit39", "timit39", {"aa": 0.5, "sil": 0.5}, 0.5),
        ("SPN ZH", "timit39", "timit39", {"sh": 1.0}, 0.0),
        ("cl aa", None, "timit48", {"cl": 0.5, "aa": 0.5}, 0.5),
        ("sil aa", None, "timit48", {"sil": 0.5, "aa": 0.5}, 0.5),
        ("sp AA1", None, "arpabet41", {"SIL": 0.5, "AA": 0.5}, 0.5),
        ("0 17", None, "custom", {"0": 0.5, "17": 0.5}, None),
    ],
)
def test_classes_are_those_of_the_inventory(make_cut, symbols, phones, name, shares, silence):
    first, second = symbols.split()
    figures = inspect_cuts({"train": [make_cut("a", [(0, 8000, first), (8000, 16000, second)])]}, phones=phones)
    split = figures["splits"]["train"]
    assert figures["phones"] == name and split["silence_share"] == silence
    assert split["shares"] == pytest.approx(shares, abs=0.01)
    assert split["frames_ignored"] == (49 if phones == "timit39" and first in ("q", "SPN") else 0)


def test_overlaps_are_found_whatever_the_spelling(make_cut):
    figures = inspect_cuts(
        {
            "train": [make_cut("a", speaker="him", text="It's late."), make_cut("b", text="")],
            "dev": [make_cut("c", speaker="him", text="IT'S  LATE"), make_cut("d", speaker="it", text="")],
            "test": [make_cut("b", speaker="us", text="late, it's")],
        }
    )
    assert figures["overlaps"] == {
        "train, dev": {"speakers": ["him"], "utterances": [], "sentences": ["it's late"]},
        "train, test": {"speakers": [], "utterances": ["b"], "sentences": []},
        "dev, test": {"speakers": [], "utterances": [], "sentences": []},
    }
    assert "train, dev: share 1 speakers, 1 sentences\n" in format_inspection(figures)
    assert find_problems(figures, max_share=0.6) == [
        "100.0 % of the labelled frames of train are 'AA'",
        "100.0 % of the labelled frames of dev are 'AA'",
        "100.0 % of the labelled frames of test are 'AA'",
        "train, dev share 1 speakers, such as him",
        "train, test share 1 utterances, such as b",
    ]
    allowed = find_problems(figures, max_share=1.0, allow_shared_speakers=True)
    assert allowed == ["train, test share 1 utterances, such as b"]


def test_empty_and_unlabelled_splits_are_problems(make_cut):
    figures = inspect_cuts({"train": [], "test": [make_cut("a", None)]})
    assert find_problems(figures, max_share=0.6) == ["train has no utterances", "test has no labelled frame"]
    assert find_problems(figures, max_share=0.6, allow_unlabelled=True) == ["train has no utterances"]
    assert "-" in format_inspection(figures)


def test_labels_that_are_wrong_name_the_cut(make_cut):
    with pytest.raises(ValueError, match="cut a: interval .* overlaps"):
        inspect_cuts({"train": [make_cut("a", [(0, 9000, "AA"), (8000, 16000, "IY")])]})
    for symbol, phones in (("XX", "timit39"), ("aa", "arpabet41")):
        with pytest.raises(ValueError, match=f"phone '{symbol}' is not in set '{phones}'"):
            inspect_cuts({"train": [make_cut("a", [(0, 16000, symbol)])]}, phones=phones)


def test_one_class_above_the_share_stops_only_a_strict_inspection(make_cut, tmp_path, capsys):
    intervals = [(0, 10000, "SIL"), (10000, 16000, "AA")]  # 62 of 98 frames
    save_cuts(tmp_path / "train.jsonl.gz", [make_cut("a", intervals)])
    inspect_files([tmp_path / "train.jsonl.gz"])
    inspect_files([tmp_path / "train.jsonl.gz"], max_share=0.64)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(tmp_path / "train.jsonl.gz"), "--strict"])
    printed = capsys.readouterr()
    assert stop.value.code == 2 and "most frequent class" in printed.out
    assert printed.err == "speechattn: error: 63.3 % of the labelled frames of train are 'SIL'\n"


def test_a_missing_split_is_one_line(tone_corpus, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["inspect", files(tone_corpus)[0], str(tmp_path / "dev.jsonl.gz")])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and "dev.jsonl.gz: no such file" in error
    with pytest.raises(ValueError, match="must differ in their names"):
        inspect_files([files(tone_corpus)[0]] * 2)


class Links(HTMLParser):
    """Collects what a page refers to, but for its own parts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]


def test_the_page_needs_nothing_else_and_repeats_by_its_seed(tone_corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inspection, "NUM_EXAMPLES", 2)
    pages = []
    for number, seed in enumerate(("0", "0", "1")):
        folder = tmp_path / str(number)
        main(["inspect", *files(tone_corpus)[1:], "--output", str(folder), "--seed", seed])
        pages.append((folder / "index.html").read_text())
        monkeypatch.setattr(inspection, "picture", lambda figure, description: Html())  # slow, and seen
    ids = [re.findall(r"<h3>(.*?)</h3>", page) for page in pages]
    assert ids[0] == ids[1] != ids[2]
    assert [name.split("-")[0] for name in ids[0]] == ["dev"] * 2 + ["test"] * 2 and len(set(ids[0])) == 4
    sources = Links(pages[0]).found
    assert len(sources) == 5 and "http" not in re.sub(r'"data:[^"]*"', "", pages[0])
    for source in sources:
        kind, data = source.split(",")
        assert kind == "data:image/png;base64" and base64.b64decode(data).startswith(b"\x89PNG")
    figures = json.loads((tmp_path / "0/inspection.json").read_text())
    assert figures["splits"].keys() == {"dev", "test"}
    printed = capsys.readouterr().out
    for row in ("utterances", "silence", "longest"):
        assert f'<th scope="row">{row}</th>' in pages[0] and row in printed


@pytest.mark.parametrize("rate", [8000, 48000])
def test_audio_of_any_rate_is_drawn(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).standard_normal(rate) / 10, rate)
    cut = utterance_cut("a", tmp_path / "a.wav", speaker="her", text="", intervals=[Interval(0, 16000, "AA")])
    save_cuts(tmp_path / "x.jsonl.gz", [cut])
    inspect_files([tmp_path / "x.jsonl.gz"], output=tmp_path)
    assert len(Links((tmp_path / "index.html").read_text()).found) == 2


def test_text_in_the_page_is_escaped(make_cut, tmp_path):
    save_cuts(tmp_path / "x.jsonl.gz", [make_cut("a<b", text="<script>alert('&')</script>", intervals=None)])
    inspect_files([tmp_path / "x.jsonl.gz"], output=tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "<script" not in page and "a&lt;b" in page and "&lt;script&gt;" in page
