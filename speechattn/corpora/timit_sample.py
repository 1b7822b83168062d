"""The TIMIT sample that NLTK distributes: 16 speakers, 160 utterances, phones labelled by hand.

All are training speakers of the full corpus, so there is no official test set: dialect regions 1 to 5 are train, 6 is
dev, 7 and 8 are test. The two SA sentences, which everybody reads, are left out of dev and test.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from lhotse import MonoCut

from speechattn.corpora.download.fetch import Archive, download_archive, unpack_archive
from speechattn.corpora.timit import timit_cut
from speechattn.cuts.files import SPLITS, save_cuts, save_splits
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
SPLIT_OF_DIALECT = {"dr6": "dev", "dr7": "test", "dr8": "test"}  # others: train
WAV_HEADER_BYTES = 44


def download_timit_sample(corpus_dir: Path, mirror: str | None = None) -> Path:
    """Download and unpack what is missing; return the corpus's root."""
    return download_archive(ARCHIVE, corpus_dir, mirror)


def prepare_timit_sample(corpus_dir: Path, output: Path, *, num_jobs: int = 1) -> None:
    """Write the cuts of the three splits, with TIMIT's 61 symbols, and all.jsonl.gz with all 160 utterances.

    `corpus_dir` holds timit.zip or its unpacked folder, or is that folder. For the rest see `prepare_corpus`.

    Raises:
        ValueError: When the corpus is missing or incomplete, or a label file cannot be read.
    """
    root = unpack_archive(ARCHIVE, corpus_dir)
    print(LICENCE)
    audio_files = sorted(root.glob("dr[1-8]-*/*.wav"))
    if len(audio_files) != NUM_UTTERANCES:
        raise ValueError(f"{root}: has {len(audio_files)} utterances, not {NUM_UTTERANCES}: incomplete?")
    if _converted_as_text(audio_files):
        log.warning(
            "%s: byte 13 occurs in none of the recordings: this copy went through a conversion of line ends, which "
            "turns parts of some recordings into noise; scores on it differ from those on the original",
            root,
        )
    splits: dict[str, list[MonoCut]] = {split: [] for split in SPLITS}
    cuts: list[MonoCut] = []
    for audio in audio_files:
        dialect, speaker = audio.parent.name.split("-")
        cut = timit_cut(speaker, *(audio.with_suffix(suffix) for suffix in (".wav", ".phn", ".txt")))
        cuts.append(cut)
        split = SPLIT_OF_DIALECT.get(dialect, "train")
        if split == "train" or not audio.stem.startswith("sa"):
            splits[split].append(cut)
    phones = Counter(item.symbol for cut in cuts for item in cut.supervisions[0].alignment["phone"])
    minutes, frames = sum(cut.duration for cut in cuts) / 60, sum(num_frames(cut.num_samples) for cut in cuts)
    print(
        f"{root}: {len(cuts)} utterances, {minutes:.2f} min, {frames:,} frames, {phones.total():,} phones of "
        f"{len(phones)} kinds; SA sentences are left out of dev and test"
    )
    save_splits(output, splits)
    save_cuts(output / "all.jsonl.gz", cuts)


def _converted_as_text(paths: Iterable[Path]) -> bool:
    """Whether a tool converted the audio as if it were text: CR LF to LF, and every other CR to LF."""
    contents = [path.read_bytes()[WAV_HEADER_BYTES:] for path in paths]
    return any(b"\n" in content for content in contents) and not any(b"\r" in content for content in contents)
