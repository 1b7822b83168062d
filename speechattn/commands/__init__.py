"""The commands of `speechattn`: each adds its options to a parser and calls one function."""

import sys
from typing import NoReturn

from jsonargparse import ArgumentParser

__all__ = ["Parser", "fail", "say_error"]


class Parser(ArgumentParser):
    """A parser that reports errors in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line instead of usage and error."""
        fail(message)


def fail(message: object) -> NoReturn:
    """Print one line on stderr and exit with code 2."""
    say_error(message)
    sys.exit(2)


def say_error(message: object) -> None:
    """Print one line on stderr, even if the message contains line breaks (in a file name, for example)."""
    sys.stderr.write(f"speechattn: error: {' '.join(str(message).split())}\n")
