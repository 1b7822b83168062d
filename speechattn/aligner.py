"""Forced alignment: audio + transcript + lexicon -> when each phone begins and ends.

PocketSphinx does the search, in two passes: the first aligns the words (and chooses among their
pronunciations and optional pauses), the second the phones inside them. Its model comes with its package.
An alignment cannot be trusted blindly: an utterance that fails, or fits its audio far worse than the others
of the same call, is left out and reported with its reason.
"""

from __future__ import annotations

import multiprocessing
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from speechattn.alignment import Interval
from speechattn.audio import SAMPLE_RATE, load_audio
from speechattn.phones import PhoneSet

if TYPE_CHECKING:
    from lhotse import CutSet
    from lhotse.supervision import AlignmentItem

__all__ = [
    "AlignmentError",
    "Lexicon",
    "Rejection",
    "Utterance",
    "align_cuts",
    "align_utterances",
    "alignment_items",
    "default_lexicon",
    "read_lexicon",
]

Lexicon = Mapping[str, Sequence[tuple[str, ...]]]
"""Lower-case word -> its pronunciations, each a tuple of upper-case ARPAbet symbols without stress."""

HOP = 160  # samples from one aligner frame to the next, at 16 kHz
FIRST_BOUNDARY = 120  # frame i describes the window around 160 i + 200; it owns the hop around that centre
MIN_PHONE_FRAMES = 3  # the states of a phone's model, each at least one frame long
BEAM = 1e-200  # the default beams lose half of the utterances; wider ones "align" what does not fit
# Robust standard deviations below the median score at which an alignment is refused. Measured: it takes 4 of
# 2,820 utterances of speechocean762, and a third of those that are given another one's transcript; of the
# TIMIT sample 19 of 151: all 14 that agree with the hand labels in under half of their frames, none of 61 %.
MAX_DEVIATION = 4.0
PUNCTUATION = '.,;:!?"()[]{}<>/\u2013\u2014\u2018\u201c\u201d\u2026-'  # with dashes, quotes, ellipsis
MIN_POPULATION = 20  # among fewer utterances a median says nothing about outliers
FILLERS = {"SIL": "SIL", "+NSN+": "SIL", "+SPN+": "SPN"}  # the model's units that are no phones


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


class _Aligned(NamedTuple):
    """One utterance's result: intervals and score per speech frame, or the reason for having none."""

    intervals: list[Interval]
    score: float
    reason: str | None


def read_lexicon(path: str | Path) -> dict[str, list[tuple[str, ...]]]:
    """Read a pronunciation dictionary in CMUdict's format.

    Args:
        path: UTF-8 text: a word, white space, its phones. Further pronunciations of a word follow on lines
            of their own, as `word` again or as `word(2)`. Lines that start with `;;;`, and what follows
            ` #`, are comments.

    Returns:
        Lower-case word -> pronunciations in the file's order without repetitions, stress removed.

    Raises:
        ValueError: There is no such file; a line has no phones, or one that is no ARPAbet symbol (names the line).
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such lexicon")
    folding = PhoneSet.load("arpabet41").folding
    lexicon: dict[str, list[tuple[str, ...]]] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            word, *symbols = line.split(" #")[0].split() or [";;;"]
            if word.startswith(";;;"):
                continue
            phones = tuple(folding.get(symbol.upper()) or "?" for symbol in symbols)
            if not phones or "?" in phones:
                wrong = f"unknown phone {symbols[phones.index('?')]!r}" if phones else "no phones"
                raise ValueError(f"{path}:{number}: {wrong} in the entry of {word!r}; ARPAbet is expected")
            pronunciations = lexicon.setdefault(re.sub(r"\(\d+\)$", "", word).lower(), [])
            if phones not in pronunciations:
                pronunciations.append(phones)
    return lexicon


def default_lexicon() -> dict[str, list[tuple[str, ...]]]:
    """PocketSphinx's own CMUdict: some 134,000 English words."""
    from pocketsphinx import get_model_path

    return read_lexicon(get_model_path("en-us/cmudict-en-us.dict"))


