"""A classifier as an alignment engine, to correct the labels that it was trained on.

The classifier's p(phone | frame), divided by p(phone), is proportional to the frame's likelihood, which the search for
the best path needs (Bourlard and Morgan, "Connectionist Speech Recognition", 1994, ch. 7). p(phone) is the mean
posterior, as in Kaldi's nnet-adjust-priors: unlike label counts, it fits a classifier whose posteriors are smoother
than its labels. Only the square root of p(phone) is divided out, which agrees better with hand labels.

The path goes through the transcript's phones, and chooses pronunciations and pauses. Each phone also scores the
probability of its duration, a log-normal fitted to the training labels. Neighbouring frames are not independent, so
likelihoods alone would distort durations; for the same reason they are scaled by a tenth.

Labels from a classifier may be trained on, but not scored against: it agrees with itself more than with the truth.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from speechattn.alignment.aligner import Alignment, Search, Utterance
from speechattn.alignment.lexicon import Lexicon, known_words
from speechattn.audio import SAMPLE_RATE
from speechattn.cuts.files import phone_intervals, recording_file
from speechattn.decoding.viterbi import best_path, transcript_graph
from speechattn.jobs.stamps import checksum
from speechattn.labels.frames import frames_to_segments
from speechattn.labels.intervals import Interval
from speechattn.model.classifier import FrameClassifier
from speechattn.model.files import model_files

__all__ = ["ClassifierEngine", "Statistics", "align_posteriors", "statistics_of"]

SILENCE = "SIL"
ACOUSTIC_SCALE = 0.1  # weight of a frame's log-likelihood relative to a duration's log-probability
PRIOR_EXPONENT = 0.5  # of p(phone) in the denominator; with 1, short and rare phones grow into their neighbours
PAUSE_DURATIONS = [-np.inf, -np.inf, 0.0]  # three frames or more, all equally probable, as in PocketSphinx
MAX_FRAMES = 30  # longer phones are as probable as this
MIN_DEVIATION = 0.3  # of log durations, so that a phone seen only a few times is not bound to those durations
PRIOR_COUNT = 20  # every phone starts with this many durations of the average phone
PRIOR_UTTERANCES = 500  # more hardly change the mean posterior


class Statistics(NamedTuple):
    """What an alignment needs to know about a classifier's training speech.

    Attributes:
        prior: (P,) float, the classifier's mean posterior, sums to 1.
        durations: (P, 30) float, log-probability that a phone of each class lasts 1, 2, ... 30 frames.
    """

    prior: np.ndarray
    durations: np.ndarray


@dataclass(frozen=True)
class ClassifierEngine:
    """A classifier, by name, as an engine for `aligner.align_each`; create one with `ClassifierEngine.of`."""

    model: str
    statistics: Statistics
    identity: str

    @staticmethod
    def of(model_name: str, training_cuts: Sequence[Any]) -> ClassifierEngine:
        """Build the engine from a classifier and the cuts that it was trained on.

        Args:
            model_name: A name that `FrameClassifier.from_pretrained` accepts.
            training_cuts: As for `statistics_of`.

        Raises:
            ValueError: As for `statistics_of`; or when the model cannot be read, labels whole utterances, takes ready
                features, or does not have ARPAbet phones.
        """
        model = FrameClassifier.from_pretrained(model_name)
        if model.pooling is not None:
            raise ValueError(f"{model_name}: labels whole utterances, but alignment needs a phone per frame")
        if model.feature_dim is not None:
            raise ValueError(f"{model_name}: takes features, but alignment needs a model that takes audio")
        if SILENCE not in model.phones.symbols:
            raise ValueError(f"{model_name}: alignment needs a model of ARPAbet phones, such as phone set arpabet41")
        statistics = statistics_of(model, training_cuts)
        digest = hashlib.sha256(statistics.prior.tobytes() + statistics.durations.tobytes())
        for path in model_files(model_name).values():
            digest.update(checksum(path).encode())
        return ClassifierEngine(model_name, statistics, digest.hexdigest())

    def start(self, lexicon: Lexicon) -> Search:
        """Load the model, in the process that will use it."""
        if multiprocessing.parent_process() is not None:  # one process per core
            torch.set_num_threads(1)
        return partial(_align, FrameClassifier.from_pretrained(self.model), self.statistics, lexicon)


def statistics_of(model: FrameClassifier, cuts: Sequence[Any]) -> Statistics:
    """Compute a classifier's mean posterior, over at most 500 cuts, and the durations of its training labels.

    Args:
        model: In eval mode.
        cuts: Its training cuts, with phones, each a whole recording in a file; those without a frame are skipped.

    Raises:
        ValueError: When a cut has no phones, a phone is not the model's, or no cut has a frame.
    """
    geometry = model.frontend.geometry
    hop_s = geometry.hop / geometry.sample_rate
    log_durations: list[list[float]] = [[] for _ in model.phones.symbols]
    for cut in cuts:
        intervals = phone_intervals(cut)
        classes = model.phones.ids(interval.symbol for interval in intervals)
        for start, end, symbol in intervals:
            if classes[symbol] >= 0 and model.phones.symbols[classes[symbol]] not in model.phones.silences:
                log_durations[classes[symbol]].append(float(np.log(max((end - start) / SAMPLE_RATE / hop_s, 1))))

    long_enough = [cut for cut in cuts if geometry.num_frames(round(cut.duration * geometry.sample_rate))]
    if not long_enough:
        raise ValueError("no training cut has a frame: the model's mean posterior is unknown")
    total, num_frames = np.zeros(len(model.phones)), 0
    step = -(-len(long_enough) // PRIOR_UTTERANCES)
    for cut in tqdm(long_enough[::step], desc="prior", unit="utt", disable=None):
        posteriors = model.posteriors(model.samples(recording_file(cut), channel=cut.channel))
        total += posteriors.sum(axis=0, dtype=np.float64)
        num_frames += len(posteriors)
    return Statistics(total / num_frames, _log_normal(log_durations))


def _log_normal(log_durations: Sequence[Sequence[float]]) -> np.ndarray:
    """(P, 30) log-probabilities of durations, from the log durations of each class's phones, in frames."""
    everything = np.array([value for values in log_durations for value in values])
    if not len(everything):
        raise ValueError("the training cuts have no phones but silence: phone durations are unknown")
    average, spread = everything.mean(), everything.var()
    frames = np.log(np.arange(1, MAX_FRAMES + 1))
    durations = np.empty((len(log_durations), MAX_FRAMES))
    for row, values in zip(durations, map(np.array, log_durations), strict=True):
        count = PRIOR_COUNT + len(values)
        mean = (PRIOR_COUNT * average + values.sum()) / count
        deviations = PRIOR_COUNT * (spread + (average - mean) ** 2) + ((values - mean) ** 2).sum()
        deviation = max(np.sqrt(deviations / count), MIN_DEVIATION)
        row[:] = -(((frames - mean) / deviation) ** 2) / 2 - frames
        row -= np.log(np.exp(row).sum())
    return durations


