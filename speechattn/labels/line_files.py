"""Phones in files with one phone per line: CTM (NIST, Kaldi), .phn (TIMIT), .lab (HTK, WaveSurfer), Audacity's labels.

Also the check of all readers and writers that phones do not overlap.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from speechattn.jobs.atomic import save_text
from speechattn.jobs.text import numbered_lines
from speechattn.labels.intervals import Interval, Segment

__all__ = [
    "check_segments",
    "read_audacity",
    "read_ctm",
    "read_lab",
    "read_phn",
    "sort_segments",
    "write_audacity",
    "write_ctm",
]

MAX_OVERLAP_S = 0.002  # phones may overlap by this much, since written times are rounded
HTK_UNITS = 10_000_000  # HTK's units of 100 ns in a second
MIN_LAB_END = 10_000  # in these units: 1 ms

Parsed = TypeVar("Parsed")


def check_segments(path: str | Path, segments: Sequence[Segment]) -> None:
    """Raise a ValueError if there are no segments to write to `path`, or they are empty, overlap or unordered."""
    if not segments:
        raise ValueError(f"{path}: there are no segments to write")
    previous_end = 0.0
    for phone, start, end, _ in segments:
        if not previous_end <= start < end < math.inf:
            what = f"segment {phone!r} from {start} to {end} s"
            raise ValueError(f"{path}: {what} is empty, or starts before the end of the previous one, {previous_end} s")
        previous_end = end


def sort_segments(
    path: str | Path, numbered: Iterable[tuple[int, Segment]], *, max_overlap: float = MAX_OVERLAP_S
) -> list[Segment]:
    """Sort a file's (line number, segment) pairs by time, and shorten segments that overlap the next by `max_overlap`.

    Raises:
        ValueError: When a segment is empty, starts before 0 or overlaps another by more; names file and line.
    """
    segments: list[Segment] = []
    for number, segment in sorted(numbered, key=lambda item: item[1].start):
        phone, start, end, _ = segment
        what = f"{path}:{number}: phone {phone!r} from {start} to {end}"
        if not 0 <= start < end < math.inf:
            raise ValueError(f"{what} is empty or before 0")
        if segments and segments[-1].end > start:
            before = segments[-1]
            if before.end - start > max_overlap or before.start >= start:
                raise ValueError(f"{what} overlaps {before.phone!r} from {before.start} to {before.end}")
            segments[-1] = before._replace(end=start)
        segments.append(segment)
    return segments


def write_ctm(path: str | Path, segments: Sequence[Segment], *, utterance: str | None = None) -> None:
    """Write lines `utterance channel start duration phone confidence`.

    Args:
        path: The file.
        segments: The phones.
        utterance: The utterance; None: the file's stem. White space, which separates CTM's fields, becomes `_`, and
            characters that UTF-8 cannot encode become `?`.

    Raises:
        ValueError: As for `write_textgrid`, and when a phone is empty or contains white space.
    """
    check_segments(path, segments)
    name = Path(path).stem if utterance is None else utterance
    utterance = "_".join(name.split()).encode(errors="replace").decode() or "_"
    lines = []
    for phone, start, end, confidence in segments:
        if len(phone.split()) != 1:
            raise ValueError(f"{path}: {phone!r} is empty or has white space: CTM cannot hold it")
        # Seven decimals hold samples at 16 kHz exactly. Round before subtracting: start + duration is the next start.
        duration = round(end, 7) - round(start, 7)
        lines.append(f"{utterance} 1 {start:.7f} {duration:.7f} {phone} {confidence:.4f}\n")
    save_text(path, "".join(lines))


def read_ctm(path: str | Path, *, channel: str | None = None) -> dict[str, list[Segment]]:
    """Read a CTM file whose fifth field is a phone; a missing confidence is 1.

    Args:
        path: The file.
        channel: Channel to read of utterances that have several, such as A; None: all.

    Returns:
        Utterance -> segments in order of time. An utterance with several channels becomes one entry per channel, named
        `utterance channel`, unless `channel` chooses one.

    Raises:
        ValueError: When a line is not `utterance channel start duration phone [confidence]`, or two phones of an
            utterance overlap.
    """

    def parse(line: str) -> tuple[str, str, Segment]:
        utterance, line_channel, start, duration, phone, *rest = line.split()
        confidence = float(rest[0]) if rest else 1.0
        end = round(float(start) + float(duration), 7)
        return utterance, line_channel, Segment(phone, float(start), end, confidence)

    expected = "`utterance channel start duration phone [confidence]`"
    utterances: dict[str, dict[str, list[tuple[int, Segment]]]] = {}
    for number, (utterance, line_channel, segment) in _parse_lines(path, parse, expected, comment=";;"):
        utterances.setdefault(utterance, {}).setdefault(line_channel, []).append((number, segment))
    read: dict[str, list[Segment]] = {}
    for utterance, channels in utterances.items():
        for line_channel, numbered in channels.items():
            if len(channels) == 1 or line_channel == channel:
                read[utterance] = sort_segments(path, numbered)
            elif channel is None:
                read[f"{utterance} {line_channel}"] = sort_segments(path, numbered)
    return read


def read_phn(path: str | Path) -> list[Interval]:
    """Read a TIMIT .phn file: lines `start end phone`, in samples of the audio file, the end exclusive.

    Raises:
        ValueError: When a line is malformed, or two phones overlap.
    """

    def parse(line: str) -> Segment:
        start, end, symbol = line.split()
        return Segment(symbol, int(start), int(end))

    segments = sort_segments(path, _parse_lines(path, parse, "samples `start end phone`"), max_overlap=0)
    return [Interval(int(start), int(end), phone) for phone, start, end, _ in segments]


def read_lab(path: str | Path, *, rate: float | None = None) -> list[Segment]:
    """Read a .lab file: lines `start end phone [score]`, in HTK's units of 100 ns or in seconds.

    If all times are whole numbers they are in HTK's units (HTK Book, section 6.2.1), else in seconds.

    Args:
        path: The file.
        rate: Units per second of whole numbers; None: HTK's 10,000,000.

    Raises:
        ValueError: When a line is malformed, two phones overlap, or whole numbers are too small to be HTK's units.
    """

    def parse(line: str) -> tuple[str, str, str]:
        start, end, phone, *score = line.split()
        _ = [float(number) for number in (start, end, *score)]
        if len(score) > 1:
            raise ValueError
        return phone, start, end

    rows = list(_parse_lines(path, parse, "`start end phone [score]`"))
    whole = all(re.fullmatch(r"-?\d+", time) for _, (_, *times) in rows for time in times)
    if rows and whole and rate is None and max(float(end) for _, (_, _, end) in rows) < MIN_LAB_END:
        raise ValueError(
            f"{path}: whole numbers are HTK's units of 100 ns, and the file would last less than 1 ms; "
            "write seconds with a decimal point, or use --label-rate"
        )
    unit = (rate or HTK_UNITS) if whole else 1
    segments = [
        (number, Segment(phone, float(start) / unit, float(end) / unit)) for number, (phone, start, end) in rows
    ]
    return sort_segments(path, segments)


def read_audacity(path: str | Path) -> list[Segment]:
    """Read labels exported by Audacity: tab-separated lines `start end label`, in seconds.

    Lines that start with a backslash (the frequencies of a spectral selection) are skipped.

    Raises:
        ValueError: When a line is malformed, a label is a point instead of a region, or two overlap.
    """

    def parse(line: str) -> Segment:
        start, end, label = line.split("\t", maxsplit=2)
        return Segment(label.strip(), float(start), float(end))

    return sort_segments(path, _parse_lines(path, parse, "`start end label` with tabs", comment="\\"))


def write_audacity(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write a label track for Audacity (File, Import, Labels): tab-separated lines `start end phone`, in seconds.

    Raises:
        ValueError: As for `write_textgrid`, and when a phone contains a tab or a line break.
    """
    check_segments(path, segments)
    lines = []
    for phone, start, end, _ in segments:
        if any(mark in phone for mark in "\t\r\n"):
            raise ValueError(f"{path}: {phone!r} has a tab or a line break: a label track cannot hold it")
        lines.append(f"{start:.7f}\t{end:.7f}\t{phone}\n")
    save_text(path, "".join(lines))


def _parse_lines(
    path: str | Path, parse: Callable[[str], Parsed], expected: str, *, comment: str | None = None
) -> Iterator[tuple[int, Parsed]]:
    """(line number, parsed line) of all lines but comments; a ValueError of `parse` becomes one with file and line."""
    for number, line in numbered_lines(path):
        if comment and line.startswith(comment):
            continue
        try:
            parsed = parse(line)
        except ValueError:
            raise ValueError(f"{path}:{number}: expected {expected}, got {line!r}") from None
        yield number, parsed
