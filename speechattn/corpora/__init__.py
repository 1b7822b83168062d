"""Corpora as Lhotse cuts with phones, split by speaker: one module per corpus.

To add a corpus, write a module with `download_<corpus>` (if there is anything to download) and `prepare_<corpus>`, as
in `timit_sample`, add its name to `CORPORA`, and describe it in data/README.md. If it can be prepared in several ways,
its module has `OPTIONS`, a dataclass; `options.sources`, if it exists, lists other files that the result depends on.
"""

from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from speechattn.jobs.stamps import VERSION, fingerprint, is_done, mark_done

__all__ = ["CORPORA", "corpus_options", "download_corpus", "prepare_corpus"]

CORPORA = ("espeak", "timit_sample", "speechocean762", "librispeech", "timit", "libriphone", "folder")
PREPARE_STAMP = "prepare.done.json"
OUTPUTS = ("*.jsonl.gz", "*.tsv", "phones.txt")


def corpus_options(corpus: str) -> Any:
    """The dataclass of a corpus's options; None if it has none."""
    return getattr(_module(corpus), "OPTIONS", None)


def _module(corpus: str) -> Any:
    if corpus not in CORPORA:
        raise ValueError(f"unknown corpus {corpus!r}; there are {', '.join(CORPORA)}")
    return import_module(f"{__name__}.{corpus}")


def download_corpus(corpus: str, corpus_dir: Path, mirror: str | None = None, *, options: Any = None) -> None:
    """Download and unpack what is missing of a corpus; nothing for one that is synthesised or the user's.

    Args:
        corpus: One of CORPORA.
        corpus_dir: Folder for archive and audio.
        mirror: A folder or http(s) address to use instead of the public servers.
        options: The corpus's options, see `corpus_options`.

    Raises:
        ValueError: When the corpus is unknown, cannot be downloaded, or is damaged.
    """
    download = getattr(_module(corpus), f"download_{corpus}", None)
    if download is not None:
        download(corpus_dir, mirror, **_keyword(options))


def prepare_corpus(corpus: str, output: Path, *, corpus_dir: Path, num_jobs: int = 1, options: Any = None) -> None:
    """Write `output`/{train,dev,test}.jsonl.gz for a corpus, unless that is done already.

    Args:
        corpus: One of CORPORA.
        output: Folder of the cuts.
        corpus_dir: Folder with the archive or its content; synthetic speech is written there.
        num_jobs: Number of processes.
        options: The corpus's options, see `corpus_options`.

    Raises:
        ValueError: When the corpus is unknown, missing or damaged, or another corpus is there.
    """
    prepare = getattr(_module(corpus), f"prepare_{corpus}")
    stamp = output / PREPARE_STAMP

    def stamp_inputs() -> dict[str, Any]:
        # Features are fingerprinted, not checksummed like other outputs: there are thousands of files.
        folders = (corpus_dir, *getattr(options, "sources", ()), output / "features")
        return {
            "corpus": corpus,
            "corpus_dir": str(corpus_dir.resolve()),
            "files": " ".join(map(fingerprint, folders)),
            "options": {} if options is None else asdict(options),
            "version": VERSION,
        }

    if is_done(stamp, stamp_inputs(), {}):
        print(f"{output}: prepared already")
        return
    stamp.unlink(missing_ok=True)
    prepare(corpus_dir, output, num_jobs=num_jobs, **_keyword(options))
    # Taken again, since unpacking and synthesis change the corpus folder.
    mark_done(stamp, stamp_inputs(), {}, sorted(path for pattern in OUTPUTS for path in output.glob(pattern)))


def _keyword(options: Any) -> dict[str, Any]:
    return {} if options is None else {"options": options}
