"""Pictures. Matplotlib and librosa are imported only when one is drawn, and no display is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechattn.geometry import Geometry
from speechattn.jobs.atomic import atomic_path
from speechattn.labels.intervals import Segment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "plot_attention",
    "plot_comparison",
    "plot_confusion",
    "plot_curves",
    "plot_labels",
    "plot_phones",
    "plot_prediction",
    "plot_reliability",
    "plot_shares",
    "plot_speakers",
    "save_figure",
]


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure in the format that the path's suffix names."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def plot_prediction(
    samples: np.ndarray,
    posteriors: np.ndarray,
    segments: Sequence[Segment],
    symbols: Sequence[str],
    geometry: Geometry,
    *,
    start: int = 0,
) -> Figure:
    """Spectrogram with phone segments above the phones' posteriors, on one time axis.

    Args:
        samples: (N,) float, the part of a recording to draw.
        posteriors: (T, P) in [0, 1], of the whole recording.
        segments: The predicted phones of the whole recording.
        symbols: Name of each of the P phones.
        geometry: Where the frames lie.
        start: Position of `samples[0]` in the recording.
    """
    figure, (above, below) = _subplots(
        max(6.0, 1.6 * len(samples) / geometry.sample_rate), 8.0, 2, 1, sharex=True, height_ratios=[2, 3]
    )
    _draw_labels(above, samples, segments, geometry, start)
    owned = geometry.first_owned(np.arange(len(posteriors)))
    drawn = np.flatnonzero((owned + geometry.hop > start) & (owned < start + len(samples)))
    posteriors = posteriors[drawn]
    rows = np.unique(posteriors.argmax(axis=1)).tolist()  # the phones that are predicted somewhere
    times = owned[drawn[0]] / geometry.sample_rate, (owned[drawn[-1]] + geometry.hop) / geometry.sample_rate
    extent = (*times, len(rows) - 0.5, -0.5)
    scores = posteriors[:, rows].T
    below.imshow(scores, aspect="auto", interpolation="nearest", cmap="Blues", vmin=0, vmax=1, extent=extent)
    below.set_yticks(range(len(rows)), [symbols[index] for index in rows], fontsize=7)
    below.set(xlabel="time, s", ylabel="posterior of the phone")
    above.set(xlabel="")
    return figure


def plot_labels(samples: np.ndarray, segments: Sequence[Segment], geometry: Geometry) -> Figure:
    """Spectrogram of (N,) samples with phone segments drawn over it; gaps between segments stay plain."""
    figure, axes = _subplots(max(6.0, 4.0 * len(samples) / geometry.sample_rate), 3.2)
    _draw_labels(axes, samples, segments, geometry)
    return figure


def plot_comparison(
    samples: np.ndarray, reference: Sequence[Segment], decided: Sequence[Segment], geometry: Geometry
) -> Figure:
    """Spectrogram of (N,) samples above the reference phones and the predicted phones, hatched where the two differ.

    Segments must be in order of time; those that begin after the samples are not drawn, and gaps stay plain.
    """
    duration = len(samples) / geometry.sample_rate
    reference, decided = (
        [segment._replace(end=min(segment.end, duration)) for segment in segments if segment.start < duration]
        for segments in (reference, decided)
    )
    figure, (above, below) = _subplots(max(6.0, 2.5 * duration), 4.0, 2, 1, sharex=True, height_ratios=[5, 2])
    _draw_spectrogram(above, samples, geometry)
    above.set(xlabel="")
    text = {"ha": "center", "va": "center", "fontsize": 7, "clip_on": True, "parse_math": False}
    for lane, segments in enumerate((reference, decided)):
        for number, (phone, start, end, _) in enumerate(segments):
            below.plot([start, start, end, end], [lane, lane + 1, lane + 1, lane], "k", linewidth=0.5)
            height = lane + (0.2, 0.5, 0.8)[number % 3]  # three rows, since some phones are short
            below.text((start + end) / 2, height, phone, **text)
    overlaps = (
        (max(one.start, other.start), min(one.end, other.end))
        for one in reference
        for other in decided
        if one.phone != other.phone
    )
    ranges = [(start, end - start) for start, end in overlaps if start < end]
    below.broken_barh(ranges, (1, 1), facecolor="moccasin", edgecolor="orange", hatch="//", linewidth=0, zorder=0)
    below.set_yticks([0.5, 1.5], ["reference", "decided"])
    below.set(xlabel="time, s", xlim=(0, duration), ylim=(2, 0))
    return figure


def _draw_labels(
    axes: Any, samples: np.ndarray, segments: Sequence[Segment], geometry: Geometry, start: int = 0
) -> None:
    _draw_spectrogram(axes, samples, geometry, start)
    first, last = start / geometry.sample_rate, (start + len(samples)) / geometry.sample_rate
    segments = [segment for segment in segments if segment.end > first and segment.start < last]
    dark = {"facecolor": "black", "alpha": 0.5, "pad": 1, "linewidth": 0}  # keeps names readable on loud sounds
    text = {"ha": "center", "va": "top", "color": "white", "fontsize": 8, "bbox": dark, "clip_on": True}
    for number, segment in enumerate(segments):
        axes.axvline(segment.start, color="white", linewidth=0.5)
        if number + 1 == len(segments) or segments[number + 1].start > segment.end:
            axes.axvline(segment.end, color="white", linewidth=0.5)
        height = (0.97 - 0.05 * (number % 3)) * geometry.sample_rate / 2  # three rows, since some phones are short
        axes.text((max(segment.start, first) + min(segment.end, last)) / 2, height, segment.phone, **text)


def _draw_spectrogram(axes: Any, samples: np.ndarray, geometry: Geometry, start: int = 0) -> None:
    import librosa

    window, hop, rate = geometry.window, geometry.hop, geometry.sample_rate
    fft_length = max(512, 1 << (window - 1).bit_length())
    power = np.abs(librosa.stft(samples, n_fft=fft_length, win_length=window, hop_length=hop)) ** 2
    first, last = start - hop / 2, start + (power.shape[1] - 0.5) * hop
    spacing = rate / fft_length  # of the rows (Hz)
    axes.imshow(
        librosa.power_to_db(power, ref=np.max), cmap="magma", vmin=-80, origin="lower", aspect="auto",
        extent=(first / rate, last / rate, -spacing / 2, rate / 2 + spacing / 2), interpolation="nearest",
    )  # fmt: skip
    axes.set(
        xlabel="time, s", ylabel="frequency, Hz", xlim=(start / rate, (start + len(samples)) / rate), ylim=(0, rate / 2)
    )


def plot_attention(weights: np.ndarray, geometry: Geometry) -> Figure:
    """Attention maps, one per head: bright where the frame of the row attends to the frame of the column.

    `weights` are (H, T, T), from `FrameClassifier.attention_weights`.
    """
    figure, axes = _subplots(4.0 * len(weights), 4.0, 1, len(weights), sharey=True, squeeze=False)
    hop, first = geometry.hop / geometry.sample_rate, geometry.first_centre / geometry.sample_rate
    edges = first - hop / 2, first + (weights.shape[1] - 0.5) * hop
    for head, cell in enumerate(axes[0]):
        cell.imshow(weights[head], cmap="magma", vmin=0, extent=(*edges, *edges[::-1]), interpolation="nearest")
        cell.set(title=f"head {head}", xlabel="listens to, s")
    axes[0, 0].set_ylabel("frame at, s")
    return figure


def plot_confusion(confusion: np.ndarray, symbols: Sequence[str]) -> Figure:
    """Confusion matrix with rows as shares of the reference phone; phones that never occur are left out."""
    used = np.flatnonzero(confusion.sum(axis=1) + confusion.sum(axis=0)).tolist()
    counts = confusion[np.ix_(used, used)]
    figure, axes = _subplots(9.0, 8.0)
    image = axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    names = [symbols[index] for index in used]
    axes.set_xticks(range(len(used)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(used)), names, fontsize=7)
    axes.set(xlabel="predicted", ylabel="reference")
    figure.colorbar(image, label="share of the reference class")
    return figure


def plot_phones(figures: dict[str, Any]) -> Figure:
    """Frame accuracy of each phone, most frequent first, from the result of `frame_figures`."""
    phones = sorted(figures["phones"].items(), key=lambda item: -item[1]["num_frames"])
    figure, axes = _subplots(10.0, 4.0)
    axes.bar(range(len(phones)), [counts["accuracy"] for _, counts in phones])
    axes.axhline(figures["frame_accuracy"], color="black", linewidth=0.8, label="all frames")
    axes.set_xticks(range(len(phones)), [symbol for symbol, _ in phones], rotation=90, fontsize=8)
    axes.set(ylim=(0, 1), ylabel="frame accuracy", xlabel="phone, commonest first")
    axes.legend()
    return figure


def plot_reliability(reliability: Mapping[float, np.ndarray]) -> Figure:
    """Accuracy against confidence, one point per bin, its area in proportion to the number of decisions.

    `reliability` maps temperatures to (bins, 3), from `calibration.reliability_counts`.
    """
    figure, axes = _subplots(5.5, 5.0)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, label="confidence as it should be")
    for marker, (temperature, counts) in zip("os", reliability.items(), strict=False):
        number, right, confidence = counts[counts[:, 0] > 0].T
        x, y, sizes = confidence / number, right / number, 10 + 300 * number / number.sum()
        [line] = axes.plot(x, y, linewidth=1.2, label=f"temperature {temperature:.3f}")
        axes.scatter(x, y, s=sizes, color=line.get_color(), marker=marker, alpha=0.7)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence of the decision", ylabel="share that is right")
    axes.legend(loc="upper left")
    return figure


def plot_speakers(speakers: Mapping[str, np.ndarray]) -> Figure:
    """Accuracy of each speaker; names are left out when there are too many to read.

    `speakers` maps at least one name to (2,) counts, correct and scored (not 0), lowest accuracy first.
    """
    names, rows = list(speakers), np.array(list(speakers.values()))
    figure, axes = _subplots(min(max(6.0, 0.2 * len(names)), 10.0), 4.0)
    axes.plot(rows[:, 0] / rows[:, 1], "o", markersize=5 if len(names) <= 100 else 2)
    axes.axhline(rows[:, 0].sum() / rows[:, 1].sum(), color="black", linewidth=0.8, label="all together")
    if len(names) <= 50:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8, parse_math=False)
    axes.set(ylim=(0, 1), xlabel="speaker, lowest first", ylabel="accuracy")
    axes.legend()
    return figure


def plot_shares(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Share of each class, in [0, 1], in several named sets as bars side by side; sorted by the first set."""
    first = next(iter(shares.values()))
    classes = sorted({symbol for row in shares.values() for symbol in row}, key=lambda symbol: -first.get(symbol, 0.0))
    figure, axes = _subplots(max(6.0, 0.25 * len(classes)), 3.5)
    width = 0.8 / len(shares)
    for number, (name, row) in enumerate(shares.items()):
        places = np.arange(len(classes)) + (number - (len(shares) - 1) / 2) * width
        axes.bar(places, [100 * row.get(symbol, 0.0) for symbol in classes], width, label=name)
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=8)
    axes.set(ylabel="share of the labelled frames, %", xlim=(-0.6, len(classes) - 0.4))
    axes.legend()
    return figure


def plot_curves(rows: Sequence[Mapping[str, float | str]]) -> Figure:
    """Training loss and dev accuracy per epoch, from the rows of a run's log.csv."""
    figure, axes = _subplots(7.0, 4.0)
    axes.set_xlabel("epoch")
    for side, column, label, color in (
        (axes, "train_loss", "training loss", "C1"),
        (axes.twinx(), "dev_accuracy", "dev accuracy", "C0"),
    ):
        side.plot([int(row["epoch"]) for row in rows], [float(row[column]) for row in rows], color=color)
        side.set_ylabel(label, color=color)
    return figure


def _subplots(width: float, height: float, *grid: int, **options: Any) -> tuple[Figure, Any]:
    """A figure, width and height in inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(width, 100.0), height), layout="constrained")
    return figure, figure.subplots(*grid, **options)
