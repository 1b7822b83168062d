"""Forced alignment: times against hand labels, and results that depend only on the utterance."""

import os
import signal
import zipfile
from array import array
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechattn.alignment import aligner, pocketsphinx_engine
from speechattn.alignment.aligner import Alignment, Utterance, align_each
from speechattn.alignment.lexicon import default_lexicon
from speechattn.alignment.pocketsphinx_engine import PocketSphinxEngine
from speechattn.jobs.processes import process_map
from speechattn.labels.frames import frame_labels
from speechattn.labels.intervals import Interval
from speechattn.phones import PhoneSet

# Utterances of the TIMIT sample whose alignments tell a boundary at 160 e + 120 from one at 160 e.
CLEAR = {
    "dr1-mcpm0": ("sa1", "sa2", "si564", "sx114"),
    "dr8-mbcg0": ("si486", "sx147", "sx417"),
}
SMALL = {
    "yes": [("Y", "EH", "S")],
    "no": [("N", "OW")],
    "on": [("AA", "N"), ("AO", "N")],
    "x-ray": [("EH", "K", "S", "R", "EY")],
}


def align_all(utterances, lexicon, num_jobs=1):
    """Intervals by id, and the reasons of those that have none."""
    alignments = align_each(utterances, lexicon, PocketSphinxEngine(), num_jobs=num_jobs)
    pairs = [(utterance.id, alignment) for utterance, alignment in zip(utterances, alignments, strict=True)]
    aligned = {name: alignment.intervals for name, alignment in pairs if alignment.reason is None}
    return aligned, {name: alignment.reason for name, alignment in pairs if alignment.reason is not None}


@pytest.fixture(scope="module")
def timit(timit_archive, tmp_path_factory):
    """The utterances of CLEAR: id -> (Utterance, hand labels, number of samples)."""
    folder = tmp_path_factory.mktemp("timit")
    utterances = {}
    with zipfile.ZipFile(timit_archive) as file:
        for name in (f"{folder}/{stem}" for folder, stems in CLEAR.items() for stem in stems):
            for suffix in ("wav", "phn", "txt"):
                file.extract(f"timit/{name}.{suffix}", folder)
            path = folder / "timit" / name
            num_samples = soundfile.info(f"{path}.wav").frames
            rows = [line.split() for line in Path(f"{path}.phn").read_text().splitlines()]
            hand = [Interval(int(start), int(end), symbol) for start, end, symbol in rows]
            text = Path(f"{path}.txt").read_text().split(maxsplit=2)[2]
            utterance_id = name.replace("/", "-")
            utterances[utterance_id] = Utterance(utterance_id, Path(f"{path}.wav"), text), hand, num_samples
    return utterances


@pytest.fixture(scope="module")
def lexicon():
    return default_lexicon()


@pytest.fixture(scope="module")
def alignments(timit, lexicon):
    """id -> intervals, aligned one after the other in this process."""
    aligned, rejected = align_all([utterance for utterance, _, _ in timit.values()], lexicon)
    assert rejected == {}
    return aligned


def test_intervals_are_contiguous_arpabet_from_0_to_the_end(timit, alignments):
    symbols = set(PhoneSet.load("arpabet41").symbols)
    for name, intervals in alignments.items():
        assert intervals[0].start == 0
        assert intervals[-1].end == timit[name][2]
        assert all(a.end == b.start and a.start < a.end for a, b in zip(intervals, intervals[1:], strict=False))
        assert {interval.symbol for interval in intervals} <= symbols
        assert all((interval.start - 120) % 160 == 0 for interval in intervals[1:])


