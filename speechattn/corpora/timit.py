"""TIMIT (LDC93S1): 630 American speakers, ten sentences each, phones labelled by hand.

It is licensed by the Linguistic Data Consortium and never downloaded. Train are the 462 speakers of TRAIN; dev and test
are 50 and 24 of the speakers of TEST, Kaldi's development list and NIST's core test set, both lists in the package's
assets. The two SA sentences, which everybody reads, are left out. See Garofolo et al., "DARPA TIMIT
acoustic-phonetic continuous speech corpus", 1993.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lhotse import MonoCut

from speechattn.assets import asset_lines
from speechattn.audio import SAMPLE_RATE, audio_info
from speechattn.cuts.manifest import SPLITS, save_splits, utterance_cut
from speechattn.labels.intervals import Interval
from speechattn.labels.line_files import read_phn, read_text
from speechattn.phones import PhoneSet

__all__ = ["TimitOptions", "download_timit", "prepare_timit", "timit_cut"]

log = logging.getLogger("speechattn")

LICENCE = "TIMIT: copyright 1993 Linguistic Data Consortium; LDC User Agreement, https://catalog.ldc.upenn.edu/LDC93S1"
NUM_SPEAKERS = {"train": 462, "dev": 50, "test": 24}
NUM_SENTENCES = 8  # of a speaker, without SA
GLOTTAL_STOP, SILENCE = "q", "pau"
END_TOLERANCE = SAMPLE_RATE // 10  # between the last label and the end of the audio
KINDS = ("wav", "phn", "txt")  # of files that a sentence has
LEVELS = ("timit", "data")  # folders that some copies have above TRAIN and TEST


@dataclass(frozen=True)
class TimitOptions:
    """What becomes of TIMIT's labels.

    Args:
        q: What becomes of the glottal stop, which has no place among the 48 and 39 phones: ignore: they neither train
            nor score its frames; sil: it is called silence (pau).

    Raises:
        ValueError: When there is no such choice.
    """

    q: str = "ignore"

    def __post_init__(self) -> None:
        if self.q not in ("ignore", "sil"):
            raise ValueError(f"q must be ignore or sil, got {self.q!r}")


def download_timit(corpus_dir: Path, mirror: str | None = None, *, options: TimitOptions | None = None) -> Path:
    """TIMIT is not fetched: this only makes sure that it is there; returns the folder with TRAIN and TEST.

    Raises:
        ValueError: When it is not, with the way to get it.
    """
    return _root(corpus_dir)


def prepare_timit(corpus_dir: Path, output: Path, *, num_jobs: int = 1, options: TimitOptions | None = None) -> None:
    """Write the cuts of the three splits, with TIMIT's own 61 symbols.

    Args:
        corpus_dir: Holds TRAIN and TEST, or a folder TIMIT, data or both above them; names in any case. Audio may be
            NIST SPHERE or RIFF, whatever its name says.
        output: Folder of the cuts.
        num_jobs: Not used: there is little to do.
        options: What becomes of the labels.

    Raises:
        ValueError: When the corpus is not there, a file of an utterance is missing or damaged, or a label is not
            one of TIMIT's.
    """
    root = _root(corpus_dir)
    print(LICENCE)
    options = options or TimitOptions()
    split_of = {speaker: split for split in ("dev", "test") for speaker in _speakers(split)}
    splits: dict[str, list[MonoCut]] = {split: [] for split in SPLITS}
    for part, folder in _speaker_folders(root):
        speaker = folder.name.lower()
        split = "train" if part == "train" else split_of.get(speaker)
        if split is not None:
            splits[split] += [timit_cut(speaker, *sentence, q=options.q) for sentence in _sentences(folder)]
    for split, cuts in splits.items():
        found, expected = len(cuts), NUM_SPEAKERS[split] * NUM_SENTENCES
        if found != expected:
            log.warning("%s: %s has %d utterances, all of TIMIT %d: is it complete?", root, split, found, expected)
    save_splits(output, splits)


def _root(corpus_dir: Path) -> Path:
    """The folder that holds TRAIN and TEST: `corpus_dir`, or below it."""
    folder: Path | None = corpus_dir
    while folder is not None:
        below = _by_name(folder)
        if {"train", "test"} <= below.keys():
            return folder
        folder = next((below[level] for level in LEVELS if level in below), None)
    raise ValueError(
        f"{corpus_dir}: holds no TIMIT (TRAIN and TEST, or TIMIT/TRAIN ...). TIMIT is licensed and not downloaded: get "
        "LDC93S1 from the Linguistic Data Consortium, https://catalog.ldc.upenn.edu/LDC93S1, and name its folder with "
        "--corpus-dir"
    )


def _by_name(folder: Path) -> dict[str, Path]:
    """The folders in a folder, by their names in lower case, in order."""
    if not folder.is_dir():
        return {}
    return {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}


def _speaker_folders(root: Path) -> Iterator[tuple[str, Path]]:
    """`train` or `test`, and the folder of each of its speakers."""
    for part in ("train", "test"):
        for name, dialect in _by_name(_by_name(root)[part]).items():
            if re.fullmatch("dr[1-8]", name):
                for folder in _by_name(dialect).values():
                    yield part, folder


def _speakers(split: str) -> list[str]:
    """The speakers of TEST that are dev or test."""
    return [speaker for line in asset_lines(f"timit_{split}_speakers.txt") for speaker in line.split()]


def _sentences(folder: Path) -> Iterator[list[Path]]:
    """Audio, labels and text of each sentence of a speaker, without SA."""
    sentences: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        sentence, *kinds = path.name.lower().split(".")
        if kinds and re.fullmatch(r"s[ix]\d+", sentence):
            # Some copies have SX1.WAV.wav beside SX1.WAV, the same sound: the first will do.
            sentences.setdefault(sentence, {}).setdefault(kinds[0], path)
    for sentence, found in sentences.items():
        for kind in KINDS:
            if kind not in found:
                raise ValueError(f"{folder}: {sentence}.{kind} is missing: TIMIT is incomplete")
        yield [found[kind] for kind in KINDS]


def timit_cut(speaker: str, audio: Path, labels: Path, text: Path, *, q: str = "ignore") -> MonoCut:
    """A sentence as a cut, called `<speaker>-<sentence>`.

    Args:
        speaker: Who speaks.
        audio: The sentence's sound, at 16 kHz.
        labels: Its .phn file. The last phone is extended, or cut, to the end of the audio.
        text: Its .txt file.
        q: See `TimitOptions`.

    Raises:
        ValueError: When a file is missing or damaged, or a label is not one of TIMIT's.
    """
    info = audio_info(audio)
    if info.sample_rate != SAMPLE_RATE:
        raise ValueError(f"{audio}: is at {info.sample_rate} Hz, and TIMIT's labels count samples at {SAMPLE_RATE}")
    words = read_text(text).split(maxsplit=2)
    if len(words) != 3:
        raise ValueError(f"{text}: expected `start end sentence`")
    return utterance_cut(
        f"{speaker}-{audio.name.split('.')[0].lower()}",
        audio,
        speaker=speaker,
        text=words[2].strip(),
        intervals=_hand_labels(labels, info.num_samples, q),
    )


def _hand_labels(path: Path, num_samples: int, q: str) -> list[Interval]:
    """The phones of a sentence."""
    intervals = read_phn(path)
    known = PhoneSet.load("timit61").folding
    if odd := [interval for interval in intervals if interval.symbol not in known]:
        raise ValueError(f"{path}: {odd[0].symbol!r} is none of TIMIT's 61 symbols")
    if not intervals:
        raise ValueError(f"{path}: has no labels")
    last = intervals[-1]
    if last.start >= num_samples or last.end >= num_samples + END_TOLERANCE:
        raise ValueError(f"{path}: goes on to sample {last.end}, but the audio ends at {num_samples}")
    intervals[-1] = last._replace(end=num_samples)
    if q == "sil":
        intervals = [i._replace(symbol=SILENCE) if i.symbol == GLOTTAL_STOP else i for i in intervals]
    return intervals
