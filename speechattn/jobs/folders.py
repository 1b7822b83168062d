"""Find files in a folder."""

import os
from collections.abc import Collection
from pathlib import Path

__all__ = ["visible_files"]


def visible_files(folder: Path, suffixes: Collection[str] | None = None) -> list[Path]:
    """The files below a folder, sorted; hidden files and folders excluded, symbolic links followed.

    Args:
        folder: The folder.
        suffixes: Suffixes of the files, in lower case; files may have them in any case. None: all files.
    """
    found: list[Path] = []

    def walk(current: Path, parents: frozenset[str]) -> None:
        real = os.path.realpath(current)
        if real in parents:  # a link to a folder above
            return
        for entry in os.scandir(current):
            path = current / entry.name
            if entry.name.startswith("."):
                continue
            if path.is_dir():
                walk(path, parents | {real})
            elif path.is_file() and (suffixes is None or path.suffix.lower() in suffixes):
                found.append(path)

    walk(folder, frozenset())
    return sorted(found)
