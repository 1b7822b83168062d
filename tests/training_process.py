"""Run training in a separate process, or in several."""

import csv
import os
import pickle
import subprocess
import sys
from pathlib import Path

from speechattn.training.config import TrainConfig


def start_training(config: TrainConfig, folder: Path, *, processes: int = 1) -> subprocess.Popen[str]:
    """Start training, with torchrun for several processes. They form one process group, led by the first."""
    script = folder / "train.py"
    script.write_text(
        "import logging, pickle\n"
        "from speechattn.training.run import train\n"
        "if __name__ == '__main__':\n"
        "    logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
        f"    train(pickle.load(open({str(folder / 'config.pickle')!r}, 'rb')))\n"
    )
    (folder / "config.pickle").write_bytes(pickle.dumps(config))
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
    return subprocess.Popen(
        [sys.executable, *torchrun, str(script)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def run_training(config: TrainConfig, folder: Path, *, processes: int = 1) -> str:
    """Train to the end; returns the log output."""
    with start_training(config, folder, processes=processes) as process:
        _, logged = process.communicate()
    assert process.returncode == 0, logged
    return logged


def log_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of log.csv, one per epoch."""
    with open(folder / "log.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
