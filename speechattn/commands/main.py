"""The command `speechattn`: parses, calls one function, prints.

Bad input is one line on stderr and exit code 2. What a command needs is imported when it runs, so that
`speechattn --help` is quick.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from speechattn.commands import Parser, corpora, fail, inference, models
from speechattn.jobs.stamps import VERSION

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; exits with 2 on bad input, 130 when interrupted.

    Args:
        argv: Arguments; those of the process when None.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="speechattn: %(message)s", force=True)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("speechattn").setLevel(logging.INFO)
    command = next((word for word in argv if word in _COMMANDS), None)
    try:
        arguments = _parser(command, argv).parse_args(argv)
        _COMMANDS[arguments.command][1](arguments[arguments.command])
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as in `speechattn ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, ImportError, OSError) as error:
        if "--debug" in argv:
            raise
        fail(str(error))


def _parser(command: str | None, argv: Sequence[str]) -> Parser:
    """The parser; only the chosen command has its options, since those of `train` need torch."""
    parser = Parser(prog="speechattn", description="A phoneme for every 10 ms of speech.")
    parser.add_argument("--version", action="version", version=f"speechattn {VERSION}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    for name, (add_options, _, summary) in _COMMANDS.items():
        subparser = Parser(description=summary)
        subparser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == command:
            add_options(subparser)
            if name in ("download", "prepare"):
                corpora.add_corpus_options(subparser, argv)
        commands.add_subcommand(name, subparser, help=summary)
    return parser


_COMMANDS = {
    "download": (corpora.add_download, corpora.download, "fetch a corpus"),
    "prepare": (corpora.add_prepare, corpora.prepare, "turn a corpus into cuts with phones, split by speaker"),
    "inspect": (corpora.add_inspect, corpora.inspect, "say what is in sets of cuts, and what is wrong with them"),
    "align": (corpora.add_align, corpora.align, "find the phones of cuts that have only a transcript"),
    "score": (corpora.add_score, corpora.score, "compare two alignments of the same speech"),
    "train": (models.add_train, models.train, "train a model"),
    "evaluate": (models.add_evaluate, models.evaluate, "score a model on cuts"),
    "compare": (
        models.add_compare,
        models.compare,
        "say whether one of two models is better on cuts, or could be by chance",
    ),
    "predict": (inference.add_predict, inference.predict, "find the phones of audio files"),
    "stream": (inference.add_stream, inference.stream, "print the phones of live speech as they become final"),
    "serve": (inference.add_serve, inference.serve, "show the phones of recordings and of live speech on a web page"),
    "export": (inference.add_export, inference.export, "write a model as one file that runs without this package"),
}
