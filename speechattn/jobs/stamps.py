"""Work that is done once: atomic files, and stamps that tell whether a stage must run again.

A stage leaves a small JSON stamp beside its outputs: its options, what its inputs looked like, and the
checksum of every output. It counts as done only while all three still hold, so that a changed option, a
changed input or a half-written output makes it run again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from speechattn.jobs.atomic import save_json

__all__ = [
    "VERSION",
    "checksum",
    "fingerprint",
    "is_done",
    "mark_done",
    "stage_record",
]

VERSION = version("speechattn")  # part of every stamp: another version does the work anew


def checksum(path: str | Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes, read in blocks."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(folder: Path) -> str:
    """Changes when a file below the folder comes, goes, or is written: hex digest of names, sizes and times.

    Instead of a folder it may be a single file.
    """
    digest = hashlib.sha256()
    for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            digest.update(f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def is_done(stamp: Path, options: Mapping[str, Any], inputs: Mapping[str, Path | str]) -> bool:
    """Whether the stage that left `stamp` need not run again.

    Args:
        stamp: The stage's stamp; outputs are recorded relative to its folder.
        options: What the stage would run with now, JSON-serialisable.
        inputs: Files that it would read now, by what they are to it; a file may lie elsewhere than before. A string is
            the checksum of what is no file.

    Returns:
        True when options and input checksums equal the recorded ones and every output is still whole.
    """
    try:
        record = json.loads(stamp.read_text(encoding="utf-8"))
        now = stage_record(options, inputs)
        if any(record[part] != now[part] for part in now):
            return False
        return all(checksum(stamp.parent / name) == digest for name, digest in record["outputs"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # no stamp, or not one of ours


def mark_done(
    stamp: Path, options: Mapping[str, Any], inputs: Mapping[str, Path | str], outputs: Sequence[Path]
) -> None:
    """Leave the stamp of a finished stage.

    Args:
        stamp: Where to; its folder is the one that `outputs` lie in.
        options: As for `is_done`.
        inputs: As for `is_done`.
        outputs: What the stage wrote.
    """
    digests = {os.path.relpath(path, stamp.parent): checksum(path) for path in outputs}
    save_json(stamp, stage_record(options, inputs) | {"outputs": digests})


def stage_record(options: Mapping[str, Any], inputs: Mapping[str, Path | str]) -> dict[str, Any]:
    """What a stage is known by, as JSON gives it back: its `options`, and the checksums of its `inputs`."""
    digests = {role: source if isinstance(source, str) else checksum(source) for role, source in inputs.items()}
    return {"options": json.loads(json.dumps(dict(options))), "inputs": digests}
