"""How closely each preset agrees with the library it is named after: a Markdown table, measured on real audio.

    python benchmarks/frontend_agreement.py FILE.wav ...

The last two columns say how large the features get, and how far float32 lies from float64 within this frontend: what
a difference owes to rounding alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

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
    print("| here | reference call, x in [-1, 1] | version | largest difference | largest value | float32 to 64 |")
    print("|---|---|---|--:|--:|--:|")
    for peer in PEERS:
        difference, value, rounding = agreement(peer, recordings)
        print(
            f"| `{our_call(peer)}` | `{peer.call}` | {peer.package} {peer.version} "
            f"| {difference:.1e} | {value:.3g} | {rounding:.1e} |"
        )


def agreement(peer: Peer, recordings: Sequence[NDArray[np.float32]]) -> tuple[float, float, float]:
    """Compare the frontend with a reference.

    Args:
        peer: The reference.
        recordings: Waveforms (N,), each at least one window long.

    Returns:
        Over all recordings: the largest absolute difference, the reference's largest absolute value, and the largest
        absolute difference between the frontend in float32 and in float64.

    Raises:
        ValueError: When the two disagree on the number of frames or features.
    """
    single = MODULES[peer.module](peer.preset, **peer.fields)
    double = MODULES[peer.module](peer.preset, **peer.fields).double()
    figures = []
    for samples in recordings:
        expected = peer.features(samples)
        features = single(samples)
        exact = double(torch.from_numpy(samples).double()).numpy()
        if features.shape != expected.shape:
            raise ValueError(f"{our_call(peer)} gives {features.shape}, {peer.package} gives {expected.shape}")
        figures.append([np.abs(features - expected).max(), np.abs(expected).max(), np.abs(features - exact).max()])
    difference, value, rounding = np.max(figures, axis=0).tolist()
    return difference, value, rounding


def our_call(peer: Peer) -> str:
    """The call of this frontend that the peer's call is compared with, as one would type it."""
    fields = "".join(f", {name}={value}" for name, value in peer.fields.items())
    return f'{peer.module}("{peer.preset}"{fields})'


if __name__ == "__main__":
    main()
