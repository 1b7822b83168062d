"""Praat's TextGrid: labelled intervals in a text file, long or short.

Of a text file Praat reads the numbers, the texts in quotes and the <flags> that stand free, and skips all other
words and what follows an exclamation mark (Praat manual, "TextGrid file formats"). Read like that, the long form
and the short one are the same, times come back to the last bit, and an error has a line number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from speechattn.jobs.atomic import save_text
from speechattn.labels.intervals import Segment
from speechattn.labels.line_files import Line, check_segments, in_order, read_text

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
    duration = segments[-1].end
    intervals: list[tuple[float, float, str]] = []
    time = 0.0
    for phone, start, end, _ in segments:
        if start > time:
            intervals.append((time, start, ""))
        intervals.append((start, end, phone))
        time = end
    lines = [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "",
        "xmin = 0", f"xmax = {float(duration)!r}", "tiers? <exists>", "size = 1", "item []:", "    item [1]:",
        '        class = "IntervalTier"', f'        name = "{TIER}"', "        xmin = 0",
        f"        xmax = {float(duration)!r}", f"        intervals: size = {len(intervals)}",
    ]  # fmt: skip
    for number, (start, end, label) in enumerate(intervals, 1):
        quoted = label.replace('"', '""')
        lines += [
            f"        intervals [{number}]:", f"            xmin = {float(start)!r}",
            f"            xmax = {float(end)!r}", f'            text = "{quoted}"',
        ]  # fmt: skip
    save_text(path, "\n".join(lines) + "\n")


def read_textgrid(path: str | Path, tier: str = TIER) -> list[Segment]:
    """Read an interval tier of a TextGrid, long or short, in UTF-8 or UTF-16.

    Args:
        path: The file.
        tier: Name of the tier.

    Returns:
        All intervals of the tier in order, those with an empty label too.

    Raises:
        ValueError: When it is not a TextGrid, does not begin at 0, has not exactly one such interval tier, or
            intervals of the tier are empty or overlap.
    """
    tokens = _tokens(path, read_text(path))

    def take(kind: str, what: str) -> _Token:
        token = next(tokens, None)
        if token is None:
            raise ValueError(f"{path}: not a TextGrid: it ends where {what} should stand")
        if token.kind != kind:
            raise ValueError(f"{path}:{token.line}: not a TextGrid: expected {what}, found {token.value!r}")
        return token

    def count(what: str) -> int:
        token = take("number", what)
        if not token.value.isdecimal():
            raise ValueError(f"{path}:{token.line}: not a TextGrid: expected {what}, found {token.value!r}")
        return int(token.value)

    for what in ("ooTextFile", "TextGrid"):
        header = take("text", f'"{what}"')
        if header.value.removesuffix(" short") != what:
            raise ValueError(f'{path}:{header.line}: not a TextGrid: expected "{what}", found {header.value!r}')
    start = take("number", "the start time")
    if abs(float(start.value)) > 1e-6:
        raise ValueError(f"{path}:{start.line}: begins at {start.value} s; a TextGrid of a whole file begins at 0")
    take("number", "the end time")
    num_tiers = count("the number of tiers") if take("flag", "<exists>").value == "<exists>" else 0
    tiers: list[str] = []
    found: list[Line] = []
    for _ in range(num_tiers):
        class_ = take("text", "a tier's class")
        if class_.value not in ("IntervalTier", "TextTier"):
            raise ValueError(f"{path}:{class_.line}: not a TextGrid: unknown class of tier {class_.value!r}")
        name = take("text", "a tier's name").value
        take("number", "a tier's start time")
        take("number", "a tier's end time")
        num_entries = count("the number of intervals or points")
        for _ in range(num_entries):
            times = [float(take("number", "a time").value)]
            if class_.value == "IntervalTier":
                times.append(float(take("number", "an end time").value))
            label = take("text", "a label")
            if class_.value == "IntervalTier" and name == tier:
                found.append(Line(label.line, Segment(label.value.strip(), *times)))
        if class_.value == "IntervalTier":
            tiers.append(name)
    if tiers.count(tier) != 1:
        problem = "more than one" if tier in tiers else "no"
        raise ValueError(f"{path}: {problem} interval tier {tier!r}; its interval tiers: {', '.join(tiers) or 'none'}")
    return in_order(path, found)


def _tokens(path: str | Path, text: str) -> Iterator[_Token]:
    """What Praat would read of a text, in order."""
    line, position = 1, 0
    for match in TOKEN.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        word = match["word"]
        if match["open"]:
            raise ValueError(f"{path}:{line}: not a TextGrid: a quotation mark without its partner")
        if match["text"] is not None:
            yield _Token(line, "text", match["text"].replace('""', '"'))
        elif word is not None and NUMBER.fullmatch(word):
            yield _Token(line, "number", word)
        elif word in ("<exists>", "<absent>"):
            yield _Token(line, "flag", word)
