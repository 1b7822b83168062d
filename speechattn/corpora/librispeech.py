"""LibriSpeech (OpenSLR 12) and mini LibriSpeech (OpenSLR 31): books read aloud, 1000 hours.

The corpus has transcripts but no phone times. They come from published TextGrids or CPC labels (see
`librispeech_labels`), or from forced alignment here. See Panayotov et al., "LibriSpeech: an ASR corpus based on public
domain audio books", 2015.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lhotse import MonoCut
from tqdm import tqdm

from speechattn.alignment.aligner import Alignment, Utterance, align_each
from speechattn.alignment.cuts import save_word_sources
from speechattn.alignment.lexicon import find_pronunciations
from speechattn.alignment.pocketsphinx_engine import PocketSphinxEngine
from speechattn.assets import asset_lines
from speechattn.audio import audio_info
from speechattn.corpora.download.fetch import RemoteFile, download_archive, fetch, unpack_archive
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
from speechattn.cuts.files import SPLITS, save_rejected, save_splits, utterance_cut
from speechattn.cuts.splits import draw_by_utterances
from speechattn.jobs.processes import process_map
from speechattn.jobs.text import read_text
from speechattn.labels.intervals import Interval

__all__ = ["LibriSpeechOptions", "download_librispeech", "prepare_librispeech"]

LICENCE = "LibriSpeech: CC BY 4.0, https://www.openslr.org/12 (mini LibriSpeech: https://www.openslr.org/31)"
LICENCE_OF_LABELS = {
    "mfa": "; its TextGrids: Lugosch et al., CC BY 4.0, https://doi.org/10.5281/zenodo.2619474",
    "cpc": "; its CPC labels: van den Oord et al. 2018, as https://github.com/s3prl/s3prl distributes them",
    "align": "",
}
CHOICES = {"labels": tuple(LICENCE_OF_LABELS), "spn": ("ignore", "keep"), "split": ("published", "speaker")}
CPC_SUBSET = "train-clean-100"
MINI_SUBSET = "train-clean-5"
SPEAKER_SHARES = {"dev": 0.08, "test": 0.2}  # of the utterances, as in the published CPC split
SEED = 0
UTTERANCES_PER_PROCESS = 1000  # fewer are prepared before another process has started

Labeller = Callable[[int], Sequence[Interval]]
"""Number of samples -> phones of one utterance; ValueError when they do not fit."""


@dataclass(frozen=True)
class LibriSpeechOptions:
    """Which parts of LibriSpeech to prepare, and with which labels.

    Args:
        subsets: Separated by commas: train-clean-100, train-clean-360, train-other-500, dev-clean, dev-other,
            test-clean, test-other, and of mini LibriSpeech train-clean-5, dev-clean-2. Default: train-clean-100,
            dev-clean and test-clean; for cpc train-clean-100. Without a dev subset, four speakers of train-clean-5 are
            dev. Without a test subset, the dev speakers are split into dev and test.
        labels: mfa: TextGrids by the Montreal Forced Aligner; cpc: the 41 numbered classes of the CPC papers, for
            train-clean-100; align: forced alignment of the transcripts here.
        spn: Speech without a pronunciation: ignore leaves it unlabelled, keep labels it SPN. The classes of cpc have no
            names: all are kept.
        split: For cpc: published, whose test speakers are also in train; or speaker, which divides the same utterances
            so that each speaker is in one split.

    Raises:
        ValueError: When there is no such subset or choice, or the choices do not go together.
    """

    subsets: str | list[str] = ""
    labels: str = "mfa"
    spn: str = "ignore"
    split: str = "published"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        default = [CPC_SUBSET] if self.labels == "cpc" else [CPC_SUBSET, "dev-clean", "test-clean"]
        subsets = self.subsets.split(",") if isinstance(self.subsets, str) else self.subsets
        names = [name.strip() for name in subsets if name.strip()] or default
        for name in names:
            if name not in SUBSETS:
                raise ValueError(f"subsets: no {name!r} in LibriSpeech; there are {', '.join(SUBSETS)}")
        if self.labels == "cpc" and set(names) != {CPC_SUBSET}:
            raise ValueError(f"labels=cpc exist for {CPC_SUBSET} only, got subsets {', '.join(names)}")
        if self.labels != "cpc" and self.split != "published":
            raise ValueError(f"split={self.split} is for labels=cpc; subsets of LibriSpeech never share speakers")
        object.__setattr__(self, "subsets", list(dict.fromkeys(names)))


OPTIONS = LibriSpeechOptions


def download_librispeech(
    corpus_dir: Path, mirror: str | None = None, *, options: LibriSpeechOptions | None = None
) -> None:
    """Download and unpack what is missing of the subsets and the labels.

    Raises:
        ValueError: When something cannot be downloaded or is damaged, see `download_archive`.
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
    """Write the cuts of the three splits, and rejected.tsv: utterances without phones, and why.

    `corpus_dir` holds the archives of subsets and labels, or their content. For the rest see `prepare_corpus`.

    Raises:
        ValueError: When the corpus or its labels are missing, incomplete or damaged, or CPC labels do not fit.
    """
    options = options or LibriSpeechOptions()
    folders = {subset: unpack_archive(SUBSETS[subset].archive, corpus_dir) / subset for subset in options.subsets}
    print(LICENCE + LICENCE_OF_LABELS[options.labels])
    utterances: list[Utterance] = []
    subset_of: dict[str, str] = {}
    for subset, folder in folders.items():
        found = _read_subset(subset, folder)
        utterances += found
        subset_of |= {utterance.id: subset for utterance in found}
    if len(subset_of) != len(utterances):
        raise ValueError(f"two of the subsets {', '.join(folders)} have utterances in common: one is part of the other")
    split_of = _splits(subset_of, options, corpus_dir)
    rejected = [
        (name, subset, "in neither list of the split") for name, subset in subset_of.items() if name not in split_of
    ]
    utterances = [utterance for utterance in utterances if utterance.id in split_of]
    journal = output / "align.work.jsonl"
    if options.labels == "align":
        train = [split_of[utterance.id] == "train" for utterance in utterances]
        labels = _align(utterances, train, output, journal, num_jobs)
    else:
        labels = _published_labels(options.labels, corpus_dir)

    splits: dict[str, list[MonoCut]] = {split: [] for split in SPLITS}
    missing = f"has no {'CPC labels' if options.labels == 'cpc' else 'TextGrid'}"
    jobs = [(utterance, labels.get(utterance.id, missing)) for utterance in utterances]
    with process_map(min(num_jobs, len(jobs) // UTTERANCES_PER_PROCESS), chunksize=64) as run:
        cuts = run(partial(_cut, keep_spn=options.spn == "keep"), jobs)
        progress = tqdm(cuts, total=len(jobs), desc="librispeech", unit="utt", disable=None)
        for utterance, cut in zip(utterances, progress, strict=True):
            if not isinstance(cut, str):
                splits[split_of[utterance.id]].append(cut)
            elif options.labels == "cpc":  # scores on part of the published split are not comparable
                raise ValueError(f"utterance {utterance.id}: {cut}")
            else:
                rejected.append((utterance.id, split_of[utterance.id], cut))
    save_splits(output, splits, shared_speakers=options.labels == "cpc" and options.split == "published")
    save_rejected(output / "rejected.tsv", rejected)
    journal.unlink(missing_ok=True)


def _read_subset(subset: str, folder: Path) -> list[Utterance]:
    """The utterances in the transcripts of a subset, SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt."""
    utterances: list[Utterance] = []
    for table in sorted(folder.glob("*/*/*.trans.txt")):
        audio = {path.stem: path for path in table.parent.glob("*.flac")}
        for number, line in enumerate(read_text(table).splitlines(), 1):
            name, _, text = line.partition(" ")
            if not text.strip() or name.count("-") != 2:
                raise ValueError(f"{table}:{number}: expected an utterance and its words, found {line!r}")
            if name not in audio:
                raise ValueError(f"{table.parent / name}.flac: is missing, or transcribed twice: {subset} is damaged")
            utterances.append(Utterance(name, audio.pop(name), text.strip()))
        if audio:
            raise ValueError(f"{table}: has no line for utterance {min(audio)}: {subset} is damaged")
    if len(utterances) != (published := SUBSETS[subset].num_utterances):
        print(f"{subset}: {len(utterances):,} utterances; the published subset has {published:,}")
    return utterances


def _splits(subset_of: Mapping[str, str], options: LibriSpeechOptions, corpus_dir: Path) -> dict[str, str]:
    """Utterance id -> split, from utterance id -> subset; utterances outside the CPC split are left out."""
    if options.labels == "cpc":
        return _cpc_splits(subset_of, options.split, corpus_dir)
    split_of = {name: subset.split("-")[0] for name, subset in subset_of.items()}
    if "dev" not in split_of.values():
        dev_speakers = {line.split()[0] for line in asset_lines("train_clean_5_dev_speakers.txt")}
        for name, subset in subset_of.items():
            if subset == MINI_SUBSET and speaker_of(name) in dev_speakers:
                split_of[name] = "dev"
    if "dev" not in split_of.values():
        raise ValueError(f"subsets {', '.join(options.subsets)} leave dev empty; add dev-clean, for example")
    if "test" not in split_of.values():
        dev = [name for name, split in split_of.items() if split == "dev"]
        drawn = draw_by_utterances([speaker_of(name) for name in dev], {"test": 0.5}, SEED)
        print(f"no test set among {', '.join(options.subsets)}: the dev speakers are split into dev and test")
        split_of |= {name: drawn.get(speaker_of(name), "dev") for name in dev}
    return split_of


def _cpc_splits(utterances: Collection[str], rule: str, corpus_dir: Path) -> dict[str, str]:
    """The published split, or its utterances divided by speaker."""
    lists = [read_utterance_list(_downloaded(file, corpus_dir)) for file in (CPC_TRAIN_LIST, CPC_TEST_LIST)]
    split_of = cpc_split(*lists)
    if missing := sorted(split_of.keys() - set(utterances)):
        raise ValueError(f"{len(missing)} utterances of the CPC split are not in {CPC_SUBSET}, such as {missing[0]}")
    if rule == "published":
        return split_of
    drawn = draw_by_utterances([speaker_of(name) for name in split_of], SPEAKER_SHARES, SEED)
    return {name: drawn.get(speaker_of(name), "train") for name in split_of}


def _downloaded(file: RemoteFile, corpus_dir: Path) -> Path:
    path = corpus_dir / file.name
    if not path.is_file():
        raise ValueError(f"{path}: is missing; add --download, or put the file from {file.urls[0]} there")
    return path


def _published_labels(labels: str, corpus_dir: Path) -> dict[str, Labeller | str]:
    """Utterance id -> its labeller."""
    if labels == "mfa":
        textgrids = find_textgrids(unpack_archive(MFA, corpus_dir))
        return {name: partial(mfa_intervals, path) for name, path in textgrids.items()}
    classes = read_cpc_labels(_downloaded(CPC_LABELS, corpus_dir))
    return {name: partial(cpc_intervals, values) for name, values in classes.items()}


def _align(
    utterances: Sequence[Utterance], train: Sequence[bool], output: Path, journal: Path, num_jobs: int
) -> dict[str, Labeller | str]:
    """Utterance id -> its labeller, or the reason why it has no alignment."""
    lexicon, sources = find_pronunciations(utterance.text for utterance in utterances)
    save_word_sources(output / "words.tsv", sources)
    engine = PocketSphinxEngine()
    alignments = align_each(utterances, lexicon, engine, num_jobs=num_jobs, journal=journal, train=train)
    return {
        utterance.id: alignment.reason or partial(_aligned_intervals, alignment)
        for utterance, alignment in zip(utterances, alignments, strict=True)
    }


def _aligned_intervals(alignment: Alignment, num_samples: int) -> Sequence[Interval]:
    return alignment.intervals


def _cut(job: tuple[Utterance, Labeller | str], *, keep_spn: bool) -> MonoCut | str:
    """The cut of an utterance, or the reason why it has no phones."""
    (name, audio, text, _), labeller = job
    if isinstance(labeller, str):
        return labeller
    num_samples = audio_info(audio).num_samples  # damaged audio is an error, not a reason to reject
    try:
        intervals = [i for i in labeller(num_samples) if keep_spn or i.symbol != "SPN"]
    except ValueError as error:
        return str(error)
    return utterance_cut(name, audio, speaker=speaker_of(name), text=text, intervals=intervals)