def test_agrees_with_hand_labels_and_a_wrong_time_origin_would_not(timit, alignments):
    phones = PhoneSet.load("timit39")

    def agreement(shift: int) -> float:
        """Share of frames on which the alignment, moved by some samples, agrees with the hand labels."""
        agree = total = 0
        for name, intervals in alignments.items():
            _, hand, num_samples = timit[name]
            ours = [
                Interval(max(start + shift, 0), end + shift, symbol.lower().replace("sil", "h#"))
                for start, end, symbol in intervals
            ]
            ids = phones.ids(interval.symbol for interval in ours + hand)
            theirs = frame_labels(hand, num_samples, ids)
            scored = theirs >= 0
            agree += (frame_labels(ours, num_samples, ids) == theirs)[scored].sum()
            total += scored.sum()
        return agree / total

    floor = 0.66
    assert agreement(0) > floor
    assert agreement(-120) < floor - 0.01  # boundaries at 160 e, the start of the aligner's window


def test_result_depends_neither_on_order_nor_on_processes(timit, lexicon, alignments):
    backwards = [utterance for utterance, _, _ in reversed(timit.values())]
    aligned, rejected = align_all(backwards, lexicon, num_jobs=2)
    assert rejected == {}
    assert list(aligned) == [utterance.id for utterance in backwards]
    assert aligned == alignments


def test_failures_have_reasons_and_do_not_disturb_the_others(timit, lexicon, alignments):
    name, (good, _, _) = next(iter(timit.items()))
    utterances = [
        Utterance("unknown", good.audio, "she had zzqx and zzqx vrumph"),
        Utterance("long", good.audio, "unmistakable characteristics " * 40),
        Utterance("empty", good.audio, "..."),
        Utterance("misfit", good.audio, "we " * 50),
        Utterance("missing", good.audio.with_name("nothing.wav"), "she"),
        good,
    ]
    aligned, rejected = align_all(utterances, lexicon)
    assert aligned == {name: alignments[name]}
    assert list(rejected) == ["unknown", "long", "empty", "misfit", "missing"]
    assert rejected["unknown"] == "not in the lexicon: zzqx, vrumph"
    assert rejected["long"].startswith("audio too short: 3.")
    assert rejected["empty"] == "empty transcript"
    assert rejected["misfit"] == "alignment failed: the transcript does not fit the audio"
    assert "nothing.wav: no such file" in rejected["missing"]


@pytest.mark.parametrize("num_jobs", [1, 2])
def test_audio_too_short_or_unreadable_is_a_reason(tmp_path, num_jobs):
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16000)
    (tmp_path / "text.wav").write_text("no audio")
    utterances = [Utterance(name, tmp_path / f"{name}.wav", "yes") for name in ("short", "text")]
    aligned, rejected = align_all(utterances, SMALL, num_jobs=num_jobs)
    assert aligned == {}
    assert rejected["short"] == "audio too short: 0.01 s for at least 3 phones"
    assert "not an audio file" in rejected["text"]


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_jobs must be at least 1, got 0"):
        align_all([], SMALL, num_jobs=0)
    with pytest.raises(ValueError, match="two utterances have the same id"):
        align_all([Utterance("a", Path("a.wav"), "yes"), Utterance("a", Path("b.wav"), "no")], SMALL)
    assert align_all([], SMALL) == ({}, {})


def test_boundary_before_frame_e_lies_at_160_e_plus_120():
    entries = [("SIL", 0), ("SIL", 3), ("AA", 10), ("N", 14), ("+SPN+", 20), ("+NSN+", 30), ("SIL", 35)]
    assert pocketsphinx_engine._to_intervals(entries, 7000) == [
        Interval(0, 1720, "SIL"),
        Interval(1720, 2360, "AA"),
        Interval(2360, 3320, "N"),
        Interval(3320, 4920, "SPN"),
        Interval(4920, 7000, "SIL"),
    ]


def test_implausible_alignments_are_rejected(monkeypatch):
    scores = {f"u{number}": -20.0 - number % 5 for number in range(30)} | {"bad": -90.0, "drawl": -20.0}

    def align(utterance):
        vowel_end = 31_600 if utterance.id == "drawl" else 8000
        return Alignment("SIL AH SIL", array("i", [0, 6000, vowel_end]), 40_000, scores[utterance.id], None)

    monkeypatch.setattr(PocketSphinxEngine, "start", lambda self, lexicon: align)
    aligned, rejected = align_all([Utterance(name, Path(name), "yes") for name in scores], SMALL)
    assert list(aligned) == [f"u{number}" for number in range(30)]
    assert list(rejected) == ["bad", "drawl"]
    assert rejected["bad"].startswith("poor fit: score per speech frame -90.0 is below -")
    assert rejected["drawl"] == "implausible: AH lasts 1.60 s"


