"""Forced alignment: audio + transcript + lexicon -> when each phone begins and ends.

An engine does the search, PocketSphinx or a model of ours; here are the processes it runs in, and what a killed run
leaves to go on from. An alignment cannot be trusted blindly: an utterance that fails, or that `alignment_gate` does not
believe, is left out and reported with its reason.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import tempfile
import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tqdm import tqdm

from speechattn import __version__
from speechattn.alignment import Interval
from speechattn.alignment_gate import MAX_DEVIATION, implausible, lowest_score
from speechattn.audio import SAMPLE_RATE
from speechattn.journal import Journal
from speechattn.lexicon import Lexicon, default_lexicon, read_lexicon, split_words

if TYPE_CHECKING:
    from lhotse.supervision import AlignmentItem

__all__ = [
    "Alignment",
    "AlignmentError",
    "Engine",
    "Lexicon",
    "Rejection",
    "Utterance",
    "align_each",
    "align_utterances",
    "alignment_items",
    "default_lexicon",
    "known_words",
    "read_lexicon",
    "recording_file",
]

logger = logging.getLogger(__name__)


class AlignmentError(ValueError):
    """An utterance that cannot be aligned; the message is the reason."""


class Utterance(NamedTuple):
    """What there is to align: a file, its transcript, and the channel that holds it (None: the average)."""

    id: str
    audio: Path
    text: str
    channel: int | None = None


class Rejection(NamedTuple):
    """An utterance without an alignment, and why."""

    id: str
    reason: str


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


def known_words(text: str, lexicon: Lexicon) -> list[str]:
    """The words of a transcript, all in the lexicon.

    Raises:
        AlignmentError: When there are none, or the lexicon lacks some; names these.
    """
    words = split_words(text, lexicon)
    if not words:
        raise AlignmentError("empty transcript")
    unknown = [word for word in dict.fromkeys(words) if word not in lexicon]
    if unknown:
        raise AlignmentError(f"not in the lexicon: {', '.join(unknown)}")
    return words


class Engine(Protocol):
    """What searches; it is sent to every process.

    Attributes:
        identity: Changes with all that its results depend on but utterance and lexicon.
    """

    @property
    def identity(self) -> str: ...  # noqa: D102 (above)

    def start(self, lexicon: Lexicon) -> Any:
        """What has `align(utterance) -> Alignment`, made in the process that is to use it."""


def align_utterances(
    utterances: Sequence[Utterance],
    lexicon: Lexicon,
    *,
    num_jobs: int = 1,
    max_deviation: float = MAX_DEVIATION,
    work_file: Path | None = None,
) -> tuple[dict[str, list[Interval]], list[Rejection]]:
    """Align transcripts with their audio.

    Args:
        utterances: As for `align_each`.
        lexicon: As for `align_each`.
        num_jobs: As for `align_each`.
        max_deviation: As for `align_each`.
        work_file: As for `align_each`.

    Returns:
        Utterance id -> phone intervals in samples at 16 kHz, contiguous from 0 to the end of the audio; and
        the utterances without one, both in the order they came in.

    Raises:
        ValueError: As for `align_each`.
    """
    alignments = align_each(
        utterances, lexicon, num_jobs=num_jobs, max_deviation=max_deviation, work_file=work_file
    )  # fmt: skip
    pairs = list(zip(utterances, alignments, strict=True))
    aligned = {utterance.id: alignment.intervals for utterance, alignment in pairs if alignment.reason is None}
    return aligned, [Rejection(utterance.id, alignment.reason) for utterance, alignment in pairs if alignment.reason]


def align_each(
    utterances: Sequence[Utterance],
    lexicon: Lexicon,
    *,
    num_jobs: int = 1,
    max_deviation: float = MAX_DEVIATION,
    work_file: Path | None = None,
    engine: Engine | None = None,
) -> list[Alignment]:
    """Align transcripts with their audio; also those that fail have a result.

    The result of an utterance depends on nothing but its audio, its transcript and its words' pronunciations: not on
    the order of the utterances, the number of processes, or interruptions. One thing looks at all of them: the bound
    on the score, see `alignment_gate.lowest_score`.

    Args:
        utterances: What to align; audio of another rate than 16 kHz is resampled.
        lexicon: Pronunciations of every word that occurs.
        num_jobs: Processes; 1 works in this one.
        max_deviation: Where an outlier begins, in robust standard deviations of the score.
        work_file: Keeps each result as soon as it is there: a call that was cut short goes on where it was. It is left
            for the caller to delete, once the results are safe elsewhere. None: nothing is kept.
        engine: What searches: a `realignment.ModelEngine`, or `pocketsphinx_engine.PocketSphinxEngine` when None.

    Returns:
        A result an utterance, in order.

    Raises:
        ValueError: When `num_jobs` is not positive, two utterances share an id, or a process died.
    """
    from speechattn.pocketsphinx_engine import PocketSphinxEngine  # which takes its types from here

    engine = engine or PocketSphinxEngine()
    if num_jobs < 1:
        raise ValueError(f"num_jobs must be at least 1, got {num_jobs}")
    if len({utterance.id for utterance in utterances}) != len(utterances):
        raise ValueError("two utterances have the same id: alignments could not be told apart")
    if work_file is None:
        with tempfile.TemporaryDirectory() as folder:
            alignments = _search_all(utterances, lexicon, num_jobs, Path(folder) / "work.jsonl", engine)
    else:
        alignments = _search_all(utterances, lexicon, num_jobs, work_file, engine)
    lowest = lowest_score([a.score for a in alignments if a.reason is None], max_deviation)
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
            for key, alignment in zip(left, run(left.values()), strict=True):
                journal.add(key, alignment._replace(starts=list(alignment.starts)))
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
    parts = (__version__, engine.identity, audio, utterance.channel, utterance.text, pronunciations)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def alignment_items(intervals: Iterable[Interval]) -> list[AlignmentItem]:
    """Intervals in samples at 16 kHz as Lhotse keeps them; `round(seconds * 16000)` gives samples again."""
    from lhotse.supervision import AlignmentItem

    return [AlignmentItem(symbol, start / SAMPLE_RATE, (end - start) / SAMPLE_RATE) for start, end, symbol in intervals]


def recording_file(cut: Any) -> Path:
    """The audio file that a Lhotse cut is the whole of; its channel is `cut.channel`.

    Raises:
        ValueError: When the cut is only a part, is transformed, or does not lie in one file; names the cut.
    """
    recording = cut.recording
    if recording is None:
        raise ValueError(f"cut {cut.id}: has no recording")
    whole = cut.start == 0 and cut.num_samples == recording.num_samples and not recording.transforms
    if not whole or len(recording.sources) != 1 or recording.sources[0].type != "file":
        raise ValueError(f"cut {cut.id}: a whole recording is needed, as it lies in one file")
    return Path(recording.sources[0].source)


@contextmanager
def _mapper(num_jobs: int, lexicon: Lexicon, engine: Engine) -> Iterator[Any]:
    """A function that aligns utterances one after the other, or in processes; results keep their order."""
    if num_jobs <= 1:
        yield partial(map, engine.start(lexicon).align)
        return
    # Spawned, not forked: a process that holds torch's threads must not be copied.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        num_jobs, mp_context=context, initializer=_start_worker, initargs=(engine, lexicon)
    ) as pool:
        try:
            yield partial(pool.map, _align_in_worker, chunksize=4)
        except BrokenProcessPool as error:
            raise ValueError("a process of the alignment died: was it killed, or out of memory?") from error
        finally:
            pool.shutdown(cancel_futures=True)


_worker: Any


def _start_worker(engine: Engine, lexicon: Lexicon) -> None:
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = engine.start(lexicon)


def _end_with_parent() -> None:
    """A killed parent cannot tell its workers to stop: they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _align_in_worker(utterance: Utterance) -> Alignment:
    return _worker.align(utterance)
