"""Files of Lhotse cuts: one utterance as a cut, reading cuts, and writing the splits of a prepared corpus.

A cut is an audio file, or a part of one, with one supervision: text, speaker, and the phones in `alignment["phone"]`.
Lhotse stores seconds from the start of the recording; `phone_intervals` converts them to exact samples of the cut.
"""

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.serialization import deserialize_item
from lhotse.supervision import AlignmentItem
from lhotse.utils import fastcopy

from speechattn.audio import SAMPLE_RATE, audio_info
from speechattn.cuts.packed import packed
from speechattn.geometry import num_frames
from speechattn.jobs.atomic import atomic_path, save_text
from speechattn.jobs.text import has_byte_order_mark, numbered_lines
from speechattn.labels.intervals import Interval

__all__ = [
    "SPLITS",
    "alignment_items",
    "phone_intervals",
    "read_cuts",
    "recording_file",
    "save_cuts",
    "save_rejected",
    "save_splits",
    "speaker_in_train",
    "utterance_cut",
    "with_phones",
    "with_supervision",
]

SPLITS = ("train", "dev", "test")


def utterance_cut(
    utterance_id: str, audio: Path, *, speaker: str, text: str, intervals: Iterable[Interval] | None = None
) -> MonoCut:
    """One audio file as a cut.

    Args:
        utterance_id: Unique within the corpus.
        audio: The file; its first channel is used. Stored as an absolute path.
        speaker: The speaker's name.
        text: The transcript.
        intervals: The phones, in samples at 16 kHz; None if unknown.

    Raises:
        ValueError: When the file is missing or is not audio (an `AudioError`); names it.
    """
    info = audio_info(audio)
    duration = info.num_samples / info.sample_rate
    source = AudioSource("file", list(range(info.num_channels)), str(audio.resolve()))
    recording = Recording(utterance_id, [source], info.sample_rate, info.num_samples, duration)
    alignment = None if intervals is None else {"phone": alignment_items(intervals)}
    supervision = SupervisionSegment(
        utterance_id, utterance_id, 0.0, duration, text=text, speaker=speaker, alignment=alignment
    )
    return MonoCut(utterance_id, 0.0, duration, channel=0, supervisions=[supervision], recording=recording)


