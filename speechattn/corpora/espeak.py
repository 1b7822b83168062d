"""Synthetic English with exact phone times, spoken by eSpeak NG: a corpus that needs no download.

A speaker is an eSpeak accent and voice variant; sentences are drawn from a grammar in the assets. The test set has an
accent and two variants that no other split has, and no sentence is in two splits.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from lhotse import MonoCut
from tqdm import tqdm

from speechattn.alignment.espeak import STRESS_MARKS, phones_by_mnemonic
from speechattn.alignment.espeak_process import ESPEAK_RATE, Event, Request, synthesise
from speechattn.assets import asset_lines
from speechattn.audio import SAMPLE_RATE, import_torchaudio
from speechattn.cuts.files import SPLITS, save_splits, utterance_cut
from speechattn.jobs.atomic import atomic_path
from speechattn.labels.intervals import Interval

__all__ = ["Speaker", "intervals_of", "plan", "prepare_espeak"]

VOICES = {  # split -> accent -> variants
    "train": {
        "en-us": ("m1", "m3", "m7", "f1", "linda", "max"),
        "en-us-nyc": ("m4", "paul", "steph", "Alex", "f1"),
        "en": ("m1", "m8", "linda", "quincy", "steph"),
        "en-gb-x-rp": ("m3", "m7", "f1", "paul", "shelby"),
        "en-029": ("m4", "max", "shelby", "quincy"),
    },
    "dev": {"en-us": ("m8", "shelby"), "en-us-nyc": ("m3",), "en": ("f1", "Alex"), "en-gb-x-rp": ("linda",)},
    "test": {  # only here: the accent en-gb-scotland, the variants belinda and rob
        "en-us": ("belinda", "rob", "steph"),
        "en-us-nyc": ("m7",),
        "en": ("belinda", "max"),
        "en-gb-x-rp": ("rob", "m1"),
        "en-gb-scotland": ("m3", "linda", "rob"),
    },
}
UTTERANCES_PER_SPEAKER = {"train": 28, "dev": 16, "test": 20}
PAUSE_S = (0.06, 0.14)  # range of the pauses before the first phone and after the last one
STOPS = frozenset(["P", "B", "T", "D", "K", "G", "CH", "JH"])


class Speaker(NamedTuple):
    """An eSpeak voice (`en-us+f1`), its split, and its utterances."""

    voice: str
    split: str
    requests: tuple[Request, ...]


def prepare_espeak(
    corpus_dir: Path, output: Path, *, num_jobs: int = 2, speakers: Sequence[Speaker] | None = None
) -> None:
    """Synthesise the corpus and write the cuts of the three splits.

    The audio and labels are always the same, whatever the number of jobs.

    Args:
        corpus_dir: Gets one folder per speaker, with FLAC files, 16 kHz mono.
        output: Folder of the cuts.
        num_jobs: Number of speakers to synthesise at a time.
        speakers: Default: `plan()`, about an hour of speech.

    Raises:
        ValueError: When espeakng-loader is not installed, or its eSpeak does not match our tables.
    """
    corpus_dir, output = Path(corpus_dir), Path(output)
    splits: dict[str, list[MonoCut]] = {split: [] for split in SPLITS}
    speakers = plan() if speakers is None else speakers
    # One thread each for torch: on a busy machine its thread pool makes resampling ten times slower.
    num_torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(num_jobs) as pool:
            prepared = pool.map(lambda speaker: _prepare_speaker(speaker, corpus_dir), speakers)
            progress = tqdm(prepared, total=len(speakers), desc="espeak", unit=" speakers", disable=None)
            for speaker, cuts in zip(speakers, progress, strict=True):
                splits[speaker.split] += cuts
    finally:
        torch.set_num_threads(num_torch_threads)
    save_splits(output, splits)


def plan(seed: int = 0) -> list[Speaker]:
    """The voices and sentences of the whole corpus. No sentence occurs twice."""
    speakers, used = [], set()
    for split, accents in VOICES.items():
        rng = random.Random(f"{seed}/{split}")
        sentences = _sentences(rng)
        for voice in [f"{accent}+{variant}" for accent, variants in accents.items() for variant in variants]:
            rate, pitch = rng.randint(145, 185), rng.randint(40, 60)
            requests: list[Request] = []
            while len(requests) < UTTERANCES_PER_SPEAKER[split]:
                sentence = next(sentences)
                if sentence not in used:
                    used.add(sentence)
                    requests.append(Request(sentence, rate + rng.randint(-10, 10), pitch + rng.randint(-8, 8)))
            speakers.append(Speaker(voice, split, tuple(requests)))
    return speakers


def _sentences(rng: random.Random) -> Iterator[str]:
    """Endless sentences; a word returns only after all others of its class, so that rare phones are frequent."""
    words_of: dict[str, list[str]] = {}
    for line in asset_lines("espeak/grammar.txt"):
        name, _, words = line.partition(": ")
        words_of.setdefault(name, []).extend([words] if name == "sentence" else words.split())
    left: dict[str, list[str]] = {name: [] for name in words_of}

    def draw(name: str) -> str:
        if not left[name]:
            left[name] = rng.sample(words_of[name], len(words_of[name]))
        return left[name].pop()

    while True:
        sentence = re.sub("{(.*?)}", lambda slot: draw(slot[1]), draw("sentence")).replace("-", " ")
        yield sentence[0].upper() + sentence[1:]


def _prepare_speaker(speaker: Speaker, corpus_dir: Path) -> list[MonoCut]:
    phones = phones_by_mnemonic(speaker.voice.partition("+")[0])
    rng = random.Random(speaker.voice)
    folder = corpus_dir / speaker.voice
    utterances: list[tuple[str, str, list[Interval]]] = []
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        speeches = synthesise(speaker.voice, speaker.requests)
        for number, (request, speech) in enumerate(zip(speaker.requests, speeches, strict=True)):
            samples = np.asarray(speech.samples, dtype=np.int16)
            try:
                intervals = intervals_of(samples, speech.events, phones)
            except ValueError as error:
                raise ValueError(f"{speaker.voice}, {request.text!r}: {error}") from error
            samples, intervals = _resampled(*_with_pauses(samples, intervals, rng))
            name = f"{speaker.voice}-{number:03d}"
            soundfile.write(temporary / f"{name}.flac", samples, SAMPLE_RATE, subtype="PCM_16")
            utterances.append((name, request.text, intervals))
    return [
        utterance_cut(name, folder / f"{name}.flac", speaker=speaker.voice, text=text, intervals=intervals)
        for name, text, intervals in utterances
    ]


def intervals_of(samples: np.ndarray, events: Sequence[Event], phones: Mapping[str, tuple[str, ...]]) -> list[Interval]:
    """The phones of an utterance, in samples at eSpeak's rate, from 0 to the end without gaps.

    eSpeak reports a stop at its burst, so digital silence before a stop becomes its closure; before other phones (10 to
    30 ms) it stays with the previous phone. eSpeak merges an l or r after a vowel into the vowel's end and reports it
    with no length or no sound; phones that share an event share its time equally.

    Args:
        samples: (N,) int16.
        events: The starts of the phonemes.
        phones: Mnemonic -> phones, from `phones_by_mnemonic`.

    Raises:
        ValueError: When a mnemonic is not in the table, or events are out of order; names it.
    """
    # Sounds without the digital silence after them: [start, end, phones, whether a pause comes before].
    sounds: list[tuple[int, int, tuple[str, ...], bool]] = []
    after_pause = True
    ends = [event.sample for event in events[1:]] + [len(samples)]
    for (start, stressed_mnemonic), next_start in zip(events, ends, strict=True):
        mnemonic = STRESS_MARKS.sub("", stressed_mnemonic)
        if mnemonic not in phones:
            raise ValueError(f"eSpeak phoneme {mnemonic!r} is not in assets/espeak/mnemonics.tsv")
        if not 0 <= start <= next_start:
            raise ValueError(f"eSpeak phoneme {mnemonic!r} starts at sample {start}, the next at {next_start}")
        symbols = phones[mnemonic]
        if symbols == ("SIL",):
            after_pause = True
            continue
        nonzero = np.flatnonzero(samples[start:next_start])
        end = start + int(nonzero[-1]) + 1 if len(nonzero) else start
        if end == start and symbols[0] in STOPS:
            end = next_start  # a stop without a burst
        if symbols == ("+",) or end == start:
            if after_pause:
                raise ValueError(f"eSpeak phoneme {mnemonic!r} has no sound and no phone before it")
            start, previous_end, previous, after_pause = sounds.pop()
            end, symbols = max(end, previous_end), previous if symbols == ("+",) else previous + symbols
        sounds.append((start, end, symbols, after_pause))
        after_pause = False

    intervals: list[Interval] = []
    position = 0
    for start, end, symbols, after_pause in sounds:
        if after_pause and start > position:
            intervals.append(Interval(position, start, "SIL"))
        elif symbols[0] in STOPS:
            start = position
        elif intervals:
            intervals[-1] = intervals[-1]._replace(end=start)
        bounds = [start + (end - start) * part // len(symbols) for part in range(len(symbols) + 1)]
        if intervals and intervals[-1].symbol == symbols[0] == "R":  # a vowel's r, linked to the next vowel
            bounds[0] = intervals.pop().start
        intervals += map(Interval, bounds[:-1], bounds[1:], symbols)
        position = end
    if position < len(samples):
        intervals.append(Interval(position, len(samples), "SIL"))
    return intervals


def _with_pauses(
    samples: np.ndarray, intervals: Sequence[Interval], rng: random.Random
) -> tuple[np.ndarray, list[Interval]]:
    """Replace the silence at both ends by pauses of random length."""
    phones = [interval for interval in intervals if interval.symbol != "SIL"]
    first, last = phones[0].start, phones[-1].end
    before, after = (round(rng.uniform(*PAUSE_S) * ESPEAK_RATE) for _ in range(2))
    padded = np.pad(samples[first:last], (before, after))
    shift = before - first
    inside = [Interval(start + shift, end + shift, symbol) for start, end, symbol in intervals if first <= start < last]
    return padded, [Interval(0, before, "SIL"), *inside, Interval(last + shift, len(padded), "SIL")]


def _resampled(samples: np.ndarray, intervals: Sequence[Interval]) -> tuple[np.ndarray, list[Interval]]:
    """Resample (N,) int16 and its phones from eSpeak's rate to 16 kHz."""
    # In float64, so that the rounded result does not depend on the order of summation.
    resample = import_torchaudio().functional.resample
    wave = resample(torch.from_numpy(samples.astype(np.float64)), ESPEAK_RATE, SAMPLE_RATE)
    resampled = wave.round().clamp(-32768, 32767).to(torch.int16).numpy()

    def at_new_rate(sample: int) -> int:
        return min(round(sample * SAMPLE_RATE / ESPEAK_RATE), len(resampled))

    moved = [Interval(at_new_rate(start), at_new_rate(end), symbol) for start, end, symbol in intervals]
    return resampled, [*moved[:-1], moved[-1]._replace(end=len(resampled))]
