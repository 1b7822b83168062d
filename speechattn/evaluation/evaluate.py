"""Evaluate a model on cuts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechattn.batches.loader import Batch, Batches
from speechattn.cuts.files import phone_intervals, speaker_in_train
from speechattn.cuts.model_inputs import closures_merged, load_cuts, refuse_realigned
from speechattn.cuts.shards import Shards
from speechattn.evaluation.bootstrap import SpeakerCounts, accuracy_interval
from speechattn.evaluation.boundaries import TOLERANCE_MS, boundary_figures, count_boundaries, snap_gaps
from speechattn.evaluation.calibration import NUM_BINS, calibration_error, fit_temperature, reliability_counts
from speechattn.evaluation.class_folding import ClassFolding
from speechattn.evaluation.metrics import confusion_matrix, frame_figures, top_k_hits, utterance_figures
from speechattn.evaluation.phone_errors import count_phone_errors, phone_error_rate
from speechattn.evaluation.worst_utterances import WorstUtterance, WorstUtterances
from speechattn.geometry import Geometry
from speechattn.labels.folding import fold_intervals
from speechattn.labels.intervals import Interval
from speechattn.model.classifier import FrameClassifier
from speechattn.phones import IGNORED, PhoneSet

__all__ = [
    "Evaluation", "ScoredUtterance", "count_confusions", "evaluate", "evaluate_in_detail", "evaluation_batches",
    "learn_temperature", "utterances",
]  # fmt: skip

BATCH_SECONDS = 60.0
SMOOTHED_FIGURES = ("frame_accuracy", "frame_accuracy_no_silence", "boundaries", "num_boundaries")
MAX_TEMPERATURE_LABELS = 100_000  # bounds the memory


class Evaluation(NamedTuple):
    """The result of `evaluate_in_detail`.

    Attributes:
        figures: As `evaluate` returns them.
        confusion: (P, P), as `evaluate` returns it.
        phones: The P scored classes.
        seconds: Total duration.
        speakers: Speaker -> (4,) int64: correct and scored frames, and the same without silence; with pooling (2,):
            correct and scored utterances. Utterances without a speaker are under "".
        reliability: Temperature -> (15, 3), see `calibration.reliability_counts`; the model's temperature first, then
            1. Empty with pooling.
        worst: See `WorstUtterances`. Empty with pooling.
    """

    figures: dict[str, Any]
    confusion: np.ndarray
    phones: PhoneSet
    seconds: float
    speakers: dict[str, np.ndarray]
    reliability: dict[float, np.ndarray]
    worst: list[WorstUtterance]


def evaluate(
    model: FrameClassifier,
    cuts: str | Path,
    *,
    phones: PhoneSet | None = None,
    closures_as_stops: bool = False,
    smooth: bool = False,
) -> tuple[dict[str, Any], np.ndarray]:
    """Figures of a model on cuts, over frames or, with pooling, over utterances.

    Frames without a label (-100) count in no figure.

    Args:
        model: In eval mode, on any device.
        cuts: A Lhotse cuts file, or shards, with phone alignments. Symbols are folded to the scored phones. With
            pooling, the cuts carry labels instead, see `cuts.cut_label`.
        phones: The P phones to score on; None: the model's own. Symbols and decisions are folded to them, as usual
            for models of TIMIT's 61 or 48 phones (Lee & Hon 1989). A TIMIT set also takes ARPAbet, see
            `PhoneSet.accepting_arpabet`. A class that folds to nothing, such as `q` or SPN, is never decided, and its
            frames are not scored. Posteriors (for top-3 accuracy and calibration) are summed over the classes that
            fold together and renormalised.
        closures_as_stops: Count TIMIT's closures as parts of their stops, in labels and decisions, see
            `folding.merge_closures`: for models without closures. Not for shards.
        smooth: Also score the decisions of `FrameClassifier.smoothed`.

    Returns:
        (figures, confusion): with pooling, the result of `utterance_figures`; else that of `frame_figures`, and

        - `num_utterances`, `num_speakers` (None if a cut does not name its speaker) and, if any,
          `utterances_of_training_speakers`, a count;
        - `frame_accuracy_interval`, `frame_accuracy_no_silence_interval`: [low, high], 95 % confidence by bootstrap
          over speakers; None if a speaker is unknown or there are fewer than two;
        - `top3_accuracy`;
        - `expected_calibration_error` of the posteriors of the decided phones; the model's `temperature`, and
          `expected_calibration_error_at_temperature_1`;
        - `boundaries`: {"20": result of `boundary_figures`} for a tolerance of 20 ms; `num_boundaries` of `reference`
          and `hypothesis`;
        - `phone_error_rate` of the smoothed decisions, see `count_phone_errors`, and `phone_errors`: `substitutions`,
          `insertions`, `deletions` and `num_phones` of the reference; `phone_error_rate_with_silence` counts silence as
          a phone, as Kaldi's TIMIT recipe does. None if the model cannot smooth;
        - `segments_per_phone`: segments decided frame by frame, without silence, per phone of the reference;
        - with `smooth`, `smoothed`: accuracies and boundaries of the smoothed decisions;

        and the (P, P) confusion matrix.

    Raises:
        ValueError: If the file holds no cuts, a symbol cannot be folded, a label is missing or unknown to the model, a
            model placed the phones (see `realignment`), no frame can be scored, or the model cannot smooth.
    """
    return evaluate_in_detail(model, cuts, phones=phones, closures_as_stops=closures_as_stops, smooth=smooth)[:2]


def evaluate_in_detail(
    model: FrameClassifier,
    cuts: str | Path,
    *,
    phones: PhoneSet | None = None,
    closures_as_stops: bool = False,
    smooth: bool = False,
) -> Evaluation:
    """Like `evaluate`, with counts by speaker, reliability and the worst utterances."""
    if smooth:
        model.known_phonotactics()  # raises if there are none
    if phones is not None and model.pooling is not None:
        raise ValueError("the model has pooling: it labels utterances, and cannot be scored on other phones")
    phones = model.phones if phones is None else phones.accepting_arpabet()
    batches = evaluation_batches(model, cuts, phones, closures_as_stops=closures_as_stops)
    if model.pooling is not None:
        return _evaluate_labels(model, batches)
    tally = _Tally(model, phones, smooth, closures_as_stops)
    for utterance in utterances([model], batches, cuts):
        tally.add(utterance)
    if not tally.by_frame.confusion.any():
        raise ValueError(f"{cuts}: no frame has a label that can be scored")
    return tally.evaluation()


def _evaluate_labels(model: FrameClassifier, batches: Batches) -> Evaluation:
    """Score a model with pooling, per utterance."""
    num_classes, seconds, speakers = len(model.phones), 0.0, SpeakerCounts(2)
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    for batch in batches.epoch():
        labels, predicted = batch.labels.numpy(), _likeliest(model, batch, model.output.weight.device)
        confusion += confusion_matrix(labels, predicted, num_classes)
        for cut, right in zip(batch.cuts, labels == predicted, strict=True):
            speakers.add(cut.supervisions[0].speaker, [right, 1])
            seconds += cut.duration
    figures = utterance_figures(confusion, model.phones.symbols)
    return Evaluation(figures, confusion, model.phones, seconds, speakers.sums, {}, [])


def evaluation_batches(
    model: FrameClassifier, cuts: str | Path, phones: PhoneSet, *, closures_as_stops: bool = False
) -> Batches:
    """Batches of cuts to score a model on; arguments and errors as for `evaluate`."""
    geometry = model.frontend.geometry
    scored = load_cuts(cuts, geometry, feature_dim=model.feature_dim)
    if closures_as_stops:
        if model.pooling is not None or isinstance(scored, Shards):
            raise ValueError(f"{cuts}: closures can be counted as stops only in a file of cuts with phones")
        scored = [closures_merged(cut) for cut in scored]
    return Batches(
        scored, phones, geometry,
        batch_seconds=BATCH_SECONDS, shuffle=False, per_utterance=model.pooling is not None,
        ready_features=model.feature_dim is not None,
    )  # fmt: skip


class ScoredUtterance(NamedTuple):
    """An utterance with its labels and the models' scores.

    Attributes:
        cut: A Lhotse cut, without its recording.
        labels: (T,) int64, -100 where a frame is not scored.
        logits: (T, P) float of each model, on the CPU.
        waveform: The models' input: (N,) float32 in [-1, 1], or (T, D) features; a view of the batch.
    """

    cut: Any
    labels: np.ndarray
    logits: list[Tensor]
    waveform: np.ndarray


def utterances(models: Sequence[FrameClassifier], batches: Batches, cuts: str | Path) -> Iterator[ScoredUtterance]:
    """Run models over batches, utterance by utterance.

    Args:
        models: Without pooling, in eval mode, on any device, with the same frame geometry.
        batches: From `evaluation_batches`.
        cuts: Source of the batches, for error messages.

    Raises:
        ValueError: If a model placed the phones of a cut.
    """
    for batch in batches.epoch():
        refuse_realigned(batch.cuts, cuts)
        scores = []
        for model in models:
            device = model.output.weight.device
            with torch.inference_mode():
                logits, frame_lengths = model(batch.waveforms.to(device), batch.lengths.to(device))
            scores.append(logits.cpu())
        sizes = zip(batch.cuts, frame_lengths.tolist(), batch.lengths.tolist(), strict=True)
        for row, (cut, num_frames, length) in enumerate(sizes):
            yield ScoredUtterance(
                cut,
                batch.labels[row, :num_frames].numpy(),
                [score[row, :num_frames] for score in scores],
                batch.waveforms[row, :length].numpy(),
            )


class _Decisions:
    """Counts and figures of one kind of decisions: by frame or smoothed."""

    def __init__(self, phones: PhoneSet, geometry: Geometry) -> None:
        self.phones = phones
        self.geometry = geometry
        self.confusion = np.zeros((len(phones), len(phones)), dtype=np.int64)
        self.boundaries = np.zeros(3, dtype=np.int64)
        self.phone_errors = {with_silence: np.zeros(4, dtype=np.int64) for with_silence in (False, True)}

    def add(self, intervals: Sequence[Interval], labels: np.ndarray, decided: np.ndarray) -> None:
        phones = self.phones
        self.confusion += confusion_matrix(labels, decided, len(phones))
        self.boundaries += count_boundaries(intervals, labels, decided, self.geometry)
        for with_silence, counts in self.phone_errors.items():
            silences = () if with_silence else phones.silences
            counts += count_phone_errors(intervals, labels, decided, phones.symbols, silences)

    def figures(self) -> dict[str, Any]:
        return {
            **frame_figures(self.confusion, self.phones.symbols, self.phones.silences),
            "boundaries": {f"{TOLERANCE_MS}": boundary_figures(*self.boundaries.tolist())},
            "num_boundaries": dict(zip(("reference", "hypothesis"), self.boundaries[1:].tolist(), strict=True)),
        }

    @property
    def segments_per_phone(self) -> float | None:
        """Decided segments without silence per phone of the reference."""
        _, insertions, deletions, num_phones = self.phone_errors[False].tolist()
        return (num_phones + insertions - deletions) / num_phones if num_phones else None

    def phone_error_figures(self) -> dict[str, Any]:
        rates = {with_silence: phone_error_rate(counts) for with_silence, counts in self.phone_errors.items()}
        names = ("substitutions", "insertions", "deletions", "num_phones")
        return {
            "phone_error_rate": rates[False],
            "phone_error_rate_with_silence": rates[True],
            "phone_errors": dict(zip(names, self.phone_errors[False].tolist(), strict=True)),
        }


class _Tally:
    """All counts of an evaluation, utterance by utterance."""

    def __init__(self, model: FrameClassifier, phones: PhoneSet, smooth: bool, closures_as_stops: bool) -> None:
        self.model, self.phones, self.smooth = model, phones, smooth
        self.geometry = model.frontend.geometry
        self.temperature = model.config.temperature
        self.folding = ClassFolding(model.phones, phones, closures_as_stops=closures_as_stops)
        self.speech = np.array([symbol not in phones.silences for symbol in phones.symbols])
        self.by_frame = _Decisions(phones, self.geometry)
        self.smoothed = None if model.phonotactics is None else _Decisions(phones, self.geometry)
        self.speakers = SpeakerCounts(4)  # correct and scored frames, then the same without silence
        self.reliability = {temperature: np.zeros((NUM_BINS, 3)) for temperature in (self.temperature, 1.0)}
        self.num_top3 = 0
        self.worst = WorstUtterances(self.geometry, with_audio=model.feature_dim is None)
        self.num_utterances = self.num_seen_speakers = 0
        self.seconds = 0.0

    def add(self, utterance: ScoredUtterance) -> None:
        cut, labels, (logits,), waveform = utterance
        self.num_utterances += 1
        self.seconds += cut.duration
        self.num_seen_speakers += speaker_in_train(cut)
        decided = self.folding.decide(logits)
        folded = fold_intervals(phone_intervals(cut, self.geometry.sample_rate), self.phones)
        intervals = snap_gaps(folded, self.geometry)
        self.by_frame.add(intervals, labels, decided)
        if self.smoothed is not None:
            self.smoothed.add(intervals, labels, self.folding.decide_smoothly(logits, self.model))
        scored = labels != IGNORED
        right, speech = (labels == decided)[scored], self.speech[labels[scored]]
        num_right, num_speech = int(right[speech].sum()), int(speech.sum())
        self.speakers.add(cut.supervisions[0].speaker, [right.sum(), len(right), num_right, num_speech])
        self.worst.add(cut, waveform, intervals, decided, num_right=num_right, num_speech=num_speech)
        for temperature in self.reliability:
            posteriors = self.folding.posteriors(logits[torch.from_numpy(scored)], temperature)
            confidences = np.take_along_axis(posteriors, decided[scored, None], axis=1)[:, 0]
            self.reliability[temperature] += reliability_counts(confidences, right)
            if temperature == self.temperature:
                self.num_top3 += int(top_k_hits(posteriors, labels[scored], 3).sum())

    def evaluation(self) -> Evaluation:
        return Evaluation(
            self.figures(), self.by_frame.confusion, self.phones, self.seconds, self.speakers.sums, self.reliability,
            self.worst.found,
        )  # fmt: skip

    def figures(self) -> dict[str, Any]:
        speakers = self.speakers.table()
        decoded = {"phone_error_rate": None, "phone_error_rate_with_silence": None, "phone_errors": None}
        if self.smoothed is not None:
            decoded = self.smoothed.phone_error_figures()
        figures = {
            "num_utterances": self.num_utterances,
            "num_speakers": len(speakers) if self.speakers.all_known else None,
            **self.by_frame.figures(),
            **decoded,
            "segments_per_phone": self.by_frame.segments_per_phone,
            "frame_accuracy_interval": accuracy_interval(speakers[:, 0], speakers[:, 1]),
            "frame_accuracy_no_silence_interval": accuracy_interval(speakers[:, 2], speakers[:, 3]),
            "top3_accuracy": self.num_top3 / int(self.by_frame.confusion.sum()),
            "temperature": self.temperature,
            "expected_calibration_error": calibration_error(self.reliability[self.temperature]),
            "expected_calibration_error_at_temperature_1": calibration_error(self.reliability[1.0]),
        }
        if self.smooth and self.smoothed is not None:
            smoothed = self.smoothed.figures()
            figures["smoothed"] = {name: smoothed[name] for name in SMOOTHED_FIGURES}
        if self.num_seen_speakers:
            figures["utterances_of_training_speakers"] = self.num_seen_speakers
        return figures


def count_confusions(model: FrameClassifier, batches: Batches, device: torch.device) -> np.ndarray:
    """(P, P) int64 confusion matrix over frames or, with pooling, utterances: all that training needs of an epoch."""
    num_classes = len(model.phones)
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    for batch in batches.epoch():
        confusion += confusion_matrix(batch.labels.numpy(), _likeliest(model, batch, device), num_classes)
    return confusion


@torch.inference_mode()
def _likeliest(model: FrameClassifier, batch: Batch, device: torch.device) -> np.ndarray:
    """The likeliest class of every frame, (B, T) int64, or with pooling of every utterance, (B,)."""
    logits, _ = model(batch.waveforms.to(device), batch.lengths.to(device))
    return logits.argmax(dim=-1).numpy(force=True)


@torch.inference_mode()
def learn_temperature(model: FrameClassifier, cuts: str | Path) -> float:
    """Fit a model's temperature on cuts, see `calibration.fit_temperature`.

    Uses at most 100,000 labelled frames or utterances, drawn with a fixed seed.

    Args:
        model: In eval mode, on any device; its present temperature is ignored.
        cuts: As for `evaluate`; neither training nor test data.

    Raises:
        ValueError: As for `evaluate`.
    """
    device, generator = model.output.weight.device, np.random.default_rng(0)
    batches = evaluation_batches(model, cuts, model.phones)
    logits, labels = np.zeros((0, len(model.phones)), dtype=np.float32), np.zeros(0, dtype=np.int64)
    lots = np.zeros(0)  # a random number per label; those with the lowest stay
    for batch in batches.epoch():
        if model.pooling is None:
            refuse_realigned(batch.cuts, cuts)
        scored = batch.labels != IGNORED
        scores, _ = model(batch.waveforms.to(device), batch.lengths.to(device))
        logits = np.concatenate([logits, scores.cpu()[scored].numpy()])
        labels = np.concatenate([labels, batch.labels[scored].numpy()])
        lots = np.concatenate([lots, generator.random(int(scored.sum()))])
        if len(labels) > MAX_TEMPERATURE_LABELS:
            kept = np.argpartition(lots, MAX_TEMPERATURE_LABELS)[:MAX_TEMPERATURE_LABELS]
            logits, labels, lots = logits[kept], labels[kept], lots[kept]
    return fit_temperature(logits, labels)
