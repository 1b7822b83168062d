"""Phone segments in the files of other tools: TextGrid (Praat), CTM (NIST, Kaldi), .phn (TIMIT), JSON, CSV.

Times are written so that they come back exactly: the last segment ends at the file's own end, and every
segment begins where the one before it ended. Files appear whole or not at all; errors name file and line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from speechattn.alignment import Interval, Segment
from speechattn.stages import atomic_path

__all__ = [
    "read_csv",
    "read_ctm",
    "read_json",
    "read_phn",
    "read_textgrid",
    "write_csv",
    "write_ctm",
    "write_json",
    "write_textgrid",
]

TIER = "phones"


def write_textgrid(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write a Praat TextGrid with one interval tier, `phones`; gaps become empty intervals.

    Raises:
        ValueError: When there are no segments, or they are empty, overlap or are out of order.
    """
    from praatio import textgrid

    _check(path, segments)
    duration = segments[-1].end
    grid = textgrid.Textgrid(0, duration)
    entries = [(segment.start, segment.end, segment.phone) for segment in segments]
    grid.addTier(textgrid.IntervalTier(TIER, entries, 0, duration))
    with atomic_path(path) as temporary:
        grid.save(str(temporary), format="long_textgrid", includeBlankSpaces=True)


def write_ctm(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write lines `utterance channel start duration phone confidence`.

    The utterance is the file's stem, with `_` for white space, which separates CTM's fields.

    Raises:
        ValueError: As for `write_textgrid`, and when a phone is empty or holds white space.
    """
    # 7 decimals: samples at 16 kHz are exact (62.5 microseconds), others to a few thousandths of one.
    _check(path, segments)
    utterance = "_".join(Path(path).stem.split())
    lines = []
    for phone, start, end, confidence in segments:
        if len(phone.split()) != 1:
            raise ValueError(f"{path}: {phone!r} is empty or has white space: CTM cannot hold it")
        # Both rounded before the difference is taken, so that start + duration is the next start.
        duration = round(end, 7) - round(start, 7)
        lines.append(f"{utterance} 1 {start:.7f} {duration:.7f} {phone} {confidence:.4f}\n")
    _write(path, "".join(lines))


def write_json(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write a list of objects with `phone`, `start`, `end` (seconds) and `confidence`.

    Raises:
        ValueError: As for `write_textgrid`.
    """
    _check(path, segments)
    rows = ",\n".join(json.dumps(segment._asdict(), ensure_ascii=False) for segment in segments)
    _write(path, f"[\n{rows}\n]\n")


def write_csv(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write a table with the columns `start`, `end` (seconds), `phone` and `confidence`.

    Raises:
        ValueError: As for `write_textgrid`.
    """
    _check(path, segments)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("start", "end", "phone", "confidence"))
    writer.writerows((start, end, phone, confidence) for phone, start, end, confidence in segments)
    _write(path, text.getvalue())


def read_textgrid(path: str | Path, tier: str = TIER) -> list[Segment]:
    """Read an interval tier of a TextGrid, long or short, in UTF-8 or UTF-16.

    Args:
        path: The file.
        tier: Name of the tier.

    Returns:
        All intervals of the tier in order, those with an empty label too.

    Raises:
        ValueError: When it is not a TextGrid, or has no such interval tier.
    """
    from praatio import textgrid
    from praatio.utilities.errors import PraatioException

    _exists(path)
    try:
        grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True)
    except (PraatioException, ValueError, IndexError) as error:
        raise ValueError(f"{path}: not a TextGrid ({' '.join(str(error).split())})") from error
    tiers = [name for name in grid.tierNames if isinstance(grid.getTier(name), textgrid.IntervalTier)]
    if tier not in tiers:
        raise ValueError(f"{path}: no interval tier {tier!r}; its interval tiers: {', '.join(tiers)}")
    return [Segment(label, start, end) for start, end, label in grid.getTier(tier).entries]


def read_ctm(path: str | Path) -> dict[str, list[Segment]]:
    """Read a CTM file, its fifth field being phones; confidence is 1 where it is not given.

    Returns:
        Utterance -> segments in the file's order.

    Raises:
        ValueError: When a line is not `utterance channel start duration phone [confidence]`.
    """
    utterances: dict[str, list[Segment]] = {}
    for number, line in enumerate(_read(path).splitlines(), 1):
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        try:
            utterance, _, start, duration, phone = fields[:5]
            confidence = float(fields[5]) if len(fields) > 5 else 1.0
            end = round(float(start) + float(duration), 7)
            utterances.setdefault(utterance, []).append(Segment(phone, float(start), end, confidence))
        except ValueError:
            expected = "utterance channel start duration phone [confidence]"
            raise ValueError(f"{path}:{number}: expected `{expected}`, got {line!r}") from None
    return utterances


def read_phn(path: str | Path) -> list[Interval]:
    """Read a TIMIT .phn file: lines `start end phone`, in samples, the end exclusive.

    Raises:
        ValueError: When a line is something else.
    """
    intervals = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            start, end, symbol = line.split()
            intervals.append(Interval(int(start), int(end), symbol))
        except ValueError:
            raise ValueError(f"{path}:{number}: expected samples `start end phone`, got {line!r}") from None
    return intervals


def read_json(path: str | Path) -> list[Segment]:
    """Read what `write_json` wrote.

    Raises:
        ValueError: When it is something else.
    """
    try:
        rows = json.loads(_read(path))
        return [Segment(str(row["phone"]), *_times(row)) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a list of phone, start, end, confidence: {error!r}") from error


def read_csv(path: str | Path) -> list[Segment]:
    """Read what `write_csv` wrote; columns are found by their names.

    Raises:
        ValueError: When it is something else.
    """
    try:
        rows = csv.DictReader(io.StringIO(_read(path)), strict=True)
        return [Segment(row["phone"], *_times(row)) for row in rows]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(f"{path}: expected columns start, end, phone, confidence: {error!r}") from error


def _times(row: dict) -> tuple[float, float, float]:
    return float(row["start"]), float(row["end"]), float(row["confidence"])


def _check(path: str | Path, segments: Sequence[Segment]) -> None:
    """Refuse what no reader would take; `path` is for the message."""
    if not segments:
        raise ValueError(f"{path}: there are no segments to write")
    previous_end = 0.0
    for phone, start, end, _ in segments:
        if not previous_end <= start < end:
            raise ValueError(
                f"{path}: segment {phone!r} from {start} to {end} s is empty, or begins before the end of "
                f"the one before it, {previous_end} s"
            )
        previous_end = end


def _exists(path: str | Path) -> None:
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")


def _read(path: str | Path) -> str:
    _exists(path)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8: {error}") from error


def _write(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
