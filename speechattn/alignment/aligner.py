"""Forced alignment: audio + transcript + lexicon -> the start and end of each phone.

`align_each` runs an engine (PocketSphinx, or a classifier) over utterances in several processes, and keeps a journal to
resume from. Alignments cannot be trusted blindly: utterances that fail, or that `gate` rejects, get a reason instead.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import threading
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

from tqdm import tqdm

from speechattn.alignment.gate import implausible, lowest_score
from speechattn.alignment.lexicon import Lexicon, split_words
from speechattn.jobs.journal import Journal
from speechattn.jobs.processes import process_map
from speechattn.jobs.stamps import VERSION
from speechattn.labels.intervals import Interval

__all__ = ["Alignment", "Engine", "Search", "Utterance", "align_each"]

logger = logging.getLogger(__name__)


class Utterance(NamedTuple):
    """An audio file to align, its transcript, and the channel to use (None: the average of all)."""

    id: str
    audio: Path
    text: str
    channel: int | None = None


class Alignment(NamedTuple):
    """The result for one utterance, stored compactly, since a corpus has about a hundred phones per utterance.

    Args:
        phones: Symbols, separated by spaces.
        starts: Start of each phone, in samples at 16 kHz; its end is the next one's start.
        num_samples: Length of the audio, at 16 kHz.
        score: Acoustic score per frame of speech, higher is better.
        reason: Why there is no alignment; None if there is one.
    """

    phones: str
    starts: array[int]
    num_samples: int
    score: float
    reason: str | None

    @classmethod
    def of(cls, intervals: Sequence[Interval], score: float) -> Alignment:
        """Store contiguous phones, in samples at 16 kHz from 0 to the end of the audio."""
        phones = " ".join(interval.symbol for interval in intervals)
        return cls(phones, array("i", [interval.start for interval in intervals]), intervals[-1].end, score, None)

    @property
    def intervals(self) -> list[Interval]:
        """The phones in samples at 16 kHz, contiguous from 0 to the end of the audio."""
        bounds = pairwise([*self.starts, self.num_samples])
        return [Interval(start, end, phone) for (start, end), phone in zip(bounds, self.phones.split(), strict=True)]


Search = Callable[[Utterance], Alignment]
"""Aligns an utterance; raises a ValueError when there is no alignment."""


class Engine(Protocol):
    """An alignment method; pickled and sent to every process.

    Attributes:
        identity: Changes with everything that determines the results, except utterance and lexicon.
    """

    @property
    def identity(self) -> str: ...  # noqa: D102 (above)

    def start(self, lexicon: Lexicon) -> Search:
        """Load what the search needs, in the process that will run it."""


def align_each(
    utterances: Sequence[Utterance],
    lexicon: Lexicon,
    engine: Engine,
    *,
    num_jobs: int = 1,
    journal: Path | None = None,
    train: Sequence[bool] | None = None,
) -> list[Alignment]:
    """Align transcripts with their audio.

    A result depends only on the utterance's audio, transcript and pronunciations, not on the order of utterances, the
    number of processes, or interruptions. Only the lower bound on scores depends on all training utterances, see
    `gate.lowest_score`.

    Args:
        utterances: What to align; audio is resampled to 16 kHz if needed.
        lexicon: Pronunciations of every word that occurs.
        engine: The alignment method: a `PocketSphinxEngine` or a `ClassifierEngine`.
        num_jobs: Number of processes; 1 uses this one.
        journal: File of finished results, to resume an interrupted call; the caller deletes it. None: no journal.
        train: Whether each utterance is for training. Only these are rejected for poor scores or implausible durations,
            so that hard utterances stay in dev and test, and only these define a poor score. None: all are.

    Returns:
        One result per utterance, in order; failures have a `reason`.

    Raises:
        ValueError: When `num_jobs` is not positive, two utterances share an id, or a process dies.
    """
    if num_jobs < 1:
        raise ValueError(f"num_jobs must be at least 1, got {num_jobs}")
    if len({utterance.id for utterance in utterances}) != len(utterances):
        raise ValueError("two utterances have the same id")
    keys = [_key(utterance, lexicon, engine) for utterance in utterances]
    with tempfile.TemporaryDirectory() as folder, closing(Journal(journal or Path(folder) / "journal.jsonl")) as done:
        todo = {key: utterance for key, utterance in zip(keys, utterances, strict=True) if key not in done}
        num_done = sum(key in done for key in keys)
        if num_done:
            logger.info("%d of %d utterances were aligned before", num_done, len(utterances))
        start = partial(_start_engine, engine, _used_part(lexicon, todo.values()))
        with (
            process_map(min(num_jobs, len(todo)), chunksize=4, start=start) as run,
            tqdm(total=num_done + len(todo), initial=num_done, desc="align", unit="utt", disable=None) as bar,
        ):
            for key, (phones, starts, *rest) in zip(todo, run(_align, todo.values()), strict=True):
                done.add(key, [phones, list(starts), *rest])
                bar.update()
        records = (done[key] for key in keys)
        alignments = [Alignment(phones, array("i", starts), *rest) for phones, starts, *rest in records]
    train = [True] * len(utterances) if train is None else train
    pairs = list(zip(alignments, train, strict=True))
    lowest = lowest_score([alignment.score for alignment, is_train in pairs if is_train and alignment.reason is None])
    return [_gated(alignment, lowest) if is_train else alignment for alignment, is_train in pairs]


def _gated(alignment: Alignment, lowest: float) -> Alignment:
    """The alignment, with a reason if it is not plausible."""
    if alignment.reason is not None:
        return alignment
    if alignment.score < lowest:
        poor_fit = f"poor fit: score per speech frame {alignment.score:.1f} is below {lowest:.1f}"
        return alignment._replace(reason=poor_fit)
    return alignment._replace(reason=implausible(alignment.intervals))


def _used_part(lexicon: Lexicon, utterances: Iterable[Utterance]) -> Lexicon:
    """The entries that these utterances need, since every process receives a copy."""
    words = {word for utterance in utterances for word in split_words(utterance.text, lexicon)}
    return {word: lexicon[word] for word in words if word in lexicon}


def _key(utterance: Utterance, lexicon: Lexicon, engine: Engine) -> str:
    """Hash of everything that determines the result."""
    try:
        status = utterance.audio.stat()
        audio: tuple = (str(utterance.audio), status.st_size, status.st_mtime_ns)
    except OSError:
        audio = (str(utterance.audio),)
    pronunciations = {word: lexicon.get(word) for word in split_words(utterance.text, lexicon)}
    parts = (VERSION, engine.identity, audio, utterance.channel, utterance.text, pronunciations)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


_worker = threading.local()  # holds the search of this process


def _start_engine(engine: Engine, lexicon: Lexicon) -> None:
    _worker.search = engine.start(lexicon)


def _align(utterance: Utterance) -> Alignment:
    try:
        return _worker.search(utterance)
    except ValueError as error:
        return Alignment("", array("i"), 0, 0.0, str(error))
