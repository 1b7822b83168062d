"""Forced alignment: audio + transcript + lexicon -> when each phone begins and ends.

An engine does the search, PocketSphinx or a model of ours; here are the processes it runs in, and what a killed run
leaves to go on from. An alignment cannot be trusted blindly: an utterance that fails, or that `alignment_gate` does not
believe, is left out and reported with its reason.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
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
    """What there is to align: a file, its transcript, and the channel that holds it (None: the average)."""

    id: str
    audio: Path
    text: str
    channel: int | None = None


class Alignment(NamedTuple):
    """One utterance's result, as small as it can be kept: a corpus has a hundred phones for each of its utterances.

    Args:
        phones: Symbols, separated by spaces.
        starts: Where each phone begins, in samples at 16 kHz; it ends where the next one begins.
        num_samples: Length of the audio, at 16 kHz.
        score: Acoustic score per frame of speech, higher is better.
        reason: Why there is no alignment; None when there is one.
    """

    phones: str
    starts: array[int]
    num_samples: int
    score: float
    reason: str | None

    @property
    def intervals(self) -> list[Interval]:
        """The phones in samples at 16 kHz, contiguous from 0 to the end of the audio."""
        bounds = pairwise([*self.starts, self.num_samples])
        return [Interval(start, end, phone) for (start, end), phone in zip(bounds, self.phones.split(), strict=True)]


Search = Callable[[Utterance], Alignment]


class Engine(Protocol):
    """What searches; it is sent to every process.

    Attributes:
        identity: Changes with all that its results depend on but utterance and lexicon.
    """

    @property
    def identity(self) -> str: ...  # noqa: D102 (above)

    def start(self, lexicon: Lexicon) -> Search:
        """The search, made in the process that is to use it. It raises a ValueError where it finds no alignment."""


def align_each(
    utterances: Sequence[Utterance],
    lexicon: Lexicon,
    engine: Engine,
    *,
    num_jobs: int = 1,
    work_file: Path | None = None,
) -> list[Alignment]:
    """Align transcripts with their audio; also those that fail have a result.

    The result of an utterance depends on nothing but its audio, its transcript and its words' pronunciations: not on
    the order of the utterances, the number of processes, or interruptions. One thing looks at all of them: the bound
    on the score, see `alignment_gate.lowest_score`.

    Args:
        utterances: What to align; audio of another rate than 16 kHz is resampled.
        lexicon: Pronunciations of every word that occurs.
        engine: What searches: a `pocketsphinx_engine.PocketSphinxEngine`, or a `realignment.ModelEngine`.
        num_jobs: Processes; 1 works in this one.
        work_file: Keeps each result as soon as it is there: a call that was cut short goes on where it was. It is left
            for the caller to delete, once the results are safe elsewhere. None: nothing is kept.

    Returns:
        A result an utterance, in order.

    Raises:
        ValueError: When `num_jobs` is not positive, two utterances share an id, or a process died.
    """
    if num_jobs < 1:
        raise ValueError(f"num_jobs must be at least 1, got {num_jobs}")
    if len({utterance.id for utterance in utterances}) != len(utterances):
        raise ValueError("two utterances have the same id: alignments could not be told apart")
    if work_file is None:
        with tempfile.TemporaryDirectory() as folder:
            alignments = _search_all(utterances, lexicon, num_jobs, Path(folder) / "work.jsonl", engine)
    else:
        alignments = _search_all(utterances, lexicon, num_jobs, work_file, engine)
    lowest = lowest_score([a.score for a in alignments if a.reason is None])
    return [_judged(alignment, lowest) for alignment in alignments]


def _judged(alignment: Alignment, lowest: float) -> Alignment:
    """The alignment, or the reason for not believing it."""
    if alignment.reason is not None:
        return alignment
    if alignment.score < lowest:
        reason: str | None = f"poor fit: score per speech frame {alignment.score:.1f} is below {lowest:.1f}"
    else:
        reason = implausible(alignment.intervals)
    return alignment._replace(reason=reason)


def _search_all(
    utterances: Sequence[Utterance], lexicon: Lexicon, num_jobs: int, work_file: Path, engine: Engine
) -> list[Alignment]:
    """A result an utterance: from the work file, or by searching, which puts it there."""
    keys = [_key(utterance, lexicon, engine) for utterance in utterances]
    with closing(Journal(work_file)) as journal:
        left = {key: utterance for key, utterance in zip(keys, utterances, strict=True) if key not in journal}
        num_done = sum(key in journal for key in keys)
        if num_done:
            logger.info("%d of %d utterances were aligned before", num_done, len(utterances))
        with (
            _mapper(min(num_jobs, len(left)), _words_of(left.values(), lexicon), engine) as run,
            tqdm(total=num_done + len(left), initial=num_done, desc="align", unit="utt", disable=None) as bar,
        ):
            for key, (phones, starts, *rest) in zip(left, run(left.values()), strict=True):
                journal.add(key, [phones, list(starts), *rest])
                bar.update()
        records = (journal[key] for key in keys)
        return [Alignment(phones, array("i", starts), *rest) for phones, starts, *rest in records]


def _words_of(utterances: Iterable[Utterance], lexicon: Lexicon) -> Lexicon:
    """The part of the lexicon that these need: every process starts with reading it."""
    words = {word for utterance in utterances for word in split_words(utterance.text, lexicon)}
    return {word: lexicon[word] for word in words if word in lexicon}


def _key(utterance: Utterance, lexicon: Lexicon, engine: Engine) -> str:
    """Changes with all that the result depends on."""
    try:
        status = utterance.audio.stat()
        audio: tuple = (str(utterance.audio), status.st_size, status.st_mtime_ns)
    except OSError:
        audio = (str(utterance.audio),)
    pronunciations = {word: lexicon.get(word) for word in split_words(utterance.text, lexicon)}
    parts = (VERSION, engine.identity, audio, utterance.channel, utterance.text, pronunciations)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@contextmanager
def _mapper(
    num_jobs: int, lexicon: Lexicon, engine: Engine
) -> Iterator[Callable[[Iterable[Utterance]], Iterator[Alignment]]]:
    """A function that aligns utterances one after the other, or in processes; results keep their order."""
    if num_jobs <= 1:
        yield partial(map, partial(_attempt, engine.start(lexicon)))
        return
    with process_map(num_jobs, chunksize=4, start=partial(_start_worker, engine, lexicon)) as run:
        yield partial(run, _align_in_worker)


def _attempt(search: Search, utterance: Utterance) -> Alignment:
    """The alignment of an utterance, or the reason for having none."""
    try:
        return search(utterance)
    except ValueError as error:
        return Alignment("", array("i"), 0, 0.0, str(error))


_search: Search  # of a worker


def _start_worker(engine: Engine, lexicon: Lexicon) -> None:
    global _search
    _search = engine.start(lexicon)


def _align_in_worker(utterance: Utterance) -> Alignment:
    return _attempt(_search, utterance)
