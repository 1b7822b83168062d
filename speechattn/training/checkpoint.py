"""Atomic, checksummed checkpoints; unusable ones are skipped.

A checkpoint is one file, `state-EPOCH-BATCHES-CHECKSUM.pt`. The checksum of its bytes in its name reveals damage. It
holds only tensors, numbers, strings, None, lists and dicts, so `torch.load(weights_only=True)` can read it without
running code, on any machine.
"""

import hashlib
import io
import logging
import pickle
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from speechattn.jobs.atomic import atomic_path
from speechattn.jobs.stamps import VERSION, checksum

__all__ = ["Checkpoints"]

log = logging.getLogger("speechattn")

NUM_KEPT = 2
CHECKSUM_DIGITS = 16


class Checkpoints:
    """The latest checkpoints of a run.

    Args:
        folder: Folder for the files.
        run: Options and inputs that identify the run, see `stamps.stamp_record`; checkpoints of other runs are ignored.
        every_s: Seconds between checkpoints.
        enabled: Whether this process saves and logs. All processes may load.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], *, every_s: float, enabled: bool) -> None:
        self.folder, self.every_s, self.enabled = folder, every_s, enabled
        self.run = {**run, "version": {"speechattn": VERSION}}
        self._intact: list[Path] = []  # saved or loaded by this object, oldest first
        self._last_save = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return self.enabled and time.monotonic() - self._last_save >= self.every_s

    def newest(self) -> dict[str, Any] | None:
        """Load the newest intact checkpoint of this run, on the CPU; None if there is none."""
        paths = sorted(self.folder.glob("state-*.pt"), reverse=True)
        for path in paths:
            if checksum(path)[:CHECKSUM_DIGITS] != path.stem.rpartition("-")[2]:
                self._warn(f"{path} is damaged: skipped")
                continue
            try:
                content = torch.load(path, map_location="cpu", weights_only=True)
            except (RuntimeError, pickle.UnpicklingError) as error:
                self._warn(f"{path} cannot be loaded: skipped: {' '.join(str(error).split())[:200]}")
                continue
            if changed := _differences(content["run"], self.run):
                shown = ", ".join(changed[:4]) + (" ..." if len(changed) > 4 else "")
                self._warn(f"{path} belongs to a run with other settings ({shown}): starting over")
                return None
            self._intact = [path]
            return content["state"]
        if paths:
            self._warn(f"{self.folder}: no usable checkpoint: starting over")
        return None

    def save(self, epoch: int, batches: int, state: Mapping[str, Any]) -> None:
        """Save a checkpoint and delete all but the last two intact ones. On failure, log a warning and delete nothing.

        Args:
            epoch: Current epoch, from 0.
            batches: Batches done in this epoch.
            state: Tensors, numbers, strings, None, and lists and dicts of these.
        """
        name = f"state-{epoch:05d}-{batches:08d}"
        if not self.enabled or (self._intact and self._intact[-1].name.startswith(f"{name}-")):
            return
        self._last_save = time.monotonic()
        for stale in self.folder.glob(".state-*"):  # left by a process killed while writing
            shutil.rmtree(stale, ignore_errors=True)
        buffer = io.BytesIO()
        torch.save({"run": self.run, "state": dict(state)}, buffer)
        content = buffer.getbuffer()
        path = self.folder / f"{name}-{hashlib.sha256(content).hexdigest()[:CHECKSUM_DIGITS]}.pt"
        try:
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            log.warning("%s: the checkpoint could not be saved; training continues: %s", self.folder, error)
            return
        self._intact = [*self._intact, path][-NUM_KEPT:]
        for old in self.folder.glob("state-*.pt"):
            if old not in self._intact:
                old.unlink()

    def _warn(self, message: str) -> None:
        if self.enabled:
            log.warning(message)


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Dotted names of the values in which two nested dicts differ."""
    flat_first, flat_second, missing = dict(_flat(first)), dict(_flat(second)), object()
    names = flat_first | flat_second
    return [name for name in names if flat_first.get(name, missing) != flat_second.get(name, missing)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, "" if (prefix, name) == ("", "options") else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
