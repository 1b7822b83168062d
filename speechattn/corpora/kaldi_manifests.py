"""Kaldi's data folders: wav.scp, segments, utt2spk and text, as utterances."""

import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path

from speechattn.corpora.matching import UnlabelledUtterance
from speechattn.jobs.text import numbered_lines

__all__ = ["read_kaldi", "read_table"]


def read_kaldi(folder: Path) -> list[UnlabelledUtterance]:
    """The utterances of a data folder.

    Relative paths in wav.scp start from the working directory, as in Kaldi, or else from the data folder.

    Raises:
        ValueError: When a table is missing or damaged, wav.scp contains a command instead of a file, or an utterance
            has no recording or no speaker; names file and line.
    """
    recordings: dict[str, Path] = {}
    for number, recording, value in _rows(folder / "wav.scp", compose=False):
        if value.endswith("|"):
            problem = f"{recording} is the output of a command, `... |`: write it to a file, and name that"
            raise ValueError(f"{folder / 'wav.scp'}:{number}: {problem}")
        recordings[recording] = Path(value) if Path(value).exists() else folder / value
    speakers = read_table(folder / "utt2spk")
    texts = read_table(folder / "text", allow_empty=True) if (folder / "text").is_file() else {}
    segments = folder / "segments"
    parts: dict[str, tuple[str, float, float | None]] = {name: (name, 0.0, None) for name in recordings}
    if segments.is_file():
        parts = {name: _part(f"{segments}:{number}", value, recordings) for number, name, value in _rows(segments)}
    utterances = []
    for name, (recording, start, end) in parts.items():
        if name not in speakers:
            raise ValueError(f"{folder / 'utt2spk'}: has no line for utterance {name}")
        text = texts.get(name, "")
        utterances.append(UnlabelledUtterance(name, recordings[recording], speakers[name], name, text, start, end))
    return utterances


def _part(place: str, value: str, recordings: Collection[str]) -> tuple[str, float, float | None]:
    """Recording, start and end in a line of `segments`; an end of -1 means the recording's."""
    try:
        recording, *times = value.split()
        start, end = map(float, times)
        if not (start >= 0 and (end == -1 or end > start)):
            raise ValueError
    except ValueError:
        raise ValueError(f"{place}: expected a recording, a start and an end, found {value!r}") from None
    if recording not in recordings:
        raise ValueError(f"{place}: recording {recording} is not in wav.scp")
    return recording, start, None if end == -1 else end


def read_table(path: Path, *, allow_empty: bool = False) -> dict[str, str]:
    """Read a Kaldi table: lines of a key, white space, and a value that may contain spaces.

    Args:
        path: The file.
        allow_empty: Whether a line may be a key alone, as for an utterance without words.

    Raises:
        ValueError: When the file is missing, a line is malformed, or a key occurs twice; names file and line.
    """
    return {key: value for _, key, value in _rows(path, allow_empty=allow_empty)}


def _rows(path: Path, *, allow_empty: bool = False, compose: bool = True) -> Iterator[tuple[int, str, str]]:
    """Line number, key and value of each line; see `read_text` for `compose`."""
    keys: set[str] = set()
    for number, line in numbered_lines(path, compose=compose):
        key, *value = line.split(maxsplit=1)
        key = unicodedata.normalize("NFC", key)
        if not value and not allow_empty:
            raise ValueError(f"{path}:{number}: expected a key and a value, found {line!r}")
        if key in keys:
            raise ValueError(f"{path}:{number}: {key} has a line already")
        keys.add(key)
        yield number, key, value[0].strip() if value else ""
