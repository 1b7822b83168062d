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
from speechattn.jobs.text import read_text
from speechattn.labels.intervals import Segment
from speechattn.labels.line_files import (
    check_segments,
    read_audacity,
    read_ctm,
    read_lab,
    read_phn,
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
        ValueError: When it holds anything else; names file, record and field.
    """
    try:
        rows = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise ValueError(f"{path}: expected a list of objects with phone, start, end, confidence")
    segments = [_segment(f"{path}: record {number}", row) for number, row in enumerate(rows, 1)]
    return sort_segments(path, enumerate(segments, 2))  # the lines of `write_json`


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
        ValueError: When it holds anything else; names file, line and field.
    """
    reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
    rows = []
    try:
        for row in reader:
            rows.append((reader.line_num, _segment(f"{path}:{reader.line_num}", row)))
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: not a CSV table: {error}") from error
    return sort_segments(path, rows)


def _segment(place: str, row: dict) -> Segment:
    """The segment in a record; `place` names it in messages."""
    times = []
    for name in ("start", "end", "confidence"):
        try:
            times.append(float(row[name]))
        except (KeyError, TypeError, ValueError):
            found = f"got {row[name]!r}" if row.get(name) is not None else "is missing"
            raise ValueError(f"{place}: field {name} must be a number, {found}") from None
    if row.get("phone") is None:
        raise ValueError(f"{place}: field phone is missing")
    return Segment(str(row["phone"]), *times)
