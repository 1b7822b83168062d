"""Frame geometry: which samples a frame covers, how many frames there are, when each one is.

Everything that turns samples into frames or back (features, labels, segments) asks this module, so that
they cannot disagree. The default is Kaldi's `snip_edges=true`: windows lie wholly inside the signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Geometry", "num_frames"]


@dataclass(frozen=True)
class Geometry:
    """Where the frames of a signal lie, in integer samples.

    Frame t covers samples [t * hop, t * hop + window) and its time is its centre, t * hop + window // 2.

    Args:
        sample_rate: Samples per second.
        window: Samples in a frame (400 = 25 ms at 16 kHz).
        hop: Samples from one frame to the next (160 = 10 ms at 16 kHz).

    Raises:
        ValueError: When a field is not positive.
    """

    sample_rate: int = 16000
    window: int = 400
    hop: int = 160

    def __post_init__(self) -> None:
        for name in ("sample_rate", "window", "hop"):
            if getattr(self, name) <= 0:
                raise ValueError(f"geometry.{name} must be positive, got {name}={getattr(self, name)}")

    @property
    def first_centre(self) -> int:
        """Sample at the centre of frame 0."""
        return self.window // 2

    def num_frames(self, num_samples: Any) -> Any:
        """Number of frames of a signal.

        Args:
            num_samples: Length in samples: an int, or an integer tensor or array of any shape.

        Returns:
            0 below one window, else 1 + (num_samples - window) // hop; in the type that came in.
        """
        frames = 1 + (num_samples - self.window) // self.hop
        return max(frames, 0) if isinstance(frames, int) else frames.clip(min=0)

    def centres(self, num_samples: int) -> np.ndarray:
        """Centre sample of every frame, (T,) int64."""
        return self.first_centre + self.hop * np.arange(self.num_frames(num_samples), dtype=np.int64)


def num_frames(num_samples: int, *, geometry: Geometry = Geometry()) -> int:  # noqa: B008 (frozen)
    """Number of frames of a signal of `num_samples` samples.

    Example:
        >>> num_frames(16000), num_frames(400), num_frames(399)
        (98, 1, 0)
    """
    return geometry.num_frames(num_samples)
