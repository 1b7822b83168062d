"""speechocean762 (OpenSLR 101): English read by 250 Mandarin speakers, half of them children.

The corpus has transcripts and a lexicon but no phone times: they come from forced alignment. Train and test are the
official split; dev is 12 of the training speakers, listed in the assets. See Zhang et al., "speechocean762: An
Open-Source Non-native English Speech Corpus For Pronunciation Assessment", 2021.
"""

from pathlib import Path

from lhotse import MonoCut

from speechattn.alignment.aligner import Utterance, align_each
from speechattn.alignment.lexicon import read_lexicon
from speechattn.alignment.pocketsphinx_engine import PocketSphinxEngine
from speechattn.assets import asset_lines
from speechattn.corpora.download.fetch import Archive, download_archive, openslr_urls, unpack_archive
from speechattn.corpora.kaldi_manifests import read_table
from speechattn.cuts.files import SPLITS, save_rejected, save_splits, utterance_cut

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
    """Download and unpack what is missing; return the corpus's root."""
    return download_archive(ARCHIVE, corpus_dir, mirror)


def prepare_speechocean762(corpus_dir: Path, output: Path, *, num_jobs: int = 1) -> None:
    """Align the corpus; write the cuts of the three splits, and rejected.tsv: utterances without alignment, and why.

    `corpus_dir` holds speechocean762.tar.gz or its unpacked folder, or is that folder. For the rest see
    `prepare_corpus`.

    Raises:
        ValueError: When the corpus is missing or incomplete, or a file cannot be read.
    """
    root = unpack_archive(ARCHIVE, corpus_dir)
    print(LICENCE)
    dev_speakers = _dev_speakers()
    utterances: list[Utterance] = []
    speaker_and_split: list[tuple[str, str]] = []
    for part in ("train", "test"):
        # The audio folder has other files too: wav.scp lists those of the corpus.
        audio, text, speakers = (read_table(root / part / name) for name in ("wav.scp", "text", "utt2spk"))
        for name, table in (("text", text), ("utt2spk", speakers)):
            if missing := sorted(audio.keys() - table.keys()):
                raise ValueError(f"{root / part / name}: has no line for utterance {missing[0]} of wav.scp")
        for name, path in audio.items():
            if not (root / path).is_file():
                raise ValueError(f"{root / path}: is missing: speechocean762 is incomplete")
            utterances.append(Utterance(name, root / path, text[name]))
            in_dev = part == "train" and speakers[name] in dev_speakers
            speaker_and_split.append((speakers[name], "dev" if in_dev else part))

    for split in SPLITS:
        if all(other != split for _, other in speaker_and_split):
            raise ValueError(f"{root}: the {split} split would have no utterance: speechocean762 is incomplete")
    lexicon = read_lexicon(root / "resource" / "lexicon.txt")
    train = [split == "train" for _, split in speaker_and_split]
    journal = output / "align.work.jsonl"  # to resume an interrupted preparation
    engine = PocketSphinxEngine()
    alignments = align_each(utterances, lexicon, engine, num_jobs=num_jobs, journal=journal, train=train)
    splits: dict[str, list[MonoCut]] = {split: [] for split in SPLITS}
    rejected = []
    for utterance, (speaker, split), alignment in zip(utterances, speaker_and_split, alignments, strict=True):
        if alignment.reason is not None:
            rejected.append((utterance.id, split, alignment.reason))
            continue
        cut = utterance_cut(
            utterance.id, utterance.audio, speaker=speaker, text=utterance.text, intervals=alignment.intervals
        )
        splits[split].append(cut)
    save_splits(output, splits)
    save_rejected(output / "rejected.tsv", rejected)
    journal.unlink()


def _dev_speakers() -> set[str]:
    return {line.split()[0] for line in asset_lines("speechocean762_dev_speakers.txt")}
