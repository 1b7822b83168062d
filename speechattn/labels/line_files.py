"""Phones in files of one line each: CTM (NIST, Kaldi), .phn (TIMIT), .lab (HTK, WaveSurfer), Audacity's labels.

Also what the readers and writers of all alignment files share: the encodings, and what counts as a track of
phones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from speechattn.jobs.atomic import save_text
from speechattn.labels.intervals import Interval, Segment

__all__ = [
    "Line",
    "check_segments",
    "in_order",
    "numbered_lines",
    "read_audacity",
    "read_ctm",
    "read_lab",
    "read_phn",
    "read_text",
    "write_audacity",
    "write_ctm",
]

ROUNDING = 0.002  # seconds by which written decimals may make a phone overlap the next one
HTK_UNITS = 10_000_000  # a second in HTK's units of 100 ns
SHORTEST_LAB = 10_000  # in those units, 1 ms


class Line(NamedTuple):
    """A phone and the line of the file that it stands on."""

    number: int
    segment: Segment


def read_text(path: str | Path) -> str:
    r"""The text of a file in UTF-8, or in UTF-16 with its byte order mark; every line ends in "\n".

    Raises:
        ValueError: When there is no such file, or it is in another encoding.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8 or UTF-16: {error}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_segments(path: str | Path, segments: Sequence[Segment]) -> None:
    """Refuse to write what no reader would take; `path` is for the message.

    Raises:
        ValueError: When there are no segments, or they are empty, overlap or are out of order.
    """
    if not segments:
        raise ValueError(f"{path}: there are no segments to write")
    previous_end = 0.0
    for phone, start, end, _ in segments:
        if not previous_end <= start < end < math.inf:
            raise ValueError(
                f"{path}: segment {phone!r} from {start} to {end} s is empty, or begins before the end of "
                f"the one before it, {previous_end} s"
            )
        previous_end = end


def in_order(path: str | Path, lines: Iterable[Line], *, rounding: float = ROUNDING) -> list[Segment]:
    """Phones sorted by time, none of them over another.

    Args:
        path: Their file, for messages.
        lines: The phones, in any order.
        rounding: A phone that ends later than the next one begins, but by no more than this, ends there.

    Raises:
        ValueError: When a phone is empty, begins before 0 or overlaps another; names file and line.
    """
    ordered = sorted(lines, key=lambda line: line.segment.start)
    segments: list[Segment] = []
    for number, segment in ordered:
        phone, start, end, _ = segment
        if not 0 <= start < end < math.inf:
            raise ValueError(f"{path}:{number}: phone {phone!r} from {start} to {end} is empty or before 0")
        if segments and segments[-1].end > start:
            before = segments[-1]
            if before.end - start > rounding or before.start >= start:
                raise ValueError(
                    f"{path}:{number}: phone {phone!r} from {start} to {end} overlaps {before.phone!r}, "
                    f"which lasts from {before.start} to {before.end}"
                )
            segments[-1] = before._replace(end=start)
        segments.append(segment)
    return segments


