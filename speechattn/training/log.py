"""The log of a training run: one row of figures per epoch, in log.csv, on screen and for TensorBoard."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any

from speechattn.jobs.text import read_text

__all__ = ["LOG_FILE", "EpochLog", "read_log"]

LOG_FILE = "log.csv"  # in the model's folder

log = logging.getLogger("speechattn")


class EpochLog:
    """Context that writes one row per epoch; to TensorBoard only if it is installed.

    Args:
        path: The CSV file; overwritten.
        rows: Rows of earlier epochs, written again but not shown again. New rows are appended to this list.
        enabled: Whether to write and show anything.
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
    """Read a log.csv: one dict per epoch; empty cells become NaN.

    Raises:
        ValueError: If the file is not a training log; names it.
    """
    rows = []
    for number, row in enumerate(csv.DictReader(io.StringIO(read_text(path))), 2):
        try:
            rows.append({name: float(value or "nan") for name, value in row.items()})
        except (TypeError, ValueError) as error:  # more cells than columns, or a cell that is not a number
            raise ValueError(f"{path}:{number}: not a row of a training log: {error}") from error
    for name in ("epoch", "train_loss", "dev_accuracy"):
        if rows and name not in rows[0]:
            raise ValueError(f"{path} is not a training log: it has no {name!r}")
    return rows
