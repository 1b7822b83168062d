"""The TIMIT sample that NLTK distributes: 16 speakers, 160 utterances, phones labelled by hand.

All 16 are training speakers of the full corpus, so there is no official test set: dialect regions 1-5 train,
6 is dev, 7 and 8 are test. The two SA sentences, which everybody reads, stay out of dev and test.
"""

from __future__ import annotations

from pathlib import Path

from speechattn.alignment import Interval
from speechattn.audio import audio_info
from speechattn.corpora.download import Archive, download_archive, unpacked
from speechattn.corpora.manifest import save_splits, utterance_cut

__all__ = ["download_timit_sample", "prepare_timit_sample"]

ARCHIVE = Archive(
    url="https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/timit.zip",
    mirror_path="nltk_data/packages/corpora/timit.zip",
    root="timit",
    landmark="dr1-fvmh0",
    md5="34c047c4749a811287f2c652104d7849",
)
LICENCE = "TIMIT sample: copyright 1993 Linguistic Data Consortium; CC BY-NC-SA (non-commercial), see its README"
NUM_UTTERANCES = 160
SPLIT_OF_DIALECT = dict.fromkeys(("dr1", "dr2", "dr3", "dr4", "dr5"), "train") | {
    "dr6": "dev",
    "dr7": "test",
    "dr8": "test",
}


def download_timit_sample(corpus_dir: Path, mirror: str | None = None) -> Path:
    """Fetch and unpack what is missing below `corpus_dir`; returns the corpus's root."""
    return download_archive(ARCHIVE, corpus_dir, mirror)


def prepare_timit_sample(corpus_dir: Path, output: Path) -> None:
    """Write the cuts of the three splits, with TIMIT's own 61 symbols.

    Args:
        corpus_dir: Holds timit.zip or its unpacked folder, or is that folder.
        output: Folder of the cuts.

    Raises:
        ValueError: When the corpus is not there, incomplete, or a label file cannot be read.
    """
    root = unpacked(ARCHIVE, corpus_dir)
    print(LICENCE)
    audio_paths = sorted(root.glob("dr[1-8]-*/*.wav"))
    if len(audio_paths) != NUM_UTTERANCES:
        raise ValueError(f"{root}: has {len(audio_paths)} utterances, not {NUM_UTTERANCES}: incomplete?")
    splits: dict[str, list] = {"train": [], "dev": [], "test": []}
    for audio_path in audio_paths:
        dialect, speaker = audio_path.parent.name.split("-")
        split = SPLIT_OF_DIALECT[dialect]
        if split == "train" or not audio_path.stem.startswith("sa"):
            cut = utterance_cut(
                f"{speaker}-{audio_path.stem}",
                audio_path,
                speaker=speaker,
                text=_read(audio_path.with_suffix(".txt")).split(maxsplit=2)[2].strip(),
                intervals=_hand_labels(audio_path),
            )
            splits[split].append(cut)
    save_splits(output, splits)


def _hand_labels(audio_path: Path) -> list[Interval]:
    """The phones of an utterance. The last one is extended, or cut, to the end of the audio."""
    path = audio_path.with_suffix(".phn")
    intervals = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        try:
            start, end, symbol = line.split()
            intervals.append(Interval(int(start), int(end), symbol))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: expected `start end phone`, found {line!r}") from error
    if not intervals:
        raise ValueError(f"{path}: has no labels")
    intervals[-1] = intervals[-1]._replace(end=audio_info(audio_path).num_samples)
    return intervals


def _read(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path}: is missing: the TIMIT sample is incomplete")
    return path.read_text(encoding="utf-8")
