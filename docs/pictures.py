"""Draw the pictures of the documentation, one function per picture, beside this file.

`python docs/pictures.py` draws those that need no data; `python docs/pictures.py exp/quickstart` also draws the tour's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from speechattn import FrameClassifier, Interval, LiveSegments, Mfcc, Segment, frame_labels
from speechattn.attention import band_mask
from speechattn.cuts.files import phone_intervals, read_cuts, recording_file
from speechattn.plots import plot_comparison, plot_phones, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEFT, RIGHT, FRAMES = 3, 1, 16  # in the drawings
BLOCK, LAYERS = 4, 3
PHONES = [Interval(0, 500, "SIL"), Interval(500, 870, "S"), Interval(870, 1440, "IY")]
SHOWN = 5  # frames of each preset
BLUE, ORANGE, PALE, WHITE = "#0072b2", "#e69f00", "#bcd7e8", "#ffffff"  # distinct for the colour-blind, and in grey


def attention_mask() -> Figure:
    """Truncated attention in three drawings: the band of a layer, its blocks, its growth over layers."""
    figure = Figure(figsize=(13.0, 4.6), layout="constrained")
    band, blocks, growth = figure.subplots(1, 3)
    _band(band)
    _blocks(blocks)
    _growth(growth)
    return figure


def _band(axes: Axes) -> None:
    """The frames that each frame sees in one layer."""
    mask = band_mask(FRAMES, LEFT, RIGHT).int().numpy()
    mask[np.diag_indices(FRAMES)] *= 2
    _squares(axes, mask, [WHITE, BLUE, ORANGE])
    axes.set(title=f"One layer: left {LEFT}, right {RIGHT}", xlabel="seen frame s", ylabel="frame t")
    axes.text(15, 1, "nothing computed", ha="right", va="center", fontsize=10)
    axes.text(0, 14, f"{LEFT + 1 + RIGHT} frames in a row;\nfewer at the ends", ha="left", va="center", fontsize=10)


def _blocks(axes: Axes) -> None:
    """Blocks of queries, each with one window of keys."""
    time = np.arange(FRAMES)
    first = time[:, None] // BLOCK * BLOCK
    window = (time >= first - LEFT) & (time < first + BLOCK + RIGHT)
    _squares(axes, window + band_mask(FRAMES, LEFT, RIGHT).numpy().astype(int), [WHITE, PALE, BLUE])
    for start in range(0, FRAMES, BLOCK):
        begin, end = max(start - LEFT, 0), min(start + BLOCK + RIGHT, FRAMES)
        axes.add_patch(
            Rectangle((begin - 0.5, start - 0.5), end - begin, BLOCK, fill=False, edgecolor="black", linewidth=2)
        )
    axes.set(
        title=f"Blocks: {BLOCK} queries by {LEFT} + {BLOCK} + {RIGHT} keys",
        xlabel="seen frame s",
        ylabel="frame t",
    )
    axes.text(15, 1, "pale: computed, then masked", ha="right", va="center", fontsize=10)


def _growth(axes: Axes) -> None:
    """The frames that one frame depends on, layer by layer; the input is at the bottom."""
    frame = 11
    for layer in range(LAYERS + 1):
        above = LAYERS - layer  # layers between here and the result
        reached = range(frame - above * LEFT, frame + above * RIGHT + 1)
        colours = [(ORANGE if t == frame else BLUE) if t in reached else WHITE for t in range(FRAMES)]
        axes.scatter(range(FRAMES), [layer] * FRAMES, s=90, c=colours, edgecolors="black", linewidths=0.7, zorder=2)
        if layer == LAYERS:
            continue
        for t in range(frame - (above - 1) * LEFT, frame + (above - 1) * RIGHT + 1):
            for s in range(t - LEFT, t + RIGHT + 1):
                axes.plot([s, t], [layer, layer + 1], color="0.7", linewidth=0.8, zorder=1)
    axes.set(title=f"{LAYERS} layers: left {LAYERS * LEFT}, right {LAYERS * RIGHT}", xlabel="frame")
    axes.set_xlim(-0.7, FRAMES - 0.3)
    axes.set_box_aspect(1)
    axes.set_xticks(range(0, FRAMES, BLOCK))
    axes.set_yticks(range(LAYERS + 1), ["input", *(f"layer {layer}" for layer in range(1, LAYERS + 1))])
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False)


def _squares(axes: Axes, values: np.ndarray, colours: list[str]) -> None:
    """A matrix of class numbers as coloured squares."""
    axes.imshow(values, cmap=ListedColormap(colours), vmin=0, vmax=len(colours) - 1)
    axes.set_xticks(range(0, FRAMES, BLOCK))
    axes.set_yticks(range(0, FRAMES, BLOCK))
    axes.set_xticks(np.arange(FRAMES) - 0.5, minor=True)
    axes.set_yticks(np.arange(FRAMES) - 0.5, minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.6)
    axes.tick_params(which="minor", length=0)


def frames() -> Figure:
    """The first frames of a signal for three presets, coloured by their labels."""
    presets = {
        "kaldi": Mfcc("kaldi"),
        "kaldi,\nsnip_edges=False": Mfcc("kaldi", snip_edges=False),
        "librosa": Mfcc("librosa"),
    }
    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    axes = figure.subplots(len(presets) + 1, 1, sharex=True, height_ratios=[0.6, *[2] * len(presets)])
    colours = {"SIL": "0.75", "S": ORANGE, "IY": PALE}
    for start, end, symbol in PHONES:
        axes[0].barh(0, end - start, left=start, height=0.8, color=colours[symbol])
        axes[0].text((start + end) / 2, 0, symbol, ha="center", va="center")
    axes[0].set_ylabel("phones", rotation=0, ha="right", va="center")
    for row, (name, mfcc) in zip(axes[1:], presets.items(), strict=True):
        geometry = mfcc.geometry
        labels = frame_labels(PHONES, PHONES[-1].end, {"SIL": 0, "S": 1, "IY": 2}, geometry=geometry)
        for t, label in enumerate(labels[:SHOWN]):
            start, centre = t * geometry.hop - geometry.left, geometry.first_centre + t * geometry.hop
            row.barh(t, geometry.window, left=start, height=0.7, color=colours[PHONES[label].symbol])
            row.plot(centre, t, "o", color="black", markersize=4)
            row.text(start + geometry.window - 8, t, str(centre), ha="right", va="center", fontsize=8)
        row.set(ylim=(SHOWN - 0.4, -0.6), yticks=range(SHOWN))
        row.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=12)
    for each in axes:
        each.axvspan(-250, 0, color="0.93", linewidth=0, zorder=0)
        each.spines[["top", "right", "left"]].set_visible(False)
        each.tick_params(left=False)
        for boundary in PHONES[1:]:
            each.axvline(boundary.start, color="black", linewidth=0.7, linestyle=":")
    axes[0].set(yticks=[], xlim=(-250, PHONES[-1].end))
    axes[0].text(-125, 0, "before the signal", ha="center", va="center", fontsize=8)
    axes[-1].set_xlabel("sample (160 are 10 ms)")
    return figure


def tour_comparison(quickstart: Path) -> Figure:
    """Spoken phones of an utterance from the quickstart's test set above the phones that its model finds."""
    cut = _shortest(quickstart)
    model = FrameClassifier.from_pretrained(quickstart / "model")
    rate = model.frontend.geometry.sample_rate
    spoken = [Segment(symbol, start / rate, end / rate) for start, end, symbol in phone_intervals(cut, rate)]
    path = recording_file(cut)
    return plot_comparison(model.samples(path), spoken, model.classify(path), model.frontend.geometry)


