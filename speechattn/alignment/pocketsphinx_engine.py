"""PocketSphinx as the engine of `aligner.align_each`: the default one, whose labels may be scored against.

It searches in two passes: the first aligns the words (and chooses among their pronunciations and optional pauses), the
second the phones inside them. Its model comes with its package.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

from speechattn.alignment.aligner import Alignment, Search, Utterance
from speechattn.alignment.lexicon import Lexicon, known_words
from speechattn.audio import SAMPLE_RATE, load_audio
from speechattn.labels.intervals import Interval

__all__ = ["PocketSphinxEngine"]

HOP = 160  # samples from one aligner frame to the next, at 16 kHz
FIRST_BOUNDARY = 120  # frame i describes the window around 160 i + 200; it owns the hop around that centre
MIN_PHONE_FRAMES = 3  # the states of a phone's model, each at least one frame long
BEAM = 1e-200  # the default beams lose half of the utterances; wider ones "align" what does not fit
FILLERS = {"SIL": "SIL", "+NSN+": "SIL", "+SPN+": "SPN"}  # the model's units that are no phones


class PocketSphinxEngine:
    """PocketSphinx with its own American English model."""

    @property
    def identity(self) -> str:
        """Changes with the package, and so with the model in it."""
        return f"pocketsphinx {version('pocketsphinx')}"

    def start(self, lexicon: Lexicon) -> Search:
        """Load the model, in the process that is to use it."""
        return _Aligner(lexicon).align


class _Aligner:
    """A decoder with its lexicon."""

    def __init__(self, lexicon: Lexicon) -> None:
        from pocketsphinx import Decoder, get_model_path

        self.lexicon = lexicon
        with tempfile.TemporaryDirectory() as folder:
            dictionary = Path(folder) / "lexicon.dict"
            dictionary.write_text(_sphinx_dictionary(lexicon), encoding="utf-8")
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

    def align(self, utterance: Utterance) -> Alignment:
        """The alignment of an utterance; a ValueError says why there is none."""
        samples = load_audio(utterance.audio, channel=utterance.channel)
        words = known_words(utterance.text, self.lexicon)
        self._check_length(samples, words)
        entries = self._decode(samples, words)
        intervals = _to_intervals([(name, start) for name, start, _, _ in entries], len(samples))
        speech = [(num_frames, score) for name, _, num_frames, score in entries if name not in FILLERS]
        return Alignment(
            " ".join(interval.symbol for interval in intervals),
            array("i", [interval.start for interval in intervals]),
            len(samples),
            sum(s for _, s in speech) / sum(n for n, _ in speech),
            None,
        )

    def _check_length(self, samples: np.ndarray, words: Sequence[str]) -> None:
        """Refuse audio that cannot hold the shortest pronunciation, which the decoder would not explain."""
        num_phones = sum(min(map(len, self.lexicon[word])) for word in words)
        if len(samples) < num_phones * MIN_PHONE_FRAMES * HOP:
            duration = len(samples) / SAMPLE_RATE
            raise ValueError(f"audio too short: {duration:.2f} s for at least {num_phones} phones")

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
            raise ValueError("alignment failed: the transcript does not fit the audio") from error


def _sphinx_dictionary(lexicon: Lexicon) -> str:
    """The lexicon as PocketSphinx reads it: `word A B`, `word(2) A C`."""
    return "".join(
        f"{word}{f'({variant})' if variant > 1 else ''} {' '.join(phones)}\n"
        for word, pronunciations in sorted(lexicon.items())
        for variant, phones in enumerate(pronunciations, 1)
    )


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
