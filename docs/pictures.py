"""The drawings of the documentation, one function a picture: python docs/pictures.py writes them beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from speechattn.attention import band_mask
from speechattn.plots import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEFT, RIGHT, FRAMES = 3, 1, 16  # of the drawings
BLOCK, LAYERS = 4, 3
BLUE, ORANGE, PALE, WHITE = "#0072b2", "#e69f00", "#bcd7e8", "#ffffff"  # apart for the colour-blind, and in grey


def attention_mask() -> Figure:
    """Truncated attention in three drawings: the band of a layer, the blocks that it is cut into, its growth."""
    figure = Figure(figsize=(13.0, 4.6), layout="constrained")
    band, blocks, growth = figure.subplots(1, 3)
    _band(band)
    _blocks(blocks)
    _growth(growth)
    return figure


def _band(axes: Axes) -> None:
    """Which frames a frame sees in one layer."""
    mask = band_mask(FRAMES, LEFT, RIGHT).int().numpy()
    mask[np.diag_indices(FRAMES)] *= 2
    _squares(axes, mask, [WHITE, BLUE, ORANGE])
    axes.set(title=f"One layer: left {LEFT}, right {RIGHT}", xlabel="seen frame s", ylabel="frame t")
    axes.text(15, 1, "nothing computed", ha="right", va="center", fontsize=10)
    axes.text(0, 14, f"{LEFT + 1 + RIGHT} frames in a row;\nfewer at the ends", ha="left", va="center", fontsize=10)


def _blocks(axes: Axes) -> None:
    """Blocks of queries, each with one window of keys for all of them."""
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
    """What reaches one frame through several layers; the input at the bottom."""
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
    """A matrix of small numbers, each with its colour, under a fine grid."""
    axes.imshow(values, cmap=ListedColormap(colours), vmin=0, vmax=len(colours) - 1)
    axes.set_xticks(range(0, FRAMES, BLOCK))
    axes.set_yticks(range(0, FRAMES, BLOCK))
    axes.set_xticks(np.arange(FRAMES) - 0.5, minor=True)
    axes.set_yticks(np.arange(FRAMES) - 0.5, minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.6)
    axes.tick_params(which="minor", length=0)


if __name__ == "__main__":
    save_figure(attention_mask(), Path(__file__).with_name("attention_mask.png"))
