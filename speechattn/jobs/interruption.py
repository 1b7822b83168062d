"""Signals that ask a process to end, turned into exceptions that never come in the middle of what must be whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Interruption"]


class Interruption:
    """Within it SIGINT (Ctrl-C) raises KeyboardInterrupt, and SIGTERM SystemExit with the shell's code for it, 143.

    Python's own handlers stay where they can only be set from the main thread, and this is not it.

    Args:
        deferred: Whether a signal is not to raise at once but to wait for `raise_if`: for processes that work
            together, which must agree where to stop.
    """

    def __init__(self, *, deferred: bool = False) -> None:
        self.deferred = deferred
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # it was not Python's, and cannot be set again
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if not self.deferred:
            self.raise_if(True)

    def raise_if(self, asked: bool) -> None:
        """Raise for the signal that was received, if asked; for one of another process, as for SIGTERM."""
        if asked and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        if asked:
            raise SystemExit(128 + (self.received or signal.SIGTERM))

    @contextmanager
    def held(self) -> Iterator[None]:
        """What a signal does not break into: it raises at the end, unless it is deferred altogether."""
        deferred, self.deferred = self.deferred, True
        try:
            yield
        finally:
            self.deferred = deferred
        if not deferred:
            self.raise_if(self.received is not None)
