"""What the benchmarks share: numbers of threads, contenders that take turns, peaks of memory, older commits."""

import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
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


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit."""
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(root), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def python_in(tree: Path, arguments: Sequence[str], threads: int) -> str:
    """Run Python with the package of a tree, to its good end; what it printed on both streams."""
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{tree}: {' '.join(arguments[:4])} failed: {done.stdout[-2000:]}")
    return done.stdout


def compare_trees(commit: str, measure: Callable[[Path], Mapping[str, float]], repeats: int) -> str:
    """Measure a commit and this tree in turns: a table of medians and of the gain.

    Args:
        commit: The older commit.
        measure: The root of a tree -> seconds by workload.
        repeats: Number of measurements of each tree.
    """
    with worktree(commit) as old:
        trees = {commit: old, "now": Path(__file__).parents[1]}
        runs: dict[str, list[Mapping[str, float]]] = {name: [] for name in trees}
        for _ in range(repeats):
            for name, tree in trees.items():
                runs[name].append(measure(tree))
    lines = [f"{cpu_name()}, medians of {repeats}", f"{'seconds':44}{commit:>12}{'now':>12}{'gain':>8}"]
    for workload in runs["now"][0]:
        before, now = (statistics.median(run[workload] for run in runs[name]) for name in trees)
        lines.append(f"{workload:44}{before:12.4g}{now:12.4g}{before / now:8.2f}")
    return "\n".join(lines)
