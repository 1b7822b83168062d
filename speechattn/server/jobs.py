"""Run jobs in threads: a few at a time, some waiting, the rest refused."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.exceptions import HTTPException

from speechattn.server.limits import Limits

__all__ = ["Jobs"]

Result = TypeVar("Result")

RETRY_S = 5  # Retry-After of a refused request


class Jobs:
    """The jobs of a server.

    Args:
        limits: Number of running and waiting jobs, and time limit.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._threads = ThreadPoolExecutor(limits.jobs, thread_name_prefix="job")
        self._admitted = 0
        self._futures: set[Future[Any]] = set()  # of unfinished calls

    @property
    def working(self) -> bool:
        """Whether a call is running in a thread."""
        return any(future.running() for future in list(self._futures))

    @contextmanager
    def place(self) -> Iterator[None]:
        """Reserve a place for one request before receiving its file, to bound the disk space.

        Raises:
            HTTPException: 503 if all places are taken.
        """
        if self._admitted >= self.limits.jobs + self.limits.waiting:
            raise HTTPException(
                503,
                f"the server is busy with {self._admitted} recordings: try again in a few seconds",
                {"Retry-After": str(RETRY_S)},
            )
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function in a thread, in turn, and return its result.

        Raises:
            HTTPException: 503 if this takes too long.
        """
        # A running thread cannot be stopped: after a timeout it runs on and occupies its thread. A call that has not
        # started is cancelled.
        future = self._threads.submit(function, *arguments)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.limits.job_timeout_s)
        except asyncio.TimeoutError as error:  # the built-in one from Python 3.11 on
            raise HTTPException(
                503,
                f"not finished within {self.limits.job_timeout_s:g} s: the server is busy or the recording too long; "
                "try again, or send a shorter recording",
                {"Retry-After": str(RETRY_S)},
            ) from error
