"""Praat's TextGrid: labelled intervals in a text file, long or short.

Praat reads only the numbers, quoted texts and <flags> that stand alone, and skips all other words, and everything after
an exclamation mark (Praat manual, "TextGrid file formats"). Read like this, the long and the short form are the same,
times come back to the last bit, and errors have a line number.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from speechattn.jobs.atomic import save_text
from speechattn.jobs.text import read_text
from speechattn.labels.intervals import Segment
from speechattn.labels.line_files import check_segments, sort_segments

__all__ = ["TIER", "read_textgrid", "write_textgrid"]

TIER = "phones"

TOKEN = re.compile(r'"(?P<text>(?:[^"]|"")*)"|(?P<open>")|!.*|(?P<word>[^\s"]+)')
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class _Token(NamedTuple):
    line: int
    kind: str  # number, text or flag
    value: str


def write_textgrid(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write a Praat TextGrid in UTF-8 with one interval tier, `phones`; gaps become empty intervals.

    Raises:
        ValueError: When there are no segments, or they are empty, overlap or are out of order.
    """
    check_segments(path, segments)
    duration = float(segments[-1].end)
    intervals: list[tuple[float, float, str]] = []
    time = 0.0
    for phone, start, end, _ in segments:
        if start > time:
            intervals.append((time, start, ""))
        intervals.append((start, end, phone))
        time = end
    lines = [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "",
        "xmin = 0", f"xmax = {duration!r}", "tiers? <exists>", "size = 1", "item []:", "    item [1]:",
        '        class = "IntervalTier"', f'        name = "{TIER}"',
        "        xmin = 0", f"        xmax = {duration!r}", f"        intervals: size = {len(intervals)}",
    ]  # fmt: skip
    for number, (start, end, label) in enumerate(intervals, 1):
        quoted = label.replace('"', '""')
        lines += [
            f"        intervals [{number}]:", f"            xmin = {float(start)!r}",
            f"            xmax = {float(end)!r}", f'            text = "{quoted}"',
        ]  # fmt: skip
    save_text(path, "\n".join(lines) + "\n")


def read_textgrid(path: str | Path, tier: str = TIER) -> list[Segment]:
    """Read all intervals of a tier of a TextGrid, long or short, in UTF-8 or UTF-16; empty labels are kept.

    Raises:
        ValueError: When the file is not a TextGrid, does not start at 0, or does not have exactly one such interval
            tier, or when intervals of the tier are empty or overlap.
    """
    tokens = _tokens(path, read_text(path))

    def malformed(token: _Token, expected: str) -> ValueError:
        return ValueError(f"{path}:{token.line}: not a TextGrid: expected {expected}, found {token.value!r}")

    def take(kind: str, expected: str) -> _Token:
        token = next(tokens, None)
        if token is None:
            raise ValueError(f"{path}: not a TextGrid: the file ends where {expected} is expected")
        if token.kind != kind:
            raise malformed(token, expected)
        return token

    def count(expected: str) -> int:
        token = take("number", expected)
        if not token.value.isdecimal():
            raise malformed(token, expected)
        return int(token.value)

    for file_type in ("ooTextFile", "TextGrid"):
        header = take("text", f'"{file_type}"')
        if header.value.removesuffix(" short") != file_type:
            raise malformed(header, f'"{file_type}"')
    start = take("number", "the start time")
    if abs(float(start.value)) > 1e-6:
        raise ValueError(f"{path}:{start.line}: starts at {start.value} s; a TextGrid of a whole file starts at 0")
    take("number", "the end time")
    num_tiers = count("the number of tiers") if take("flag", "<exists>").value == "<exists>" else 0
    interval_tiers: list[str] = []
    found: list[tuple[int, Segment]] = []
    for _ in range(num_tiers):
        tier_class = take("text", "a tier's class")
        if tier_class.value not in ("IntervalTier", "TextTier"):
            raise malformed(tier_class, '"IntervalTier" or "TextTier"')
        has_intervals = tier_class.value == "IntervalTier"
        name = take("text", "a tier's name").value
        take("number", "a tier's start time")
        take("number", "a tier's end time")
        for _ in range(count("the number of intervals or points")):
            times = [float(take("number", "a time").value)]
            if has_intervals:
                times.append(float(take("number", "an end time").value))
            label = take("text", "a label")
            if has_intervals and name == tier:
                found.append((label.line, Segment(label.value.strip(), *times)))
        if has_intervals:
            interval_tiers.append(name)
    if interval_tiers.count(tier) != 1:
        problem = "more than one" if tier in interval_tiers else "no"
        names = ", ".join(interval_tiers) or "none"
        raise ValueError(f"{path}: {problem} interval tier {tier!r}; its interval tiers: {names}")
    return sort_segments(path, found)


def _tokens(path: str | Path, text: str) -> Iterator[_Token]:
    """The parts of a text that Praat reads, in order."""
    line, position = 1, 0
    for match in TOKEN.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        word = match["word"]
        if match["open"]:
            raise ValueError(f"{path}:{line}: not a TextGrid: a quotation mark is not closed")
        if match["text"] is not None:
            yield _Token(line, "text", match["text"].replace('""', '"'))
        elif word is not None and NUMBER.fullmatch(word):
            yield _Token(line, "number", word)
        elif word in ("<exists>", "<absent>"):
            yield _Token(line, "flag", word)
