"""Read the splits of a prepared corpus."""

from pathlib import Path
from typing import Any

from speechattn.cuts.files import SPLITS, read_cuts


def read_splits(output: Path) -> dict[str, list[Any]]:
    """Split -> its cuts."""
    return {split: list(read_cuts(output / f"{split}.jsonl.gz")) for split in SPLITS}