def align_utterances(
    utterances: Sequence[Utterance],
    lexicon: Lexicon,
    *,
    num_jobs: int = 1,
    max_deviation: float = MAX_DEVIATION,
) -> tuple[dict[str, list[Interval]], list[Rejection]]:
    """Align transcripts with their audio.

    The result of an utterance depends on nothing but its audio, its transcript and the lexicon: not on the
    order of the utterances nor on the number of processes. One thing looks at all of them: an utterance
    whose acoustic score per speech frame lies more than `max_deviation` robust standard deviations
    (1.4826 times the median absolute deviation) below the median of this call is refused. Only calls with
    at least 20 aligned utterances are tested so.

    Args:
        utterances: What to align; audio of another rate than 16 kHz is resampled.
        lexicon: Pronunciations of every word that occurs.
        num_jobs: Processes; 1 works in this one.
        max_deviation: Where an outlier begins.

    Returns:
        Utterance id -> phone intervals in samples at 16 kHz, contiguous from 0 to the end of the audio; and
        the utterances without one, both in the order they came in.

    Raises:
        ValueError: When `num_jobs` is not positive, or two utterances share an id.
    """
    if num_jobs < 1:
        raise ValueError(f"num_jobs must be at least 1, got {num_jobs}")
    if len({utterance.id for utterance in utterances}) != len(utterances):
        raise ValueError("two utterances have the same id: alignments could not be told apart")
    with tempfile.TemporaryDirectory() as folder:
        dictionary = Path(folder) / "lexicon.dict"
        dictionary.write_text(_sphinx_dictionary(lexicon), encoding="utf-8")
        with _mapper(min(num_jobs, len(utterances)), dictionary, lexicon) as run:
            bar = tqdm(run(utterances), total=len(utterances), desc="align", unit="utt", disable=None)
            results = list(bar)

    lowest = _lowest_score([r.score for r in results if r.reason is None], max_deviation)
    aligned: dict[str, list[Interval]] = {}
    rejected: list[Rejection] = []
    for utterance, result in zip(utterances, results, strict=True):
        if result.reason is not None:
            rejected.append(Rejection(utterance.id, result.reason))
        elif result.score < lowest:
            reason = f"poor fit: score per speech frame {result.score:.1f} is below {lowest:.1f}"
            rejected.append(Rejection(utterance.id, reason))
        else:
            aligned[utterance.id] = result.intervals
    return aligned, rejected


def align_cuts(
    cuts: Iterable[Any], lexicon: Lexicon | None = None, *, num_jobs: int = 1
) -> tuple[CutSet, list[Rejection]]:
    """Give cuts that have only a transcript their phones.

    Args:
        cuts: Lhotse cuts, each a whole recording in a file of its own, with one supervision and its text.
        lexicon: Pronunciations; PocketSphinx's CMUdict when None.
        num_jobs: Processes.

    Returns:
        The cuts with `supervisions[0].alignment["phone"]`, and those left out with their reasons.

    Raises:
        ValueError: A cut without transcript, or one that is a part of its recording; names the cut.
    """
    from lhotse import CutSet

    cuts = list(cuts)
    aligned, rejected = align_utterances(
        [_utterance(cut) for cut in cuts],
        default_lexicon() if lexicon is None else lexicon,
        num_jobs=num_jobs,
    )
    return CutSet.from_cuts(_with_phones(cut, aligned[cut.id]) for cut in cuts if cut.id in aligned), rejected


def alignment_items(intervals: Iterable[Interval]) -> list[AlignmentItem]:
    """Intervals in samples at 16 kHz as Lhotse keeps them; `round(seconds * 16000)` gives samples again."""
    from lhotse.supervision import AlignmentItem

    return [AlignmentItem(symbol, start / SAMPLE_RATE, (end - start) / SAMPLE_RATE) for start, end, symbol in intervals]


def _with_phones(cut: Any, intervals: list[Interval]) -> Any:
    """A copy of the cut whose supervision carries these phones."""
    from lhotse.utils import fastcopy

    supervision = cut.supervisions[0]
    alignment = {**(supervision.alignment or {}), "phone": alignment_items(intervals)}
    return fastcopy(cut, supervisions=[fastcopy(supervision, alignment=alignment)])


def _utterance(cut: Any) -> Utterance:
    """What there is to align in a Lhotse cut."""
    if len(cut.supervisions) != 1 or not cut.supervisions[0].text:
        raise ValueError(f"cut {cut.id}: alignment needs one supervision with a text")
    return Utterance(cut.id, recording_file(cut), cut.supervisions[0].text, cut.channel)


def recording_file(cut: Any) -> Path:
    """The audio file that a Lhotse cut is the whole of; its channel is `cut.channel`.

    Raises:
        ValueError: When the cut is only a part, is transformed, or does not lie in one file; names the cut.
    """
    recording = cut.recording
    whole = cut.start == 0 and cut.num_samples == recording.num_samples and not recording.transforms
    if not whole or len(recording.sources) != 1 or recording.sources[0].type != "file":
        raise ValueError(f"cut {cut.id}: a whole recording is needed, as it lies in one file")
    return Path(recording.sources[0].source)


def _sphinx_dictionary(lexicon: Lexicon) -> str:
    """The lexicon as PocketSphinx reads it: `word A B`, `word(2) A C`."""
    return "".join(
        f"{word}{f'({variant})' if variant > 1 else ''} {' '.join(phones)}\n"
        for word, pronunciations in sorted(lexicon.items())
        for variant, phones in enumerate(pronunciations, 1)
    )


def _lowest_score(scores: Sequence[float], max_deviation: float) -> float:
    """The score below which an alignment is an outlier among these; -inf when there are too few."""
    if len(scores) < MIN_POPULATION:
        return -np.inf
    median = float(np.median(scores))
    return median - max_deviation * 1.4826 * float(np.median(np.abs(np.array(scores) - median)))


