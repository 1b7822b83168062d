"""TIMIT (LDC93S1): 630 American speakers, ten sentences each, phones labelled by hand.

The corpus is licensed by the Linguistic Data Consortium and never downloaded. Train is the 462 speakers of TRAIN; dev
and test are 50 and 24 speakers of TEST, Kaldi's development list and NIST's core test set, both in the assets. The two
SA sentences, which everybody reads, are left out. See Garofolo et al., "DARPA TIMIT acoustic-phonetic continuous speech
corpus", 1993.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lhotse import MonoCut

from speechattn.assets import asset_lines
from speechattn.audio import SAMPLE_RATE, audio_info
from speechattn.cuts.files import SPLITS, save_splits, utterance_cut
from speechattn.jobs.text import read_text
from speechattn.labels.intervals import Interval
from speechattn.labels.line_files import read_phn
from speechattn.phones import PhoneSet

__all__ = ["TimitOptions", "download_timit", "prepare_timit", "timit_cut"]

log = logging.getLogger("speechattn")

LICENCE = "TIMIT: copyright 1993 Linguistic Data Consortium; LDC User Agreement, https://catalog.ldc.upenn.edu/LDC93S1"
NUM_SPEAKERS = {"train": 462, "dev": 50, "test": 24}
NUM_SENTENCES = 8  # per speaker, without SA
GLOTTAL_STOP, SILENCE = "q", "pau"
MAX_OVERSHOOT = SAMPLE_RATE // 10  # of the last label beyond the end of the audio, in samples
SENTENCE_FILES = ("wav", "phn", "txt")


@dataclass(frozen=True)
class TimitOptions:
    """How TIMIT's labels are used.

    Args:
        q: The glottal stop, which is not among the 48 and 39 phones: ignore: its frames are neither trained on nor
            scored; sil: it becomes silence (pau).

    Raises:
        ValueError: When there is no such choice.
    """

    q: str = "ignore"

    def __post_init__(self) -> None:
        if self.q not in ("ignore", "sil"):
            raise ValueError(f"q must be ignore or sil, got {self.q!r}")


OPTIONS = TimitOptions


def download_timit(corpus_dir: Path, mirror: str | None = None, *, options: TimitOptions | None = None) -> Path:
    """Find TIMIT, which is not downloaded; return the folder with TRAIN and TEST.

    Raises:
        ValueError: When it is missing; says how to get it.
    """
    folder: Path | None = corpus_dir
    while folder is not None:
        subfolders = {path.name.lower(): path for path in sorted(folder.glob("*")) if path.is_dir()}
        if {"train", "test"} <= subfolders.keys():
            return folder
        folder = subfolders.get("timit") or subfolders.get("data")
    raise ValueError(
        f"{corpus_dir}: holds no TIMIT (TRAIN and TEST, or TIMIT/TRAIN ...). TIMIT is licensed and not downloaded: get "
        "LDC93S1 from the Linguistic Data Consortium, https://catalog.ldc.upenn.edu/LDC93S1, and name its folder with "
        "--corpus-dir"
    )


def prepare_timit(corpus_dir: Path, output: Path, *, num_jobs: int = 1, options: TimitOptions | None = None) -> None:
    """Write the cuts of the three splits, with TIMIT's 61 symbols.

    `corpus_dir` holds TRAIN and TEST, or a folder TIMIT, data or both above them; names may be in upper or lower case,
    and audio may be NIST SPHERE or RIFF, whatever its suffix. For the rest see `prepare_corpus`.

    Raises:
        ValueError: When the corpus is missing, a file is missing or damaged, or a label is not one of TIMIT's.
    """
    root = download_timit(corpus_dir)
    print(LICENCE)
    q = (options or TimitOptions()).q
    split_of = {speaker: split for split in ("dev", "test") for speaker in _speakers(split)}
    splits: dict[str, list[MonoCut]] = {split: [] for split in SPLITS}
    for folder in sorted(root.glob("*/*/*")):
        part, dialect, speaker = (name.lower() for name in folder.relative_to(root).parts)
        split = {"train": "train", "test": split_of.get(speaker)}.get(part)
        if split is not None and re.fullmatch("dr[1-8]", dialect) and folder.is_dir():
            splits[split] += [timit_cut(speaker, *files, q=q) for files in _sentences(folder)]
    for split, cuts in splits.items():
        expected = NUM_SPEAKERS[split] * NUM_SENTENCES
        if len(cuts) != expected:
            log.warning("%s: %s has %d utterances, all of TIMIT %d: is it complete?", root, split, len(cuts), expected)
    save_splits(output, splits)


def _speakers(split: str) -> list[str]:
    return [speaker for line in asset_lines(f"timit_{split}_speakers.txt") for speaker in line.split()]


def _sentences(folder: Path) -> Iterator[list[Path]]:
    """Audio, labels and text of each sentence of a speaker, without SA."""
    sentences: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        sentence, *suffixes = path.name.lower().split(".")
        if suffixes and re.fullmatch(r"s[ix]\d+", sentence):
            # Some copies have SX1.WAV.wav beside SX1.WAV, with the same sound: use the first.
            sentences.setdefault(sentence, {}).setdefault(suffixes[0], path)
    for sentence, files in sentences.items():
        for suffix in SENTENCE_FILES:
            if suffix not in files:
                raise ValueError(f"{folder}: {sentence}.{suffix} is missing: TIMIT is incomplete")
        yield [files[suffix] for suffix in SENTENCE_FILES]


def timit_cut(speaker: str, audio: Path, labels: Path, text: Path, *, q: str = "ignore") -> MonoCut:
    """A sentence as a cut with the id `<speaker>-<sentence>`.

    Args:
        speaker: The speaker's name.
        audio: The audio file, at 16 kHz.
        labels: The .phn file. The last phone is extended or cut to the end of the audio.
        text: The .txt file.
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
    name = f"{speaker}-{audio.name.split('.')[0].lower()}"
    intervals = _hand_labels(labels, info.num_samples, q)
    return utterance_cut(name, audio, speaker=speaker, text=words[2].strip(), intervals=intervals)


def _hand_labels(path: Path, num_samples: int, q: str) -> list[Interval]:
    intervals = read_phn(path)
    symbols = PhoneSet.load("timit61").folding
    if unknown := [interval.symbol for interval in intervals if interval.symbol not in symbols]:
        raise ValueError(f"{path}: {unknown[0]!r} is not one of TIMIT's 61 symbols")
    if not intervals:
        raise ValueError(f"{path}: has no labels")
    last = intervals[-1]
    if last.start >= num_samples or last.end >= num_samples + MAX_OVERSHOOT:
        raise ValueError(f"{path}: ends at sample {last.end}, but the audio at {num_samples}")
    intervals[-1] = last._replace(end=num_samples)
    if q == "sil":
        intervals = [i._replace(symbol=SILENCE) if i.symbol == GLOTTAL_STOP else i for i in intervals]
    return intervals
