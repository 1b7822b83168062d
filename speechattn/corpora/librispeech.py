"""LibriSpeech (OpenSLR 12) and mini LibriSpeech (OpenSLR 31): books read aloud, 1000 hours.

The corpus has transcripts but no phone times. They come from the TextGrids or the CPC labels that others published (see
`librispeech_labels`), or from forced alignment of our own. See Panayotov et al., "LibriSpeech: an ASR corpus based on
public domain audio books", 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lhotse import MonoCut
from tqdm import tqdm

from speechattn.alignment.aligner import Alignment, Utterance, align_each
from speechattn.alignment.cuts import save_word_sources
from speechattn.alignment.lexicon import find_pronunciations
from speechattn.alignment.pocketsphinx_engine import PocketSphinxEngine
from speechattn.assets import asset_lines
from speechattn.audio import audio_info
from speechattn.corpora.download.fetch import RemoteFile, download_archive, fetch, unpacked
from speechattn.corpora.librispeech_archives import CPC_LABELS, CPC_TEST_LIST, CPC_TRAIN_LIST, MFA, SUBSETS
from speechattn.corpora.librispeech_labels import (
    cpc_intervals,
    cpc_split,
    find_textgrids,
    mfa_intervals,
    read_cpc_labels,
    read_utterance_list,
    speaker_of,
)
from speechattn.cuts.manifest import save_rejected, save_splits, utterance_cut
from speechattn.cuts.splits import share_out
from speechattn.jobs.processes import process_map
from speechattn.labels.intervals import Interval
from speechattn.labels.line_files import read_text

__all__ = ["LibriSpeechOptions", "download_librispeech", "prepare_librispeech"]

LICENCE = "LibriSpeech: CC BY 4.0, https://www.openslr.org/12 (mini LibriSpeech: https://www.openslr.org/31)"
LICENCE_OF_LABELS = {
    "mfa": "; its TextGrids: Lugosch et al., CC BY 4.0, https://doi.org/10.5281/zenodo.2619474",
    "cpc": "; its CPC labels: van den Oord et al. 2018, as https://github.com/s3prl/s3prl distributes them",
    "align": "",
}
SPN_RULES = ("ignore", "keep")
SPLIT_RULES = ("published", "speaker")
CPC_SUBSET = "train-clean-100"
MINI_SUBSET = "train-clean-5"
DEFAULT_SUBSETS = {
    "cpc": (CPC_SUBSET,),
    "mfa": (CPC_SUBSET, "dev-clean", "test-clean"),
    "align": (CPC_SUBSET, "dev-clean", "test-clean"),
}
SPEAKER_SHARES = {"dev": 0.08, "test": 0.2}  # of the utterances, as in the published CPC split
SEED = 0
WORTH_A_PROCESS = 1000  # utterances; starting one takes seconds


@dataclass(frozen=True)
class LibriSpeechOptions:
    """What of LibriSpeech to take, and whose phones.

    Args:
        subsets: Separated by commas: train-clean-100, train-clean-360, train-other-500, dev-clean, dev-other,
            test-clean, test-other, and of mini LibriSpeech train-clean-5, dev-clean-2. Default: train-clean-100,
            dev-clean and test-clean; for cpc train-clean-100. Without a dev subset, four speakers of train-clean-5 are
            dev. Without a test subset, the dev speakers are split into dev and test.
        labels: mfa: TextGrids of the Montreal Forced Aligner; cpc: the 41 numbered classes of the CPC papers, for
            train-clean-100; align: forced alignment of the transcripts here.
        spn: ignore or keep: whether speech without a pronunciation is left unlabelled, or labelled SPN. The classes of
            cpc have no names: all are kept.
        split: For cpc: published, whose test utterances are by speakers that are also trained on, or speaker, which
            takes the same utterances and puts each speaker in one split.

    Raises:
        ValueError: When there is no such subset or choice, or cpc is asked of another subset.
    """

    subsets: str | list[str] = ""
    labels: str = "mfa"
    spn: str = "ignore"
    split: str = "published"

    def __post_init__(self) -> None:
        for name, choices in (("labels", tuple(LICENCE_OF_LABELS)), ("spn", SPN_RULES), ("split", SPLIT_RULES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        given = self.subsets.split(",") if isinstance(self.subsets, str) else self.subsets
        names = [name.strip() for name in given if name.strip()] or list(DEFAULT_SUBSETS[self.labels])
        for name in names:
            if name not in SUBSETS:
                raise ValueError(f"subsets: no {name!r} in LibriSpeech; there are {', '.join(SUBSETS)}")
        if self.labels == "cpc" and set(names) != {CPC_SUBSET}:
            raise ValueError(f"labels=cpc exist for {CPC_SUBSET} only, got subsets {', '.join(names)}")
        if self.labels != "cpc" and self.split != "published":
            raise ValueError(f"split={self.split} is for labels=cpc; subsets of LibriSpeech never share speakers")
        object.__setattr__(self, "subsets", list(dict.fromkeys(names)))


class _Utterance(NamedTuple):
    """A line of a transcript file, and its audio."""

    id: str
    audio: Path
    text: str
    subset: str

    @property
    def speaker(self) -> str:
        return speaker_of(self.id)


Labeller = Callable[[int], Sequence[Interval]]
"""Number of samples -> phones of one utterance; ValueError when they do not fit."""


def download_librispeech(
    corpus_dir: Path, mirror: str | None = None, *, options: LibriSpeechOptions | None = None
) -> None:
    """Fetch and unpack what is missing of the subsets, and of the labels, below `corpus_dir`.

    Raises:
        ValueError: What cannot be fetched or is damaged, see `download_archive`.
    """
    options = options or LibriSpeechOptions()
    for subset in options.subsets:
        download_archive(SUBSETS[subset].archive, corpus_dir, mirror)
    if options.labels == "mfa":
        download_archive(MFA, corpus_dir, mirror)
    elif options.labels == "cpc":
        for file in (CPC_LABELS, CPC_TRAIN_LIST, CPC_TEST_LIST):
            fetch(file, corpus_dir / file.name, mirror)


def prepare_librispeech(
    corpus_dir: Path, output: Path, *, num_jobs: int = 1, options: LibriSpeechOptions | None = None
) -> None:
    """Write the cuts of the three splits, and rejected.tsv: what has no phones, and why.

    Args:
        corpus_dir: Holds the archives of the subsets and of the labels, or what they unpack to.
        output: Folder of the cuts.
        num_jobs: Processes.
        options: Which subsets, whose phones.

    Raises:
        ValueError: When something of the corpus is not there, is incomplete or damaged, or CPC labels do not fit.
    """
    options = options or LibriSpeechOptions()
    roots = {subset: unpacked(SUBSETS[subset].archive, corpus_dir) / subset for subset in options.subsets}
    print(LICENCE + LICENCE_OF_LABELS[options.labels])
    utterances = [utterance for subset, folder in roots.items() for utterance in _read_subset(subset, folder)]
    if len({utterance.id for utterance in utterances}) != len(utterances):
        raise ValueError(f"two of the subsets {', '.join(roots)} have utterances in common: one is a part of the other")
    split_of = _splits(utterances, options, corpus_dir)
    listed = [utterance for utterance in utterances if utterance.id in split_of]
    rejected = [(u.id, u.subset, "in neither list of the split") for u in utterances if u.id not in split_of]
    work_file = output / "align.work.jsonl"
    labellers, unlabelled = (
        _align(listed, output, work_file, num_jobs)
        if options.labels == "align"
        else _find_labels(listed, options.labels, corpus_dir)
    )
    results: dict[str, MonoCut | str] = dict(unlabelled)
    jobs = [(utterance, labellers[utterance.id]) for utterance in listed if utterance.id in labellers]
    with process_map(min(num_jobs, len(jobs) // WORTH_A_PROCESS), chunksize=64) as run:
        made = run(partial(_cut, keep_spn=options.spn == "keep"), jobs)
        bar = tqdm(made, total=len(jobs), desc="librispeech", unit="utt", disable=None)
        results |= {utterance.id: cut for (utterance, _), cut in zip(jobs, bar, strict=True)}

    splits: dict[str, list[MonoCut]] = {"train": [], "dev": [], "test": []}
    for utterance in listed:
        result = results[utterance.id]
        if not isinstance(result, str):
            splits[split_of[utterance.id]].append(result)
        elif options.labels == "cpc":  # a figure on a part of the published split would compare with nothing
            raise ValueError(f"utterance {utterance.id}: {result}")
        else:
            rejected.append((utterance.id, split_of[utterance.id], result))
    save_splits(output, splits, shared_speakers=options.labels == "cpc" and options.split == "published")
    save_rejected(output / "rejected.tsv", rejected)
    work_file.unlink(missing_ok=True)


def _read_subset(subset: str, folder: Path) -> list[_Utterance]:
    """The utterances of a subset, by their transcripts: SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt."""
    utterances: list[_Utterance] = []
    for table in sorted(folder.glob("*/*/*.trans.txt")):
        audio = {path.stem: path for path in table.parent.glob("*.flac")}
        for number, line in enumerate(read_text(table).splitlines(), 1):
            name, _, text = line.partition(" ")
            if not text.strip() or name.count("-") != 2:
                raise ValueError(f"{table}:{number}: expected an utterance and its words, found {line!r}")
            if name not in audio:
                raise ValueError(f"{table.parent / name}.flac: is missing, or transcribed twice: {subset} is damaged")
            utterances.append(_Utterance(name, audio.pop(name), text.strip(), subset))
        if audio:
            raise ValueError(f"{table}: has no line for utterance {min(audio)}: {subset} is damaged")
    if len(utterances) != (published := SUBSETS[subset].num_utterances):
        print(f"{subset}: {len(utterances):,} utterances; the published subset has {published:,}")
    return utterances


def _splits(utterances: Sequence[_Utterance], options: LibriSpeechOptions, corpus_dir: Path) -> dict[str, str]:
    """Utterance id -> its split; those that belong to none are left out."""
    if options.labels == "cpc":
        return _cpc_splits(utterances, options.split, corpus_dir)
    split_of = {utterance.id: utterance.subset.split("-")[0] for utterance in utterances}
    if "dev" not in split_of.values():
        speakers = {line.split()[0] for line in asset_lines("train_clean_5_dev_speakers.txt")}
        dev = [
            utterance for utterance in utterances if utterance.subset == MINI_SUBSET and utterance.speaker in speakers
        ]
        split_of |= {utterance.id: "dev" for utterance in dev}
    if "dev" not in split_of.values():
        raise ValueError(f"subsets {', '.join(options.subsets)} leave dev empty; add dev-clean, for example")
    if "test" not in split_of.values():
        dev = [utterance for utterance in utterances if split_of[utterance.id] == "dev"]
        drawn = share_out([utterance.speaker for utterance in dev], {"test": 0.5}, SEED)
        print(f"no test set among {', '.join(options.subsets)}: the dev speakers are split into dev and test")
        split_of |= {utterance.id: drawn.get(utterance.speaker, "dev") for utterance in dev}
    return split_of


def _cpc_splits(utterances: Sequence[_Utterance], rule: str, corpus_dir: Path) -> dict[str, str]:
    """The published split, or its utterances by speaker."""
    train_list, test_list = (read_utterance_list(_local(file, corpus_dir)) for file in (CPC_TRAIN_LIST, CPC_TEST_LIST))
    split_of = cpc_split(train_list, test_list)
    missing = sorted(split_of.keys() - {utterance.id for utterance in utterances})
    if missing:
        raise ValueError(f"{len(missing)} utterances of the CPC split are not in {CPC_SUBSET}, such as {missing[0]}")
    if rule == "published":
        return split_of
    speakers = {utterance.id: utterance.speaker for utterance in utterances if utterance.id in split_of}
    drawn = share_out(speakers.values(), SPEAKER_SHARES, SEED)
    return {name: drawn.get(speaker, "train") for name, speaker in speakers.items()}


def _local(file: RemoteFile, corpus_dir: Path) -> Path:
    """A file that has been fetched."""
    path = corpus_dir / file.name
    if not path.is_file():
        raise ValueError(f"{path}: is missing; add --download, or put there what {file.urls[0]} gives")
    return path


def _find_labels(
    utterances: Sequence[_Utterance], labels: str, corpus_dir: Path
) -> tuple[dict[str, Labeller], dict[str, str]]:
    """Utterance id -> what makes its phones of published labels; and the reasons of those that have none."""
    found: dict[str, Labeller]
    if labels == "mfa":
        textgrids = find_textgrids(unpacked(MFA, corpus_dir))
        found, reason = {name: partial(mfa_intervals, path) for name, path in textgrids.items()}, "has no TextGrid"
    else:
        classes = read_cpc_labels(_local(CPC_LABELS, corpus_dir))
        found, reason = {name: partial(cpc_intervals, values) for name, values in classes.items()}, "has no CPC labels"
    return found, {utterance.id: reason for utterance in utterances if utterance.id not in found}


def _align(
    utterances: Sequence[_Utterance], output: Path, work_file: Path, num_jobs: int
) -> tuple[dict[str, Labeller], dict[str, str]]:
    """The same by forced alignment here."""
    lexicon, sources = find_pronunciations(utterance.text for utterance in utterances)
    save_word_sources(output / "words.tsv", sources)
    to_align = [Utterance(utterance.id, utterance.audio, utterance.text) for utterance in utterances]
    alignments = align_each(to_align, lexicon, PocketSphinxEngine(), num_jobs=num_jobs, work_file=work_file)
    pairs = [(utterance.id, alignment) for utterance, alignment in zip(utterances, alignments, strict=True)]
    return (
        {name: partial(_intervals, alignment) for name, alignment in pairs if alignment.reason is None},
        {name: alignment.reason for name, alignment in pairs if alignment.reason is not None},
    )


def _intervals(alignment: Alignment, num_samples: int) -> Sequence[Interval]:
    return alignment.intervals


def _cut(job: tuple[_Utterance, Labeller], *, keep_spn: bool) -> MonoCut | str:
    """The cut of an utterance, or the reason why it has no phones."""
    utterance, labeller = job
    num_samples = audio_info(utterance.audio).num_samples  # damaged audio is an error, not a rejection
    try:
        intervals = labeller(num_samples)
    except ValueError as error:
        return str(error)
    return utterance_cut(
        utterance.id,
        utterance.audio,
        speaker=utterance.speaker,
        text=utterance.text,
        intervals=[interval for interval in intervals if keep_spn or interval.symbol != "SPN"],
    )
