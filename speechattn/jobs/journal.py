"""Results that outlive a killed run: JSON lines in a file, each appended whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["Journal"]


class Journal:
    """Records by key, each kept in the file as soon as it is added.

    A line goes out in one write to the end of the file: whenever the process dies, at most the last line is torn. What
    is no whole record is passed over when the file is opened again, and two processes may append to one file.

    Args:
        path: The file; made when missing, with its folder. It stays when the journal is closed.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lines: dict[str, bytes] = {}  # not parsed: that takes ten times the room
        line = b"\n"
        if path.is_file():
            with open(path, "rb") as lines:
                for line in lines:
                    try:
                        key, _ = json.loads(line)
                        self._lines[key] = line
                    except (ValueError, TypeError):  # torn, or not ours
                        continue
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        if not line.endswith(b"\n"):
            self._file.write(b"\n")

    def __contains__(self, key: str) -> bool:
        """Whether there is a record of this key."""
        return key in self._lines

    def __getitem__(self, key: str) -> Any:
        """The record of a key, the last one that was added."""
        return json.loads(self._lines[key])[1]

    def add(self, key: str, record: Any) -> None:
        """Keep a record that JSON can hold.

        Raises:
            OSError: When it cannot be written.
        """
        line = json.dumps([key, record], ensure_ascii=False).encode() + b"\n"
        if self._file.write(line) != len(line):
            raise OSError(f"{self._file.name}: cannot be written, is the disk full?")
        self._lines[key] = line

    def close(self) -> None:
        """Close the file."""
        self._file.close()
