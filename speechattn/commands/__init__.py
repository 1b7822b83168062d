"""The commands of `speechattn`, by what they are for: each adds its options to a parser, and calls one function."""

from __future__ import annotations

import sys
from typing import NoReturn

from jsonargparse import ArgumentParser

__all__ = ["Parser", "fail", "say_error"]


class Parser(ArgumentParser):
    """A parser that says in one line what is wrong."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """One line instead of usage, tip and error."""
        fail(message)


def fail(message: object) -> NoReturn:
    """End with one line on stderr and exit code 2."""
    say_error(message)
    sys.exit(2)


def say_error(message: object) -> None:
    """One line on stderr, whatever the message; a file's name may have a line break in it."""
    sys.stderr.write(f"speechattn: error: {' '.join(str(message).split())}\n")
