"""Phone segments in files of other tools: TextGrid, CTM, .phn, .lab, Audacity's labels, JSON, CSV.

`read_alignments` chooses the reader by suffix. What our writers write reads back the same: contiguous segments stay
contiguous, and the last one ends at the file's end. Files are written atomically; errors name file and line.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from speechattn.audio import SAMPLE_RATE
from speechattn.jobs.atomic import save_text
from speechattn.labels.intervals import Segment
from speechattn.labels.line_files import (
    check_segments,
    read_audacity,
    read_ctm,
    read_lab,
    read_phn,
    read_text,
    sort_segments,
    write_audacity,
    write_ctm,
)
from speechattn.labels.textgrid import TIER, read_textgrid, write_textgrid

__all__ = [
    "SUFFIXES",
    "read_alignments",
    "read_audacity",
    "read_csv",
    "read_ctm",
    "read_json",
    "read_lab",
    "read_phn",
    "read_textgrid",
    "write_audacity",
    "write_csv",
    "write_ctm",
    "write_json",
    "write_textgrid",
]

SUFFIXES = (".textgrid", ".ctm", ".phn", ".lab", ".txt", ".json", ".csv")  # case-insensitive; .txt: Audacity's labels


def read_alignments(
    path: str | Path,
    *,
    tier: str = TIER,
    sample_rate: int = SAMPLE_RATE,
    label_rate: float | None = None,
    channel: str | None = None,
) -> dict[str, list[Segment]]:
    """Read the phones in a file of any of these formats, chosen by its suffix.

    Args:
        path: The file; its suffix is one of SUFFIXES.
        tier: For a TextGrid: the interval tier that holds the phones.
        sample_rate: For a .phn file: the sample rate of its audio, in Hz.
        label_rate: For whole numbers in a .phn or .lab file: units per second; None: `sample_rate`, or HTK's units.
        channel: For a CTM file: see `read_ctm`.

    Returns:
        Utterance -> its segments in order of time, in seconds. Only a CTM file names utterances; any other file holds
        one utterance, named by the file's stem.

    Raises:
        ValueError: When the suffix is unknown, or the file cannot be read; names file and line.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: not a file of phones: its suffix is none of {' '.join(SUFFIXES)}")
    if suffix == ".ctm":
        return read_ctm(path, channel=channel)
    readers: dict[str, Callable[[Path], list[Segment]]] = {
        ".textgrid": partial(read_textgrid, tier=tier),
        ".phn": partial(_read_phn_segments, rate=label_rate or sample_rate),
        ".lab": partial(read_lab, rate=label_rate),
        ".txt": read_audacity,
        ".json": read_json,
        ".csv": read_csv,
    }
    return {path.stem: readers[suffix](path)}


def _read_phn_segments(path: Path, rate: float) -> list[Segment]:
    return [Segment(phone, start / rate, end / rate) for start, end, phone in read_phn(path)]


def write_json(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write a list of objects with `phone`, `start`, `end` (seconds) and `confidence`.

    Raises:
        ValueError: As for `write_textgrid`.
    """
    check_segments(path, segments)
    rows = ",\n".join(json.dumps(segment._asdict(), ensure_ascii=False) for segment in segments)
    save_text(path, f"[\n{rows}\n]\n")


def read_json(path: str | Path) -> list[Segment]:
    """Read a file by `write_json`.

    Raises:
        ValueError: When it holds anything else.
    """
    try:
        rows = list(enumerate(map(_segment, json.loads(read_text(path))), 2))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a list of phone, start, end, confidence: {error!r}") from error
    return sort_segments(path, rows)


def write_csv(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write a table with the columns `start`, `end` (seconds), `phone` and `confidence`.

    Raises:
        ValueError: As for `write_textgrid`.
    """
    check_segments(path, segments)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("start", "end", "phone", "confidence"))
    writer.writerows((start, end, phone, confidence) for phone, start, end, confidence in segments)
    save_text(path, text.getvalue())


def read_csv(path: str | Path) -> list[Segment]:
    """Read a file by `write_csv`, or any table with these columns, in any order.

    Raises:
        ValueError: When it holds anything else.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
        rows = [(reader.line_num, _segment(row)) for row in reader]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(f"{path}: expected columns start, end, phone, confidence: {error!r}") from error
    return sort_segments(path, rows)


def _segment(row: dict) -> Segment:
    if row["phone"] is None:
        raise ValueError("a row has no phone")
    return Segment(str(row["phone"]), float(row["start"]), float(row["end"]), float(row["confidence"]))
