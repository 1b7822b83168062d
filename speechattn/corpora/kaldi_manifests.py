"""Kaldi's data folders: wav.scp, segments, utt2spk and text, as utterances."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from speechattn.corpora.matching import Candidate
from speechattn.labels.line_files import numbered_lines

__all__ = ["read_kaldi", "read_table"]


def read_kaldi(folder: Path) -> list[Candidate]:
    """The utterances of a data folder.

    Relative paths in wav.scp start where the command runs, as in Kaldi, or else at the data folder.

    Raises:
        ValueError: When a table is missing or damaged, a line of wav.scp is a command instead of a file, or an
            utterance lacks its recording or its speaker; names file and line.
    """
    recordings: dict[str, Path] = {}
    for number, recording, value in _rows(folder / "wav.scp"):
        if value.endswith("|"):
            raise ValueError(
                f"{folder / 'wav.scp'}:{number}: {recording} is the output of a command, `... |`: write it to a file, "
                "and name that"
            )
        recordings[recording] = Path(value) if Path(value).exists() else folder / value
    speakers = read_table(folder / "utt2spk")
    texts = read_table(folder / "text", empty=True) if (folder / "text").is_file() else {}
    segments = folder / "segments"
    parts: dict[str, tuple[str, float, float | None]] = {name: (name, 0.0, None) for name in recordings}
    if segments.is_file():
        parts = {name: _part(f"{segments}:{number}", value, recordings) for number, name, value in _rows(segments)}
    utterances = []
    for name, (recording, start, end) in parts.items():
        if name not in speakers:
            raise ValueError(f"{folder / 'utt2spk'}: has no line for utterance {name}")
        text = texts.get(name, "")
        utterances.append(Candidate(name, recordings[recording], speakers[name], name, text, start, end))
    return utterances


def _part(line: str, value: str, recordings: Collection[str]) -> tuple[str, float, float | None]:
    """Recording, start and end of a line of `segments`; an end of -1 is the recording's own."""
    try:
        recording, start, end = value.split()
        first, last = float(start), float(end)
        if not (first >= 0 and (last == -1 or last > first)):
            raise ValueError
    except ValueError:
        raise ValueError(f"{line}: expected a recording, a start and an end, found {value!r}") from None
    if recording not in recordings:
        raise ValueError(f"{line}: is of recording {recording}, which wav.scp lacks")
    return recording, first, None if last == -1 else last


def read_table(path: Path, *, empty: bool = False) -> dict[str, str]:
    """A Kaldi table: a line is a key, white space, and a value that may hold spaces.

    Args:
        path: The file.
        empty: Whether a line may be a key alone, as that of an utterance in which nothing is said.

    Raises:
        ValueError: When the file is missing, a line is something else, or a key comes twice; names file and line.
    """
    return {key: value for _, key, value in _rows(path, empty=empty)}


def _rows(path: Path, *, empty: bool = False) -> list[tuple[int, str, str]]:
    """The lines of a table: number, key and value."""
    rows: list[tuple[int, str, str]] = []
    keys: set[str] = set()
    for number, line in numbered_lines(path):
        key, *value = line.split(maxsplit=1)
        if not value and not empty:
            raise ValueError(f"{path}:{number}: expected a key and a value, found {line!r}")
        if key in keys:
            raise ValueError(f"{path}:{number}: {key} has a line already")
        keys.add(key)
        rows.append((number, key, value[0].strip() if value else ""))
    return rows
