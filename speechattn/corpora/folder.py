"""Anybody's own recordings with phone alignments: folders of files, Kaldi's data folders, Lhotse's cuts.

docs/own_data.md has an example of each.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lhotse import MonoCut
from lhotse.utils import fastcopy

from speechattn.audio import SAMPLE_RATE, audio_info
from speechattn.corpora.kaldi_manifests import read_kaldi, read_table
from speechattn.corpora.matching import AlignmentTrack, Candidate, find_alignments, match, visible_files
from speechattn.cuts.manifest import (
    alignment_items,
    phone_intervals,
    read_cuts,
    save_rejected,
    save_splits,
    utterance_cut,
)
from speechattn.cuts.splits import split_cuts
from speechattn.jobs.atomic import save_text
from speechattn.jobs.processes import process_map
from speechattn.labels.files import SUFFIXES, read_alignments
from speechattn.labels.intervals import Interval, Segment
from speechattn.labels.textgrid import TIER
from speechattn.phones import read_phones

__all__ = ["FolderOptions", "phone_track", "prepare_folder"]

AUDIO_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".snd", ".sph", ".nist",
    ".caf", ".w64", ".rf64", ".voc",
)  # fmt: skip
PHONES_FILE = "phones.txt"
OVERSHOOT = 0.1  # seconds that phones may last longer than their audio; more is another recording, or another unit
KALDI_OVERSHOOT = 0.5  # seconds that a line of `segments` may, as in Kaldi's extract-segments
FILES_PER_PROCESS = 1000  # fewer are read before another process has started


@dataclass(frozen=True)
class FolderOptions:
    """Where recordings and phones lie, who speaks, and how to split.

    Args:
        audio: Folder of recordings, or a Kaldi data folder (one with wav.scp); default: the corpus folder.
        alignments: Folder of alignments, or one CTM file; default: the folder of the recordings.
        cuts: File of Lhotse cuts with phones, instead of folders.
        format: Only alignments with this suffix count: textgrid, ctm, phn, lab, txt (Audacity), json or csv.
        tier: Interval tier of the TextGrids that holds the phones.
        gap: Symbol of what no phone covers, and of empty intervals; default: neither trained on nor scored.
        channel: Which channel of recordings with several, counted from 0.
        speaker: Regular expression that finds the speaker (its group, or all of it) in a recording's path below
            the folder, or a file with lines `utterance speaker`; default: the first folder of that path.
        phones: File with all phones, a symbol a line; default: those that occur.
        dev: Share of the speech for dev, by speaker, or a file with an utterance or a speaker a line.
        test: Likewise for test.
        seed: Of the draw of speakers.

    Raises:
        ValueError: When options contradict each other, or one is out of its range.
    """

    audio: str | None = None
    alignments: str | None = None
    cuts: str | None = None
    format: str | None = None
    tier: str = TIER
    gap: str | None = None
    channel: int = 0
    speaker: str | None = None
    phones: str | None = None
    dev: float | str = 0.1
    test: float | str = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cuts is not None:
            for name in ("audio", "alignments", "format", "speaker"):
                if getattr(self, name) is not None:
                    raise ValueError(f"--cuts and --{name} exclude each other: cuts say it themselves")
        if self.format is not None and f".{self.format}" not in SUFFIXES:
            raise ValueError(f"format must be one of {' '.join(s[1:] for s in SUFFIXES)}, got {self.format!r}")
        if self.gap is not None and len(self.gap.split()) != 1:
            raise ValueError(f"gap must be a symbol without white space, got {self.gap!r}")
        if self.channel < 0:
            raise ValueError(f"channel must not be negative, got {self.channel}")
        for name, share in self.shares.items():
            if not 0 < share < 1:
                raise ValueError(f"{name} must be a share between 0 and 1, or a file, got {share}")
        if sum(self.shares.values()) >= 1:
            raise ValueError(f"dev and test take everything: {self.dev} and {self.test} leave no share to train on")
        if self.speaker is not None and not Path(self.speaker).is_file():
            try:
                re.compile(self.speaker)
            except re.error as error:
                raise ValueError(f"speaker is neither a file nor a regular expression: {error}") from error

    @property
    def shares(self) -> dict[str, float]:
        """Split -> its share, for splits that are drawn and not listed."""
        return {
            name: choice for name, choice in (("dev", self.dev), ("test", self.test)) if not isinstance(choice, str)
        }

    @property
    def sources(self) -> list[Path]:
        """The folders and files that the result depends on, beside the corpus folder."""
        named = (self.audio, self.alignments, self.cuts, self.speaker, self.phones, self.dev, self.test)
        return [Path(name) for name in named if isinstance(name, str) and Path(name).exists()]


def prepare_folder(
    corpus_dir: Path,
    output: Path,
    *,
    num_jobs: int = 1,
    options: FolderOptions = FolderOptions(),  # noqa: B008 (frozen)
) -> None:
    """Write the cuts of the three splits, phones.txt (the inventory) and rejected.tsv: what was left out, and why.

    Args:
        corpus_dir: Holds recordings and alignments where the options do not say otherwise.
        output: Folder of the cuts.
        num_jobs: Processes that read files.
        options: Where things lie, and how to split.

    Raises:
        ValueError: When a file is damaged, the match of recordings and alignments is ambiguous, nothing is left,
            a phone is not in the inventory given, or the split is not possible; names the file.
    """
    cuts: list[MonoCut] = []
    rejected: list[tuple[str, str]] = []
    known: set[str] = set()
    found = _from_cuts(Path(options.cuts), options) if options.cuts else _from_files(corpus_dir, num_jobs, options)
    for name, speaker, result in found:
        known |= {name, speaker}
        if isinstance(result, str):
            rejected.append((name, result))
        else:
            cuts.append(result)
    if not cuts:
        reason = f"; {rejected[0][0]}: {rejected[0][1]}" if rejected else ""
        raise ValueError(f"no utterance has both audio and phones{reason}")
    phones = _inventory(cuts, options.phones)
    splits = split_cuts(cuts, dev=options.dev, test=options.test, seed=options.seed, known=known)
    save_splits(output, splits)
    save_text(output / PHONES_FILE, "".join(f"{symbol}\n" for symbol in phones))
    unheard = sorted(set(phones) - _symbols(splits["train"]))
    print(f"phones: {len(phones)}" + (f", not in train: {' '.join(unheard)}" if unheard else ""))
    if not options.cuts and (several := sum(cut.recording.num_channels > 1 for cut in cuts)):
        print(f"{several} recordings have several channels: taken is {options.channel}")
    save_rejected(output / "rejected.tsv", rejected)


def _symbols(cuts: Iterable[MonoCut]) -> set[str]:
    return {item.symbol for cut in cuts for item in cut.supervisions[0].alignment["phone"]}


def _inventory(cuts: Sequence[MonoCut], path: str | None) -> Sequence[str]:
    """The phones of a file, checked against those that occur; without a file, those that occur."""
    if path is None:
        return sorted(_symbols(cuts))
    phones = read_phones(path)
    for cut in cuts:
        if odd := sorted(_symbols([cut]) - set(phones)):
            raise ValueError(f"utterance {cut.id}: phone {odd[0]!r} is not in {path}")
    return phones


Found = Iterator[tuple[str, str, MonoCut | str]]  # utterance, speaker, and the cut or why there is none


def _from_files(corpus_dir: Path, num_jobs: int, options: FolderOptions) -> Found:
    """Utterances of a folder of recordings, or of a Kaldi data folder."""
    folder = Path(options.audio) if options.audio else corpus_dir
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; --audio names the one of your recordings")
    root = Path(options.alignments) if options.alignments else folder
    if not root.exists():
        raise ValueError(f"{root}: no such folder or file of alignments")
    if (folder / "wav.scp").is_file():
        if options.speaker:
            raise ValueError(f"{folder}: a Kaldi data folder says who speaks in utt2spk, and takes no --speaker")
        candidates = read_kaldi(folder)
    else:
        candidates = _recordings(folder, options.speaker)
    matched, left = match(candidates, find_alignments(root, options.format))
    with_phones = [(candidate, matched[candidate.id]) for candidate in candidates if candidate.id in matched]
    for candidate in candidates:
        if candidate.id not in matched:
            yield candidate.id, candidate.speaker, f"no alignment for {candidate.audio}"
    with process_map(min(num_jobs, len(with_phones) // FILES_PER_PROCESS), chunksize=100) as run:
        results = run(partial(_labelled, options=options), with_phones)
        for (candidate, _), result in zip(with_phones, results, strict=True):
            yield candidate.id, candidate.speaker, result
    for alignment in left:
        name = alignment.utterance or alignment.path or ""
        yield name, "", f"no recording for the alignment {alignment}"


def _recordings(folder: Path, speaker: str | None) -> list[Candidate]:
    """The audio files below a folder, each an utterance."""
    table = read_table(Path(speaker)) if speaker and Path(speaker).is_file() else None
    candidates: dict[str, Candidate] = {}
    for audio in visible_files(folder, AUDIO_SUFFIXES):
        path = audio.relative_to(folder).with_suffix("").as_posix()
        name = path.replace("/", "-")
        if table is not None:
            who = next((table[key] for key in (name, path, audio.stem) if key in table), None)
            if who is None:
                raise ValueError(f"{speaker}: has no line for utterance {name} ({audio})")
        else:
            who = _speaker(audio, path, speaker)
        first = candidates.setdefault(name, Candidate(name, audio, who, path))
        if first.audio != audio:
            raise ValueError(f"{first.audio} and {audio} would both be utterance {name}; keep one, or rename it")
    if not candidates:
        raise ValueError(f"{folder}: holds no audio; files that end in {' '.join(AUDIO_SUFFIXES)} are looked for")
    return list(candidates.values())


def _speaker(audio: Path, path: str, pattern: str | None) -> str:
    if pattern is None:
        folder, *below = path.split("/")
        if not below:
            raise ValueError(f"{audio}: lies in no speaker's folder; say by --speaker where the speaker's name stands")
        return folder
    found = re.search(pattern, path)
    who = found and found[1 if found.re.groups else 0]
    if not who:
        raise ValueError(f"{audio}: --speaker {pattern!r} finds no speaker in {path!r}")
    return who


def _labelled(job: tuple[Candidate, AlignmentTrack], options: FolderOptions) -> MonoCut | str:
    """An utterance as a cut with phones; a text: why it is left out."""
    candidate, alignment = job
    if not candidate.audio.exists():
        return f"no such file: {candidate.audio}"
    info = audio_info(candidate.audio)
    if options.channel >= info.num_channels:
        raise ValueError(f"{candidate.audio}: there is no channel {options.channel}; it has {info.num_channels}")
    length = info.num_samples / info.sample_rate
    end = length if candidate.end is None else candidate.end
    if candidate.start >= length or end > length + KALDI_OVERSHOOT:
        return f"lasts from {candidate.start} to {end} s, {candidate.audio} only to {length} s"
    # Whole samples of the file, so that what is read is what is counted.
    start, end = (round(time * info.sample_rate) / info.sample_rate for time in (candidate.start, min(end, length)))
    segments = alignment.segments
    if segments is None:
        (segments,) = read_alignments(alignment.file, tier=options.tier, sample_rate=info.sample_rate).values()
    try:
        intervals = phone_track(segments, end - start, gap=options.gap)
    except ValueError as error:
        return f"{alignment}: {error}"
    cut = utterance_cut(
        candidate.id, candidate.audio, speaker=candidate.speaker, text=candidate.text, intervals=intervals
    )
    (supervision,) = cut.supervisions
    supervision = fastcopy(supervision, duration=end - start, channel=options.channel)
    cut = fastcopy(cut, start=start, duration=end - start, channel=options.channel, supervisions=[supervision])
    return cut.resample(SAMPLE_RATE)


def _from_cuts(path: Path, options: FolderOptions) -> Found:
    """Utterances of a file of Lhotse cuts."""
    taken: set[str] = set()
    for cut in read_cuts(path):
        if cut.id in taken:
            raise ValueError(f"{path}: has two cuts with the id {cut.id}")
        taken.add(cut.id)
        speaker = cut.supervisions[0].speaker if cut.supervisions else None
        if not speaker:
            raise ValueError(f"{path}: cut {cut.id} does not say who speaks")
        if not cut.has_recording:
            raise ValueError(f"{path}: cut {cut.id} has features, but no recording")
        try:
            phones = phone_intervals(cut)
            segments = [Segment(phone, start / SAMPLE_RATE, end / SAMPLE_RATE) for start, end, phone in phones]
            intervals = phone_track(segments, cut.duration, gap=options.gap)
        except ValueError as error:
            yield cut.id, speaker, str(error)
            continue
        supervision = fastcopy(cut.supervisions[0], alignment={"phone": alignment_items(intervals)})
        yield cut.id, speaker, fastcopy(cut, supervisions=[supervision]).resample(SAMPLE_RATE)


def phone_track(segments: Iterable[Segment], duration: float, *, gap: str | None = None) -> list[Interval]:
    """Segments as the phones of a cut.

    Symbols are stripped and brought to Unicode's composed form (NFC), so that an accented letter is one symbol
    whichever way it was typed.

    Args:
        segments: In order of time, in seconds; a phone "" is an empty interval.
        duration: Of the utterance, in seconds.
        gap: Symbol of what no phone covers; None: no interval there.

    Returns:
        Intervals in samples at 16 kHz that end with the utterance; what is shorter than a sample is gone.

    Raises:
        ValueError: When there is no phone, one holds white space or overlaps the next, or they last more than
            0.1 s longer than the utterance.
    """
    limit = round(duration * SAMPLE_RATE)
    intervals: list[Interval] = []
    time, last = 0, 0.0
    for phone, start, end, _ in segments:
        symbol = unicodedata.normalize("NFC", phone.strip())
        last = max(last, end)
        if not symbol:
            continue
        if len(symbol.split()) > 1:
            raise ValueError(f"label {symbol!r} at {start} s has white space, as no phone has")
        first, stop = round(start * SAMPLE_RATE), min(round(end * SAMPLE_RATE), limit)
        if stop <= first:
            continue
        if first < time:
            raise ValueError(f"phone {symbol!r} at {start} s overlaps the one before it")
        if gap is not None and first > time:
            intervals.append(Interval(time, first, gap))
        intervals.append(Interval(first, stop, symbol))
        time = stop
    if not intervals:
        raise ValueError("holds no phone")
    if last > duration + OVERSHOOT:
        raise ValueError(f"lasts {last} s, the audio only {duration} s")
    if gap is not None and time < limit:
        intervals.append(Interval(time, limit, gap))
    return intervals
