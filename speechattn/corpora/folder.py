"""The user's own recordings with phone alignments: folders of files, Kaldi data folders, or Lhotse cuts.

See docs/own_data.md for an example of each.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import soundfile
from lhotse import MonoCut
from lhotse.utils import fastcopy

from speechattn.audio import SAMPLE_RATE, audio_info, find_audio, read_audio, seeks_exactly
from speechattn.corpora.kaldi_manifests import read_kaldi, read_table
from speechattn.corpora.matching import AlignmentSource, UnlabelledUtterance, find_alignments, match
from speechattn.cuts.files import (
    phone_intervals,
    read_cuts,
    save_rejected,
    save_splits,
    utterance_cut,
    with_phones,
    with_supervision,
)
from speechattn.cuts.model_inputs import check_coverage
from speechattn.cuts.splits import split_cuts
from speechattn.geometry import Geometry
from speechattn.jobs.atomic import atomic_path, save_text
from speechattn.jobs.processes import process_map
from speechattn.jobs.text import read_text
from speechattn.labels.files import SUFFIXES, read_alignments
from speechattn.labels.intervals import Interval, Segment
from speechattn.labels.line_files import HTK_UNITS
from speechattn.labels.textgrid import TIER
from speechattn.labels.units import check_units
from speechattn.phones import read_phones

__all__ = ["FolderOptions", "phone_track", "prepare_folder"]

MAX_OVERSHOOT_S = 0.1  # of phones beyond the audio's end; more suggests another recording or time unit
MAX_SEGMENT_OVERSHOOT_S = 0.5  # of a line of `segments`, as in Kaldi's extract-segments
COPIES = "audio"  # folder, below the output, of recordings that Lhotse could not read exactly
FILES_PER_PROCESS = 1000  # fewer are read before another process has started

Result = tuple[str, str, MonoCut | str]  # utterance, speaker, and the cut or the reason why there is none


@dataclass(frozen=True)
class FolderOptions:
    """Where recordings and phones are, who speaks, and how to split.

    Args:
        audio: Folder of recordings, or a Kaldi data folder (one with wav.scp); default: the corpus folder.
        alignments: Folder of alignments, or one CTM file; default: the folder of the recordings.
        cuts: File of Lhotse cuts with phones, instead of folders.
        format: Use only alignments with this suffix: textgrid, ctm, phn, lab, txt (Audacity), json or csv.
        tier: Interval tier of the TextGrids that holds the phones.
        gap: Symbol for gaps between phones and for empty intervals; default: neither trained on nor scored.
        channel: Channel to use of recordings with several, counted from 0; default: the mean of all.
        ctm_channel: Channel to use of utterances that have phones on several channels in a CTM file, such as A.
        label_rate: Units per second of whole-number times in .phn and .lab files, such as 16000 for samples at 16 kHz;
            default: the audio's sample rate for .phn, HTK's 10,000,000 for .lab.
        speaker: Regular expression that matches the speaker (its group, or the whole match) in a recording's path below
            the folder, or a file with lines `utterance speaker`; default: the first folder of that path.
        phones: File with all phones, one symbol per line; default: the phones that occur.
        dev: Share of the speech for dev, by speaker, or a file with one utterance or speaker per line.
        test: Likewise for test.
        seed: Seed of the draw of speakers.

    Raises:
        ValueError: When options contradict each other, or one is out of its range.
    """

    audio: str | None = None
    alignments: str | None = None
    cuts: str | None = None
    format: str | None = None
    tier: str = TIER
    gap: str | None = None
    channel: int | None = None
    ctm_channel: str | None = None
    label_rate: float | None = None
    speaker: str | None = None
    phones: str | None = None
    dev: float | str = 0.1
    test: float | str = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cuts is not None:
            for name in ("audio", "alignments", "format", "speaker"):
                if getattr(self, name) is not None:
                    raise ValueError(f"--cuts and --{name} exclude each other: the cuts contain this")
        if self.format is not None and f".{self.format}" not in SUFFIXES:
            raise ValueError(f"format must be one of {' '.join(s[1:] for s in SUFFIXES)}, got {self.format!r}")
        if self.gap is not None and len(self.gap.split()) != 1:
            raise ValueError(f"gap must be a symbol without white space, got {self.gap!r}")
        if self.channel is not None and self.channel < 0:
            raise ValueError(f"channel must not be negative, got {self.channel}")
        if self.label_rate is not None and self.label_rate <= 0:
            raise ValueError(f"label_rate must be positive, got {self.label_rate}")
        shares = {name: share for name, share in (("dev", self.dev), ("test", self.test)) if not isinstance(share, str)}
        for name, share in shares.items():
            if not 0 < share < 1:
                raise ValueError(f"{name} must be a share between 0 and 1, or a file, got {share}")
        if sum(shares.values()) >= 1:
            raise ValueError(f"dev and test take everything: {self.dev} and {self.test} leave no share to train on")
        if self.speaker is not None and not Path(self.speaker).is_file():
            try:
                re.compile(self.speaker)
            except re.error as error:
                raise ValueError(f"speaker is neither a file nor a regular expression: {error}") from error

    @property
    def sources(self) -> list[Path]:
        """The folders and files that the result depends on, apart from the corpus folder."""
        names = (self.audio, self.alignments, self.cuts, self.speaker, self.phones, self.dev, self.test)
        return [Path(name) for name in names if isinstance(name, str) and Path(name).exists()]


OPTIONS = FolderOptions


def prepare_folder(corpus_dir: Path, output: Path, *, num_jobs: int = 1, options: FolderOptions | None = None) -> None:
    """Write the cuts of the three splits, phones.txt (the inventory) and rejected.tsv: what was left out, and why.

    `corpus_dir` holds recordings and alignments unless the options name other places. For the rest see
    `prepare_corpus`.

    Raises:
        ValueError: When a file is damaged, recordings and alignments do not match uniquely, nothing is left, a phone is
            not in the inventory, or the split is impossible; names the file.
    """
    options = options or FolderOptions()
    cuts: list[MonoCut] = []
    rejected: list[tuple[str, str]] = []
    names: set[str] = set()  # all utterances and speakers
    copies = output / COPIES
    if options.cuts:
        results = _from_cuts(Path(options.cuts), options, copies)
    else:
        results = _from_files(corpus_dir, num_jobs, options, copies)
    for name, speaker, result in results:
        names |= {name, speaker}
        if isinstance(result, str):
            rejected.append((name, result))
        else:
            cuts.append(result)
    if not cuts:
        reason = f"; {rejected[0][0]}: {rejected[0][1]}" if rejected else ""
        raise ValueError(f"no utterance has both audio and phones{reason}")
    phones = _inventory(cuts, options.phones)
    splits = split_cuts(cuts, dev=options.dev, test=options.test, seed=options.seed, allowed=names)
    save_splits(output, splits)
    save_text(output / "phones.txt", "".join(f"{symbol}\n" for symbol in phones))
    untrained = sorted(set(phones) - _symbols(splits["train"]))
    print(f"phones: {len(phones)}" + (f", not in train: {' '.join(untrained)}" if untrained else ""))
    if not options.cuts and (count := sum(cut.recording.num_channels > 1 for cut in cuts)):
        print(f"{count} recordings have several channels: channel {options.channel} is used")
    if count := sum(copies in Path(cut.recording.sources[0].source).parents for cut in cuts):
        print(f"{count} recordings are copied to {copies} as FLAC, for exact access or as the mean of their channels")
    save_rejected(output / "rejected.tsv", rejected)


def _symbols(cuts: Iterable[MonoCut]) -> set[str]:
    return {item.symbol for cut in cuts for item in cut.supervisions[0].alignment["phone"]}


def _inventory(cuts: Sequence[MonoCut], path: str | None) -> Sequence[str]:
    """The phones in a file, which must include those of the cuts; without a file, those of the cuts."""
    if path is None:
        return sorted(_symbols(cuts))
    phones = read_phones(path)
    for cut in cuts:
        if missing := sorted(_symbols([cut]) - set(phones)):
            raise ValueError(f"utterance {cut.id}: phone {missing[0]!r} is not in {path}")
    return phones


def _from_files(corpus_dir: Path, num_jobs: int, options: FolderOptions, copies: Path) -> Iterator[Result]:
    """Utterances from a folder of recordings, or from a Kaldi data folder."""
    folder = Path(options.audio) if options.audio else corpus_dir
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; --audio names the one of your recordings")
    root = Path(options.alignments) if options.alignments else folder
    if not root.exists():
        raise ValueError(f"{root}: no such folder or file of alignments")
    if (folder / "wav.scp").is_file():
        if options.speaker:
            raise ValueError(f"{folder}: a Kaldi data folder names the speakers in utt2spk, and takes no --speaker")
        utterances = read_kaldi(folder)
    else:
        utterances = _recordings(folder, options.speaker)
    matched, left = match(utterances, find_alignments(root, options.format, ctm_channel=options.ctm_channel))
    jobs = [(utterance, matched[utterance.id]) for utterance in utterances if utterance.id in matched]
    for utterance in utterances:
        if utterance.id not in matched:
            yield utterance.id, utterance.speaker, f"no alignment for {utterance.audio}"
    with process_map(min(num_jobs, len(jobs) // FILES_PER_PROCESS), chunksize=100) as run:
        results = run(partial(_labelled, options=options, copies=copies), jobs)
        for (utterance, _), result in zip(jobs, results, strict=True):
            yield utterance.id, utterance.speaker, result
    for alignment in left:
        yield alignment.utterance or alignment.path or "", "", f"no recording for the alignment {alignment}"


def _recordings(folder: Path, speaker: str | None) -> list[UnlabelledUtterance]:
    """The audio files below a folder, each one an utterance."""
    table = read_table(Path(speaker)) if speaker and Path(speaker).is_file() else None
    utterances: dict[str, UnlabelledUtterance] = {}
    for audio in find_audio(folder, expected=SUFFIXES):
        path = unicodedata.normalize("NFC", audio.relative_to(folder).with_suffix("").as_posix())
        name = path.replace("/", "-")
        if table is None:
            speaker_name = _speaker(audio, path, speaker)
        elif keys := [key for key in (name, path, path.rsplit("/", 1)[-1]) if key in table]:
            speaker_name = table[keys[0]]
        else:
            raise ValueError(f"{speaker}: has no line for utterance {name} ({audio})")
        first = utterances.setdefault(name, UnlabelledUtterance(name, audio, speaker_name, path))
        if first.audio != audio:
            raise ValueError(f"{first.audio} and {audio} would both be utterance {name}; keep one, or rename it")
    return list(utterances.values())


def _speaker(audio: Path, path: str, pattern: str | None) -> str:
    if pattern is None:
        folder, _, below = path.partition("/")
        if not below:
            raise ValueError(
                f"{audio}: is not in a speaker's folder: --speaker PATTERN finds the speaker in {path!r}, "
                "such as --speaker '^[^_-]+' for the part before the first _ or -"
            )
        return folder
    found = re.search(pattern, path)
    speaker = found and found[1 if found.re.groups else 0]
    if not speaker:
        raise ValueError(f"{audio}: --speaker {pattern!r} finds no speaker in {path!r}")
    return speaker


def _labelled(job: tuple[UnlabelledUtterance, AlignmentSource], options: FolderOptions, copies: Path) -> MonoCut | str:
    """An utterance as a cut with phones, or the reason why it is left out."""
    utterance, alignment = job
    if not utterance.audio.exists():
        return f"no such file: {utterance.audio}"
    info = audio_info(utterance.audio)
    if options.channel is not None and options.channel >= info.num_channels:
        raise ValueError(f"{utterance.audio}: there is no channel {options.channel}; it has {info.num_channels}")
    length = info.num_samples / info.sample_rate
    end = length if utterance.end is None else utterance.end
    if utterance.start >= length or end > length + MAX_SEGMENT_OVERSHOOT_S:
        return f"goes from {utterance.start} to {end} s, but {utterance.audio} ends at {length} s"
    # Rounded to samples of the file, so that Lhotse reads as many as it counts.
    start, end = (round(time * info.sample_rate) / info.sample_rate for time in (utterance.start, min(end, length)))
    segments, suffix = alignment.segments, alignment.file.suffix.lower()
    if segments is None:
        (segments,) = read_alignments(
            alignment.file, tier=options.tier, sample_rate=info.sample_rate, label_rate=options.label_rate
        ).values()
    try:
        whole = suffix == ".phn" or (suffix == ".lab" and not re.search(r"\d\.", read_text(alignment.file)))
        if whole and options.label_rate is None:
            check_units(segments, info.sample_rate if suffix == ".phn" else HTK_UNITS, length)
        intervals = phone_track(segments, end - start, gap=options.gap)
    except ValueError as error:
        return f"{alignment}: {error}"
    name, speaker, text = utterance.id, utterance.speaker, utterance.text
    if seeks_exactly(utterance.audio) and (info.num_channels == 1 or options.channel is not None):
        channel = options.channel or 0
        cut = utterance_cut(name, utterance.audio, speaker=speaker, text=text)
        cut = fastcopy(with_supervision(cut, channel=channel), start=start, duration=end - start, channel=channel)
        cut = with_phones(cut, intervals, duration=end - start)
    else:
        first, last = (round(time * info.sample_rate) for time in (start, end))
        copy = _copy(utterance.audio, options.channel, first, last, copies / f"{name}.flac")
        cut = utterance_cut(name, copy, speaker=speaker, text=text, intervals=intervals)
    check_coverage(cut, Geometry())
    return cut.resample(SAMPLE_RATE)


def _copy(audio: Path, channel: int | None, first: int, last: int, copy: Path) -> Path:
    """Write samples of a recording, decoded from its start, as one channel of FLAC."""
    samples, rate = _decoded(audio, channel)
    with atomic_path(copy) as temporary:
        soundfile.write(temporary, samples[first:last], rate, format="FLAC", subtype="PCM_24")
    return copy


@lru_cache(maxsize=1)  # the utterances of a recording follow each other
def _decoded(audio: Path, channel: int | None) -> tuple[np.ndarray, int]:
    return read_audio(audio, channel=channel)


def _from_cuts(path: Path, options: FolderOptions, copies: Path) -> Iterator[Result]:
    """Utterances from a file of Lhotse cuts."""
    names: set[str] = set()
    for cut in read_cuts(path):
        if cut.id in names:
            raise ValueError(f"{path}: has two cuts with the id {cut.id}")
        names.add(cut.id)
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
        source = cut.recording.sources[0]
        if source.type == "file" and not seeks_exactly(Path(source.source)):
            first = round(cut.start * cut.recording.sampling_rate)
            copy = _copy(Path(source.source), cut.channel, first, first + cut.num_samples, copies / f"{cut.id}.flac")
            text = cut.supervisions[0].text or ""
            cut = utterance_cut(cut.id, copy, speaker=speaker, text=text, intervals=intervals)
        else:
            cut = with_phones(cut, intervals)
        check_coverage(cut, Geometry())
        yield cut.id, speaker, cut.resample(SAMPLE_RATE)


def phone_track(segments: Sequence[Segment], duration: float, *, gap: str | None = None) -> list[Interval]:
    """Check segments and convert them to the phones of a cut.

    Symbols are stripped and converted to Unicode's composed form (NFC), so that equal-looking letters are equal.

    Args:
        segments: In order of time, in seconds; a phone "" is an empty interval.
        duration: Of the utterance, in seconds.
        gap: Symbol for gaps between phones; None: no interval there.

    Returns:
        Intervals in samples at 16 kHz that end with the utterance; those shorter than a sample are dropped.

    Raises:
        ValueError: When there is no phone, one contains white space or overlaps the next, or they end more than 0.1 s
            after the utterance.
    """
    limit = round(duration * SAMPLE_RATE)
    intervals: list[Interval] = []
    position, last_end = 0, max((segment.end for segment in segments), default=0.0)
    if last_end > duration + MAX_OVERSHOOT_S:
        raise ValueError(f"ends at {last_end} s, but the audio at {duration} s")
    for phone, start_s, end_s, _ in segments:
        symbol = unicodedata.normalize("NFC", phone.strip())
        if not symbol:
            continue
        if len(symbol.split()) > 1:
            raise ValueError(f"label {symbol!r} at {start_s} s contains white space, which a phone must not")
        start, end = round(start_s * SAMPLE_RATE), min(round(end_s * SAMPLE_RATE), limit)
        if start >= limit:
            raise ValueError(f"phone {symbol!r} begins at {start_s:g} s, after the end of the audio at {duration:g} s")
        if end <= start:
            continue
        if start < position:
            raise ValueError(f"phone {symbol!r} at {start_s} s overlaps the one before it")
        if gap is not None and start > position:
            intervals.append(Interval(position, start, gap))
        intervals.append(Interval(start, end, symbol))
        position = end
    if not intervals:
        raise ValueError("holds no phone")
    if gap is not None and position < limit:
        intervals.append(Interval(position, limit, gap))
    return intervals
