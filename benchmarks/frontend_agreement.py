"""How closely each preset agrees with the library it is named after: a Markdown table, measured on real audio.

    python benchmarks/frontend_agreement.py FILE.wav ...

"Beyond" counts the values that differ by more than 1e-3 + 1e-4 |value|, the tests' tolerance. The last two columns
say how large the features get, and how far float32 lies from float64 within this frontend: what a difference owes to
rounding alone.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from frontend_peers import PEERS, Peer
from numpy.typing import NDArray

from speechattn.audio import load_audio
from speechattn.frontend import Fbank, Mfcc, Spectrogram

MODULES = {"Mfcc": Mfcc, "Fbank": Fbank, "Spectrogram": Spectrogram}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE.wav", help="speech; other rates are resampled to 16 kHz")
    recordings = [load_audio(file) for file in parser.parse_args().files]
    titles = ("here", "reference call, x in [-1, 1]", "version", "largest difference", "beyond", "largest value")
    print("".join(f"| {title} " for title in (*titles, "float32 to 64")) + "|\n|---|---|---|--:|--:|--:|--:|")
    for peer in PEERS:
        found = agreement(peer, recordings)
        print(
            f"| `{our_call(peer)}` | `{peer.call}` | {peer.package} {peer.version} | {found.difference:.1e} "
            f"| {found.beyond:,} of {found.values:,} | {found.largest:.3g} | {found.rounding:.1e} |"
        )


@dataclass
class Agreement:
    """What a comparison found, over all recordings: largest absolute values, and how many values there are."""

    difference: float = 0.0
    largest: float = 0.0
    rounding: float = 0.0
    beyond: int = 0
    values: int = 0


def agreement(peer: Peer, recordings: Sequence[NDArray[np.float32]]) -> Agreement:
    """Compare the frontend with a reference.

    Args:
        peer: The reference.
        recordings: Waveforms (N,), each at least one window long.

    Raises:
        ValueError: When the two disagree on the number of frames or features.
    """
    single = MODULES[peer.module](peer.preset, **peer.fields)
    double = MODULES[peer.module](peer.preset, **peer.fields).double()
    found = Agreement()
    for samples in recordings:
        expected = peer.features(samples)
        features = single(samples)
        exact = double(torch.from_numpy(samples).double()).numpy()
        if features.shape != expected.shape:
            raise ValueError(f"{our_call(peer)} gives {features.shape}, {peer.package} gives {expected.shape}")
        difference, size = np.abs(features - expected), np.abs(expected)
        found.difference = max(found.difference, difference.max())
        found.largest = max(found.largest, size.max())
        found.rounding = max(found.rounding, np.abs(features - exact).max())
        found.beyond += int((difference > 1e-3 + 1e-4 * size).sum())
        found.values += size.size
    return found


def our_call(peer: Peer) -> str:
    """The call of this frontend that the peer's call is compared with, as one would type it."""
    fields = "".join(f", {name}={value}" for name, value in peer.fields.items())
    return f'{peer.module}("{peer.preset}"{fields})'


if __name__ == "__main__":
    main()
