"""Pictures. Matplotlib and librosa are imported where one is drawn, and no display is needed."""

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
    """Write a figure as a picture, in the format that the path's suffix names."""
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
    """Spectrogram with phone segments above, posteriors of the phones below, on one time axis.

    Args:
        samples: (N,) float, what is drawn of a recording.
        posteriors: (T, P) in [0, 1], of the whole recording.
        segments: What was decided, likewise.
        symbols: Name of each of the P phones.
        geometry: Where the frames lie.
        start: Which sample of the recording `samples` begin with.
    """
    figure = _figure(max(6.0, 4.0 * len(samples) / geometry.sample_rate), 8.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 3])
    _draw_labels(above, samples, segments, geometry, start)
    owned = geometry.first_owned(np.arange(len(posteriors)))
    drawn = np.flatnonzero((owned + geometry.hop > start) & (owned < start + len(samples)))
    posteriors = posteriors[drawn]
    seen = np.unique(posteriors.argmax(axis=1)).tolist()  # a row for each phone that is decided for somewhere
    times = owned[drawn[0]] / geometry.sample_rate, (owned[drawn[-1]] + geometry.hop) / geometry.sample_rate
    below.imshow(
        posteriors[:, seen].T, aspect="auto", interpolation="nearest", cmap="Blues", vmin=0, vmax=1,
        extent=(*times, len(seen) - 0.5, -0.5),
    )  # fmt: skip
    below.set_yticks(range(len(seen)), [symbols[index] for index in seen], fontsize=7)
    below.set(xlabel="time, s", ylabel="posterior of the phone")
    above.set(xlabel="")
    return figure


def plot_labels(samples: np.ndarray, segments: Sequence[Segment], geometry: Geometry) -> Figure:
    """Spectrogram with phone segments drawn over it.

    Args:
        samples: (N,) float.
        segments: The phones; gaps between them are left plain.
        geometry: Where the frames lie.
    """
    figure = _figure(max(6.0, 4.0 * len(samples) / geometry.sample_rate), 3.2)
    axes = figure.subplots()
    _draw_labels(axes, samples, segments, geometry)
    return figure


def plot_comparison(
    samples: np.ndarray, reference: Sequence[Segment], decided: Sequence[Segment], geometry: Geometry
) -> Figure:
    """Spectrogram with the reference's phones below it, and below those the decided ones, hatched where they differ.

    Args:
        samples: (N,) float; segments that begin behind them are not drawn.
        reference: In order of time; gaps between them are left plain.
        decided: Likewise.
        geometry: Where the frames lie.
    """
    duration = len(samples) / geometry.sample_rate
    reference, decided = (
        [segment._replace(end=min(segment.end, duration)) for segment in segments if segment.start < duration]
        for segments in (reference, decided)
    )
    figure = _figure(max(6.0, 2.5 * duration), 4.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[5, 2])
    _draw_spectrogram(above, samples, geometry)
    above.set(xlabel="")
    for lane, segments in enumerate((reference, decided)):
        for number, segment in enumerate(segments):
            end = segment.end
            below.plot([segment.start, segment.start, end, end], [lane, lane + 1, lane + 1, lane], "k", linewidth=0.5)
            # Three rows, since some phones are short.
            below.text(
                (segment.start + end) / 2, lane + (0.2, 0.5, 0.8)[number % 3], segment.phone,
                ha="center", va="center", fontsize=7, clip_on=True, parse_math=False,
            )  # fmt: skip
    differing = [
        (max(one.start, other.start), min(one.end, other.end))
        for one in reference
        for other in decided
        if one.phone != other.phone and max(one.start, other.start) < min(one.end, other.end)
    ]
    ranges = [(start, end - start) for start, end in differing]
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
    dark = {"facecolor": "black", "alpha": 0.5, "pad": 1, "linewidth": 0}  # or names are lost on loud sounds
    for number, segment in enumerate(segments):
        axes.axvline(segment.start, color="white", linewidth=0.5)
        if number + 1 == len(segments) or segments[number + 1].start > segment.end:
            axes.axvline(segment.end, color="white", linewidth=0.5)
        height = (0.97 - 0.05 * (number % 3)) * geometry.sample_rate / 2  # three rows, since some phones are short
        axes.text(
            (max(segment.start, first) + min(segment.end, last)) / 2, height, segment.phone,
            ha="center", va="top", color="white", fontsize=8, bbox=dark, clip_on=True,
        )  # fmt: skip


def _draw_spectrogram(axes: Any, samples: np.ndarray, geometry: Geometry, start: int = 0) -> None:
    import librosa
    from librosa import display  # type: ignore[attr-defined]

    fft_length = max(512, 1 << (geometry.window - 1).bit_length())
    power = np.abs(librosa.stft(samples, n_fft=fft_length, win_length=geometry.window, hop_length=geometry.hop)) ** 2
    display.specshow(
        librosa.power_to_db(power, ref=np.max), sr=geometry.sample_rate, hop_length=geometry.hop,
        x_coords=(start + geometry.hop * np.arange(power.shape[1])) / geometry.sample_rate,
        x_axis="time", y_axis="hz", cmap="magma", vmin=-80, ax=axes,
    )  # fmt: skip
    xlim = start / geometry.sample_rate, (start + len(samples)) / geometry.sample_rate
    axes.set(xlabel="time, s", ylabel="frequency, Hz", xlim=xlim)


