"""Stamps: work that is already done is not repeated.

A finished job leaves a small JSON file, its stamp, beside its outputs. The stamp holds the job's options, the
checksums of its inputs and those of its outputs. The job runs again when any of these has changed.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from speechattn.jobs.atomic import save_json

__all__ = ["VERSION", "changed_parts", "checksum", "fingerprint", "is_done", "mark_done", "stamp_record"]

VERSION = version("speechattn")  # noted in every stamp


def checksum(path: str | Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes, read in blocks."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(folder: Path) -> str:
    """Hex digest of the names, sizes and modification times of all files below a folder, or of a single file."""
    digest = hashlib.sha256()
    for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            digest.update(f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def is_done(
    stamp: Path,
    options: Mapping[str, Any],
    inputs: Mapping[str, Path | str],
    *,
    defaults: Mapping[str, Any] | None = None,
) -> bool:
    """Whether a stamp is valid for these options and inputs, and all its outputs are intact.

    Args:
        stamp: The stamp file; its outputs are looked up relative to its folder.
        options: The job's current options, JSON-serialisable.
        inputs: Role -> input file, which may have moved; or, for an input that is no file, its checksum as a string.
        defaults: Values of options that an older version's stamp lacks; options that only it has are ignored then.
    """
    try:
        record = json.loads(stamp.read_text(encoding="utf-8"))
        if changed_parts(record, stamp_record(options, inputs), defaults):
            return False
        return all(checksum(stamp.parent / name) == digest for name, digest in record["outputs"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # no stamp, or a damaged one


def changed_parts(
    record: Mapping[str, Any], current: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> list[str]:
    """Names of the options and inputs that differ between two records by `stamp_record`, see `is_done`."""
    options = record["options"] if defaults is None else _completed(record["options"], current["options"], defaults)
    pairs = ((options, current["options"]), (record["inputs"], current["inputs"]))
    return [name for old, new in pairs for name in _different(old, new)]


def _completed(recorded: Any, current: Any, defaults: Any) -> Any:
    """Recorded options in the form of the current ones; missing ones from the defaults."""
    if not (isinstance(recorded, Mapping) and isinstance(current, Mapping) and isinstance(defaults, Mapping)):
        return recorded
    return {
        name: _completed(recorded.get(name, defaults.get(name)), value, defaults.get(name))
        for name, value in current.items()
    }


def _different(old: Any, new: Any, name: str = "") -> list[str]:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return [] if old == new else [name]
    names = dict.fromkeys([*old, *new])
    return [part for key in names for part in _different(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))]


def mark_done(
    stamp: Path, options: Mapping[str, Any], inputs: Mapping[str, Path | str], outputs: Sequence[Path]
) -> None:
    """Write the stamp of a finished job into the folder of its outputs. The other arguments are those of `is_done`."""
    digests = {os.path.relpath(path, stamp.parent): checksum(path) for path in outputs}
    save_json(stamp, {"version": VERSION, **stamp_record(options, inputs), "outputs": digests})


def stamp_record(options: Mapping[str, Any], inputs: Mapping[str, Path | str]) -> dict[str, Any]:
    """What determines a job's result, as JSON reads it back: its `options`, and the checksums of its `inputs`."""
    digests = {role: source if isinstance(source, str) else checksum(source) for role, source in inputs.items()}
    return {"options": json.loads(json.dumps(dict(options))), "inputs": digests}
