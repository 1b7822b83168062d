"""Accuracy of a model when its recordings begin late: do positions harm long recordings and live speech?

    python benchmarks/positions.py MODEL [MODEL ...] --cuts CUTS [--offsets 0 30 360]

Every position is moved by the offset, as if that much of a recording had gone before; the audio stays the same.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import cast

from torch import Tensor

from speechattn.attention import Position
from speechattn.cuts.model_inputs import cut_labels, cut_waveform, load_cuts
from speechattn.model.block import EncoderBlock
from speechattn.model.classifier import FrameClassifier
from speechattn.model.encoder import Encoder
from speechattn.phones import IGNORED


def main() -> None:
    """Print one row per model: frame accuracy at each offset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folder or name of a model with an encoder")
    parser.add_argument("--cuts", type=Path, required=True, help="cuts with phones")
    parser.add_argument("--offsets", type=float, nargs="+", default=[0.0, 30.0, 360.0], help="seconds")
    args = parser.parse_args()
    print("model".ljust(40) + "position".ljust(12) + "".join(f"{offset:>8g} s" for offset in args.offsets))
    for name in args.models:
        accuracies = [accuracy(late(FrameClassifier.from_pretrained(name), s), args.cuts) for s in args.offsets]
        position = cast(Encoder, FrameClassifier.from_pretrained(name).body).config.position
        print(name[-38:].ljust(40) + position.ljust(12) + "".join(f"{100 * share:>8.2f} %" for share in accuracies))


def late(model: FrameClassifier, offset_s: float) -> FrameClassifier:
    """The model with all positions moved by an offset in seconds."""
    body, geometry = cast(Encoder, model.body), model.frontend.geometry
    steps = round(offset_s * geometry.sample_rate / (geometry.hop * body.config.stack))
    embed = body.embed
    body.embed = lambda features, times: embed(features, times + steps)  # type: ignore[method-assign]
    for block in body.blocks:
        position = cast(EncoderBlock, block).attention.position
        position.encode = partial(_encode_late, type(position).encode, position, steps)  # type: ignore[method-assign]
    return model


def _encode_late(encode: object, position: Position, steps: int, x: Tensor, times: Tensor) -> Tensor:
    return encode(position, x, times + steps)  # type: ignore[operator,no-any-return]


def accuracy(model: FrameClassifier, cuts: Path) -> float:
    """Frame accuracy on cuts."""
    num_right = num_frames = 0
    for cut in load_cuts(cuts, model.frontend.geometry):
        labels = cut_labels(cut, model.phones, model.frontend.geometry)
        decided = model.posteriors(cut_waveform(cut)).argmax(axis=1)
        num_right += int((decided == labels)[labels != IGNORED].sum())
        num_frames += int((labels != IGNORED).sum())
    return num_right / num_frames


if __name__ == "__main__":
    main()
