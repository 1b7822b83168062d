"""Utterances as Lhotse cuts, and the three files that every prepared corpus consists of.

A cut is a whole audio file with one supervision: its text, its speaker, and its phones in
`alignment["phone"]`. Lhotse keeps seconds; samples at 16 kHz come back exactly through `phone_intervals`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.supervision import AlignmentItem
from lhotse.utils import fastcopy

from speechattn.audio import SAMPLE_RATE, audio_info
from speechattn.geometry import num_frames
from speechattn.jobs.atomic import atomic_path, save_text
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
]

SPLITS = ("train", "dev", "test")


def utterance_cut(
    utterance_id: str,
    audio_path: Path,
    *,
    speaker: str,
    text: str,
    intervals: Iterable[Interval] | None = None,
) -> MonoCut:
    """One audio file as a cut.

    Args:
        utterance_id: Unique within the corpus.
        audio_path: The file; its first channel is the signal. Stored as an absolute path.
        speaker: Who speaks; splits are made by speaker.
        text: What is said.
        intervals: The phones, in samples at 16 kHz; None when they are not known.

    Raises:
        ValueError: When the file is missing or is no audio (an `AudioError`); names it.
    """
    info = audio_info(audio_path)
    duration = info.num_samples / info.sample_rate
    recording = Recording(
        id=utterance_id,
        sources=[AudioSource("file", list(range(info.num_channels)), str(audio_path.resolve()))],
        sampling_rate=info.sample_rate,
        num_samples=info.num_samples,
        duration=duration,
    )
    supervision = SupervisionSegment(
        id=utterance_id,
        recording_id=utterance_id,
        start=0.0,
        duration=duration,
        text=text,
        speaker=speaker,
        alignment=None if intervals is None else {"phone": alignment_items(intervals)},
    )
    return MonoCut(
        id=utterance_id,
        start=0.0,
        duration=duration,
        channel=0,
        supervisions=[supervision],
        recording=recording,
    )


def read_cuts(path: str | Path) -> CutSet:
    """A file of Lhotse cuts, as a CutSet in memory.

    Raises:
        ValueError: When there is no such file, or it does not hold cuts.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file of cuts")
    try:
        cuts = CutSet.from_file(path).to_eager()
    except Exception as error:  # whatever gzip, JSON or Lhotse say of a file that is not theirs
        raise ValueError(f"{path} is not a file of Lhotse cuts (.jsonl or .jsonl.gz)") from error
    if len(cuts) == 0:
        raise ValueError(f"{path} holds no cuts")
    for cut in cuts:
        has_source = isinstance(cut, MonoCut) and (cut.has_features or (cut.has_recording and cut.recording.sources))
        if not has_source:
            raise ValueError(f"{path}: cut {cut.id} is not a single-channel cut with a recording, or with features")
    return cuts


def recording_file(cut: MonoCut) -> Path:
    """The audio file that a Lhotse cut is the whole of; its channel is `cut.channel`.

    Raises:
        ValueError: When the cut is only a part, is transformed, or does not lie in one file; names the cut.
    """
    recording = cut.recording
    if recording is None:
        raise ValueError(f"cut {cut.id}: has no recording")
    whole = cut.start == 0 and cut.num_samples == recording.num_samples and not recording.transforms
    if not whole or len(recording.sources) != 1 or recording.sources[0].type != "file":
        raise ValueError(f"cut {cut.id}: a whole recording is needed, as it lies in one file")
    return Path(recording.sources[0].source)


def alignment_items(intervals: Iterable[Interval], sample_rate: int = SAMPLE_RATE) -> list[AlignmentItem]:
    """Intervals in samples as Lhotse keeps them; `round(seconds * sample_rate)` gives samples again."""
    return [AlignmentItem(symbol, start / sample_rate, (end - start) / sample_rate) for start, end, symbol in intervals]


