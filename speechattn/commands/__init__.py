"""The commands of `speechattn`: each adds its options to a parser and calls one function."""

import argparse
import difflib
import re
import sys
from collections.abc import Iterator
from typing import NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter

__all__ = ["Parser", "fail", "say_error"]


class _Formatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the examples."""


class Parser(ArgumentParser):
    """A parser that reports errors in one line, with suggestions for mistyped options."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **{"formatter_class": _Formatter, **options})  # type: ignore[arg-type]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line instead of usage and error."""
        if found := re.search(r"arguments are required: (.*)", message):  # evaluate.cuts, evaluate.model
            names = [name.split(".")[-1].replace("_", "-") for name in found[1].split(", ")]
            options = set(_option_strings(self))
            needed = ", ".join(f"--{name}" if f"--{name}" in options else name.upper() for name in names)
            fail(f"missing: {needed}; see --help")
        if found := re.search(r"[Uu]nrecognized arguments: (.*)", message):
            for word in found[1].split():
                if close := difflib.get_close_matches(word.partition("=")[0], _option_strings(self), 1):
                    message += f"; did you mean {close[0]}?"
                    break
        fail(message)


def _option_strings(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from _option_strings(subparser)


def fail(message: object) -> NoReturn:
    """Print one line on stderr and exit with code 2."""
    say_error(message)
    sys.exit(2)


def say_error(message: object) -> None:
    """Print one line on stderr, even if the message contains line breaks (in a file name, for example)."""
    sys.stderr.write(f"speechattn: error: {' '.join(str(message).split())}\n")