def read_cuts(path: str | Path) -> CutSet:
    """Load a file of Lhotse cuts into memory.

    Raises:
        ValueError: When there is no such file, it does not hold cuts, or a cut has neither audio nor features; names
            the line.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file of cuts")
    try:
        if has_byte_order_mark(path):
            found = CutSet.from_dicts(json.loads(line) for _, line in numbered_lines(path, compose=False))
        else:
            found = CutSet.from_file(path)
        cuts = CutSet.from_cuts(packed(cut) for cut in found)
    except Exception as error:  # gzip, JSON and Lhotse raise anything
        raise ValueError(f"{path}{_fault(path)} (Lhotse cuts, .jsonl or .jsonl.gz, are expected)") from error
    if len(cuts) == 0:
        raise ValueError(f"{path} holds no cuts")
    for cut in cuts:
        if not all(isinstance(time, int | float) for time in (cut.start, cut.duration)):
            raise ValueError(f"{path}: cut {cut.id}: start and duration must be numbers")
        has_source = isinstance(cut, MonoCut) and (cut.has_features or (cut.has_recording and cut.recording.sources))
        if not has_source:
            raise ValueError(f"{path}: cut {cut.id} is not a single-channel cut with a recording or features")
    return cuts


def _fault(path: str | Path) -> str:
    """Where and why a file cannot be read as cuts, as the end of a message."""
    number = 0
    try:
        with gzip.open(path, "rb") if str(path).endswith(".gz") else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    deserialize_item(json.loads(line))
                except json.JSONDecodeError as error:
                    return f":{number}: not JSON: {error.msg}"
                except Exception as error:  # of Lhotse: often the names of missing fields
                    return f":{number}: not a cut: {str(error).rpartition('() ')[2]}"
    except (OSError, EOFError) as error:
        return f":{number + 1}: cannot be read: {error}"
    return ": holds something else than cuts"


def recording_file(cut: MonoCut) -> Path:
    """The audio file of a cut that spans a whole file; `cut.channel` is the channel to use.

    Raises:
        ValueError: When the cut has no recording, is only part of it, or is not exactly one file; names the cut.
    """
    recording = cut.recording
    if recording is None:
        raise ValueError(f"cut {cut.id}: has no recording")
    whole = cut.start == 0 and cut.num_samples == recording.num_samples and not recording.transforms
    if not whole or len(recording.sources) != 1 or recording.sources[0].type != "file":
        raise ValueError(f"cut {cut.id}: a whole recording is needed, unchanged and in one file")
    return Path(recording.sources[0].source)


def alignment_items(
    intervals: Iterable[Interval], sample_rate: int = SAMPLE_RATE, *, start: float = 0.0
) -> list[AlignmentItem]:
    """Convert intervals to Lhotse's items, which count from the start of the recording.

    Args:
        intervals: In samples from the start of the cut.
        sample_rate: Of the samples.
        start: Start of the cut in its recording, in seconds.
    """
    return [AlignmentItem(symbol, start + a / sample_rate, (b - a) / sample_rate) for a, b, symbol in intervals]


def with_phones(cut: MonoCut, intervals: Iterable[Interval], sample_rate: int = SAMPLE_RATE, **changes: Any) -> MonoCut:
    """Copy a cut with these phones, in samples from its start, and with other fields of its supervision changed."""
    items = alignment_items(intervals, sample_rate, start=cut.start)
    return with_supervision(cut, alignment={**(cut.supervisions[0].alignment or {}), "phone": items}, **changes)


def phone_intervals(cut: MonoCut, sample_rate: int = SAMPLE_RATE) -> list[Interval]:
    """The phones of a cut in samples at `sample_rate` from the cut's start, sorted by time.

    Lhotse's alignments count from the start of the recording. Of a cut that is only a part of its supervision, phones
    outside the cut are left out, and those at its edges are cut off. An end that differs from the next start by one
    sample, from rounded seconds, is set to that start.

    Raises:
        ValueError: When the cut does not have exactly one supervision with phones; names the cut.
    """
    if len(cut.supervisions) != 1 or "phone" not in (cut.supervisions[0].alignment or {}):
        raise ValueError(f"cut {cut.id}: expected one supervision with phones in alignment['phone']")
    supervision = cut.supervisions[0]
    items = supervision.alignment["phone"]
    if not all(isinstance(time, int | float) for item in items for time in (item.start, item.duration)):
        raise ValueError(f"cut {cut.id}: the start and duration of a phone must be numbers")
    items = sorted(items, key=lambda item: item.start)
    starts = [round((item.start - cut.start) * sample_rate) for item in items]
    # Not AlignmentItem.end, which is rounded to 0.1 ms: more than a sample.
    ends = [round((item.start + item.duration - cut.start) * sample_rate) for item in items]
    for index, next_start in enumerate(starts[1:]):
        if abs(ends[index] - next_start) <= 1:
            ends[index] = next_start
    intervals = [Interval(start, end, item.symbol) for start, end, item in zip(starts, ends, items, strict=True)]
    if supervision.start < 0 or supervision.end > cut.duration + 1 / sample_rate:
        limit = round(cut.duration * sample_rate)
        clipped = (Interval(max(start, 0), min(end, limit), symbol) for start, end, symbol in intervals)
        intervals = [interval for interval in clipped if interval.start < interval.end]
    return intervals


def save_splits(output: Path, splits: Mapping[str, Sequence[MonoCut]], *, shared_speakers: bool = False) -> None:
    """Write `output`/{train,dev,test}.jsonl.gz and print a summary. The same cuts give the same bytes.

    Args:
        output: The folder.
        splits: The cuts of train, dev and test.
        shared_speakers: Whether speakers may occur in several splits, as in some published splits. Then cuts of dev and
            test whose speakers are in train are marked, see `speaker_in_train`, and counted in the summary.

    Raises:
        ValueError: When a split is missing or empty, or an utterance or (unless allowed) a speaker is in two splits.
    """
    split_of: dict[tuple[str, str], str] = {}
    for name in SPLITS:
        if not splits.get(name):
            raise ValueError(f"the {name} split has no utterances")
        for cut in splits[name]:
            keys = [("utterance", cut.id)] if shared_speakers else [("speaker", _speaker(cut)), ("utterance", cut.id)]
            for key in keys:
                if split_of.setdefault(key, name) != name:
                    raise ValueError(f"{key[0]} {key[1]} is in two splits: {split_of[key]} and {name}")
    train_speakers = {_speaker(cut) for cut in splits["train"]}
    for name in SPLITS:
        cuts = list(splits[name])
        if shared_speakers and name != "train":
            cuts = [_marked(cut) if _speaker(cut) in train_speakers else cut for cut in cuts]
        save_cuts(output / f"{name}.jsonl.gz", cuts)
        num_speakers = len({_speaker(cut) for cut in cuts})
        frames = sum(num_frames(round(cut.duration * SAMPLE_RATE)) for cut in cuts)
        minutes = sum(cut.duration for cut in cuts) / 60
        print(f"{name}: {len(cuts)} utterances, {num_speakers} speakers, {minutes:.1f} min, {frames:,} frames")
        if num_shared := len({_speaker(cut) for cut in cuts if speaker_in_train(cut)}):
            print(f"{name}: {num_shared} of its {num_speakers} speakers are also in train: its scores are optimistic")


def speaker_in_train(cut: MonoCut) -> bool:
    """Whether a cut of dev or test is marked as having a speaker who is also in train."""
    return any((supervision.custom or {}).get("speaker_in_train", False) for supervision in cut.supervisions)


def _speaker(cut: MonoCut) -> str:
    return cut.supervisions[0].speaker


def _marked(cut: MonoCut) -> MonoCut:
    return with_supervision(cut, custom={**(cut.supervisions[0].custom or {}), "speaker_in_train": True})


def with_supervision(cut: MonoCut, **changes: Any) -> MonoCut:
    """Copy a cut, with these fields of its supervision changed."""
    return fastcopy(cut, supervisions=[fastcopy(cut.supervisions[0], **changes)])


def save_cuts(path: Path, cuts: Iterable[MonoCut]) -> None:
    """Write cuts as gzipped JSON lines; the same cuts give the same bytes."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file,
    ):
        for cut in cuts:
            file.write((json.dumps(cut.to_dict(), ensure_ascii=False) + "\n").encode())


def save_rejected(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write a table of rejected utterances, id first and reason last, and print how many there are."""
    lines = ["\t".join(" ".join(field.split()) for field in row) + "\n" for row in rows]
    save_text(path, "".join(lines))
    print(f"left out: {len(lines)} utterances" + (f", listed in {path}" if lines else ""))
