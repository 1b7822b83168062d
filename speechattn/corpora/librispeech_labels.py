"""Published phone labels of LibriSpeech, as intervals.

MFA: TextGrids by the Montreal Forced Aligner, from Lugosch et al., "Speech Model Pre-training for End-to-End Spoken
Language Understanding", 2019 (https://doi.org/10.5281/zenodo.2619474). CPC: one class per 10 ms of train-clean-100, by
Kaldi, with a train and a test list, from van den Oord et al., "Representation Learning with Contrastive Predictive
Coding", 2018.
"""

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from speechattn.audio import SAMPLE_RATE
from speechattn.geometry import Geometry
from speechattn.jobs.text import read_text
from speechattn.labels.files import read_textgrid
from speechattn.labels.intervals import Interval
from speechattn.phones import PhoneSet

__all__ = [
    "NUM_CPC_CLASSES",
    "cpc_intervals",
    "cpc_split",
    "find_textgrids",
    "mfa_intervals",
    "read_cpc_labels",
    "read_utterance_list",
    "speaker_of",
]

NUM_CPC_CLASSES = 41
# The aligner puts a boundary at the start of the 25 ms window of its first frame, 7.5 ms before the midpoint between
# the centres of two frames. docs/alignment.md has the measurement.
MFA_SHIFT = round(0.0075 * SAMPLE_RATE)
END_TOLERANCE = SAMPLE_RATE // 10  # between the end of a TextGrid and that of its audio, in samples
S3PRL_SEED = 1337
S3PRL_TRAIN_SHARE = 0.9


def speaker_of(utterance: str) -> str:
    """The speaker in an utterance id of LibriSpeech, speaker-chapter-number."""
    return utterance.split("-")[0]


def find_textgrids(folder: Path) -> dict[str, Path]:
    """Utterance id -> TextGrid, searched in all folders below.

    Raises:
        ValueError: When there is none, or an utterance has two.
    """
    textgrids: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.TextGrid")):
        if path.name.startswith("."):  # macOS adds such files to archives
            continue
        if path.stem in textgrids:
            raise ValueError(f"{path}: there is another TextGrid of this utterance, {textgrids[path.stem]}")
        textgrids[path.stem] = path
    if not textgrids:
        raise ValueError(f"{folder}: holds no TextGrids")
    return textgrids


def mfa_intervals(path: Path, num_samples: int) -> list[Interval]:
    """The phones of a TextGrid as the 41 ARPAbet classes: stress removed; sil, sp and "" are SIL; spn is SPN.

    Consecutive silences are merged. Boundaries are moved 7.5 ms later, since the aligner places them too early.

    Args:
        path: A TextGrid with the tier `phones`.
        num_samples: Length of the audio at 16 kHz.

    Raises:
        ValueError: When it cannot be read, has a symbol outside ARPAbet, or ends 0.1 s or more from the audio's end.
    """
    fold = PhoneSet.load("arpabet41").fold
    intervals: list[Interval] = []
    for segment in read_textgrid(path):
        try:
            symbol = fold(segment.phone) or ""
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        start, end = round(segment.start * SAMPLE_RATE), round(segment.end * SAMPLE_RATE)
        if symbol == "SIL" and intervals and intervals[-1].symbol == "SIL":
            intervals[-1] = intervals[-1]._replace(end=end)
        elif start < end:
            intervals.append(Interval(start, end, symbol))
    last = intervals[-1].end if intervals else 0
    intervals = [
        Interval(start + MFA_SHIFT if start else 0, end + MFA_SHIFT if end < last else end, symbol)
        for start, end, symbol in intervals
    ]
    if abs(last - num_samples) >= END_TOLERANCE:
        ends = f"ends at {last / SAMPLE_RATE:.2f} s, its audio at {num_samples / SAMPLE_RATE:.2f} s"
        raise ValueError(f"{path}: {ends}: it is another utterance's, or cut off")
    return intervals


