"""Which recordings are meant: files, folders, patterns and cuts, by the names that their results get."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from speechattn.geometry import Geometry

__all__ = ["SUFFIXES", "by_cut", "find_recordings"]

# Of the files taken from a folder; a file that is named may have any.
SUFFIXES = (
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".sph", ".w64", ".wav"
)  # fmt: skip


def find_recordings(sources: Iterable[str | Path]) -> dict[str, Path]:
    """Audio files by the names of their results.

    Args:
        sources: Files, named by their stems; folders, for all audio below them, named by their paths from there without
            the suffix; and patterns (`*`, `?`, `[`, and `**` for folders) that the shell has not resolved.

    Returns:
        Name -> file, each once; a folder's in the order of their names. Whether a single file exists is not looked at.

    Raises:
        ValueError: When two have the same name, since the results of one would overwrite the other's; or when a folder
            holds no audio, no file matches a pattern, or a name is empty.
    """
    recordings: dict[str, Path] = {}
    for source in sources:
        if not str(source):
            raise ValueError("an empty name, as of a shell's variable that is not set: name a file or a folder")
        for name, path in _named(Path(source)):
            first = recordings.setdefault(name, path)
            if first != path and os.path.realpath(first) != os.path.realpath(path):
                raise ValueError(f"{first} and {path} would both write {name}.*: predict them apart")
    return recordings


def _named(source: Path) -> list[tuple[str, Path]]:
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if _is_audio(path))
        if not found:
            raise ValueError(f"{source}: a folder without audio ({' '.join(SUFFIXES)})")
        return [(path.relative_to(source).with_suffix("").as_posix(), path) for path in found]
    if not source.exists() and glob.has_magic(str(source)):
        matches = sorted(path for match in glob.glob(str(source), recursive=True) if (path := Path(match)).is_file())
        if not matches:
            raise ValueError(f"{source}: no file matches")
        return [(path.stem, path) for path in matches]
    return [(source.stem, source)]


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")


def by_cut(cuts: str | Path, geometry: Geometry) -> dict[str, Path]:
    """The recordings of a file of cuts that have at least one frame, by the cuts' ids.

    Raises:
        ValueError: When a cut is not a whole single-channel recording, or its id cannot name a file or is taken.
    """
    from speechattn.cuts.files import recording_file
    from speechattn.cuts.model_inputs import load_cuts

    recordings: dict[str, Path] = {}
    for cut in load_cuts(cuts, geometry):
        if cut.id in recordings or cut.id != Path(cut.id).name:
            raise ValueError(f"{cuts}: cut id {cut.id!r} occurs twice or cannot name a file")
        if cut.recording.num_channels != 1:
            raise ValueError(f"{cuts}: cut {cut.id} is one channel of {cut.recording.num_channels}")
        recordings[cut.id] = recording_file(cut)
    return recordings
