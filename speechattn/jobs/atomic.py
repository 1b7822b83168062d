"""Atomic files and folders: present only when complete."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["atomic_path", "save_json", "save_text"]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file or folder atomically; missing parent folders are created.

    Yields:
        A temporary path with the same name, to write to. It is renamed to `path` at the end of the block, and removed
        if the block raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))  # file names have at most 255 bytes
    try:
        temporary = folder / path.name
        yield temporary
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def save_json(path: str | Path, value: Any) -> None:
    """Write a value as JSON, atomically."""
    save_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def save_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
