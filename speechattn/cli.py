"""The command `speechattn`: parses, calls one function, prints.

Bad input is one line on stderr and exit code 2. What a command needs is imported when it runs, so that
`speechattn --help` is quick.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from speechattn import __version__

__all__ = ["main"]

MIRROR_VARIABLE = "SPEECHATTN_MIRROR"


class _Parser(ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """One line instead of usage, tip and error."""
        _fail(message)


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
        arguments = _parser(command).parse_args(argv)
        _COMMANDS[arguments.command][1](arguments[arguments.command])
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as in `speechattn ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, ImportError, OSError) as error:
        if "--debug" in argv:
            raise
        _fail(str(error))


def _fail(message: object) -> NoReturn:
    sys.stderr.write(f"speechattn: error: {' '.join(str(message).split())}\n")
    sys.exit(2)


def _parser(command: str | None) -> ArgumentParser:
    """The parser; only the chosen command has its options, since those of `train` need torch."""
    parser = _Parser(prog="speechattn", description="A phoneme for every 10 ms of speech.")
    parser.add_argument("--version", action="version", version=f"speechattn {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    for name, (add_options, _, summary) in _COMMANDS.items():
        subparser = _Parser(description=summary)
        subparser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == command:
            add_options(subparser)
        commands.add_subcommand(name, subparser, help=summary)
    return parser


def _add_download(parser: ArgumentParser) -> None:
    from speechattn.corpora import CORPORA

    parser.add_argument("corpus", choices=CORPORA, help="which corpus")
    parser.add_argument(
        "--corpus-dir", type=str, help="where the archive or its unpacked root lies, or goes; default data/CORPUS"
    )
    parser.add_argument(
        "--mirror",
        type=str,
        help=f"folder or http(s) address instead of the public servers; default ${MIRROR_VARIABLE}",
    )


def _download(arguments: Any) -> None:
    from speechattn.corpora import download_corpus

    download_corpus(arguments.corpus, _corpus_dir(arguments), arguments.mirror or os.environ.get(MIRROR_VARIABLE))


def _corpus_dir(arguments: Any) -> Path:
    return Path(arguments.corpus_dir or Path("data") / arguments.corpus)


def _add_prepare(parser: ArgumentParser) -> None:
    _add_download(parser)
    parser.add_argument("--output", type=str, required=True, help="folder for {train,dev,test}.jsonl.gz")
    parser.add_argument("--download", action="store_true", help="fetch what is missing first")
    parser.add_argument("--num-jobs", type=int, default=os.cpu_count() or 1, help="processes")


def _prepare(arguments: Any) -> None:
    from speechattn.corpora import prepare_corpus

    if arguments.download:
        _download(arguments)
    prepare_corpus(
        arguments.corpus, Path(arguments.output), corpus_dir=_corpus_dir(arguments), num_jobs=arguments.num_jobs
    )


def _add_align(parser: ArgumentParser) -> None:
    parser.add_argument("--cuts", type=str, required=True, help="cuts with a transcript")
    parser.add_argument("--output", type=str, required=True, help="file for the cuts with phones")
    parser.add_argument("--lexicon", type=str, help="pronunciations in CMUdict's format; default: CMUdict")
    parser.add_argument("--num-jobs", type=int, default=os.cpu_count() or 1, help="processes")


def _align(arguments: Any) -> None:
    from speechattn.corpora.manifest import align_file

    align_file(arguments.cuts, arguments.output, lexicon=arguments.lexicon, num_jobs=arguments.num_jobs)


def _add_train(parser: ArgumentParser) -> None:
    from speechattn.frontend.config import PRESETS
    from speechattn.training import TrainConfig

    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_argument("--init", type=str, help="model to start from")
    parser.add_class_arguments(TrainConfig, as_group=False)
    # Left open, so that they follow whichever preset is asked for.
    parser.set_defaults({f"model.frontend.{name}": None for name in PRESETS["kaldi"]})


def _train(arguments: Any) -> None:
    from dataclasses import fields

    from speechattn.training import TrainConfig, train

    parser = _Parser()
    parser.add_class_arguments(TrainConfig, as_group=False)
    built = parser.instantiate(arguments.clone(with_meta=False))
    train(TrainConfig(**{field.name: built[field.name] for field in fields(TrainConfig)}), init=arguments.init)


def _add_evaluate(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=str, help="a model's folder, or its id on the Hugging Face Hub")
    parser.add_argument("--cuts", type=str, required=True, help="cuts with phones")
    parser.add_argument("--report", type=str, help="folder for figures and pictures")
    parser.add_argument("--json", type=str, help="file for the figures")


def _evaluate(arguments: Any) -> None:
    from speechattn.report import evaluate_and_report

    evaluate_and_report(arguments.model, arguments.cuts, report=arguments.report, json_file=arguments.json)


def _add_predict(parser: ArgumentParser) -> None:
    parser.add_argument("audio", type=str, nargs="*", help="audio files of any rate")
    parser.add_argument("--cuts", type=str, help="take the recordings of these cuts; the cuts' ids name the results")
    parser.add_argument("--model", type=str, required=True, help="a model's folder, or its id on the Hugging Face Hub")
    parser.add_argument("--format", type=str, default="textgrid", help="some of textgrid,ctm,json,csv")
    parser.add_argument("--output", type=str, help="folder for the files; default: print `start end phone confidence`")
    parser.add_argument("--channel", type=int, help="channel to take, counted from 0; default: their mean")
    parser.add_argument("--plot", action="store_true", help="draw spectrogram, segments and posteriors as well")


def _predict(arguments: Any) -> None:
    from speechattn.classifier import FrameClassifier
    from speechattn.prediction import by_stem, predict_cuts, predict_files

    formats = arguments.format.split(",")
    if bool(arguments.audio) == bool(arguments.cuts):
        raise ValueError("predict takes audio files or --cuts FILE, one of the two")
    if arguments.cuts:
        if arguments.output is None or arguments.plot or arguments.channel is not None:
            raise ValueError("predict --cuts needs --output, and takes neither --plot nor --channel")
        predict_cuts(arguments.model, arguments.cuts, arguments.output, formats=formats)
        return
    failures = predict_files(
        FrameClassifier.from_pretrained(arguments.model),
        by_stem(arguments.audio),
        formats=formats,
        output=arguments.output,
        channel=arguments.channel,
        plot=arguments.plot,
    )
    if failures:
        for failure in failures[:-1]:
            sys.stderr.write(f"speechattn: error: {failure}\n")
        _fail(failures[-1])


_COMMANDS = {
    "download": (_add_download, _download, "fetch a corpus"),
    "prepare": (_add_prepare, _prepare, "turn a corpus into cuts with phones, split by speaker"),
    "align": (_add_align, _align, "find the phones of cuts that have only a transcript"),
    "train": (_add_train, _train, "train a model"),
    "evaluate": (_add_evaluate, _evaluate, "score a model on cuts"),
    "predict": (_add_predict, _predict, "find the phones of audio files"),
}