def phone_intervals(cut: MonoCut, sample_rate: int = SAMPLE_RATE) -> list[Interval]:
    """The phones of a cut in samples at `sample_rate`, in order.

    Starts count: where an end misses the next start by one sample, as rounded seconds do, it is moved to it.

    Raises:
        ValueError: When the cut has not exactly one supervision with phones, or is a part of one (Lhotse does
            not shift the phones of such a part); names the cut.
    """
    if len(cut.supervisions) != 1 or "phone" not in (cut.supervisions[0].alignment or {}):
        raise ValueError(f"cut {cut.id}: expected one supervision with phones in alignment['phone']")
    supervision = cut.supervisions[0]
    if supervision.start != 0:
        raise ValueError(f"cut {cut.id}: is only a part of an utterance; its phone times cannot be trusted")
    items = sorted(supervision.alignment["phone"], key=lambda item: item.start)
    starts = [round(item.start * sample_rate) for item in items]
    # AlignmentItem.end is rounded to 0.1 ms, which is more than a sample.
    ends = [round((item.start + item.duration) * sample_rate) for item in items]
    for number, next_start in enumerate(starts[1:]):
        if abs(ends[number] - next_start) <= 1:
            ends[number] = next_start
    return [Interval(start, end, item.symbol) for start, end, item in zip(starts, ends, items, strict=True)]


def save_splits(output: Path, splits: Mapping[str, Sequence[MonoCut]], *, shared_speakers: bool = False) -> None:
    """Write `output`/{train,dev,test}.jsonl.gz and print what they hold.

    The same cuts give the same bytes.

    Args:
        output: The folder.
        splits: The cuts of train, dev and test.
        shared_speakers: Whether speakers may occur in several splits, as a published split may ask for. That is
            printed, and the cuts of dev and test whose speakers train as well are marked, see `speaker_in_train`.

    Raises:
        ValueError: When a split is missing or empty, or an utterance id or, unless that is allowed, a speaker occurs in
            two of them.
    """
    owners: dict[tuple[str, str], str] = {}
    for name in SPLITS:
        if not splits.get(name):
            raise ValueError(f"the {name} split has no utterances")
        for cut in splits[name]:
            keys = [("utterance", cut.id)] if shared_speakers else [("speaker", _speaker(cut)), ("utterance", cut.id)]
            for key in keys:
                if owners.setdefault(key, name) != name:
                    raise ValueError(f"{key[0]} {key[1]} is in two splits: {owners[key]} and {name}")
    if shared_speakers:
        splits = _marked(splits)
    for name in SPLITS:
        cuts = splits[name]
        save_cuts(output / f"{name}.jsonl.gz", cuts)
        num_speakers = len({_speaker(cut) for cut in cuts})
        frames = sum(num_frames(round(cut.duration * SAMPLE_RATE)) for cut in cuts)
        minutes = sum(cut.duration for cut in cuts) / 60
        print(f"{name}: {len(cuts)} utterances, {num_speakers} speakers, {minutes:.1f} min, {frames:,} frames")
        if known := len({_speaker(cut) for cut in cuts if speaker_in_train(cut)}):
            print(f"{name}: {known} of its {num_speakers} speakers are also in train: figures on it flatter the model")


def speaker_in_train(cut: MonoCut) -> bool:
    """Whether a cut of dev or test is marked as spoken by somebody who is trained on."""
    return any((supervision.custom or {}).get("speaker_in_train", False) for supervision in cut.supervisions)


def _speaker(cut: MonoCut) -> str:
    return cut.supervisions[0].speaker


def _marked(splits: Mapping[str, Sequence[MonoCut]]) -> dict[str, list[MonoCut]]:
    """The splits with a mark on the cuts of dev and test whose speakers are in train."""
    trained_on = {_speaker(cut) for cut in splits["train"]}
    marked = {name: list(cuts) for name, cuts in splits.items()}
    for name in ("dev", "test"):
        for number, cut in enumerate(splits[name]):
            if _speaker(cut) in trained_on:
                supervision = cut.supervisions[0]
                custom = {**(supervision.custom or {}), "speaker_in_train": True}
                marked[name][number] = fastcopy(cut, supervisions=[fastcopy(supervision, custom=custom)])
    return marked


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
    """Write a table of what was left out, a row an utterance: its id first, the reason last; print how many."""
    lines = ["\t".join(" ".join(field.split()) for field in row) + "\n" for row in rows]
    save_text(path, "".join(lines))
    print(f"left out: {len(lines)} utterances" + (f", listed in {path}" if lines else ""))
