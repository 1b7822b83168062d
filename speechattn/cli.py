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
RIGHT_HELP = "frames (or steps, see encoder.stack) to the right that each attention layer sees, at most"


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
        arguments = _parser(command, argv).parse_args(argv)
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


def _parser(command: str | None, argv: Sequence[str]) -> ArgumentParser:
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
            if name in ("download", "prepare"):
                _add_corpus_options(subparser, argv)
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


def _add_corpus_options(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options that only the corpus at hand has."""
    from speechattn.corpora import CORPORA, corpus_options

    corpus = next((word for word in argv if word in CORPORA), None)
    if corpus is not None and (options := corpus_options(corpus)) is not None:
        parser.add_class_arguments(options, as_group=False)


def _corpus_options(arguments: Any) -> Any:
    from dataclasses import fields

    from speechattn.corpora import corpus_options

    options = corpus_options(arguments.corpus)
    return None if options is None else options(**{field.name: arguments[field.name] for field in fields(options)})


def _download(arguments: Any) -> None:
    from speechattn.corpora import download_corpus

    mirror = arguments.mirror or os.environ.get(MIRROR_VARIABLE)
    download_corpus(arguments.corpus, _corpus_dir(arguments), mirror, options=_corpus_options(arguments))


def _corpus_dir(arguments: Any) -> Path:
    return Path(arguments.corpus_dir or Path("data") / arguments.corpus)


def _add_prepare(parser: ArgumentParser) -> None:
    _add_download(parser)
    parser.add_argument("--output", type=str, required=True, help="folder for {train,dev,test}.jsonl.gz")
    parser.add_argument("--download", action="store_true", help="fetch what is missing first")
    parser.add_argument(
        "--shards",
        type=int,
        help="write OUTPUT/shards/{train,dev,test} as well, Lhotse Shar, with this many cuts a shard",
    )
    parser.add_argument("--num-jobs", type=int, default=os.cpu_count() or 1, help="processes")


def _prepare(arguments: Any) -> None:
    from speechattn.corpora import prepare_corpus

    if arguments.download:
        _download(arguments)
    prepare_corpus(
        arguments.corpus,
        Path(arguments.output),
        corpus_dir=_corpus_dir(arguments),
        num_jobs=arguments.num_jobs,
        options=_corpus_options(arguments),
    )
    if arguments.shards is not None:
        from speechattn.corpora.shards import write_shards

        for split in sorted(Path(arguments.output).glob("*.jsonl.gz")):
            shards = Path(arguments.output) / "shards" / split.name.removesuffix(".jsonl.gz")
            write_shards(split, shards, size=arguments.shards, num_jobs=arguments.num_jobs)


def _add_inspect(parser: ArgumentParser) -> None:
    parser.add_argument("cuts", type=str, nargs="+", help="files of cuts, one a split")
    parser.add_argument("--phones", type=str, help="inventory to fold to; default: the largest that knows all symbols")
    parser.add_argument("--output", type=str, help="folder for inspection.json and a page with examples")
    parser.add_argument("--seed", type=int, default=0, help="draws the examples")
    parser.add_argument("--strict", action="store_true", help="fail on what no training should begin with")
    parser.add_argument("--max-share", type=float, default=0.6, help="--strict: largest share of a class")
    parser.add_argument("--allow-unlabelled", action="store_true", help="--strict: a split may have no labels")


def _inspect(arguments: Any) -> None:
    from speechattn.inspection import inspect_files

    inspect_files(
        arguments.cuts,
        phones=arguments.phones,
        output=arguments.output,
        seed=arguments.seed,
        max_share=arguments.max_share if arguments.strict else None,
        allow_unlabelled=arguments.allow_unlabelled,
    )


def _add_align(parser: ArgumentParser) -> None:
    parser.add_argument("--cuts", type=str, required=True, help="cuts with a transcript")
    parser.add_argument("--output", type=str, required=True, help="file for the cuts with phones; a killed run goes on")
    parser.add_argument("--lexicon", type=str, help="asked before CMUdict and eSpeak NG; in CMUdict's format")
    parser.add_argument("--num-jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--model", type=str, help="align with this model, for training only; default: PocketSphinx")
    parser.add_argument(
        "--training-cuts", type=str, help="cuts with phones that MODEL was trained on; default: those of --cuts"
    )


def _align(arguments: Any) -> None:
    from speechattn.corpora.cut_alignment import align_file
    from speechattn.realignment import realign_file

    cuts, output, lexicon, jobs = arguments.cuts, arguments.output, arguments.lexicon, arguments.num_jobs
    if arguments.model is not None:
        training_cuts = arguments.training_cuts
        realign_file(arguments.model, cuts, output, training_cuts=training_cuts, lexicon=lexicon, num_jobs=jobs)
    elif arguments.training_cuts is not None:
        raise ValueError("align --training-cuts goes with --model")
    else:
        align_file(cuts, output, lexicon=lexicon, num_jobs=jobs)


def _add_score(parser: ArgumentParser) -> None:
    what = "cuts (.jsonl.gz), a TextGrid, CTM, .phn, .lab, JSON, CSV or Audacity file, or a folder of such"
    parser.add_argument("reference", type=str, help=what)
    parser.add_argument("hypothesis", type=str, help="likewise")
    parser.add_argument("--phones", type=str, help="inventory to fold both to, such as timit39; default: as they are")
    parser.add_argument("--closures-as-stops", action="store_true", help="count TIMIT's closures as their stops")
    parser.add_argument("--tier", type=str, default="phones", help="tier of TextGrids")
    parser.add_argument("--json", type=str, help="file for the figures")


def _score(arguments: Any) -> None:
    from speechattn.scoring import score_files

    score_files(
        arguments.reference,
        arguments.hypothesis,
        phones=arguments.phones,
        closures_as_stops=arguments.closures_as_stops,
        tier=arguments.tier,
        json_file=arguments.json,
    )


def _add_train(parser: ArgumentParser) -> None:
    from speechattn.training import TrainConfig

    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_argument("--init", type=str, help="model to start from")
    parser.add_class_arguments(TrainConfig, as_group=False)
    # Its other fields left open, so that they follow whichever preset is asked for.
    parser.set_defaults({"model.frontend": {"preset": "kaldi"}})


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
    parser.add_argument("--phones", type=str, help="phone set to score on; default: the model's own")
    parser.add_argument("--report", type=str, help="folder for figures, pictures and a page of it all")
    parser.add_argument("--smooth", action="store_true", help="also score decisions smoothed over time")
    parser.add_argument("--right", type=int, help=RIGHT_HELP)
    parser.add_argument("--json", type=str, help="file for the figures")


def _evaluate(arguments: Any) -> None:
    from speechattn.report import evaluate_and_report

    evaluate_and_report(
        arguments.model,
        arguments.cuts,
        phones=arguments.phones,
        report=arguments.report,
        json_file=arguments.json,
        smooth=arguments.smooth,
        right=arguments.right,
    )


def _add_compare(parser: ArgumentParser) -> None:
    parser.add_argument("model_a", metavar="A", type=str, help="a model's folder, or its id on the Hugging Face Hub")
    parser.add_argument("model_b", metavar="B", type=str, help="likewise")
    parser.add_argument("--cuts", type=str, required=True, help="cuts with phones")
    parser.add_argument("--phones", type=str, help="phone set to score on; default: the models' own")
    parser.add_argument("--json", type=str, help="file for the figures")


def _compare(arguments: Any) -> None:
    from speechattn.comparison import compare_and_print

    compare_and_print(
        arguments.model_a,
        arguments.model_b,
        arguments.cuts,
        phones=arguments.phones,
        json_file=arguments.json,
    )


def _add_predict(parser: ArgumentParser) -> None:
    parser.add_argument("audio", type=str, nargs="*", help="audio files of any rate")
    parser.add_argument("--cuts", type=str, help="take the recordings of these cuts; the cuts' ids name the results")
    parser.add_argument("--model", type=str, required=True, help="a model's folder, or its id on the Hugging Face Hub")
    parser.add_argument("--format", type=str, default="textgrid", help="some of textgrid,ctm,json,csv")
    parser.add_argument("--output", type=str, help="folder for the files; default: print `start end phone confidence`")
    parser.add_argument("--channel", type=int, help="channel to take, counted from 0; default: their mean")
    parser.add_argument("--smooth", action="store_true", help="decide for phones that follow and last as in training")
    parser.add_argument("--right", type=int, help=RIGHT_HELP)
    parser.add_argument("--plot", action="store_true", help="draw spectrogram, segments and posteriors as well")
    parser.add_argument(
        "--frames",
        type=str,
        help="with --cuts: write only this CSV file, `Id,Class`, a row for every frame of them all",
    )


def _predict(arguments: Any) -> None:
    from speechattn.classifier import FrameClassifier
    from speechattn.prediction import by_stem, predict_cuts, predict_files, predict_frames

    formats = arguments.format.split(",")
    if bool(arguments.audio) == bool(arguments.cuts):
        raise ValueError("predict takes audio files or --cuts FILE, one of the two")
    if arguments.frames:
        if not arguments.cuts or arguments.output is not None or _only_for_files(arguments):
            raise ValueError("predict --frames needs --cuts, and takes no other option but --model")
        predict_frames(arguments.model, arguments.cuts, arguments.frames)
        return
    if arguments.cuts:
        if arguments.output is None or _only_for_files(arguments):
            raise ValueError("predict --cuts needs --output, and takes none of --plot, --smooth, --right and --channel")
        predict_cuts(arguments.model, arguments.cuts, arguments.output, formats=formats)
        return
    model = FrameClassifier.from_pretrained(arguments.model)
    if arguments.right is not None:
        model.limit_right(arguments.right)
    failures = predict_files(
        model,
        by_stem(arguments.audio),
        formats=formats,
        output=arguments.output,
        channel=arguments.channel,
        plot=arguments.plot,
        smooth=arguments.smooth,
    )
    if failures:
        for failure in failures[:-1]:
            sys.stderr.write(f"speechattn: error: {failure}\n")
        _fail(failures[-1])


def _only_for_files(arguments: Any) -> bool:
    """Whether an option was given that `predict` has for audio files alone."""
    return arguments.plot or arguments.smooth or arguments.right is not None or arguments.channel is not None


def _add_serve(parser: ArgumentParser) -> None:
    from speechattn.server.limits import Limits

    limits = Limits()
    parser.add_argument("--model", type=str, help="a model's folder, or its id on the Hugging Face Hub")
    parser.add_argument(
        "--host", type=str, default="127.0.0.1", help="address to listen on; default: this machine only"
    )
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--max-upload", type=float, default=limits.upload_mb, help="largest file, in MB")
    parser.add_argument("--max-duration", type=float, default=limits.duration_s, help="longest recording, in seconds")
    parser.add_argument("--num-jobs", type=int, default=limits.jobs, help="recordings worked on at a time")
    parser.add_argument(
        "--allow-host",
        type=str,
        action="append",
        default=[],
        metavar="NAME",
        help="another name that browsers reach the server by, such as a proxy's; may be given several times",
    )


def _serve(arguments: Any) -> None:
    from speechattn.server.limits import Limits
    from speechattn.server.serving import serve

    if arguments.model is None:
        raise ValueError("serve needs --model MODEL: a model's folder, or its id on the Hugging Face Hub")
    serve(
        arguments.model,
        host=arguments.host,
        port=arguments.port,
        limits=Limits(upload_mb=arguments.max_upload, duration_s=arguments.max_duration, jobs=arguments.num_jobs),
        allow_hosts=arguments.allow_host,
    )


_COMMANDS = {
    "download": (_add_download, _download, "fetch a corpus"),
    "prepare": (_add_prepare, _prepare, "turn a corpus into cuts with phones, split by speaker"),
    "inspect": (_add_inspect, _inspect, "say what is in sets of cuts, and what is wrong with them"),
    "align": (_add_align, _align, "find the phones of cuts that have only a transcript"),
    "score": (_add_score, _score, "compare two alignments of the same speech"),
    "train": (_add_train, _train, "train a model"),
    "evaluate": (_add_evaluate, _evaluate, "score a model on cuts"),
    "compare": (_add_compare, _compare, "say whether one of two models is better on cuts, or could be by chance"),
    "predict": (_add_predict, _predict, "find the phones of audio files"),
    "serve": (_add_serve, _serve, "show the phones of recordings and of live speech on a web page"),
}
