"""LibriPhone: the phone classification task of NTU's machine learning course, homework 2 of 2022 and 2023.

The course gives no audio but MFCCs of LibriSpeech utterances (39 values per 10 ms, normalised by utterance), and for
the training part one of 41 numbered classes per frame; those of the test part are to be predicted. So the cuts carry
features, for a model without a front end. Labels and lists have the format of LibriSpeech's CPC labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lhotse import Features, MonoCut, SupervisionSegment
from tqdm import tqdm

from speechattn.audio import SAMPLE_RATE
from speechattn.corpora.librispeech_labels import cpc_intervals, read_cpc_labels, read_utterance_list, speaker_of
from speechattn.cuts.files import SPLITS, alignment_items, save_splits
from speechattn.cuts.splits import draw_by_utterances
from speechattn.geometry import Geometry
from speechattn.jobs.atomic import atomic_path

__all__ = ["LibriPhoneOptions", "download_libriphone", "prepare_libriphone"]

LICENCE = "LibriPhone: made by the course from LibriSpeech, CC BY 4.0, https://www.openslr.org/12"
SOURCE = "https://www.kaggle.com/competitions/ml2022spring-hw2"
FEATURE_DIM = 39
DEV_RULES = ("speaker", "utterance")
DEV_SHARE = 0.1  # of the utterances of the training part


@dataclass(frozen=True)
class LibriPhoneOptions:
    """How a tenth of LibriPhone's training part is drawn as dev.

    Args:
        dev: speaker: all utterances of some speakers, who are not in train; utterance: utterances of all speakers, as
            in the course's test part, whose speakers are also in train.
        seed: Seed of the draw.

    Raises:
        ValueError: When there is no such rule.
    """

    dev: str = "speaker"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dev not in DEV_RULES:
            raise ValueError(f"dev must be one of {', '.join(DEV_RULES)}, got {self.dev!r}")


OPTIONS = LibriPhoneOptions


def download_libriphone(
    corpus_dir: Path, mirror: str | None = None, *, options: LibriPhoneOptions | None = None
) -> Path:
    """Find LibriPhone, which cannot be downloaded without a Kaggle account; return the folder with the lists.

    Raises:
        ValueError: When it is missing; says how to get it.
    """
    for folder in (corpus_dir, corpus_dir / "libriphone"):
        if (folder / "train_split.txt").is_file():
            return folder
    raise ValueError(
        f"{corpus_dir}: holds no LibriPhone (train_split.txt, or libriphone/train_split.txt); it is not downloaded: "
        f"get it from {SOURCE}, unpack it, and name its folder with --corpus-dir"
    )


def prepare_libriphone(
    corpus_dir: Path, output: Path, *, num_jobs: int = 1, options: LibriPhoneOptions | None = None
) -> None:
    """Write the cuts of the three splits, and their features as NumPy files in `output`/features.

    The cuts of test have no phones, and the order of test_split.txt. `corpus_dir`, or a folder libriphone in it, holds
    train_split.txt, train_labels.txt, test_split.txt and feat/{train,test}/<utterance>.pt. For the rest see
    `prepare_corpus`.

    Raises:
        ValueError: When a file is missing or damaged, or an utterance does not have one label per frame.
    """
    root, options = download_libriphone(corpus_dir), options or LibriPhoneOptions()
    print(LICENCE)
    train, test = (read_utterance_list(root / f"{part}_split.txt") for part in ("train", "test"))
    labels = read_cpc_labels(root / "train_labels.txt")
    if missing := [utterance for utterance in train if utterance not in labels]:
        raise ValueError(f"{root / 'train_labels.txt'}: has no line for utterance {missing[0]} of train_split.txt")
    dev = _dev(train, options)
    splits: dict[str, list[MonoCut]] = {split: [] for split in SPLITS}
    for part, utterances in (("train", train), ("test", test)):
        for utterance in tqdm(utterances, desc=part, unit="utt", leave=False, disable=None):
            path = root / "feat" / part / f"{utterance}.pt"
            features = _read_features(path)
            classes = labels[utterance] if part == "train" else None
            if classes is not None and len(classes) != len(features):
                raise ValueError(f"{path}: has {len(features)} frames, train_labels.txt {len(classes)} classes")
            split = "dev" if part == "train" and utterance in dev else part
            stored = output / "features" / part / f"{utterance}.npy"
            splits[split].append(_cut(utterance, features, classes, stored))
    save_splits(output, splits, shared_speakers=True)


def _dev(utterances: Sequence[str], options: LibriPhoneOptions) -> set[str]:
    """Draw the training utterances that become dev."""
    units = [speaker_of(utterance) if options.dev == "speaker" else utterance for utterance in utterances]
    if len(set(units)) < 2:
        raise ValueError(f"train_split.txt has one {options.dev}: too few to draw a dev set from")
    drawn = draw_by_utterances(units, {"dev": DEV_SHARE}, options.seed)
    return {utterance for utterance, unit in zip(utterances, units, strict=True) if unit in drawn}


def _read_features(path: Path) -> np.ndarray:
    """(T, 39) float32, T >= 1."""
    if not path.is_file():
        raise ValueError(f"{path}: is missing: LibriPhone is incomplete")
    try:
        features = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises anything on damaged bytes
        raise ValueError(f"{path}: not a tensor that torch.load can read safely, or damaged") from error
    if not isinstance(features, torch.Tensor):
        raise ValueError(f"{path}: does not hold a tensor")
    if features.ndim != 2 or features.shape[1] != FEATURE_DIM or features.dtype != torch.float32 or not len(features):
        found = f"{tuple(features.shape)} {features.dtype}"
        raise ValueError(f"{path}: expected (T, {FEATURE_DIM}) torch.float32, found {found}")
    if not features.isfinite().all():
        raise ValueError(f"{path}: some features are NaN or infinite")
    return features.numpy()


def _cut(utterance: str, features: np.ndarray, classes: np.ndarray | None, stored: Path) -> MonoCut:
    """Store the features; the cut's duration is that of the shortest audio with so many frames."""
    num_samples = Geometry().num_samples(len(features))
    duration = num_samples / SAMPLE_RATE
    with atomic_path(stored) as temporary:
        np.save(temporary, features)
    alignment = None if classes is None else {"phone": alignment_items(cpc_intervals(classes, num_samples))}
    supervision = SupervisionSegment(
        utterance, utterance, 0.0, duration, speaker=speaker_of(utterance), alignment=alignment
    )
    manifest = Features(
        type="mfcc",
        num_frames=len(features),
        num_features=features.shape[1],
        frame_shift=0.01,
        sampling_rate=SAMPLE_RATE,
        start=0.0,
        duration=duration,
        storage_type="numpy_files",
        storage_path=str(stored.parent.resolve()),
        storage_key=stored.name,
    )
    return MonoCut(utterance, 0.0, duration, channel=0, supervisions=[supervision], features=manifest)
