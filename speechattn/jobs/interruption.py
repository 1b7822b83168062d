"""Signals that ask a process to stop, raised as exceptions, but never inside a critical section."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Interruption"]


class Interruption:
    """Context in which SIGINT (Ctrl-C) raises KeyboardInterrupt, and SIGTERM SystemExit(143), the shell's exit code.

    Outside the main thread, where Python cannot set signal handlers, it changes nothing.

    Args:
        deferred: Only record signals until `raise_if` is called: processes that train together must agree where to
            stop.
    """

    def __init__(self, *, deferred: bool = False) -> None:
        self.deferred = deferred
        self.received: int | None = None
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous_handlers[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous_handlers.items():
            if handler is not None:  # None: installed by C code, and cannot be restored
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if not self.deferred:
            self.raise_if(True)

    def raise_if(self, asked: bool) -> None:
        """If asked to, raise for the signal received, or for SIGTERM if only another process received one."""
        if asked and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        if asked:
            raise SystemExit(128 + (self.received or signal.SIGTERM))

    @contextmanager
    def held(self) -> Iterator[None]:
        """A critical section: signals raise at its end, unless they are deferred anyway."""
        deferred, self.deferred = self.deferred, True
        try:
            yield
        finally:
            self.deferred = deferred
        if not deferred:
            self.raise_if(self.received is not None)