def test_an_alignment_gives_its_intervals():
    alignment = Alignment("SIL AH", array("i", [0, 280]), 1000, -20.0, None)
    assert alignment.intervals == [Interval(0, 280, "SIL"), Interval(280, 1000, "AH")]


def test_other_words_in_the_decoder_change_nothing(timit, lexicon, alignments):
    """Hence results are stored under the pronunciations of their own words alone."""
    name, (utterance, _, _) = list(timit.items())[-1]
    assert PocketSphinxEngine().start(lexicon)(utterance).intervals == alignments[name]
    assert len(aligner._used_part(lexicon, [utterance])) < 20


def counted(monkeypatch):
    """Collects the ids of the utterances that are searched from now on."""
    searched = []

    def align(utterance):
        searched.append(utterance.id)
        return Alignment("SIL AH", array("i", [0, len(utterance.text)]), 1000, -20.0, None)

    monkeypatch.setattr(PocketSphinxEngine, "start", lambda self, lexicon: align)
    return searched


def test_finished_utterances_are_not_aligned_again(tmp_path, monkeypatch):
    searched = counted(monkeypatch)
    utterances = []
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16000), 16000)
        utterances.append(Utterance(name, tmp_path / f"{name}.wav", "yes"))
    journal = tmp_path / "work.jsonl"
    first = align_each(utterances[:2], SMALL, PocketSphinxEngine(), journal=journal)
    again = align_each(utterances, SMALL, PocketSphinxEngine(), journal=journal)
    assert searched == ["a", "b", "c"]
    assert again[:2] == first and all(isinstance(alignment.starts, array) for alignment in again)
    # Without a journal nothing is kept.
    align_each(utterances, SMALL, PocketSphinxEngine())
    assert searched == ["a", "b", "c"] * 2


@pytest.mark.parametrize("change", ["text", "pronunciation", "audio", "channel", "engine"])
def test_changed_utterances_are_aligned_again(tmp_path, monkeypatch, change):
    searched = counted(monkeypatch)
    audio = tmp_path / "a.wav"
    soundfile.write(audio, np.zeros(16000), 16000)
    utterances = [Utterance("a", audio, "yes"), Utterance("other", tmp_path / "none.wav", "no")]
    journal = tmp_path / "work.jsonl"
    align_each(utterances, SMALL, PocketSphinxEngine(), journal=journal)
    lexicon = SMALL | {"yes": [("Y", "AE")]} if change == "pronunciation" else SMALL
    if change == "audio":
        soundfile.write(audio, np.zeros(15000), 16000)
    if change == "engine":
        monkeypatch.setattr(pocketsphinx_engine, "version", lambda package: "0")
    changes = {"text": {"text": "yes no"}, "channel": {"channel": 0}}.get(change, {})
    changed = [utterances[0]._replace(**changes), utterances[1]]
    align_each(changed, lexicon, PocketSphinxEngine(), journal=journal)
    assert searched == ["a", "other", "a", *(["other"] if change == "engine" else [])]


def test_a_process_that_dies_is_one_clear_error(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    utterances = [Utterance(f"u{number}", tmp_path / "a.wav", "yes " * number) for number in range(1, 4)]
    with (
        pytest.raises(ValueError, match="a process died"),
        process_map(2, start=partial(aligner._start_engine, PocketSphinxEngine(), SMALL)) as run,
    ):
        list(run(aligner._align, [*utterances, Killer()]))


class Killer:
    """Not an utterance: it kills the process that reads its audio."""

    channel = None

    @property
    def audio(self):
        os.kill(os.getpid(), signal.SIGKILL)