def align_posteriors(
    posteriors: np.ndarray, words: Sequence[Sequence[Sequence[int]]], silence: int, statistics: Statistics
) -> tuple[np.ndarray, np.ndarray, float]:
    """Align a transcript with a classifier's posteriors.

    Args:
        posteriors: (T, P) float, T >= 1, rows sum to 1.
        words: The pronunciations of each word, each one or more classes.
        silence: The class of pauses.
        statistics: The classifier's statistics.

    Returns:
        (units, classes, score): the index of each frame's phone or pause along the path, (T,) int64, ascending; its
        class, (T,) int64; and the mean of log p(phone | frame) - log p(phone) / 2 over frames of phones.

    Raises:
        ValueError: When there are fewer frames than phones.
    """
    num_phones = sum(min(map(len, word)) for word in words)
    if len(posteriors) < num_phones:
        raise ValueError(f"audio too short: {len(posteriors)} frames for at least {num_phones} phones")
    tiny = np.finfo(np.float32).tiny
    log_prior = np.log(np.maximum(statistics.prior, tiny))
    scores = np.log(np.maximum(posteriors, tiny)) - PRIOR_EXPONENT * log_prior
    durations: list[Sequence[float]] = list(statistics.durations)
    durations[silence] = PAUSE_DURATIONS
    graph, units = transcript_graph(words, silence, durations=durations)
    states, _ = best_path(ACOUSTIC_SCALE * scores, graph)
    classes = graph.classes[states]
    speech = np.flatnonzero(classes != silence)
    return units[states], classes, float(scores[speech, classes[speech]].mean())


def _align(model: FrameClassifier, statistics: Statistics, lexicon: Lexicon, utterance: Utterance) -> Alignment:
    pronunciations = [lexicon[word] for word in known_words(utterance.text, lexicon)]
    samples = model.samples(utterance.audio, channel=utterance.channel)
    phones, geometry = model.phones, model.frontend.geometry
    ids = phones.ids({SILENCE, *(phone for word in pronunciations for variant in word for phone in variant)})
    words = [[[ids[phone] for phone in variant] for variant in word] for word in pronunciations]
    units, classes, score = align_posteriors(model.posteriors(samples), words, ids[SILENCE], statistics)
    # Cut segments where the unit changes, since two phones in a row may have the same class.
    names = dict(zip(units.tolist(), (phones.symbols[phone] for phone in classes), strict=True))
    symbols = [names.get(unit, "") for unit in range(units[-1] + 1)]
    duration = len(samples) / geometry.sample_rate
    segments = frames_to_segments(units, np.ones(len(units)), symbols, duration, geometry=geometry)
    times = ((round(segment.start * SAMPLE_RATE), round(segment.end * SAMPLE_RATE)) for segment in segments)
    intervals = [Interval(*time, segment.phone) for time, segment in zip(times, segments, strict=True)]
    return Alignment.of(intervals, score)
