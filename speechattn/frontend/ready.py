"""Ready-made features in place of a front end, for corpora that ship no audio."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechattn.frontend.execution import is_traced
from speechattn.frontend.features import LogMelTransform
from speechattn.frontend.inputs import as_tensor
from speechattn.frontend.masks import zero_padding
from speechattn.geometry import Geometry

__all__ = ["ReadyFeatures", "ReadyStream"]


class ReadyFeatures(nn.Module):
    """Checks features and passes them on, in a model that takes no waveforms.

    Frames are assumed to lie in the default geometry: 25 ms every 10 ms, no padding. Look-ahead of whatever computed
    the features, such as deltas, is unknown and not counted.

    Args:
        dim: D, features per frame.
    """

    lookahead = 0
    zero: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.geometry = Geometry()
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # has the model's device and precision

    def forward(
        self, features: Tensor, frame_lengths: Tensor | None = None, *, log_mel_transform: LogMelTransform | None = None
    ) -> tuple[Tensor, Tensor]:
        """Check a batch.

        Args:
            features: (B, T, D) float, or (T, D) for one utterance. Rows past an utterance's frames may hold anything.
            frame_lengths: (B,) integer, frames of each utterance; None when every row is full.
            log_mel_transform: Must be None, since there are no log-mel energies.

        Returns:
            (features, frame_lengths): (B, T, D) in the model's precision, 0 past an utterance's frames, and (B,) int64.

        Raises:
            ValueError: When shapes, dtype or lengths do not fit.
        """
        if log_mel_transform is not None:
            raise ValueError("log_mel_transform needs a front end: ready features have no log-mel energies")
        features = features[None] if features.ndim == 2 else features
        self._check(features, "B, T")
        batch, num_frames, _ = features.shape
        if frame_lengths is None:
            frame_lengths = torch.full((batch,), num_frames)
        if not is_traced():
            fits = frame_lengths.shape == (batch,)
            if not fits or ((frame_lengths < 0) | (frame_lengths > num_frames)).any():
                raise ValueError(f"lengths must be ({batch},), of 0..{num_frames} frames, got {frame_lengths.tolist()}")
            if not zero_padding(features.detach(), frame_lengths.to(features.device)).isfinite().all():
                raise ValueError("some features are NaN or infinite")
        frame_lengths = frame_lengths.to(features.device, torch.int64)
        return zero_padding(features.to(self.zero), frame_lengths), frame_lengths

    def stream(self) -> ReadyStream:
        """Start a stream, which returns the features as they arrive."""
        return ReadyStream(self)

    def _check(self, features: Tensor, axes: str) -> None:
        if features.ndim != axes.count(",") + 2 or features.shape[-1] != self.dim or not features.is_floating_point():
            raise ValueError(
                f"a model without a front end takes features, ({axes}, {self.dim}) float, "
                f"got {tuple(features.shape)} {features.dtype}"
            )


class ReadyStream:
    """Features that arrive in pieces; `ReadyFeatures.stream` makes one."""

    def __init__(self, ready: ReadyFeatures) -> None:
        self.ready = ready
        self._numpy = self._flushed = False

    def push(self, features: Any) -> Any:
        """(n, D) float -> the same; NumPy arrays for NumPy input."""
        if self._flushed:
            raise ValueError("push after flush: the stream has ended; a new one begins with stream()")
        self._numpy = isinstance(features, np.ndarray)
        rows = as_tensor(features, self.ready.zero.device)
        self.ready._check(rows, "n")
        if not rows.isfinite().all():
            raise ValueError("some features are NaN or infinite; these features were dropped, and the stream continues")
        return self._output(rows)

    def flush(self) -> Any:
        """End the stream: (0, D). Once."""
        if self._flushed:
            raise ValueError("flush after flush: the stream has ended; a new one begins with stream()")
        self._flushed = True
        return self._output(self.ready.zero.new_zeros(0, self.ready.dim))

    def _output(self, rows: Tensor) -> Any:
        rows = rows.to(self.ready.zero)
        return rows.numpy(force=True) if self._numpy else rows
