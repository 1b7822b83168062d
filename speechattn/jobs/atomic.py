"""Atomic files: present only when complete."""

from __future__ import annotations

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
    """Write a file or folder so that it appears whole or not at all.

    Args:
        path: Where the result is to lie; its folder is made when missing.

    Yields:
        A path beside `path` with the same suffix, to write to. Renamed to `path` when the block ends
        well, removed when it raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))  # names have at most 255 bytes
    try:
        temporary = workshop / path.name
        yield temporary
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def save_json(path: str | Path, value: Any) -> None:
    """Write what JSON can hold, whole or not at all."""
    save_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def save_text(path: str | Path, text: str) -> None:
    """Write a file in UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
