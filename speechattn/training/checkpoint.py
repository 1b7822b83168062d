"""The state of a training: saved so that it is whole or not there, found again, and left when it is not usable.

A state is one file that bears the checksum of its bytes in its name, `state-EPOCH-BATCHES-CHECKSUM.pt`: a flipped bit,
or an end that is missing, shows. It holds tensors, numbers, strings, lists and dicts only, and is loaded as such
(`torch.load(weights_only=True)`), on the CPU, wherever it was saved.
"""

from __future__ import annotations

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

KEPT = 2
DIGITS = 16  # of the checksum


class Checkpoints:
    """The last states of a training, in a folder.

    Args:
        folder: Theirs.
        run: What the training is known by, see `stamps.stamp_record`: a state of another one is not taken.
        every_s: Seconds from one state to the next.
        enabled: Whether this process saves, and speaks. All may load.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], *, every_s: float, enabled: bool) -> None:
        self.folder, self.every_s, self.enabled = folder, every_s, enabled
        self.run = {**run, "version": {"speechattn": VERSION}}
        self._whole: list[Path] = []  # that were saved or loaded, oldest first
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return self.enabled and time.monotonic() - self._last >= self.every_s

    def newest(self) -> dict[str, Any] | None:
        """The newest state of this training that is whole; None where there is none, and it has to begin afresh."""
        paths = sorted(self.folder.glob("state-*.pt"), reverse=True)
        for path in paths:
            if checksum(path)[:DIGITS] != path.stem.rpartition("-")[2]:
                self._say(logging.WARNING, f"{path} is damaged and passed over")
                continue
            try:
                content = torch.load(path, map_location="cpu", weights_only=True)
            except (RuntimeError, pickle.UnpicklingError) as error:
                self._say(logging.WARNING, f"{path} is passed over: {' '.join(str(error).split())[:200]}")
                continue
            if others := _differences(content["run"], self.run):
                shown = ", ".join(others[:4]) + (" ..." if len(others) > 4 else "")
                self._say(logging.WARNING, f"{path} is of another training ({shown}): this one starts afresh")
                return None
            self._whole = [path]
            return content["state"]
        if paths:
            self._say(logging.WARNING, f"{self.folder}: no state can be used, the training starts afresh")
        return None

    def save(self, epoch: int, batches: int, state: Mapping[str, Any]) -> None:
        """Save a state, and delete all but the last two that are whole. Where that fails, those stay, and it is said.

        Args:
            epoch: Where the training is, from 0.
            batches: Of this epoch that are over.
            state: Tensors, numbers, strings, None, and lists and dicts of these.
        """
        name = f"state-{epoch:05d}-{batches:08d}"
        if not self.enabled or (self._whole and self._whole[-1].name.startswith(f"{name}-")):
            return
        self._last = time.monotonic()
        for stale in self.folder.glob(".state-*"):  # of a process that was killed as it wrote
            shutil.rmtree(stale, ignore_errors=True)
        buffer = io.BytesIO()
        torch.save({"run": self.run, "state": dict(state)}, buffer)
        content = buffer.getbuffer()
        path = self.folder / f"{name}-{hashlib.sha256(content).hexdigest()[:DIGITS]}.pt"
        try:
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            log.warning("%s: the state of the training could not be saved, and it goes on: %s", self.folder, error)
            return
        self._whole = [*self._whole, path][-KEPT:]
        for old in self.folder.glob("state-*.pt"):
            if old not in self._whole:
                old.unlink()

    def _say(self, level: int, message: str) -> None:
        if self.enabled:
            log.log(level, message)


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names, with dots, of what two nested dicts do not have in common."""
    first, second = dict(_flat(one)), dict(_flat(other))
    missing = object()
    names = first | second
    return [name for name in names if first.get(name, missing) != second.get(name, missing)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, "" if (prefix, name) == ("", "options") else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
