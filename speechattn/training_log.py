"""What a training says of itself while it goes on: a progress bar, and a row of figures an epoch."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechattn.data import Batch

__all__ = ["EpochLog", "Progress"]

log = logging.getLogger("speechattn")


class Progress:
    """How far the training is, as a share of all cuts to be seen, with a bar where stderr is a terminal."""

    def __init__(self, epochs: int, num_cuts: int) -> None:
        self.epochs, self.num_cuts, self.seen = epochs, num_cuts, 0
        self.bar: Any = None

    @property
    def share(self) -> float:
        """In [0, 1], or just above where cuts are repeated to keep processes in step."""
        return self.seen / (self.epochs * self.num_cuts)

    def over(self, batches: Iterator[Batch], epoch: int, accelerator: Any) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0, under a bar of its own."""
        from tqdm import tqdm

        self.seen = epoch * self.num_cuts
        disable = None if accelerator.is_main_process else True  # None: off unless stderr is a terminal
        title = f"epoch {epoch + 1}/{self.epochs}"
        with tqdm(total=self.num_cuts, desc=title, unit="utt", leave=False, disable=disable) as self.bar:
            yield from batches

    def advance(self, num_cuts: int, loss: float) -> None:
        """So many more cuts, of all processes, were learned from; the loss is shown."""
        self.seen += num_cuts
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update(num_cuts)


class EpochLog:
    """A row an epoch, in a CSV file, on screen, and for TensorBoard where that is installed."""

    def __init__(self, path: Path, *, enabled: bool) -> None:
        self.path, self.enabled = path, enabled
        self.tensorboard: Any = None

    def __enter__(self) -> EpochLog:
        if self.enabled:
            self.file = open(self.path, "w", encoding="utf-8", newline="")
            try:
                from torch.utils.tensorboard import SummaryWriter

                self.tensorboard = SummaryWriter(self.path.parent / "tensorboard")
            except ImportError:
                pass
        return self

    def write(self, *, epoch: int, **figures: float) -> None:
        """Add the row of an epoch, counted from 1."""
        if not self.enabled:
            return
        row = {"epoch": epoch, **figures}
        writer = csv.DictWriter(self.file, list(row))
        if self.file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)
        self.file.flush()
        if self.tensorboard:
            for name, value in figures.items():
                self.tensorboard.add_scalar(name, value, epoch)
        log.info(" ".join(f"{name}={value}" for name, value in row.items()))

    def __exit__(self, *error: object) -> None:
        if self.enabled:
            self.file.close()
            if self.tensorboard:
                self.tensorboard.close()
