"""PocketSphinx as an alignment engine: the default, and the one whose labels may be scored against.

It searches in two passes. The first aligns words, and chooses pronunciations and optional pauses; the second aligns the
phones inside them. The acoustic model comes with the package.
"""

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from speechattn.alignment.aligner import Alignment, Search, Utterance
from speechattn.alignment.lexicon import Lexicon, known_words
from speechattn.audio import SAMPLE_RATE, load_audio
from speechattn.labels.intervals import Interval

__all__ = ["PocketSphinxEngine"]

HOP = 160  # samples between the decoder's frames, at 16 kHz
FIRST_BOUNDARY = 120  # frame i is centred at 160 i + 200, and owns the hop around that centre
MIN_PHONE_FRAMES = 3  # a phone model has three states, each at least one frame long
BEAM = 1e-200  # the default beams lose half of the utterances; wider ones align transcripts that do not fit
FILLERS = {"SIL": "SIL", "+NSN+": "SIL", "+SPN+": "SPN"}  # units of the model that are not phones


class PocketSphinxEngine:
    """PocketSphinx with its own American English model."""

    @property
    def identity(self) -> str:
        """Name and version of the package, which includes the model."""
        return f"pocketsphinx {version('pocketsphinx')}"

    def start(self, lexicon: Lexicon) -> Search:
        """Load the model, in the process that will use it."""
        from pocketsphinx import Decoder, get_model_path

        with tempfile.TemporaryDirectory() as folder:
            dictionary = Path(folder) / "lexicon.dict"
            dictionary.write_text(_sphinx_dictionary(lexicon), encoding="utf-8")
            beams = dict.fromkeys(("beam", "wbeam", "pbeam"), BEAM)
            model = get_model_path("en-us/en-us")
            decoder = Decoder(hmm=model, dict=str(dictionary), lm=None, bestpath=False, loglevel="FATAL", **beams)
        return partial(_align, decoder, lexicon)


def _sphinx_dictionary(lexicon: Lexicon) -> str:
    """The lexicon in PocketSphinx's format: `word A B`, `word(2) A C`."""
    return "".join(
        f"{word}{f'({variant})' if variant > 1 else ''} {' '.join(phones)}\n"
        for word, pronunciations in sorted(lexicon.items())
        for variant, phones in enumerate(pronunciations, 1)
    )


def _align(decoder: Any, lexicon: Lexicon, utterance: Utterance) -> Alignment:
    samples = load_audio(utterance.audio, channel=utterance.channel)
    words = known_words(utterance.text, lexicon)
    num_phones = sum(min(map(len, lexicon[word])) for word in words)
    if len(samples) < num_phones * MIN_PHONE_FRAMES * HOP:  # the decoder would not say why it fails
        raise ValueError(f"audio too short: {len(samples) / SAMPLE_RATE:.2f} s for at least {num_phones} phones")
    entries = _decode(decoder, samples, words)
    speech = [(num_frames, score) for name, _, num_frames, score in entries if name not in FILLERS]
    score = sum(score for _, score in speech) / sum(num_frames for num_frames, _ in speech)
    return Alignment.of(_to_intervals([(name, start) for name, start, _, _ in entries], len(samples)), score)


def _decode(decoder: Any, samples: np.ndarray, words: Sequence[str]) -> list[tuple[str, int, int, float]]:
    """(name, first frame, number of frames, acoustic score) of every phone and pause."""
    audio = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16).tobytes()
    # Reset the noise and channel estimates, or the result would depend on earlier utterances.
    decoder.reinit_feat()
    try:
        decoder.set_align_text(" ".join(words))
        for second_pass in (False, True):
            if second_pass:
                decoder.set_alignment()
            decoder.start_utt()
            decoder.process_raw(audio, full_utt=True)
            decoder.end_utt()
        units = (unit for word in decoder.get_alignment() for unit in word)
        return [(unit.name, unit.start, unit.duration, unit.score) for unit in units]
    except (RuntimeError, TypeError) as error:  # TypeError: get_alignment() returned None
        with suppress(RuntimeError):  # otherwise every later utterance would fail too
            decoder.end_utt()
        raise ValueError("alignment failed: the transcript does not fit the audio") from error


def _to_intervals(entries: Sequence[tuple[str, int]], num_samples: int) -> list[Interval]:
    """Decoder frames -> samples: the boundary before frame e lies at 160 e + 120, half way between frame centres.

    Consecutive pauses are merged.
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
