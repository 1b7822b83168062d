"""The same features from samples that arrive in pieces.

Every part runs the offline function over the new rows and as many earlier ones as they depend on, and returns the rows
that later input cannot change. Only `online` normalisation, whose window is long, carries running sums instead.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from speechattn.frontend.inputs import as_tensor, check_amplitudes, full_precision
from speechattn.frontend.spectrum import LogBandEnergies
from speechattn.geometry import Geometry

__all__ = ["FeatureStream", "RowStream", "WindowStream"]


class RowStream(Protocol):
    """One part of a stream, over a sequence of rows that grows."""

    def push(self, rows: Tensor, *, last: bool) -> Tensor:
        """New rows (n, D) -> the results that became final, (m, E); with `last` all that remain."""


class WindowStream:
    """A function of a sequence of rows, applied to a sequence that grows.

    Args:
        function: (1, T, D) and (1,) lengths -> (1, T, E); row t depends on rows t - left ... t + right, and on
            where the sequence begins and ends if that is nearer.
        left: Left context, in rows.
        right: Right context, in rows.
        minimum: Rows that must be there before any result is final.
    """

    def __init__(
        self, function: Callable[[Tensor, Tensor], Tensor], left: int = 0, right: int = 0, *, minimum: int = 0
    ) -> None:
        self.function, self.left, self.right, self.minimum = function, left, right, minimum
        self._rows: Tensor | None = None
        self._returned = 0  # rows of `_rows` whose result has been returned

    def push(self, rows: Tensor, *, last: bool) -> Tensor:
        """See `RowStream.push`."""
        rows = rows if self._rows is None else torch.cat([self._rows, rows])
        final = len(rows) if last else max(len(rows) - self.right, self._returned)
        if len(rows) < self.minimum and not last:
            final = self._returned
        results = self.function(rows[None], _length(rows))[0, self._returned : final]
        unused = max(final - self.left, 0)
        self._rows, self._returned = rows[unused:], final - unused
        return results


class FeatureStream:
    """Features of one signal, pushed in pieces of any size; `Frontend.stream` makes one.

    The results of all calls to `push` and `flush`, concatenated, are the features of the whole signal.

    Args:
        geometry: Frame geometry.
        energies: Spectrum and bands.
        static: Energies (T, columns) -> static features (T, E).
        parts: Deltas and normalisation, in order.
        dim: D, features per frame in the end.

    Example:
        >>> from speechattn import Mfcc
        >>> stream = Mfcc(delta_order=0).stream()
        >>> stream.push(torch.zeros(500)).shape, stream.push(torch.zeros(100)).shape, stream.flush().shape
        (torch.Size([1, 13]), torch.Size([1, 13]), torch.Size([0, 13]))
    """

    def __init__(
        self,
        geometry: Geometry,
        energies: LogBandEnergies,
        static: Callable[[Tensor], Tensor],
        parts: Sequence[RowStream],
        dim: int,
    ) -> None:
        self._geometry, self._energies, self._static, self._parts = geometry, energies, static, parts
        self._dim = dim
        self._samples = energies.window.new_zeros(0)
        self._first = 0  # position of the first kept sample in the signal
        self._num_frames = 0  # frames computed so far
        self._numpy = self._flushed = False

    @torch.no_grad()
    def push(self, samples: Any) -> Any:
        """Add samples and return the frames that became final.

        Args:
            samples: (n,) float in [-1, 1] or int16, n >= 0, tensor or NumPy array.

        Returns:
            (k, D), k >= 0; a NumPy array for NumPy input.

        Raises:
            ValueError: When shape or dtype of the samples do not fit, or after `flush`.
        """
        if self._flushed:
            raise ValueError("push after flush: the stream has ended; a new one begins with stream()")
        self._numpy = isinstance(samples, np.ndarray)
        samples = as_tensor(samples, self._samples.device)
        if samples.ndim != 1 or not (samples.is_floating_point() or samples.dtype == torch.int16):
            raise ValueError(
                f"samples must be (n,) float in [-1, 1] or int16, got {tuple(samples.shape)} {samples.dtype}"
            )
        try:
            check_amplitudes(samples)
        except ValueError as error:
            raise ValueError(f"{error}; these samples were dropped, and the stream continues") from None
        # Concatenation copies: callers may reuse their buffer.
        self._samples = torch.cat([self._samples, self._energies.as_float(samples)])
        total, geometry = self._first + len(self._samples), self._geometry
        complete = 1 + (total + geometry.left - geometry.window) // geometry.hop if total >= geometry.window else 0
        return self._frames_up_to(complete)

    @torch.no_grad()
    def flush(self) -> Any:
        """End the signal and return its last frames, (k, D). Only once."""
        if self._flushed:
            raise ValueError("flush after flush: the stream has ended; a new one begins with stream()")
        self._flushed = True
        return self._frames_up_to(self._geometry.num_frames(self._first + len(self._samples)), last=True)

    def _frames_up_to(self, end: int, *, last: bool = False) -> Any:
        if end <= self._num_frames and not last:
            rows = self._energies.window.new_zeros(0, self._dim)
            return rows.numpy(force=True) if self._numpy else rows
        begin = self._num_frames * self._geometry.hop - self._geometry.left
        energies = self._energies.window.new_zeros(max(end - self._num_frames, 0), self._energies.columns)
        self._energies.blocked(self._samples, begin - self._first, energies)
        self._num_frames += len(energies)
        # Keep one window of samples: the next frame begins at its second sample at the earliest (pre-emphasis needs the
        # one before), and edges are mirrored from no further back.
        unused = max(len(self._samples) - self._geometry.window, 0)
        self._samples, self._first = self._samples[unused:], self._first + unused
        with full_precision(energies.device):
            rows = self._static(energies)
            for part in self._parts:
                rows = part.push(rows, last=last)
        return rows.numpy(force=True) if self._numpy else rows


def _length(rows: Tensor) -> Tensor:
    """Frame lengths, (1,), of a batch of these rows alone."""
    return torch.full((1,), len(rows), device=rows.device)
