"""Work that is shared out among processes, one item at a time; and processes that load data while one trains."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from typing import Any

__all__ = ["SIGNALS", "end_with_parent", "process_map", "start_forkserver"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # which ask to end


@contextmanager
def process_map(num_jobs: int, *, chunksize: int = 1, start: Callable[[], object] | None = None) -> Iterator[Any]:
    """A `map` that works in several processes; results keep their order. With one process it is `map` itself.

    Args:
        num_jobs: Processes.
        chunksize: Items that a process gets at a time.
        start: Called in each process before its first item.

    Raises:
        ValueError: When a process dies.
    """
    if num_jobs <= 1:
        yield map
        return
    # Spawned, not forked: a process that holds torch's threads must not be copied.
    with ProcessPoolExecutor(num_jobs, get_context("spawn"), initializer=_begin, initargs=(start,)) as pool:
        try:
            yield partial(pool.map, chunksize=chunksize)
        except BrokenProcessPool as error:
            raise ValueError("a process died: was it killed, or out of memory?") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(start: Callable[[], object] | None) -> None:
    end_with_parent()
    if start is not None:
        start()


def end_with_parent() -> None:
    """Exit as soon as the parent process dies: a killed parent cannot stop its workers.

    PyTorch's data workers do not notice by themselves. They watch the fork server, which lives as long as they do.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def start_forkserver() -> None:
    """Start the process that multiprocessing forks others from, with `SIGNALS` blocked in it and in these.

    Ctrl-C, torchrun and cluster managers send a signal to all processes of a training: it is for the one that trains,
    which needs the others until it has finished what it began. The one that calls misses none meanwhile.
    """
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()  # first: as it starts, it lets the signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    atexit.unregister(_kill_daemons)
    atexit.register(_kill_daemons)


def _kill_daemons() -> None:
    """What multiprocessing would do at the exit by a SIGTERM, and then wait for ever."""
    for process in active_children():
        if process.daemon:
            process.kill()
