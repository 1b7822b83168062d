"""Find the recordings to predict in files, folders, patterns and cuts, and name their results."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from speechattn.audio import find_audio
from speechattn.geometry import Geometry

__all__ = ["by_cut", "find_recordings"]


def find_recordings(sources: Iterable[str | Path]) -> dict[str, Path]:
    """Map names of results to audio files.

    Args:
        sources: Files, named by their stems; folders, whose audio files at any depth are named by their relative paths
            without suffix; and patterns (`*`, `?`, `[`, and `**` for folders) that the shell has not expanded.

    Returns:
        Name -> file; those of a folder in alphabetical order. A single file need not exist.

    Raises:
        ValueError: If two files have the same name, a folder holds no audio, no file matches a pattern, or a source is
            empty.
    """
    recordings: dict[str, Path] = {}
    for source in sources:
        if not str(source):
            raise ValueError("the name of an audio file is empty (an unset shell variable?)")
        for name, path in _named(Path(source)):
            first = recordings.setdefault(name, path)
            if first != path and os.path.realpath(first) != os.path.realpath(path):
                raise ValueError(f"{first} and {path} would both write {name}.*: predict them separately")
    return recordings


def _named(source: Path) -> list[tuple[str, Path]]:
    if source.is_dir():
        return [(path.relative_to(source).with_suffix("").as_posix(), path) for path in find_audio(source)]
    if not source.exists() and glob.has_magic(str(source)):
        matches = sorted(path for match in glob.glob(str(source), recursive=True) if (path := Path(match)).is_file())
        if not matches:
            raise ValueError(f"{source}: no file matches")
        return [(path.stem, path) for path in matches]
    return [(source.stem, source)]


def by_cut(cuts: str | Path, geometry: Geometry) -> dict[str, Path]:
    """Map cut ids to recordings, without those shorter than one frame.

    Raises:
        ValueError: If a cut is not a whole single-channel recording, or its id is not unique or cannot name a file.
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
