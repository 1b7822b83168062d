"""Forced alignment of Lhotse cuts: `speechattn align`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lhotse import MonoCut
from lhotse.utils import fastcopy

from speechattn.alignment.aligner import Alignment, Engine, Utterance, align_each
from speechattn.alignment.lexicon import WordSource, find_pronunciations, read_lexicon
from speechattn.alignment.pocketsphinx_engine import PocketSphinxEngine
from speechattn.cuts.manifest import alignment_items, read_cuts, recording_file, save_cuts, save_rejected
from speechattn.cuts.reading import MODEL_ALIGNER
from speechattn.jobs.atomic import save_text
from speechattn.labels.intervals import Interval

__all__ = ["align_file", "cut_utterance", "save_word_sources", "with_phones"]


def align_file(
    cuts: str | Path,
    output: str | Path,
    *,
    lexicon: str | Path | None = None,
    num_jobs: int = 1,
    engine: Engine | None = None,
) -> None:
    """Find the phones of a file of cuts that have only a transcript.

    Beside the output, `<output>.rejected.tsv` lists what has no alignment, and why, and `<output>.words.tsv` the words
    that are not of the first lexicon: where their pronunciations come from, what they are, and how often they occur.
    While it runs, results are kept in `<output>.work.jsonl`: started again after being killed, it goes on where it was,
    and ends in the same files.

    Args:
        cuts: The file: each cut a whole recording in a file of its own, with one supervision and its text.
        output: File for the cuts with phones.
        lexicon: Pronunciations in CMUdict's format, asked before CMUdict itself and eSpeak NG; None: none before them.
        num_jobs: Processes.
        engine: What searches, see `aligner.align_each`; None: PocketSphinx. Of phones that another one placed, the
            supervisions say `custom["aligner"] = "model"`.

    Raises:
        ValueError: When the cuts or the lexicon cannot be read, a cut has no transcript or is only a part of its
            recording (names it), or no utterance could be aligned.
    """
    corpus = list(read_cuts(cuts))
    utterances = [cut_utterance(cut) for cut in corpus]
    own_lexicon = None if lexicon is None else read_lexicon(lexicon)
    pronunciations, sources = find_pronunciations((utterance.text for utterance in utterances), own_lexicon)
    save_word_sources(Path(f"{output}.words.tsv"), sources)
    work_file = Path(f"{output}.work.jsonl")
    searcher = engine or PocketSphinxEngine()
    alignments = align_each(utterances, pronunciations, searcher, num_jobs=num_jobs, work_file=work_file)
    pairs = list(zip(corpus, alignments, strict=True))
    rejected = [(cut.id, alignment.reason) for cut, alignment in pairs if alignment.reason is not None]
    save_rejected(Path(f"{output}.rejected.tsv"), rejected)
    if len(rejected) < len(pairs):
        save_cuts(Path(output), _aligned(pairs, None if engine is None else MODEL_ALIGNER))
    work_file.unlink()
    if len(rejected) == len(pairs):
        raise ValueError(f"{cuts}: none of the {len(rejected)} utterances could be aligned; {rejected[0][1]}")


def _aligned(pairs: Iterable[tuple[MonoCut, Alignment]], aligner: str | None) -> Iterable[MonoCut]:
    """The cuts that have an alignment, with it, one at a time: phones take far more room as Lhotse keeps them."""
    return (with_phones(cut, alignment.intervals, aligner) for cut, alignment in pairs if alignment.reason is None)


def save_word_sources(path: Path, sources: Sequence[WordSource]) -> None:
    """Write a table of word, source, pronunciations (separated by commas) and count; print how many of each source."""
    rows = [(word, source, ", ".join(map(" ".join, variants)), str(count)) for word, source, variants, count in sources]
    save_text(path, "".join("\t".join(row) + "\n" for row in rows))
    if rows:
        counts = {name: sum(row.source == name for row in sources) for name in ("cmudict", "espeak", "unknown")}
        parts = [f"{count} {name}" for name, count in counts.items() if count]
        print(f"words that are not in the first lexicon: {', '.join(parts)}, listed in {path}")


def with_phones(cut: MonoCut, intervals: Sequence[Interval], aligner: str | None = None) -> Any:
    """A copy of the cut whose supervision carries these phones (samples at 16 kHz), and in `custom` who placed them."""
    supervision = cut.supervisions[0]
    # What was said of the phones that were there before is not said of these.
    about = {key: value for key, value in (supervision.custom or {}).items() if key != "aligner"}
    if aligner is not None:
        about["aligner"] = aligner
    alignment = {**(supervision.alignment or {}), "phone": alignment_items(intervals)}
    return fastcopy(cut, supervisions=[fastcopy(supervision, alignment=alignment, custom=about or None)])


def cut_utterance(cut: MonoCut) -> Utterance:
    """What there is to align in a cut.

    Raises:
        ValueError: A cut without transcript, or one that is a part of its recording; names it.
    """
    if len(cut.supervisions) != 1 or not cut.supervisions[0].text:
        raise ValueError(f"cut {cut.id}: alignment needs one supervision with a text")
    return Utterance(cut.id, recording_file(cut), cut.supervisions[0].text, cut.channel)