def plot_attention(weights: np.ndarray, geometry: Geometry) -> Figure:
    """Attention maps, one for each head: bright where the frame of the row listens to the frame of the column.

    Args:
        weights: (H, T, T), what `FrameClassifier.attention_weights` gives.
        geometry: Where the frames lie.
    """
    heads = len(weights)
    figure = _figure(4.0 * heads, 4.0)
    hop, first = geometry.hop / geometry.sample_rate, geometry.first_centre / geometry.sample_rate
    edges = first - hop / 2, first + (weights.shape[1] - 0.5) * hop
    for head, axes in enumerate(np.atleast_1d(figure.subplots(1, heads, sharey=True))):
        axes.imshow(weights[head], cmap="magma", vmin=0, extent=(*edges, *edges[::-1]), interpolation="nearest")
        axes.set(title=f"head {head}", xlabel="listens to, s")
        if head == 0:
            axes.set_ylabel("frame at, s")
    return figure


def plot_confusion(confusion: np.ndarray, symbols: Sequence[str]) -> Figure:
    """Confusion matrix, each row as shares of the reference phone; phones that never occur are left out."""
    used = np.flatnonzero(confusion.sum(axis=1) + confusion.sum(axis=0)).tolist()
    counts = confusion[np.ix_(used, used)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _figure(9.0, 8.0)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [symbols[index] for index in used]
    axes.set_xticks(range(len(used)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(used)), names, fontsize=7)
    axes.set(xlabel="predicted", ylabel="reference")
    figure.colorbar(image, label="share of the reference class")
    return figure


def plot_phones(figures: dict[str, Any]) -> Figure:
    """Frame accuracy of each phone, commonest first, from what `frame_figures` gives."""
    phones = sorted(figures["phones"].items(), key=lambda item: -item[1]["num_frames"])
    figure = _figure(10.0, 4.0)
    axes = figure.subplots()
    axes.bar(range(len(phones)), [counts["accuracy"] for _, counts in phones])
    axes.axhline(figures["frame_accuracy"], color="black", linewidth=0.8, label="all frames")
    axes.set_xticks(range(len(phones)), [symbol for symbol, _ in phones], rotation=90, fontsize=8)
    axes.set(ylim=(0, 1), ylabel="frame accuracy", xlabel="phone, commonest first")
    axes.legend()
    return figure


def plot_reliability(reliability: Mapping[float, np.ndarray]) -> Figure:
    """Share of right decisions over their confidence, a point a bin, the larger the more decisions are in it.

    Args:
        reliability: Temperature -> (bins, 3), from `calibration.reliability_counts`.
    """
    figure = _figure(5.5, 5.0)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, label="confidence as it should be")
    for marker, (temperature, counts) in zip("os", reliability.items(), strict=False):
        number, right, confidence = counts[counts[:, 0] > 0].T
        line = axes.plot(confidence / number, right / number, linewidth=1.2, label=f"temperature {temperature:.3f}")
        sizes = 10 + 300 * number / number.sum()
        axes.scatter(confidence / number, right / number, s=sizes, color=line[0].get_color(), marker=marker, alpha=0.7)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence of the decision", ylabel="share that is right")
    axes.legend(loc="upper left")
    return figure


def plot_speakers(speakers: Mapping[str, np.ndarray]) -> Figure:
    """Accuracy of each speaker; names are left out where they are too many to be read.

    Args:
        speakers: Name -> (2,) counts, right and scored, the latter not 0; the lowest accuracy first. At least one.
    """
    names, rows = list(speakers), np.array(list(speakers.values()))
    figure = _figure(min(max(6.0, 0.2 * len(names)), 10.0), 4.0)
    axes = figure.subplots()
    axes.plot(rows[:, 0] / rows[:, 1], "o", markersize=5 if len(names) <= 100 else 2)
    axes.axhline(rows[:, 0].sum() / rows[:, 1].sum(), color="black", linewidth=0.8, label="all together")
    if len(names) <= 50:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8, parse_math=False)
    axes.set(ylim=(0, 1), xlabel="speaker, lowest first", ylabel="accuracy")
    axes.legend()
    return figure


def plot_shares(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Share of each class in several sets, as bars side by side; the first set's commonest class comes first.

    Args:
        shares: Name of a set -> class -> share in [0, 1].
    """
    first = next(iter(shares.values()))
    classes = sorted({symbol for row in shares.values() for symbol in row}, key=lambda symbol: -first.get(symbol, 0.0))
    figure = _figure(max(6.0, 0.25 * len(classes)), 3.5)
    axes = figure.subplots()
    width = 0.8 / len(shares)
    for number, (name, row) in enumerate(shares.items()):
        places = np.arange(len(classes)) + (number - (len(shares) - 1) / 2) * width
        axes.bar(places, [100 * row.get(symbol, 0.0) for symbol in classes], width, label=name)
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=8)
    axes.set(ylabel="share of the labelled frames, %", xlim=(-0.6, len(classes) - 0.4))
    axes.legend()
    return figure


def plot_curves(rows: Sequence[Mapping[str, float | str]]) -> Figure:
    """Training loss and dev accuracy by epoch, from the rows of a training's log.csv."""
    figure = _figure(7.0, 4.0)
    axes = figure.subplots()
    epochs = [int(row["epoch"]) for row in rows]
    axes.plot(epochs, [float(row["train_loss"]) for row in rows], color="C1")
    axes.set(xlabel="epoch", ylabel="training loss")
    axes.yaxis.label.set_color("C1")
    right = axes.twinx()
    right.plot(epochs, [float(row["dev_accuracy"]) for row in rows], color="C0")
    right.set(ylabel="dev accuracy")
    right.yaxis.label.set_color("C0")
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(min(width, 100.0), height), layout="constrained")
