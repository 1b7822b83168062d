"""Work that is shared out among processes, one item at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from typing import Any

__all__ = ["process_map"]


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
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start()


def _end_with_parent() -> None:
    """A killed parent cannot tell its workers to stop: they would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
