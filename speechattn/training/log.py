"""What a training says of itself while it goes on: a progress bar, and a row of figures an epoch."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

__all__ = ["LOG_FILE", "EpochLog", "Progress", "Tally", "Timed", "read_log"]

LOG_FILE = "log.csv"  # in the folder of the model that is trained

log = logging.getLogger("speechattn")
T = TypeVar("T")


@dataclass
class Tally:
    """What an epoch has come to so far, over all processes.

    Attributes:
        batches: That each process has learned from.
        utterances: A piece of a long one counts as its part of it.
        labels: That were learned from.
        loss: Summed over the labels.
        frames: Of all utterances, labelled or not.
        seconds: That it took.
        waiting: Seconds of these in which the model waited for data; the mean of the processes.
    """

    batches: int = 0
    utterances: float = 0.0
    labels: int = 0
    loss: float = 0.0
    frames: int = 0
    seconds: float = 0.0
    waiting: float = 0.0

    def add(self, **more: float) -> None:
        """Count what a step has brought, by attribute."""
        for name, value in more.items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def mean_loss(self) -> float:
        """Loss per label."""
        return self.loss / max(self.labels, 1)

    def throughput(self) -> dict[str, float]:
        """How quickly frames were learned from, and the share of the time that was spent waiting for data."""
        seconds = self.seconds or float("inf")  # nothing was to be done
        return {"frames_per_s": round(self.frames / seconds), "data_wait": round(self.waiting / seconds, 3)}


class Timed(Generic[T]):
    """An iterator that takes the time: `seconds` were spent waiting for its items so far."""

    def __init__(self, items: Iterable[T]) -> None:
        self.items = iter(items)
        self.seconds = 0.0

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        started = time.monotonic()
        try:
            return next(self.items)
        finally:
            self.seconds += time.monotonic() - started


class Progress:
    """How far the training is, as a share of all cuts to be seen, with a bar where stderr is a terminal."""

    def __init__(self, epochs: int, num_cuts: int, *, enabled: bool) -> None:
        self.epochs, self.num_cuts, self.enabled = epochs, num_cuts, enabled
        self.bar: Any = None

    def share(self, epoch: int, tally: Tally) -> float:
        """In [0, 1]; epochs count from 0."""
        return (epoch * self.num_cuts + tally.utterances) / (self.epochs * self.num_cuts)

    @contextmanager
    def over(self, epoch: int, tally: Tally) -> Iterator[None]:
        """An epoch, counted from 0, under a bar of its own."""
        from tqdm import tqdm

        disable = None if self.enabled else True  # None: off unless stderr is a terminal
        title = f"epoch {epoch + 1}/{self.epochs}"
        with tqdm(total=self.num_cuts, desc=title, unit="utt", leave=False, disable=disable) as self.bar:
            self.show(tally)
            yield

    def show(self, tally: Tally) -> None:
        """Move the bar to where the epoch is."""
        self.bar.set_postfix(loss=f"{tally.mean_loss:.3f}", refresh=False)
        self.bar.update(round(tally.utterances) - self.bar.n)


class EpochLog:
    """A row an epoch, in a CSV file, on screen, and for TensorBoard where that is installed.

    Args:
        path: The CSV file; written anew.
        rows: Of epochs that are over; not said again. What is written is added to them.
        enabled: Whether to write at all.
    """

    def __init__(self, path: Path, rows: list[dict[str, float]], *, enabled: bool) -> None:
        self.path, self.rows, self.enabled = path, rows, enabled
        self.tensorboard: Any = None

    def __enter__(self) -> EpochLog:
        if self.enabled:
            self.file = open(self.path, "w", encoding="utf-8", newline="")
            try:
                from torch.utils.tensorboard import SummaryWriter

                self.tensorboard = SummaryWriter(self.path.parent / "tensorboard")
            except ImportError:
                pass
            for row in self.rows:
                self._write(row)
        return self

    def write(self, *, epoch: int, **figures: float) -> None:
        """Add the row of an epoch, counted from 1."""
        row = {"epoch": epoch, **figures}
        self.rows.append(row)
        if self.enabled:
            self._write(row)
            log.info(" ".join(f"{name}={value}" for name, value in row.items()))

    def _write(self, row: dict[str, float]) -> None:
        writer = csv.DictWriter(self.file, list(row))
        if self.file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)
        self.file.flush()
        if self.tensorboard:
            for name, value in row.items():
                if name != "epoch":
                    self.tensorboard.add_scalar(name, value, row["epoch"])

    def __exit__(self, *error: object) -> None:
        if self.enabled:
            self.file.close()
            if self.tensorboard:
                self.tensorboard.close()


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a training's log.csv, one an epoch; what is left empty there is NaN.

    Raises:
        ValueError: When the file is not one of numbers by name; names it.
    """
    with open(path, encoding="utf-8", newline="") as file:
        try:
            rows = [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]
        except (TypeError, ValueError) as error:  # a row of more cells than names, or a word
            raise ValueError(f"{path} is not the log of a training: {error}") from error
    for name in ("epoch", "train_loss", "dev_accuracy"):
        if rows and name not in rows[0]:
            raise ValueError(f"{path} is not the log of a training: it has no {name!r}")
    return rows
