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

    Frame t covers samples [t * hop - left, t * hop - left + window) and its time is its centre,
    t * hop - left + window // 2. There are as many frames as windows fit into the signal lengthened by
    `left` samples in front and `right` behind; a signal shorter than one window has none.

    Args:
        sample_rate: Samples per second.
        window: Samples in a frame (400 = 25 ms at 16 kHz).
        hop: Samples from one frame to the next (160 = 10 ms at 16 kHz).
        left: Samples that frame 0 reaches before the signal.
        right: Samples behind the signal that the last frame may reach.

    Raises:
        ValueError: When sample rate, window or hop is not positive, or a padding is negative.
    """

    sample_rate: int = 16000
    window: int = 400
    hop: int = 160
    left: int = 0
    right: int = 0

    def __post_init__(self) -> None:
        for name in ("sample_rate", "window", "hop"):
            if getattr(self, name) <= 0:
                raise ValueError(f"geometry.{name} must be positive, got {name}={getattr(self, name)}")
        for name in ("left", "right"):
            if getattr(self, name) < 0:
                raise ValueError(f"geometry.{name} must not be negative, got {name}={getattr(self, name)}")

    @property
    def first_centre(self) -> int:
        """Sample at the centre of frame 0."""
        return self.window // 2 - self.left

    def num_frames(self, num_samples: Any) -> Any:
        """Number of frames of a signal.

        Args:
            num_samples: Length in samples: an int, or an integer tensor or array of any shape.

        Returns:
            0 below one window, else 1 + (num_samples + left + right - window) // hop; in the type that came in.
        """
        return self.windows(num_samples) * (num_samples >= self.window)

    def windows(self, num_samples: Any) -> Any:
        """The same for a signal of at least a window; without padding, 0 or less for a shorter one."""
        # One hop more and one frame less: ONNX rounds towards 0, and so it does not matter.
        return (num_samples + (self.left + self.right - self.window + self.hop)) // self.hop

    def first_owned(self, frame: Any) -> Any:
        """First sample of the hop around a frame's centre, which that frame owns; int or integer array."""
        return self.first_centre - self.hop // 2 + self.hop * frame

    def num_samples(self, num_frames: int) -> int:
        """Samples of the shortest signal that has so many frames."""
        if num_frames == 0:
            return 0
        return max(self.window, self.window - self.left - self.right + self.hop * (num_frames - 1))

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
