"""Phone segments in the files of other tools: TextGrid, CTM, .phn, .lab, Audacity's labels, JSON, CSV.

Times are written so that they come back exactly: the last segment ends at the file's own end, and every
segment begins where the one before it ended. Files appear whole or not at all; errors name file and line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from speechattn.audio import SAMPLE_RATE
from speechattn.jobs.atomic import save_text
from speechattn.labels.intervals import Segment
from speechattn.labels.line_files import (
    Line,
    check_segments,
    in_order,
    read_audacity,
    read_ctm,
    read_lab,
    read_phn,
    read_text,
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

SUFFIXES = (".textgrid", ".ctm", ".phn", ".lab", ".txt", ".json", ".csv")  # in any case; .txt: Audacity's labels


def read_alignments(path: str | Path, *, tier: str = TIER, sample_rate: int = SAMPLE_RATE) -> dict[str, list[Segment]]:
    """The phones in a file of any of these formats, which its suffix tells.

    Args:
        path: The file; its suffix is one of SUFFIXES.
        tier: Of a TextGrid: the interval tier that holds the phones.
        sample_rate: Of a .phn file: the rate of its audio, in Hz.

    Returns:
        Utterance -> its segments in order of time, in seconds. Only a CTM names utterances; any other file is of
        one, which has the file's stem for its name.

    Raises:
        ValueError: When the suffix is another one, or the file cannot be read; names file and line.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".ctm":
        return read_ctm(path)
    if suffix == ".textgrid":
        segments = read_textgrid(path, tier)
    elif suffix == ".phn":
        segments = [Segment(phone, start / sample_rate, end / sample_rate) for start, end, phone in read_phn(path)]
    elif suffix in (".lab", ".txt", ".json", ".csv"):
        readers = {".lab": read_lab, ".txt": read_audacity, ".json": read_json, ".csv": read_csv}
        segments = readers[suffix](path)
    else:
        raise ValueError(f"{path}: not a file of phones: its suffix is none of {' '.join(SUFFIXES)}")
    return {path.stem: segments}


def write_json(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write a list of objects with `phone`, `start`, `end` (seconds) and `confidence`.

    Raises:
        ValueError: As for `write_textgrid`.
    """
    check_segments(path, segments)
    rows = ",\n".join(json.dumps(segment._asdict(), ensure_ascii=False) for segment in segments)
    save_text(path, f"[\n{rows}\n]\n")


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


def read_json(path: str | Path) -> list[Segment]:
    """Read what `write_json` wrote.

    Raises:
        ValueError: When it is something else.
    """
    try:
        rows = json.loads(read_text(path))
        lines = [Line(number, Segment(str(row["phone"]), *_times(row))) for number, row in enumerate(rows, 2)]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a list of phone, start, end, confidence: {error!r}") from error
    return in_order(path, lines)


def read_csv(path: str | Path) -> list[Segment]:
    """Read what `write_csv` wrote; columns are found by their names.

    Raises:
        ValueError: When it is something else.
    """
    try:
        rows = csv.DictReader(io.StringIO(read_text(path)), strict=True)
        lines = [Line(rows.line_num, Segment(row["phone"], *_times(row))) for row in rows]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(f"{path}: expected columns start, end, phone, confidence: {error!r}") from error
    return in_order(path, lines)


def _times(row: dict) -> tuple[float, float, float]:
    return float(row["start"]), float(row["end"]), float(row["confidence"])