def write_ctm(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write lines `utterance channel start duration phone confidence`.

    The utterance is the file's stem, with `_` for white space, which separates CTM's fields, and `?` for what is no
    UTF-8.

    Raises:
        ValueError: As for `write_textgrid`, and when a phone is empty or holds white space.
    """
    # 7 decimals: samples at 16 kHz are exact (62.5 microseconds), others to a few thousandths of one.
    check_segments(path, segments)
    utterance = "_".join(Path(path).stem.split()).encode(errors="replace").decode() or "_"
    lines = []
    for phone, start, end, confidence in segments:
        if len(phone.split()) != 1:
            raise ValueError(f"{path}: {phone!r} is empty or has white space: CTM cannot hold it")
        # Both rounded before the difference is taken, so that start + duration is the next start.
        duration = round(end, 7) - round(start, 7)
        lines.append(f"{utterance} 1 {start:.7f} {duration:.7f} {phone} {confidence:.4f}\n")
    save_text(path, "".join(lines))


def read_ctm(path: str | Path) -> dict[str, list[Segment]]:
    """Read a CTM file, its fifth field being phones; confidence is 1 where it is not given.

    Returns:
        Utterance -> segments in order of time.

    Raises:
        ValueError: When a line is not `utterance channel start duration phone [confidence]`, or two phones of an
            utterance overlap.
    """
    utterances: dict[str, list[Line]] = {}
    for number, line in numbered_lines(path):
        fields = line.split()
        if line.startswith(";;"):
            continue
        try:
            utterance, _, start, duration, phone = fields[:5]
            confidence = float(fields[5]) if len(fields) > 5 else 1.0
            end = round(float(start) + float(duration), 7)
            segment = Segment(phone, float(start), end, confidence)
        except ValueError:
            expected = "utterance channel start duration phone [confidence]"
            raise ValueError(f"{path}:{number}: expected `{expected}`, got {line!r}") from None
        utterances.setdefault(utterance, []).append(Line(number, segment))
    return {utterance: in_order(path, lines) for utterance, lines in utterances.items()}


def read_phn(path: str | Path) -> list[Interval]:
    """Read a TIMIT .phn file: lines `start end phone`, in samples of the audio file, the end exclusive.

    Raises:
        ValueError: When a line is something else, or two phones overlap.
    """
    lines = []
    for number, line in numbered_lines(path):
        try:
            start, end, symbol = line.split()
            lines.append(Line(number, Segment(symbol, int(start), int(end))))
        except ValueError:
            raise ValueError(f"{path}:{number}: expected samples `start end phone`, got {line!r}") from None
    return [Interval(int(start), int(end), phone) for phone, start, end, _ in in_order(path, lines, rounding=0)]


def read_lab(path: str | Path) -> list[Segment]:
    """Read a .lab file: lines `start end phone [score]`, in HTK's units of 100 ns or in seconds.

    A file whose times are all whole numbers is in HTK's units (HTK Book, section 6.2.1), any other one in seconds.

    Raises:
        ValueError: When a line is something else, two phones overlap, or whole numbers are so small that they
            cannot be HTK's units.
    """
    rows = []
    for number, line in numbered_lines(path):
        try:
            start, end, phone, *score = line.split()
            _ = [float(text) for text in (start, end, *score)]
            if len(score) > 1:
                raise ValueError
        except ValueError:
            raise ValueError(f"{path}:{number}: expected `start end phone [score]`, got {line!r}") from None
        rows.append((number, phone, start, end))
    if not all(re.fullmatch(r"-?\d+", time) for row in rows for time in row[2:]):
        return in_order(path, [Line(n, Segment(phone, float(start), float(end))) for n, phone, start, end in rows])
    if rows and max(int(row[3]) for row in rows) < SHORTEST_LAB:
        raise ValueError(
            f"{path}: whole numbers are HTK's units of 100 ns, by which it would last less than 1 ms; "
            "give seconds a decimal point"
        )
    return in_order(
        path,
        [Line(n, Segment(phone, int(start) / HTK_UNITS, int(end) / HTK_UNITS)) for n, phone, start, end in rows],
    )


def read_audacity(path: str | Path) -> list[Segment]:
    """Read labels that Audacity exported: lines `start end label`, in seconds, with tabs between.

    Lines that begin with a backslash (the frequencies of a spectral selection) are skipped.

    Raises:
        ValueError: When a line is something else, a label is a point instead of a region, or two overlap.
    """
    lines = []
    for number, line in numbered_lines(path):
        if line.startswith("\\"):
            continue
        try:
            start, end, label = line.split("\t", maxsplit=2)
            lines.append(Line(number, Segment(label.strip(), float(start), float(end))))
        except ValueError:
            raise ValueError(f"{path}:{number}: expected `start end label` with tabs, got {line!r}") from None
    return in_order(path, lines)


def write_audacity(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write a label track for Audacity (File, Import, Labels): lines `start end phone` with tabs between.

    Raises:
        ValueError: As for `write_textgrid`, and when a phone holds a tab or a line break.
    """
    check_segments(path, segments)
    lines = []
    for phone, start, end, _ in segments:
        if any(mark in phone for mark in "\t\r\n"):
            raise ValueError(f"{path}: {phone!r} has a tab or a line break: a label track cannot hold it")
        lines.append(f"{start:.7f}\t{end:.7f}\t{phone}\n")
    save_text(path, "".join(lines))


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers from 1. Raises what `read_text` raises."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield number, line
