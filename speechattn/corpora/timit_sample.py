"""The TIMIT sample that NLTK distributes: 16 speakers, 160 utterances, phones labelled by hand.

All 16 are training speakers of the full corpus, so there is no official test set: dialect regions 1-5 train,
6 is dev, 7 and 8 are test. The two SA sentences, which everybody reads, stay out of dev and test.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from lhotse import MonoCut

from speechattn.corpora.download.fetch import Archive, download_archive, unpacked
from speechattn.corpora.timit import timit_cut
from speechattn.cuts.manifest import save_cuts, save_splits
from speechattn.geometry import num_frames

__all__ = ["download_timit_sample", "prepare_timit_sample"]

log = logging.getLogger("speechattn")

ARCHIVE = Archive(
    urls=("https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/timit.zip",),
    mirror_path="nltk_data/packages/corpora/timit.zip",
    size=22_251_869,
    md5="34c047c4749a811287f2c652104d7849",
    root="timit",
    landmark="dr1-fvmh0",
    unpacked_factor=1.5,
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


def prepare_timit_sample(corpus_dir: Path, output: Path, *, num_jobs: int = 1) -> None:
    """Write the cuts of the three splits, and all.jsonl.gz with all 160 utterances; with TIMIT's own 61 symbols.

    Args:
        corpus_dir: Holds timit.zip or its unpacked folder, or is that folder.
        output: Folder of the cuts.
        num_jobs: Not used: there is little to do.

    Raises:
        ValueError: When the corpus is not there, incomplete, or a label file cannot be read.
    """
    root = unpacked(ARCHIVE, corpus_dir)
    print(LICENCE)
    audio_paths = sorted(root.glob("dr[1-8]-*/*.wav"))
    if len(audio_paths) != NUM_UTTERANCES:
        raise ValueError(f"{root}: has {len(audio_paths)} utterances, not {NUM_UTTERANCES}: incomplete?")
    if _converted_as_text(audio_paths):
        log.warning(
            "%s: byte 13 occurs in none of the recordings: this copy went through a conversion of line ends, which "
            "turns parts of some recordings to noise; figures on it are not those of the original",
            root,
        )
    splits: dict[str, list[MonoCut]] = {"train": [], "dev": [], "test": []}
    everything: list[MonoCut] = []
    phones: Counter[str] = Counter()
    seconds, frames = 0.0, 0
    for audio_path in audio_paths:
        dialect, speaker = audio_path.parent.name.split("-")
        cut = timit_cut(speaker, *(audio_path.with_suffix(suffix) for suffix in (".wav", ".phn", ".txt")))
        phones.update(item.symbol for item in cut.supervisions[0].alignment["phone"])
        seconds, frames = seconds + cut.duration, frames + num_frames(cut.num_samples)
        everything.append(cut)
        split = SPLIT_OF_DIALECT[dialect]
        if split == "train" or not audio_path.stem.startswith("sa"):
            splits[split].append(cut)
    print(
        f"{root}: {len(audio_paths)} utterances, {seconds / 60:.2f} min, {frames:,} frames, {phones.total():,} phones "
        f"of {len(phones)} kinds; SA sentences are left out of dev and test"
    )
    save_splits(output, splits)
    save_cuts(output / "all.jsonl.gz", everything)


def _converted_as_text(paths: Iterable[Path]) -> bool:
    """Whether a tool took the audio for text: CR LF became LF, a byte less, and each other CR another LF."""
    contents = [path.read_bytes()[44:] for path in paths]  # behind the header
    return any(b"\n" in content for content in contents) and not any(b"\r" in content for content in contents)
