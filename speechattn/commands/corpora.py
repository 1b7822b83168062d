"""Commands for corpora and labels: download, prepare, inspect, align, score."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

MIRROR_VARIABLE = "SPEECHATTN_MIRROR"


def add_download(parser: ArgumentParser) -> None:
    """Options of `download`."""
    from speechattn.corpora import CORPORA

    parser.add_argument("corpus", choices=CORPORA, help="name of the corpus")
    parser.add_argument(
        "--corpus-dir", type=str, help="folder of the corpus, unpacked or as an archive; default: data/CORPUS"
    )
    parser.add_argument(
        "--mirror", type=str, help=f"folder or URL to use instead of the public servers; default: ${MIRROR_VARIABLE}"
    )


def add_corpus_options(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """Options of the corpus named in `argv`."""
    from dataclasses import fields
    from typing import get_type_hints

    import docstring_parser  # of jsonargparse[signatures]

    from speechattn.corpora import CORPORA, corpus_options

    corpus = next((word for word in argv if word in CORPORA), None)
    if corpus is None or (options := corpus_options(corpus)) is None:
        return
    types = get_type_hints(options)
    helps = {item.arg_name: item.description for item in docstring_parser.parse(options.__doc__).params}
    # not add_class_arguments: it would spell them with underscores, as no other option of a command is
    for field in fields(options):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=types[field.name], default=field.default, help=helps[field.name])


def _corpus_options(arguments: Any) -> Any:
    from dataclasses import fields

    from speechattn.corpora import corpus_options

    options = corpus_options(arguments.corpus)
    return None if options is None else options(**{field.name: arguments[field.name] for field in fields(options)})


def download(arguments: Any) -> None:
    """Download a corpus."""
    from speechattn.corpora import download_corpus

    mirror = arguments.mirror or os.environ.get(MIRROR_VARIABLE)
    download_corpus(arguments.corpus, _corpus_dir(arguments), mirror, options=_corpus_options(arguments))


def _corpus_dir(arguments: Any) -> Path:
    return Path(arguments.corpus_dir or Path("data") / arguments.corpus)


def add_prepare(parser: ArgumentParser) -> None:
    """Options of `prepare`."""
    add_download(parser)
    parser.add_argument("--output", type=str, required=True, help="folder for {train,dev,test}.jsonl.gz")
    parser.add_argument("--download", action="store_true", help="download missing files first")
    parser.add_argument(
        "--shards",
        type=int,
        help="also write Lhotse Shar with this many cuts per shard to OUTPUT/shards/{train,dev,test}",
    )
    parser.add_argument("--num-jobs", type=int, default=os.cpu_count() or 1, help="number of processes")


def prepare(arguments: Any) -> None:
    """Prepare cuts with phones, split by speaker, from a corpus."""
    from speechattn.corpora import prepare_corpus

    if arguments.download:
        download(arguments)
    prepare_corpus(
        arguments.corpus,
        Path(arguments.output),
        corpus_dir=_corpus_dir(arguments),
        num_jobs=arguments.num_jobs,
        options=_corpus_options(arguments),
    )
    if arguments.shards is not None:
        from speechattn.cuts.shards import write_shards

        for split in sorted(Path(arguments.output).glob("*.jsonl.gz")):
            shards = Path(arguments.output) / "shards" / split.name.removesuffix(".jsonl.gz")
            write_shards(split, shards, size=arguments.shards, num_jobs=arguments.num_jobs)


def add_inspect(parser: ArgumentParser) -> None:
    """Options of `inspect`."""
    parser.add_argument("cuts", type=str, nargs="+", help="files of cuts, one per split")
    parser.add_argument(
        "--phones", type=str, help="phone set to fold to; default: the largest one that knows all symbols"
    )
    parser.add_argument(
        "--output", type=str, help="write inspection.json and an HTML page with examples to this folder"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed for the examples")
    parser.add_argument("--strict", action="store_true", help="fail if the cuts are not fit for training")
    parser.add_argument(
        "--max-share", type=float, default=0.6, help="with --strict: largest share of frames that one class may have"
    )
    parser.add_argument("--allow-unlabelled", action="store_true", help="with --strict: accept splits without labels")


def inspect(arguments: Any) -> None:
    """Summarise cuts and list their problems."""
    from speechattn.reports.inspection import inspect_files

    inspect_files(
        arguments.cuts,
        phones=arguments.phones,
        output=arguments.output,
        seed=arguments.seed,
        max_share=arguments.max_share if arguments.strict else None,
        allow_unlabelled=arguments.allow_unlabelled,
    )


def add_align(parser: ArgumentParser) -> None:
    """Options of `align`."""
    parser.add_argument("--cuts", type=str, required=True, help="cuts with transcripts")
    parser.add_argument(
        "--output", type=str, required=True, help="file for the cuts with phones; rerun the command to resume"
    )
    parser.add_argument(
        "--lexicon", type=str, help="pronunciations in CMUdict's format, used before CMUdict and eSpeak NG"
    )
    parser.add_argument("--num-jobs", type=int, default=os.cpu_count() or 1, help="number of processes")
    parser.add_argument(
        "--model", type=str, help="align with this model (labels for training only); default: PocketSphinx"
    )
    parser.add_argument(
        "--training-cuts", type=str, help="cuts with phones on which MODEL was trained; default: those of --cuts"
    )


def align(arguments: Any) -> None:
    """Align the phones of cuts with transcripts."""
    from speechattn.alignment.cuts import align_file

    if arguments.model is None and arguments.training_cuts is not None:
        raise ValueError("align --training-cuts needs --model")
    align_file(
        arguments.cuts,
        arguments.output,
        lexicon=arguments.lexicon,
        num_jobs=arguments.num_jobs,
        model=arguments.model,
        training_cuts=arguments.training_cuts,
    )


def add_score(parser: ArgumentParser) -> None:
    """Options of `score`."""
    kinds = "cuts (.jsonl.gz), a TextGrid, CTM, .phn, .lab, JSON, CSV or Audacity file, or a folder of these"
    parser.add_argument("reference", type=str, help=f"correct alignment: {kinds}")
    parser.add_argument("hypothesis", type=str, help=f"alignment to score: {kinds}")
    parser.add_argument(
        "--phones", type=str, help="phone set to fold both to, such as timit39; default: compare symbols as they are"
    )
    parser.add_argument(
        "--closures-as-stops", action="store_true", help="count TIMIT's closures as parts of their stops"
    )
    parser.add_argument("--tier", type=str, default="phones", help="name of the tier in TextGrids")
    parser.add_argument(
        "--label-rate", type=float, help="units per second in .phn (default: 16000) and .lab (default: HTK's) files"
    )
    parser.add_argument("--json", type=str, help="write the figures to this file")


def score(arguments: Any) -> None:
    """Compare two alignments of the same speech."""
    from speechattn.evaluation.scoring import score_files

    score_files(
        arguments.reference,
        arguments.hypothesis,
        phones=arguments.phones,
        closures_as_stops=arguments.closures_as_stops,
        tier=arguments.tier,
        label_rate=arguments.label_rate,
        json_file=arguments.json,
    )
