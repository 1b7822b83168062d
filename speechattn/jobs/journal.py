"""A journal of results, which survives a killed run: JSON lines, each appended in one write."""

import json
from pathlib import Path
from typing import Any

__all__ = ["Journal"]


class Journal:
    """Records by key, each saved as soon as it is added.

    Every line is appended in a single write. If the process dies, at most the last line is incomplete; such lines are
    skipped when the file is reopened. Two processes may append to one file.

    Args:
        path: The file, created with its folder if missing, and kept when the journal is closed.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lines: dict[str, bytes] = {}  # unparsed, which takes a tenth of the memory
        line = b"\n"
        if path.is_file():
            with open(path, "rb") as lines:
                for line in lines:
                    try:
                        key, _ = json.loads(line)
                        self._lines[key] = line
                    except (ValueError, TypeError):  # incomplete, or foreign
                        continue
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        if not line.endswith(b"\n"):
            self._file.write(b"\n")

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def __getitem__(self, key: str) -> Any:
        return json.loads(self._lines[key])[1]

    def add(self, key: str, record: Any) -> None:
        """Save a JSON-serialisable record; it replaces an earlier one with the same key.

        Raises:
            OSError: When it cannot be written.
        """
        line = json.dumps([key, record], ensure_ascii=False).encode() + b"\n"
        if self._file.write(line) != len(line):
            raise OSError(f"{self._file.name}: cannot be written; is the disk full?")
        self._lines[key] = line

    def close(self) -> None:
        """Close the file."""
        self._file.close()