def tour_phones(quickstart: Path) -> Figure:
    """Accuracy per phone of the quickstart's model."""
    return plot_phones(json.loads((quickstart / "report/test.json").read_text(encoding="utf-8")))


def tour_live(quickstart: Path, model: FrameClassifier) -> Figure:
    """When each phone of an utterance was spoken, and when it became final, smoothed, in chunks of 0.1 s."""
    samples = model.samples(recording_file(_shortest(quickstart)))
    rate = model.frontend.geometry.sample_rate
    live, final = LiveSegments(model, smooth=True), []
    for first in range(0, len(samples), rate // 10):
        segments = live.push(samples[first : first + rate // 10])
        final += [(segment, live.num_samples / rate) for segment in segments]
    final += [(segment, len(samples) / rate) for segment in live.flush()]
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    axes = figure.subplots()
    for row, (segment, known) in enumerate(final):
        axes.barh(row, segment.end - segment.start, left=segment.start, height=0.8, color=BLUE)
        axes.plot([segment.end, known], [row, row], color=ORANGE, linewidth=1.2)
        axes.plot(known, row, "o", color=ORANGE, markersize=4)
        axes.text(segment.start - 0.01, row, segment.phone, ha="right", va="center", fontsize=7)
    axes.plot([], [], color=BLUE, linewidth=6, label="spoken")
    axes.plot([], [], "o-", color=ORANGE, linewidth=1.2, markersize=4, label="known")
    axes.legend(loc="upper right")
    axes.set(xlabel="time, s", ylim=(len(final) - 0.2, -0.8), yticks=[], xlim=(-0.1, len(samples) / rate + 0.05))
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _shortest(quickstart: Path) -> Any:
    """The shortest cut of the quickstart's test set."""
    return min(read_cuts(quickstart / "data/test.jsonl.gz"), key=lambda cut: (cut.num_samples, cut.id))


if __name__ == "__main__":
    here = Path(__file__).parent
    save_figure(attention_mask(), here / "attention_mask.png")
    save_figure(frames(), here / "frames.png")
    if len(sys.argv) > 1:
        folder, packaged = Path(sys.argv[1]), FrameClassifier.from_pretrained("english-small")
        save_figure(tour_comparison(folder), comparison := here / "tour_comparison.png")
        Image.open(comparison).convert("RGB").quantize(128).save(comparison, optimize=True)  # a third of the size
        save_figure(tour_phones(folder), here / "tour_phones.png")
        save_figure(tour_live(folder, packaged), here / "tour_live.png")
