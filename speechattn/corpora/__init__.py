"""Corpora as Lhotse cuts with phone alignments: one module a corpus, each with its own `prepare_<corpus>`."""

from __future__ import annotations

from pathlib import Path

from speechattn import __version__
from speechattn.stages import fingerprint, is_done, mark_done

__all__ = ["CORPORA", "download_corpus", "prepare_corpus"]

CORPORA = ("espeak", "timit_sample", "speechocean762")
STAMP = "prepare.done.json"


def download_corpus(corpus: str, corpus_dir: Path, mirror: str | None = None) -> None:
    """Fetch and unpack a corpus, or what is missing of it.

    Args:
        corpus: One of CORPORA. `espeak` is made here, so there is nothing to fetch.
        corpus_dir: Where archive and audio go.
        mirror: A folder or http(s) address that stands for the public servers.

    Raises:
        ValueError: An unknown corpus, or an archive that cannot be fetched or is damaged.
    """
    if corpus == "timit_sample":
        from speechattn.corpora.timit_sample import download_timit_sample

        download_timit_sample(corpus_dir, mirror)
    elif corpus == "speechocean762":
        from speechattn.corpora.speechocean762 import download_speechocean762

        download_speechocean762(corpus_dir, mirror)
    elif corpus not in CORPORA:
        raise ValueError(f"unknown corpus {corpus!r}; there are {', '.join(CORPORA)}")


def prepare_corpus(corpus: str, output: Path, *, corpus_dir: Path, num_jobs: int = 1) -> None:
    """Write `output`/{train,dev,test}.jsonl.gz of a corpus. What is prepared already is not prepared again.

    Args:
        corpus: One of CORPORA.
        output: Folder of the cuts.
        corpus_dir: Where archive or audio lie, or, for synthetic speech, go.
        num_jobs: Processes.

    Raises:
        ValueError: An unknown corpus, or the corpus is not there, damaged, or another one.
    """
    stamp = output / STAMP

    def options() -> dict[str, str]:
        files = fingerprint(corpus_dir)
        return {"corpus": corpus, "corpus_dir": str(corpus_dir.resolve()), "files": files, "version": __version__}

    if is_done(stamp, options(), {}):
        print(f"{output}: prepared already from {corpus_dir}")
        return
    stamp.unlink(missing_ok=True)
    if corpus == "espeak":
        from speechattn.corpora.espeak import prepare_espeak

        prepare_espeak(corpus_dir, output, num_jobs=num_jobs)
    elif corpus == "timit_sample":
        from speechattn.corpora.timit_sample import prepare_timit_sample

        prepare_timit_sample(corpus_dir, output)
    elif corpus == "speechocean762":
        from speechattn.corpora.speechocean762 import prepare_speechocean762

        prepare_speechocean762(corpus_dir, output, num_jobs=num_jobs)
    else:
        raise ValueError(f"unknown corpus {corpus!r}; there are {', '.join(CORPORA)}")
    # Of the corpus as it is now: unpacked, or with its audio made.
    mark_done(stamp, options(), {}, sorted([*output.glob("*.jsonl.gz"), *output.glob("rejected.tsv")]))
