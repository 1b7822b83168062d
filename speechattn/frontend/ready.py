"""In the place of a front end: features that come ready made, for corpora that ship nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechattn.frontend.features import LogMelTransform
from speechattn.frontend.inputs import as_tensor
from speechattn.frontend.masks import frame_mask
from speechattn.geometry import Geometry

__all__ = ["ReadyFeatures", "ReadyStream"]


class ReadyFeatures(nn.Module):
    """Passes features on, checked: what a model has that takes no waveforms.

    Their frames are taken to lie where the default geometry's do: 25 ms every 10 ms, nothing padded. What a frame's
    features know of its neighbours, by deltas or normalisation, is not known here, and not counted as look-ahead.

    Args:
        dim: D, values in a frame.
    """

    lookahead = 0
    zero: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.geometry = Geometry()
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # follows the model's device and precision

    def forward(
        self,
        features: Tensor,
        frame_lengths: Tensor | None = None,
        *,
        log_mel_transform: LogMelTransform | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Check a batch.

        Args:
            features: (B, T, D) float, or (T, D) for one utterance; rows past its frames may hold anything.
            frame_lengths: (B,) integer, frames of each utterance; None when every row is full.
            log_mel_transform: Must be None: there are no log-mel energies.

        Returns:
            (features, frame_lengths): (B, T, D) in the model's precision, 0 past an utterance's frames, and (B,) int64.

        Raises:
            ValueError: When shapes, dtype or lengths do not fit.
        """
        if log_mel_transform is not None:
            raise ValueError("log_mel_transform needs a front end: ready features have no log-mel energies")
        features = features[None] if features.ndim == 2 else features
        self._check(features, ndim=3)
        batch, num_frames, _ = features.shape
        if frame_lengths is None:
            frame_lengths = torch.full((batch,), num_frames)
        if not torch.compiler.is_compiling():
            fits = frame_lengths.shape == (batch,)
            if not fits or ((frame_lengths < 0) | (frame_lengths > num_frames)).any():
                raise ValueError(f"lengths must be ({batch},), of 0..{num_frames} frames, got {frame_lengths.tolist()}")
        frame_lengths = frame_lengths.to(features.device, torch.int64)
        real = frame_mask(frame_lengths, num_frames)[..., None]
        return features.to(self.zero).masked_fill(~real, 0.0), frame_lengths

    def stream(self) -> ReadyStream:
        """The features themselves, as they come."""
        return ReadyStream(self)

    def _check(self, features: Tensor, *, ndim: int) -> None:
        if features.ndim != ndim or features.shape[-1] != self.dim or not features.is_floating_point():
            wanted = f"({'B, T' if ndim == 3 else 'n'}, {self.dim})"
            found = f"{tuple(features.shape)} {features.dtype}"
            raise ValueError(f"a model without a front end takes features, {wanted} float, got {found}")


class ReadyStream:
    """Features that come in pieces, given out as they come; `ReadyFeatures.stream` makes one.

    Args:
        ready: What they are checked by.
    """

    def __init__(self, ready: ReadyFeatures) -> None:
        self.ready = ready
        self._numpy = self._flushed = False

    def push(self, features: Any) -> Any:
        """(n, D) float -> the same, in the kind that came in."""
        if self._flushed:
            raise ValueError("push after flush: the stream has ended; a new one begins with stream()")
        self._numpy = isinstance(features, np.ndarray)
        rows = as_tensor(features, self.ready.zero.device)
        self.ready._check(rows, ndim=2)
        return self._given(rows)

    def flush(self) -> Any:
        """End the stream: (0, D). Once."""
        if self._flushed:
            raise ValueError("flush after flush: the stream has ended; a new one begins with stream()")
        self._flushed = True
        return self._given(self.ready.zero.new_zeros(0, self.ready.dim))

    def _given(self, rows: Tensor) -> Any:
        rows = rows.to(self.ready.zero)
        return rows.numpy(force=True) if self._numpy else rows
