"""Corpora as Lhotse cuts with phone alignments: one module a corpus.

The module of a corpus has `download_<corpus>`, where there is something to fetch, and `prepare_<corpus>`; a corpus that
can be prepared in several ways also has a dataclass of options; its `sources`, if it has them, are further files and
folders that the result depends on.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from speechattn.jobs.stamps import VERSION, fingerprint, is_done, mark_done

__all__ = ["CORPORA", "corpus_options", "download_corpus", "prepare_corpus"]

CORPORA = ("espeak", "timit_sample", "speechocean762", "librispeech", "timit", "libriphone", "folder")
OPTIONS = {
    "librispeech": "LibriSpeechOptions",
    "timit": "TimitOptions",
    "libriphone": "LibriPhoneOptions",
    "folder": "FolderOptions",
}
PREPARE_STAMP = "prepare.done.json"
OUTPUTS = ("*.jsonl.gz", "*.tsv", "phones.txt")


def corpus_options(corpus: str) -> Any:
    """The dataclass of a corpus's options; None when it has none."""
    return getattr(_module(corpus), OPTIONS[corpus]) if corpus in OPTIONS else None


def _module(corpus: str) -> Any:
    if corpus not in CORPORA:
        raise ValueError(f"unknown corpus {corpus!r}; there are {', '.join(CORPORA)}")
    return import_module(f"{__name__}.{corpus}")


def download_corpus(corpus: str, corpus_dir: Path, mirror: str | None = None, *, options: Any = None) -> None:
    """Fetch and unpack a corpus, or what is missing of it.

    Args:
        corpus: One of CORPORA. One that is made here, or that the user has to bring, has nothing to fetch.
        corpus_dir: Where archive and audio go.
        mirror: A folder or http(s) address that stands for the public servers.
        options: Of the corpus, see `corpus_options`.

    Raises:
        ValueError: An unknown corpus, or an archive that cannot be fetched or is damaged.
    """
    download = getattr(_module(corpus), f"download_{corpus}", None)
    if download is not None:
        download(corpus_dir, mirror, **_keyword(options))


def prepare_corpus(corpus: str, output: Path, *, corpus_dir: Path, num_jobs: int = 1, options: Any = None) -> None:
    """Write `output`/{train,dev,test}.jsonl.gz of a corpus. What is prepared already is not prepared again.

    Args:
        corpus: One of CORPORA.
        output: Folder of the cuts.
        corpus_dir: Where archive or audio lie, or, for synthetic speech, go.
        num_jobs: Processes.
        options: Of the corpus, see `corpus_options`.

    Raises:
        ValueError: An unknown corpus, or the corpus is not there, damaged, or another one.
    """
    prepare = getattr(_module(corpus), f"prepare_{corpus}")
    stamp = output / PREPARE_STAMP

    def circumstances() -> dict[str, Any]:
        # Features count as files, not as outputs: there are thousands, too many for checksums.
        folders = (corpus_dir, *getattr(options, "sources", ()), output / "features")
        return {
            "corpus": corpus,
            "corpus_dir": str(corpus_dir.resolve()),
            "files": " ".join(map(fingerprint, folders)),
            "options": {} if options is None else asdict(options),
            "version": VERSION,
        }

    if is_done(stamp, circumstances(), {}):
        print(f"{output}: prepared already")
        return
    stamp.unlink(missing_ok=True)
    prepare(corpus_dir, output, num_jobs=num_jobs, **_keyword(options))
    # Of the corpus as it is now: unpacked, or with its audio made.
    mark_done(stamp, circumstances(), {}, sorted(path for pattern in OUTPUTS for path in output.glob(pattern)))


def _keyword(options: Any) -> dict[str, Any]:
    return {} if options is None else {"options": options}
