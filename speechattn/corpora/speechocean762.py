"""speechocean762 (OpenSLR 101): English read by 250 Mandarin speakers, half of them children.

The corpus has transcripts and a lexicon but no phone times: they come from forced alignment. Train and test
are the official split; dev is 12 of the training speakers, a fixed list in the package's assets. See Zhang et
al., "speechocean762: An Open-Source Non-native English Speech Corpus For Pronunciation Assessment", 2021.
"""

from __future__ import annotations

from pathlib import Path

from speechattn.alignment.aligner import Utterance, align_each
from speechattn.alignment.lexicon import read_lexicon
from speechattn.alignment.pocketsphinx_engine import PocketSphinxEngine
from speechattn.assets import asset_lines
from speechattn.corpora.download.fetch import Archive, download_archive, openslr_urls, unpacked
from speechattn.corpora.kaldi_manifests import read_table
from speechattn.cuts.manifest import save_rejected, save_splits, utterance_cut

__all__ = ["download_speechocean762", "prepare_speechocean762"]

ARCHIVE = Archive(  # OpenSLR publishes no checksum
    urls=openslr_urls("101/speechocean762.tar.gz"),
    mirror_path="openslr/101/speechocean762.tar.gz",
    root="speechocean762",
    landmark="train/wav.scp",
    unpacked_factor=1.3,
)
LICENCE = "speechocean762: free for commercial and non-commercial use (Apache-2.0), https://www.openslr.org/101"


def download_speechocean762(corpus_dir: Path, mirror: str | None = None) -> Path:
    """Fetch and unpack what is missing below `corpus_dir`; returns the corpus's root."""
    return download_archive(ARCHIVE, corpus_dir, mirror)


def prepare_speechocean762(corpus_dir: Path, output: Path, *, num_jobs: int = 1) -> None:
    """Align the corpus; write the cuts of the three splits, and rejected.tsv: what has no alignment, and why.

    Args:
        corpus_dir: Holds speechocean762.tar.gz or its unpacked folder, or is that folder.
        output: Folder of the cuts.
        num_jobs: Processes for the alignment.

    Raises:
        ValueError: When the corpus is not there, or a file of it is missing or cannot be read.
    """
    root = unpacked(ARCHIVE, corpus_dir)
    print(LICENCE)
    dev_speakers = _dev_speakers()
    utterances: list[Utterance] = []
    speaker_of: dict[str, str] = {}
    split_of: dict[str, str] = {}
    for part in ("train", "test"):
        # Not every file of the audio folder belongs to the corpus: wav.scp tells.
        audio, text, speakers = (read_table(root / part / name) for name in ("wav.scp", "text", "utt2spk"))
        for name, table in (("text", text), ("utt2spk", speakers)):
            if missing := sorted(audio.keys() - table.keys()):
                raise ValueError(f"{root / part / name}: has no line for utterance {missing[0]} of wav.scp")
        for utterance_id, path in audio.items():
            utterances.append(Utterance(utterance_id, root / path, text[utterance_id]))
            in_dev = part == "train" and speakers[utterance_id] in dev_speakers
            split_of[utterance_id] = "dev" if in_dev else part
        speaker_of |= speakers
    for utterance in utterances:
        if not utterance.audio.is_file():
            raise ValueError(f"{utterance.audio}: is missing: speechocean762 is incomplete")

    lexicon = read_lexicon(root / "resource" / "lexicon.txt")
    alignments = align_each(utterances, lexicon, PocketSphinxEngine(), num_jobs=num_jobs)
    splits: dict[str, list] = {"train": [], "dev": [], "test": []}
    rejected = []
    for utterance, alignment in zip(utterances, alignments, strict=True):
        if alignment.reason is not None:
            rejected.append((utterance.id, split_of[utterance.id], alignment.reason))
        else:
            cut = utterance_cut(
                utterance.id,
                utterance.audio,
                speaker=speaker_of[utterance.id],
                text=utterance.text,
                intervals=alignment.intervals,
            )
            splits[split_of[utterance.id]].append(cut)
    save_splits(output, splits)
    save_rejected(output / "rejected.tsv", rejected)


def _dev_speakers() -> set[str]:
    """The training speakers that are dev."""
    return {line.split()[0] for line in asset_lines("speechocean762_dev_speakers.txt")}
