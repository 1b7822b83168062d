"""LibriPhone: the phone classification task of NTU's machine learning course, homework 2 of 2022 and 2023.

The course gives no audio but MFCCs of LibriSpeech utterances, 39 values every 10 ms, normalised by utterance, and for
every frame of the training part one of 41 numbered classes; those of the test part are what it asks for. So the cuts
carry features, for a model without a front end. Labels and lists look as the CPC labels of LibriSpeech do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lhotse import Features, MonoCut, SupervisionSegment
from tqdm import tqdm

from speechattn.audio import SAMPLE_RATE
from speechattn.corpora.librispeech_labels import cpc_intervals, read_cpc_labels, read_utterance_list, speaker_of
from speechattn.cuts.manifest import alignment_items, save_splits
from speechattn.cuts.splits import share_out
from speechattn.geometry import Geometry
from speechattn.jobs.atomic import atomic_path

__all__ = ["LibriPhoneOptions", "download_libriphone", "prepare_libriphone"]

LICENCE = "LibriPhone: made by the course from LibriSpeech, CC BY 4.0, https://www.openslr.org/12"
SOURCE = "https://www.kaggle.com/competitions/ml2022spring-hw2"
FEATURE_DIM = 39
DEV_RULES = ("speaker", "utterance")


@dataclass(frozen=True)
class LibriPhoneOptions:
    """How LibriPhone's training part is cut into train and dev.

    Args:
        dev: speaker: dev are the utterances of some speakers, whom training never hears; utterance: utterances of all
            speakers, as in the course's test part, whose speakers train as well.
        dev_share: Share of the utterances that become dev, (0, 1).
        seed: Of the draw.

    Raises:
        ValueError: When a field is out of its range.
    """

    dev: str = "speaker"
    dev_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dev not in DEV_RULES:
            raise ValueError(f"dev must be one of {', '.join(DEV_RULES)}, got {self.dev!r}")
        if not 0 < self.dev_share < 1:
            raise ValueError(f"dev_share must lie in (0, 1), got {self.dev_share}")


def download_libriphone(
    corpus_dir: Path, mirror: str | None = None, *, options: LibriPhoneOptions | None = None
) -> Path:
    """LibriPhone is not fetched, since Kaggle asks for an account: this only makes sure that it is there.

    Returns:
        The folder with the lists.

    Raises:
        ValueError: When it is not there, with the way to get it.
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

    Args:
        corpus_dir: Holds train_split.txt, train_labels.txt, test_split.txt and feat/{train,test}/<utterance>.pt, or a
            folder libriphone with them.
        output: Folder of the cuts. Those of test have no phones, and the order of test_split.txt.
        num_jobs: Not used: there is little to do.
        options: How dev is cut.

    Raises:
        ValueError: When a file is not there or damaged, or an utterance has no labels or another number of them than
            of frames.
    """
    root, options = download_libriphone(corpus_dir), options or LibriPhoneOptions()
    print(LICENCE)
    train, test = (read_utterance_list(root / f"{part}_split.txt") for part in ("train", "test"))
    labels = read_cpc_labels(root / "train_labels.txt")
    if missing := [utterance for utterance in train if utterance not in labels]:
        raise ValueError(f"{root / 'train_labels.txt'}: has no line for utterance {missing[0]} of train_split.txt")
    dev = _dev(train, options)
    splits: dict[str, list[MonoCut]] = {"train": [], "dev": [], "test": []}
    for part, utterances in (("train", train), ("test", test)):
        for utterance in tqdm(utterances, desc=part, unit="utt", leave=False, disable=None):
            path = root / "feat" / part / f"{utterance}.pt"
            features = _read_features(path)
            if part == "train" and len(labels[utterance]) != len(features):
                raise ValueError(
                    f"{path}: has {len(features)} frames, train_labels.txt {len(labels[utterance])} classes"
                )
            split = "dev" if part == "train" and utterance in dev else part
            stored = output / "features" / part / f"{utterance}.npy"
            splits[split].append(_cut(utterance, features, labels[utterance] if part == "train" else None, stored))
    save_splits(output, splits, shared_speakers=True)


def _dev(utterances: Sequence[str], options: LibriPhoneOptions) -> set[str]:
    """The training utterances that become dev."""
    owners = [speaker_of(utterance) if options.dev == "speaker" else utterance for utterance in utterances]
    if len(set(owners)) < 2:
        raise ValueError(f"train_split.txt has one {options.dev}: too few to cut a dev set from")
    drawn = share_out(owners, {"dev": options.dev_share}, options.seed)
    return {utterance for utterance, owner in zip(utterances, owners, strict=True) if owner in drawn}


def _read_features(path: Path) -> np.ndarray:
    """(T, 39) float32, T >= 1."""
    if not path.is_file():
        raise ValueError(f"{path}: is missing: LibriPhone is incomplete")
    try:
        features = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of damaged bytes the unpickler may raise anything
        raise ValueError(f"{path}: is no tensor that torch.load can read safely, or damaged") from error
    if not isinstance(features, torch.Tensor):
        raise ValueError(f"{path}: holds no tensor")
    if features.ndim != 2 or features.shape[1] != FEATURE_DIM or features.dtype != torch.float32 or not len(features):
        raise ValueError(
            f"{path}: expected (T, {FEATURE_DIM}) torch.float32, found {tuple(features.shape)} {features.dtype}"
        )
    if not features.isfinite().all():
        raise ValueError(f"{path}: some features are NaN or infinite")
    return features.numpy()


def _cut(utterance: str, features: np.ndarray, labels: np.ndarray | None, stored: Path) -> MonoCut:
    """An utterance as a cut, its features stored. It lasts as long as the shortest audio with so many frames."""
    num_samples = Geometry().num_samples(len(features))
    duration = num_samples / SAMPLE_RATE
    with atomic_path(stored) as temporary:
        np.save(temporary, features)
    alignment = None if labels is None else {"phone": alignment_items(cpc_intervals(labels, num_samples))}
    return MonoCut(
        id=utterance,
        start=0.0,
        duration=duration,
        channel=0,
        supervisions=[
            SupervisionSegment(
                id=utterance,
                recording_id=utterance,
                start=0.0,
                duration=duration,
                speaker=speaker_of(utterance),
                alignment=alignment,
            )
        ],
        features=Features(
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
        ),
    )
