"""What the benchmarks share: processes with a number of threads, contenders that take turns, peaks of memory."""

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

Job = Callable[[], Any]  # does the work once


def in_process(threads: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a fresh process that has this many threads."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        return pool.submit(function, *arguments).result()


def take_turns(jobs: Mapping[str, Job], repeats: int) -> dict[str, float]:
    """Median milliseconds of each job; they take turns, so that a noisy machine hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(1 + repeats):
        for name, job in jobs.items():
            times[name].append(milliseconds(job))
    return {name: statistics.median(values[1:]) for name, values in times.items()}  # the first is the warm-up


def milliseconds(job: Job) -> float:
    """The time that one call takes."""
    start = time.perf_counter()
    job()
    return 1e3 * (time.perf_counter() - start)


def peak_of(job: Job) -> tuple[float, Any]:
    """Run a job; by how many bytes the process's memory rose above what it was before, and what the job gave."""
    before = psutil.Process().memory_info().rss
    result = job()
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before, result


def circumstances(packages: Sequence[str]) -> dict[str, Any]:
    """When, where and with which versions: the head of a report."""
    return {
        "date": date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


def cpu_name() -> str:
    """The processor's name, as Linux tells it; elsewhere the architecture."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
