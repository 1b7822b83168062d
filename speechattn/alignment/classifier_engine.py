"""Forced alignment by a model of ours, to correct the labels that it was trained on.

A classifier gives p(phone | frame); divided by p(phone) that is, but for a factor which is the same for all phones, the
likelihood of the frame which a search for the best path wants (Bourlard and Morgan, "Connectionist Speech
Recognition", 1994, ch. 7). For p(phone) the model's mean posterior is taken, as Kaldi's nnet-adjust-priors does: unlike
a count of labels it fits a model whose posteriors are smoother than its labels. Only half of its logarithm is taken
off, which agrees better with labels by hand. The path goes through the transcript's phones, with pronunciations and
pauses to choose from. Each phone also counts how probable its duration is, a log-normal of the training labels: frames
that follow each other say much the same, so that their likelihoods alone would stretch and squeeze phones beyond
measure. For the same reason they count a tenth.

Labels from a model may be trained on, but not scored against: it agrees with itself more than with the truth.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from speechattn.alignment.aligner import Alignment, Search, Utterance
from speechattn.alignment.cuts import align_file
from speechattn.alignment.lexicon import Lexicon, known_words
from speechattn.audio import SAMPLE_RATE
from speechattn.cuts.manifest import phone_intervals, read_cuts, recording_file
from speechattn.decoding.viterbi import best_path, transcript_graph
from speechattn.jobs.stamps import checksum
from speechattn.labels.frames import frames_to_segments
from speechattn.model.classifier import FrameClassifier, model_files

__all__ = [
    "ModelEngine",
    "Statistics",
    "align_posteriors",
    "model_engine",
    "realign_file",
    "statistics_of",
]

SILENCE = "SIL"
ALIGNMENT_ACOUSTIC_SCALE = 0.1  # what the log-likelihood of a frame counts against a duration's
PRIOR_SCALE = 0.5  # how much of log p(phone) is taken off: with 1, short and rare phones grow into their neighbours
PAUSE_DURATIONS = [-np.inf, -np.inf, 0.0]  # any number of frames from 3, as the default aligner's
MAX_FRAMES = 30  # longer phones are as probable as this
MIN_DEVIATION = 0.3  # of log durations: what a phone seldom seen has by chance should not bind
PRIOR_COUNT = 20  # durations of the average phone that every phone starts with
PRIOR_UTTERANCES = 500  # more hardly change the mean posterior


class Statistics(NamedTuple):
    """What else an alignment needs to know of the speech that a model was trained on.

    Attributes:
        prior: (P,) float, the model's mean posterior, sums to 1.
        durations: (P, 30) float, log-probability that a phone of each class lasts 1, 2, ... 30 frames.
    """

    prior: np.ndarray
    durations: np.ndarray


def statistics_of(model: FrameClassifier, cuts: Sequence[Any]) -> Statistics:
    """Count a model's posteriors and the durations of its labels.

    Args:
        model: In eval mode.
        cuts: What it was trained on: Lhotse cuts with phones, each a whole recording in a file of its own. At most 500
            of them, evenly chosen, are listened to, and none of less than a frame.

    Raises:
        ValueError: When a cut has no phones, one of these is not the model's, or no cut has a frame.
    """
    geometry = model.frontend.geometry
    hop_s = geometry.hop / geometry.sample_rate
    logs: list[list[float]] = [[] for _ in model.phones.symbols]
    for cut in cuts:
        intervals = phone_intervals(cut)
        classes = model.phones.ids(interval.symbol for interval in intervals)
        for start, end, symbol in intervals:
            if classes[symbol] >= 0 and model.phones.symbols[classes[symbol]] not in model.phones.silences:
                logs[classes[symbol]].append(float(np.log(max((end - start) / SAMPLE_RATE / hop_s, 1))))

    heard = [cut for cut in cuts if geometry.num_frames(round(cut.duration * geometry.sample_rate))]
    if not heard:
        raise ValueError("no training cut has a frame: the model's mean posterior cannot be told")
    total, num_frames = np.zeros(len(model.phones)), 0
    for cut in tqdm(heard[:: -(-len(heard) // PRIOR_UTTERANCES)], desc="prior", unit="utt", disable=None):
        samples = model.samples(recording_file(cut), channel=cut.channel)
        posteriors = model.posteriors(samples)
        total += posteriors.sum(axis=0, dtype=np.float64)
        num_frames += len(posteriors)
    return Statistics(total / num_frames, _log_normal(logs))


def _log_normal(logs: Sequence[Sequence[float]]) -> np.ndarray:
    """(P, 30) log-probabilities of durations from the logarithms of those of each class, in frames."""
    everything = np.array([value for values in logs for value in values])
    if not len(everything):
        raise ValueError("the training cuts have no phones but silence: their durations cannot be told")
    average, spread = everything.mean(), everything.var()
    frames = np.log(np.arange(1, MAX_FRAMES + 1))
    durations = np.empty((len(logs), MAX_FRAMES))
    for row, values in zip(durations, map(np.array, logs), strict=True):
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
    """Place the phones of a transcript in a model's posteriors.

    Args:
        posteriors: (T, P) float, T >= 1, rows sum to 1.
        words: Of each word its pronunciations, each one or more classes.
        silence: The class of pauses.
        statistics: Of the model.

    Returns:
        (units, classes, score): of each frame, which phone or pause of the path it belongs to, (T,) int64, rising, and
        which class that is, (T,) int64; and the mean of log p(phone | frame) - log p(phone) / 2 over frames of phones.

    Raises:
        ValueError: When there are fewer frames than phones.
    """
    needed = sum(min(map(len, word)) for word in words)
    if len(posteriors) < needed:
        raise ValueError(f"audio too short: {len(posteriors)} frames for at least {needed} phones")
    tiny = np.finfo(np.float32).tiny
    log_prior = np.log(np.maximum(statistics.prior, tiny))
    scores = np.log(np.maximum(posteriors, tiny)) - PRIOR_SCALE * log_prior
    durations: list[Sequence[float]] = list(statistics.durations)
    durations[silence] = PAUSE_DURATIONS
    graph, units = transcript_graph(words, silence, durations=durations)
    states, _ = best_path(ALIGNMENT_ACOUSTIC_SCALE * scores, graph)
    classes = graph.classes[states]
    speech = np.flatnonzero(classes != silence)
    return units[states], classes, float(scores[speech, classes[speech]].mean())


@dataclass(frozen=True)
class ModelEngine:
    """A model as the engine of `aligner.align_each`.

    Args:
        model: What `FrameClassifier.from_pretrained` takes.
        statistics: Of the model.
        identity: Changes with all that its alignments depend on.
    """

    model: str
    statistics: Statistics
    identity: str

    def start(self, lexicon: Lexicon) -> Search:
        """Load the model, in the process that is to use it."""
        if multiprocessing.parent_process() is not None:  # one of several, each on a core
            torch.set_num_threads(1)
        return _ModelAligner(FrameClassifier.from_pretrained(self.model), self.statistics, lexicon).align


def model_engine(model_name: str, training_cuts: Sequence[Any]) -> ModelEngine:
    """A model that was trained on these cuts, as an engine.

    Args:
        model_name: What `FrameClassifier.from_pretrained` takes.
        training_cuts: As for `statistics_of`.

    Raises:
        ValueError: As for `statistics_of`; or the model cannot be read, labels whole utterances, or takes features,
            or has no ARPAbet phones.
    """
    model = FrameClassifier.from_pretrained(model_name)
    if model.pooling is not None:
        raise ValueError(f"{model_name}: gives a label for an utterance, where alignment needs phones for frames")
    if model.feature_dim is not None:
        raise ValueError(f"{model_name}: takes features, where alignment needs a model that hears audio")
    if SILENCE not in model.phones.symbols:
        raise ValueError(f"{model_name}: alignment needs a model of ARPAbet phones, such as phone set arpabet41")
    statistics = statistics_of(model, training_cuts)
    digest = hashlib.sha256(statistics.prior.tobytes() + statistics.durations.tobytes())
    for path in model_files(model_name).values():
        digest.update(checksum(path).encode())
    return ModelEngine(model_name, statistics, digest.hexdigest())


class _ModelAligner:
    """A model with its lexicon."""

    def __init__(self, model: FrameClassifier, statistics: Statistics, lexicon: Lexicon) -> None:
        self.model = model
        self.statistics = statistics
        self.lexicon = lexicon

    def align(self, utterance: Utterance) -> Alignment:
        """The alignment of an utterance; a ValueError says why there is none."""
        words = known_words(utterance.text, self.lexicon)
        samples = self.model.samples(utterance.audio, channel=utterance.channel)
        return self._align(samples, words)

    def _align(self, samples: np.ndarray, words: Sequence[str]) -> Alignment:
        phones, geometry = self.model.phones, self.model.frontend.geometry
        pronunciations = [self.lexicon[word] for word in words]
        ids = phones.ids({SILENCE, *(phone for word in pronunciations for variant in word for phone in variant)})
        graph_words = [[[ids[phone] for phone in variant] for variant in word] for word in pronunciations]
        posteriors = self.model.posteriors(samples)
        units, classes, score = align_posteriors(posteriors, graph_words, ids[SILENCE], self.statistics)
        # Two phones of one class in a row are two: segments are cut where the unit changes.
        names = dict(zip(units.tolist(), (phones.symbols[phone] for phone in classes), strict=True))
        symbols = [names.get(unit, "") for unit in range(units[-1] + 1)]
        duration = len(samples) / geometry.sample_rate
        segments = frames_to_segments(units, np.ones(len(units)), symbols, duration, geometry=geometry)
        starts = array("i", [round(segment.start * SAMPLE_RATE) for segment in segments])
        text = " ".join(segment.phone for segment in segments)
        return Alignment(text, starts, round(duration * SAMPLE_RATE), score, None)


def realign_file(
    model_name: str,
    cuts: str | Path,
    output: str | Path,
    *,
    training_cuts: str | Path | None = None,
    lexicon: str | Path | None = None,
    num_jobs: int = 1,
) -> None:
    """Find the phones of a file of cuts with a model, led by their transcripts.

    Args:
        model_name: What `FrameClassifier.from_pretrained` takes.
        cuts: As for `align_file`.
        output: As for `align_file`.
        training_cuts: What the model was trained on, with the phones; None: the cuts themselves, to be realigned.
        lexicon: As for `align_file`.
        num_jobs: As for `align_file`.

    Raises:
        ValueError: As for `align_file` and `model_engine`.
    """
    engine = model_engine(model_name, list(read_cuts(training_cuts or cuts)))
    align_file(cuts, output, lexicon=lexicon, num_jobs=num_jobs, engine=engine)
