"""Work in threads, so that the event loop stays free: a few at a time, some more waiting, the rest refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.exceptions import HTTPException

from speechattn.server.limits import Limits

__all__ = ["Jobs"]

Result = TypeVar("Result")

RETRY_S = 5  # what a refused client is told to wait


class Jobs:
    """Those of one server.

    Args:
        limits: How many at a time, how many waiting, how long.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._threads = ThreadPoolExecutor(limits.jobs, thread_name_prefix="job")
        self._admitted = 0
        self._futures: set[Future[Any]] = set()  # of calls that have not ended

    @property
    def working(self) -> bool:
        """Whether a call is under way in a thread."""
        return any(future.running() for future in list(self._futures))

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one request, from before its file is received: what is waiting lies on the disk.

        Raises:
            HTTPException: 503, when all places are taken.
        """
        if self._admitted >= self.limits.jobs + self.limits.waiting:
            raise HTTPException(
                503,
                f"the server is busy with {self._admitted} other recordings: try again in a few seconds",
                {"Retry-After": str(RETRY_S)},
            )
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """What a function returns, or raises, called in a thread when it is its turn.

        Raises:
            HTTPException: 503, when that takes too long.
        """
        # A thread cannot be stopped. One that is late goes on alone and keeps its thread from others until it ends; a
        # call that has not begun is cancelled, by `wait_for` and `wrap_future`.
        future = self._threads.submit(function, *arguments)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.limits.job_timeout_s)
        except asyncio.TimeoutError as error:  # the built-in one from Python 3.11 on
            raise HTTPException(
                503,
                f"not done within {self.limits.job_timeout_s:g} s, since the server is busy or the recording long: "
                "try again, or with a shorter one",
                {"Retry-After": str(RETRY_S)},
            ) from error
