"""Frame geometry: which samples a frame covers, how many frames there are, and their times.

Everything that converts between samples and frames (features, labels, segments) uses this module, so that they cannot
disagree. The default is Kaldi's `snip_edges=true`: windows lie entirely inside the signal.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Geometry", "num_frames"]


@dataclass(frozen=True)
class Geometry:
    """Where the frames of a signal lie, in integer samples.

    Frame t covers samples [t * hop - left, t * hop - left + window); its time is its centre, t * hop - left +
    window // 2. There are as many frames as windows fit into the signal, extended by `left` samples at the start and
    `right` at the end; a signal shorter than one window has none.

    Args:
        sample_rate: Samples per second.
        window: Samples in a frame (400 = 25 ms at 16 kHz).
        hop: Samples from one frame to the next (160 = 10 ms at 16 kHz).
        left: Samples of frame 0 before the signal.
        right: Maximum number of samples of the last frame after the signal.

    Raises:
        ValueError: When sample rate, window or hop is not positive, or a padding is negative.
    """

    sample_rate: int = 16000
    window: int = 400
    hop: int = 160
    left: int = 0
    right: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or value == 0 and name not in ("left", "right"):
                bound = "not be negative" if name in ("left", "right") else "be positive"
                raise ValueError(f"geometry.{name} must {bound}, got {name}={value}")

    @property
    def first_centre(self) -> int:
        """Sample at the centre of frame 0."""
        return self.window // 2 - self.left

    def num_frames(self, num_samples: Any) -> Any:
        """Number of frames in a signal of `num_samples`, an int or an integer tensor or array, in the same type.

        0 below one window, otherwise 1 + (num_samples + left + right - window) // hop.
        """
        return self.windows(num_samples) * (num_samples >= self.window)

    def windows(self, num_samples: Any) -> Any:
        """`num_frames` for at least one window; for a shorter signal without padding, 0 or less."""
        # One hop more instead of one frame more, since ONNX rounds towards 0.
        return (num_samples + (self.left + self.right - self.window + self.hop)) // self.hop

    def first_owned(self, frame: Any) -> Any:
        """First sample of the hop around a frame's centre, which that frame owns; for an int or an integer array."""
        return self.first_centre - self.hop // 2 + self.hop * frame

    def num_samples(self, num_frames: int) -> int:
        """Samples in the shortest signal with that many frames."""
        if num_frames == 0:
            return 0
        return max(self.window, self.window - self.left - self.right + self.hop * (num_frames - 1))

    def centres(self, num_samples: int) -> np.ndarray:
        """Centre sample of every frame, (T,) int64."""
        return self.first_centre + self.hop * np.arange(self.num_frames(num_samples), dtype=np.int64)


def num_frames(num_samples: int, *, geometry: Geometry = Geometry()) -> int:  # noqa: B008 (frozen)
    """Number of frames in a signal of `num_samples` samples.

    Example:
        >>> num_frames(16000), num_frames(400), num_frames(399)
        (98, 1, 0)
    """
    return geometry.num_frames(num_samples)
