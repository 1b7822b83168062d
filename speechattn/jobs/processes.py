"""Process pools, and worker processes that survive signals but not their parent."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, current_process, get_context, parent_process
from typing import Any

__all__ = ["SIGNALS", "end_with_parent", "kill_daemons", "process_map", "start_forkserver"]

GUARD = 'a script that calls this must do so under `if __name__ == "__main__":`, since its processes import it again'
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # these ask a process to stop


@contextmanager
def process_map(num_jobs: int, *, chunksize: int = 1, start: Callable[[], object] | None = None) -> Iterator[Any]:
    """A `map` that runs in several processes and keeps the order of results. With one process it is `map` itself.

    Args:
        num_jobs: Number of processes.
        chunksize: Number of items sent to a process at a time.
        start: Called in each process before its first item.

    Raises:
        ValueError: When a process dies.
    """
    _require_guard()
    if num_jobs <= 1:
        if start is not None:
            start()
        yield map
        return
    # Spawn, not fork: a process with torch's threads must not be forked.
    with ProcessPoolExecutor(num_jobs, get_context("spawn"), initializer=_begin, initargs=(start,)) as pool:
        try:
            yield partial(pool.map, chunksize=chunksize)
        except BrokenProcessPool as error:
            raise ValueError(f"a process died: was it killed, or out of memory? {GUARD}") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _require_guard() -> None:
    """End a process that runs its parent's script again, instead of starting processes for ever."""
    if getattr(current_process(), "_inheriting", False):  # multiprocessing is still importing the script
        sys.stderr.write(f"speechattn: error: {GUARD}\n")
        sys.stderr.flush()
        os._exit(2)


def _begin(start: Callable[[], object] | None) -> None:
    end_with_parent()
    if start is not None:
        start()


def end_with_parent() -> None:
    """Exit as soon as the parent process dies, since a killed parent cannot stop its workers.

    PyTorch's data workers do not notice it: they watch the fork server, which lives as long as they do.
    """
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def start_forkserver() -> None:
    """Start multiprocessing's fork server with `SIGNALS` blocked in it and in the processes that it forks.

    Ctrl-C, torchrun and cluster managers signal all processes of a run. Only the training process must react: it needs
    its data workers until it has finished its step. Signals that the caller receives meanwhile are not lost.
    """
    from multiprocessing import forkserver, resource_tracker

    _require_guard()
    resource_tracker.ensure_running()  # first, since starting it unblocks the signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    atexit.unregister(kill_daemons)
    atexit.register(kill_daemons)


def kill_daemons() -> None:
    """Kill daemonic children: at exit multiprocessing would send them SIGTERM, which they block, and wait for ever."""
    for process in active_children():
        if process.daemon:
            process.kill()