@contextmanager
def _mapper(num_jobs: int, dictionary: Path, lexicon: Lexicon) -> Iterator[Any]:
    """A function that aligns utterances one after the other, or in processes; results keep their order."""
    if num_jobs <= 1:
        aligner = _Aligner(dictionary, lexicon)
        yield partial(map, aligner.align)
        return
    # Spawned, not forked: a process that holds torch's threads must not be copied.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        num_jobs, mp_context=context, initializer=_start_worker, initargs=(dictionary, lexicon)
    ) as pool:
        try:
            yield partial(pool.map, _align_in_worker, chunksize=4)
        finally:
            pool.shutdown(cancel_futures=True)


_worker: _Aligner


def _start_worker(dictionary: Path, lexicon: Lexicon) -> None:
    global _worker
    _worker = _Aligner(dictionary, lexicon)


def _align_in_worker(utterance: Utterance) -> _Aligned:
    return _worker.align(utterance)


class _Aligner:
    """A decoder with its dictionary."""

    def __init__(self, dictionary: Path, lexicon: Lexicon) -> None:
        from pocketsphinx import Decoder, get_model_path

        self.lexicon = lexicon
        self.decoder = Decoder(
            hmm=get_model_path("en-us/en-us"),
            dict=str(dictionary),
            lm=None,
            bestpath=False,
            beam=BEAM,
            wbeam=BEAM,
            pbeam=BEAM,
            loglevel="FATAL",
        )

    def align(self, utterance: Utterance) -> _Aligned:
        """Intervals and score of an utterance, or the reason for having none."""
        try:
            samples = load_audio(utterance.audio, channel=utterance.channel)
            words = _words(utterance.text, self.lexicon)
            self._check_length(samples, words)
            entries = self._decode(samples, words)
        except ValueError as error:
            return _Aligned([], 0.0, str(error))
        intervals = _to_intervals([(name, start) for name, start, _, _ in entries], len(samples))
        speech = [(num_frames, score) for name, _, num_frames, score in entries if name not in FILLERS]
        return _Aligned(intervals, sum(s for _, s in speech) / sum(n for n, _ in speech), None)

    def _check_length(self, samples: np.ndarray, words: Sequence[str]) -> None:
        """Refuse audio that cannot hold the shortest pronunciation, which the decoder would not explain."""
        num_phones = sum(min(map(len, self.lexicon[word])) for word in words)
        if len(samples) < num_phones * MIN_PHONE_FRAMES * HOP:
            duration = len(samples) / SAMPLE_RATE
            raise AlignmentError(f"audio too short: {duration:.2f} s for at least {num_phones} phones")

    def _decode(self, samples: np.ndarray, words: Sequence[str]) -> list[tuple[str, int, int, float]]:
        """(name, first frame, frames, acoustic score) of every phone and pause."""
        audio = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16).tobytes()
        decoder = self.decoder
        # Noise and channel estimates of earlier utterances would make the result depend on the order.
        decoder.reinit_feat()
        try:
            decoder.set_align_text(" ".join(words))
            for second_pass in (False, True):
                if second_pass:
                    decoder.set_alignment()
                decoder.start_utt()
                decoder.process_raw(audio, full_utt=True)
                decoder.end_utt()
            return [
                (phone.name, phone.start, phone.duration, phone.score)
                for word in decoder.get_alignment()
                for phone in word
            ]
        except (RuntimeError, TypeError) as error:  # TypeError: get_alignment() gave None
            with suppress(RuntimeError):  # or every later utterance would fail as well
                decoder.end_utt()
            raise AlignmentError("alignment failed: the transcript does not fit the audio") from error


def _words(text: str, lexicon: Lexicon) -> list[str]:
    """The dictionary's words of a transcript; punctuation around a word is no part of it."""
    words: list[str] = []
    for token in text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split():
        # 'bout and dogs' keep their apostrophe, words in quotes do not.
        stripped = token.strip(PUNCTUATION)
        spellings = (token, stripped, stripped.strip("'"))
        known = next((spelling for spelling in spellings if spelling in lexicon), None)
        words += [known] if known else filter(None, spellings[-1].split("-"))
    if not words:
        raise AlignmentError("empty transcript")
    unknown = [word for word in dict.fromkeys(words) if word not in lexicon]
    if unknown:
        raise AlignmentError(f"not in the lexicon: {', '.join(unknown)}")
    return words


def _to_intervals(entries: Sequence[tuple[str, int]], num_samples: int) -> list[Interval]:
    """Aligner frames -> samples: the boundary before frame e lies at 160 e + 120, half way between centres.

    Pauses that follow each other become one.
    """
    intervals: list[Interval] = []
    for name, start in entries:
        symbol = FILLERS.get(name, name)
        if not intervals:
            intervals.append(Interval(0, num_samples, symbol))
        elif not (symbol == "SIL" == intervals[-1].symbol):
            boundary = start * HOP + FIRST_BOUNDARY
            intervals[-1] = intervals[-1]._replace(end=boundary)
            intervals.append(Interval(boundary, num_samples, symbol))
    return intervals