def read_cpc_labels(path: Path) -> dict[str, np.ndarray]:
    """Read the CPC labels: lines `utterance class class ...`, one class per 10 ms.

    Returns:
        Utterance id -> (T,) uint8 in [0, 40].

    Raises:
        ValueError: When there is no such file, or a line is malformed; names it.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    labels: dict[str, np.ndarray] = {}
    with open(path, encoding="utf-8", errors="replace") as file:  # line by line, since the file is long
        for number, line in enumerate(file, 1):
            utterance, *classes = line.split() or [""]
            try:
                values = np.array([int(value) for value in classes], dtype=np.int64)
            except ValueError:
                values = np.array([-1])
            if len(values) == 0 or values.min() < 0 or values.max() >= NUM_CPC_CLASSES or utterance in labels:
                expected = f"an utterance, once, and a class from 0 to {NUM_CPC_CLASSES - 1} for every 10 ms"
                raise ValueError(f"{path}:{number}: expected {expected}, found {line[:60]!r}")
            labels[utterance] = values.astype(np.uint8)
    return labels


def cpc_intervals(
    labels: np.ndarray,
    num_samples: int,
    *,
    geometry: Geometry = Geometry(),  # noqa: B008 (frozen)
) -> list[Interval]:
    """Runs of equal labels as intervals, such that `frame_labels` restores the labels.

    Label t belongs to Kaldi's frame t: boundaries are midway between frame centres. Frames beyond the last label remain
    unlabelled.

    Args:
        labels: (T,) int, T >= 1.
        num_samples: Length of the audio.
        geometry: The frames.

    Returns:
        Contiguous intervals from 0; the symbol of class c is str(c).

    Raises:
        ValueError: When there are more labels than frames.

    Example:
        >>> cpc_intervals(np.array([0, 0, 7]), 16000)
        [Interval(start=0, end=440, symbol='0'), Interval(start=440, end=600, symbol='7')]
    """
    num_frames = geometry.num_frames(num_samples)
    if len(labels) > num_frames:
        raise ValueError(f"{len(labels)} labels for {num_frames} frames: they are another utterance's")
    firsts = np.flatnonzero(np.diff(labels.astype(np.int64), prepend=-1))  # first frame of every run
    boundaries = geometry.first_centre - geometry.hop // 2 + geometry.hop * np.append(firsts, len(labels))
    boundaries[0] = 0
    times = np.minimum(boundaries, num_samples).tolist()
    return list(map(Interval, times[:-1], times[1:], map(str, labels[firsts].tolist())))


def read_utterance_list(path: Path) -> list[str]:
    """Read a file with one utterance id per line.

    Raises:
        ValueError: When there is no such file, or an id occurs twice.
    """
    utterances = read_text(path).split()
    if repeated := [utterance for utterance, count in Counter(utterances).items() if count > 1]:
        raise ValueError(f"{path}: utterance {repeated[0]} occurs twice")
    return utterances


def cpc_split(train_list: Iterable[str], test_list: Iterable[str]) -> dict[str, str]:
    """Utterance id -> train, dev or test: the published lists, with s3prl's dev set.

    s3prl shuffles the train list with Python's generator, seed 1337, and trains on the first 90 % of it
    (`downstream/phone_linear/dataset.py`).

    Args:
        train_list: Utterance ids in the published order, on which the shuffle depends.
        test_list: Utterance ids.

    Raises:
        ValueError: When an utterance is in both lists.
    """
    shuffled = list(train_list)
    random.Random(S3PRL_SEED).shuffle(shuffled)
    num_train = int(len(shuffled) * S3PRL_TRAIN_SHARE)
    split_of = dict.fromkeys(shuffled[:num_train], "train") | dict.fromkeys(shuffled[num_train:], "dev")
    for utterance in test_list:
        if utterance in split_of:
            raise ValueError(f"utterance {utterance} is in the train list and in the test list")
        split_of[utterance] = "test"
    return split_of
