"""Forced alignment of Lhotse cuts: `speechattn align`."""

from collections.abc import Sequence
from pathlib import Path

from lhotse import MonoCut

from speechattn.alignment.aligner import Engine, Utterance, align_each
from speechattn.alignment.classifier_engine import ClassifierEngine
from speechattn.alignment.lexicon import WordSource, find_pronunciations, read_lexicon
from speechattn.alignment.pocketsphinx_engine import PocketSphinxEngine
from speechattn.cuts.files import read_cuts, recording_file, save_cuts, save_rejected, with_phones
from speechattn.cuts.model_inputs import MODEL_ALIGNER
from speechattn.jobs.atomic import save_text
from speechattn.labels.intervals import Interval

__all__ = ["align_file", "aligned_cut", "cut_utterance", "save_word_sources"]


def align_file(
    cuts: str | Path,
    output: str | Path,
    *,
    lexicon: str | Path | None = None,
    num_jobs: int = 1,
    model: str | None = None,
    training_cuts: str | Path | None = None,
) -> None:
    """Align a file of cuts that have only a transcript.

    Writes the cuts with phones; `<output>.rejected.tsv`: utterances without alignment, and why; and
    `<output>.words.tsv`: words that are not in the first lexicon, the source of their pronunciations, the
    pronunciations, and how often they occur. Rerun to resume an interrupted run, from `<output>.work.jsonl`.

    Args:
        cuts: The file: each cut a whole recording in a file, with one supervision and its text.
        output: File for the cuts with phones.
        lexicon: Pronunciations in CMUdict's format, used before CMUdict itself and eSpeak NG.
        num_jobs: Number of processes.
        model: A classifier to align with, and to mark the supervisions with `custom["aligner"] = "model"`; None:
            PocketSphinx.
        training_cuts: The cuts with phones that `model` was trained on; None: `cuts`, which are then realigned.

    Raises:
        ValueError: When the cuts, the lexicon or the model cannot be read, a cut has no transcript or is only part of
            its recording (names it), or no utterance can be aligned. As for `ClassifierEngine.of`.
    """
    engine: Engine = PocketSphinxEngine()
    if model is not None:
        engine = ClassifierEngine.of(model, list(read_cuts(training_cuts or cuts)))
    aligner = None if model is None else MODEL_ALIGNER
    corpus = list(read_cuts(cuts))
    utterances = [cut_utterance(cut) for cut in corpus]
    first_lexicon = None if lexicon is None else read_lexicon(lexicon)
    pronunciations, sources = find_pronunciations((utterance.text for utterance in utterances), first_lexicon)
    save_word_sources(Path(f"{output}.words.tsv"), sources)
    journal = Path(f"{output}.work.jsonl")
    alignments = align_each(utterances, pronunciations, engine, num_jobs=num_jobs, journal=journal)
    pairs = list(zip(corpus, alignments, strict=True))
    rejected = [(cut.id, alignment.reason) for cut, alignment in pairs if alignment.reason is not None]
    save_rejected(Path(f"{output}.rejected.tsv"), rejected)
    if len(rejected) < len(pairs):
        # One cut at a time: Lhotse's alignment items take far more memory than ours.
        aligned = (aligned_cut(cut, each.intervals, aligner) for cut, each in pairs if each.reason is None)
        save_cuts(Path(output), aligned)
    journal.unlink()
    if len(rejected) == len(pairs):
        raise ValueError(f"{cuts}: none of the {len(rejected)} utterances could be aligned; {rejected[0][1]}")


def save_word_sources(path: Path, sources: Sequence[WordSource]) -> None:
    """Write a table of word, source, pronunciations (comma-separated) and count, and print the count per source."""
    rows = [(word, source, ", ".join(map(" ".join, variants)), str(count)) for word, source, variants, count in sources]
    save_text(path, "".join("\t".join(row) + "\n" for row in rows))
    if rows:
        counts = {name: sum(row.source == name for row in sources) for name in ("cmudict", "espeak", "unknown")}
        parts = [f"{count} {name}" for name, count in counts.items() if count]
        print(f"words that are not in the first lexicon: {', '.join(parts)}, listed in {path}")


def aligned_cut(cut: MonoCut, intervals: Sequence[Interval], aligner: str | None = None) -> MonoCut:
    """Copy a cut with these phones (samples at 16 kHz) in its supervision, and the aligner's name in `custom`."""
    custom = {key: value for key, value in (cut.supervisions[0].custom or {}).items() if key != "aligner"}
    if aligner is not None:
        custom["aligner"] = aligner
    return with_phones(cut, intervals, custom=custom or None)


def cut_utterance(cut: MonoCut) -> Utterance:
    """The utterance to align in a cut.

    Raises:
        ValueError: When the cut has no transcript, or is only part of its recording; names it.
    """
    if len(cut.supervisions) != 1 or not cut.supervisions[0].text:
        raise ValueError(f"cut {cut.id}: alignment needs one supervision with a text")
    return Utterance(cut.id, recording_file(cut), cut.supervisions[0].text, cut.channel)
