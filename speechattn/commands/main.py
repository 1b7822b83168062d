"""The command `speechattn`.

Bad input prints one line on stderr and exits with code 2. A command imports its modules when it runs, so that
`speechattn --help` is quick.
"""

import logging
import os
import sys
from collections.abc import Sequence

from speechattn.commands import Parser, corpora, fail, inference, models, say_error
from speechattn.jobs.stamps import VERSION
from speechattn.jobs.text import unprintable

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; exits with 2 on bad input, 130 if interrupted.

    Args:
        argv: Arguments; None: those of the process.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if sys.stdout is None:
        fail("standard output is closed")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="speechattn: %(message)s", force=True)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("speechattn").setLevel(logging.INFO)
    command = next((word for word in argv if word in _COMMANDS), None)
    try:
        arguments = _parser(command, argv).parse_args(argv)
        _COMMANDS[arguments.command][1](arguments[arguments.command])
    except KeyboardInterrupt:
        say_error("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # as in `speechattn ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, ImportError, OSError) as error:
        if "--debug" in argv:
            raise
        if isinstance(error, UnicodeEncodeError):
            fail(unprintable(error.object[error.start], error.encoding))
        if isinstance(error, OSError) and error.strerror and not isinstance(error, ImportError):
            fail(f"{error.filename or 'standard output'}: {error.strerror}")
        fail(str(error))


def _parser(command: str | None, argv: Sequence[str]) -> Parser:
    """The parser; adds options only to the chosen command, since those of `train` import torch."""
    parser = Parser(prog="speechattn", description="A phoneme for every 10 ms of speech.")
    parser.add_argument("--version", action="version", version=f"speechattn {VERSION}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    for name, (add_options, _, summary) in _COMMANDS.items():
        subparser = Parser(description=summary, epilog=_EXAMPLES.get(name))
        subparser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == command:
            add_options(subparser)
            if name in ("download", "prepare"):
                corpora.add_corpus_options(subparser, argv)
            elif name == "train":
                models.check_configs(argv)
        commands.add_subcommand(name, subparser, help=summary)
    return parser


_EXAMPLES = {
    name: "examples:\n" + "".join(f"  speechattn {name} {line}\n" for line in lines)
    for name, lines in {
        "download": ["timit_sample --corpus-dir data/timit_sample"],
        "prepare": [
            "timit_sample --download --output exp/timit/data",
            "folder --audio recordings --alignments textgrids --speaker '^[^_]+' --output exp/own/data",
        ],
        "inspect": ["exp/own/data/train.jsonl.gz exp/own/data/test.jsonl.gz --output exp/own/inspection"],
        "align": ["--cuts words.jsonl.gz --output phones.jsonl.gz --lexicon own.dict"],
        "score": ["hand.TextGrid automatic.TextGrid", "textgrids/ predicted/ --phones timit39 --closures-as-stops"],
        "train": ["--config conf/base.yaml --data.train train.jsonl.gz --data.dev dev.jsonl.gz --output exp/model"],
        "evaluate": ["exp/model --cuts test.jsonl.gz --report exp/report"],
        "compare": ["exp/model english-small --cuts test.jsonl.gz --phones timit39"],
        "predict": [
            "a.wav", "recordings/ --output out --smooth --format textgrid,csv", "a.wav --symbols ipa --plot --output o"
        ],
        "stream": ["--smooth", "- < samples.raw"],
        "serve": ["--port 8000"],
        "export": ["english-small --output model.onnx --check"],
    }.items()
}  # fmt: skip

_COMMANDS = {
    "download": (corpora.add_download, corpora.download, "download a corpus"),
    "prepare": (corpora.add_prepare, corpora.prepare, "prepare cuts with phones, split by speaker, from a corpus"),
    "inspect": (corpora.add_inspect, corpora.inspect, "summarise cuts and list their problems"),
    "align": (corpora.add_align, corpora.align, "align the phones of cuts with transcripts"),
    "score": (corpora.add_score, corpora.score, "compare two alignments of the same speech"),
    "train": (models.add_train, models.train, "train a model"),
    "evaluate": (models.add_evaluate, models.evaluate, "evaluate a model on cuts"),
    "compare": (models.add_compare, models.compare, "test whether one of two models is better on cuts"),
    "predict": (inference.add_predict, inference.predict, "predict the phones of audio files"),
    "stream": (inference.add_stream, inference.stream, "print the phones of live speech as they become final"),
    "serve": (inference.add_serve, inference.serve, "show the phones of recordings and of live speech on a web page"),
    "export": (inference.add_export, inference.export, "export a model to one file that runs without this package"),
}
