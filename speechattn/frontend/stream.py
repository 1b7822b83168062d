"""The same features from samples that come in pieces.

Nothing is computed by other formulas than offline: each stage runs the offline function over a piece that holds
the new rows and as many old ones as they depend on, and gives out the rows that no later input can change. Only
`online` normalisation, whose window is long, carries its sums along instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from speechattn.frontend.inputs import as_tensor, full_precision
from speechattn.frontend.normalisation import OnlineCmvnStream

if TYPE_CHECKING:
    from speechattn.frontend.features import Frontend, Statistics

__all__ = ["FeatureStream", "Stage"]


class FeatureStream:
    """Features of one signal, pushed in pieces of any size; `Frontend.stream` makes one.

    All that `push` and `flush` return, one after the other, are the features of the whole signal.

    Args:
        frontend: The front end.
        statistics: (mean, variance), (D,) each, for `speaker` normalisation.

    Example:
        >>> from speechattn import Mfcc
        >>> stream = Mfcc(delta_order=0).stream()
        >>> stream.push(torch.zeros(500)).shape, stream.push(torch.zeros(100)).shape, stream.flush().shape
        (torch.Size([1, 13]), torch.Size([1, 13]), torch.Size([0, 13]))
    """

    def __init__(self, frontend: Frontend, statistics: Statistics | None = None) -> None:
        config = frontend.config
        self.frontend, self.geometry = frontend, frontend.geometry
        self._samples = frontend.energies.window.new_zeros(0)
        self._first = 0  # which sample of the signal the first one kept is
        self._num_frames = 0  # frames cut so far
        self._numpy = self._flushed = False

        def normalise(features: Tensor, frame_lengths: Tensor) -> Tensor:
            return frontend.normalised(features, frame_lengths, statistics)

        self._stages: list[Stage | OnlineStage] = [Stage(frontend.with_deltas, config.delta_reach, config.delta_reach)]
        window, least = config.cmn_window, config.min_cmn_window
        if config.normalisation == "sliding" and config.center_cmn:  # the first windows are shifted to begin at 0
            self._stages.append(Stage(normalise, window, window - window // 2 - 1, least=window))
        elif config.normalisation == "sliding":
            self._stages.append(Stage(normalise, max(window, least), least=least))
        elif config.normalisation == "online":
            self._stages.append(OnlineStage(frontend))
        elif config.normalisation != "none":
            self._stages.append(Stage(normalise))

    @torch.no_grad()
    def push(self, samples: Any) -> Any:
        """Take samples, give the frames that became final.

        Args:
            samples: (n,) float in [-1, 1] or int16, n >= 0, tensor or NumPy array.

        Returns:
            (k, D), k >= 0, in the kind that came in.

        Raises:
            ValueError: When the samples do not fit, or `flush` came before.
        """
        if self._flushed:
            raise ValueError("push after flush: the stream has ended; a new one begins with stream()")
        self._numpy = isinstance(samples, np.ndarray)
        samples = as_tensor(samples, self._samples.device)
        if samples.ndim != 1 or not (samples.is_floating_point() or samples.dtype == torch.int16):
            raise ValueError(
                f"samples must be (n,) float in [-1, 1] or int16, got {tuple(samples.shape)} {samples.dtype}"
            )
        samples = self.frontend.energies.as_float(samples)
        self._samples = torch.cat([self._samples, samples])  # a copy: callers may fill the same buffer again
        total, geometry = self._first + len(self._samples), self.geometry
        whole = 1 + (total + geometry.left - geometry.window) // geometry.hop if total >= geometry.window else 0
        return self._frames_up_to(whole)

    @torch.no_grad()
    def flush(self) -> Any:
        """End the signal and give its last frames, (k, D). Once."""
        if self._flushed:
            raise ValueError("flush after flush: the stream has ended; a new one begins with stream()")
        self._flushed = True
        return self._frames_up_to(self.geometry.num_frames(self._first + len(self._samples)), last=True)

    def _frames_up_to(self, whole: int, *, last: bool = False) -> Any:
        frontend, geometry = self.frontend, self.geometry
        begin = self._num_frames * geometry.hop - geometry.left
        energies = frontend.energies.window.new_zeros(max(whole - self._num_frames, 0), frontend.energies.columns)
        frontend.energies.blocked(self._samples, begin - self._first, energies)
        self._num_frames += len(energies)
        # The last window of samples stays: the next frame begins within it, at its second sample at the earliest
        # (pre-emphasis needs the one before), and edges are mirrored from no further back.
        unused = max(len(self._samples) - geometry.window, 0)
        self._samples, self._first = self._samples[unused:], self._first + unused

        with full_precision(energies.device):
            rows = frontend.static(energies[None], _length(energies), None)[0]
            for stage in self._stages:
                rows = stage.push(rows, last=last)
        return rows.numpy(force=True) if self._numpy else rows


class Stage:
    """A function over a sequence of rows, applied to a sequence that grows.

    Args:
        function: (1, T, D) and (1,) lengths -> (1, T, E); row t depends on rows t - left ... t + right, and on
            where the sequence begins and ends if that is nearer.
        left: Rows to the left.
        right: Rows to the right.
        least: Rows that there must be before any result is final.
    """

    def __init__(
        self, function: Callable[[Tensor, Tensor], Tensor], left: int = 0, right: int = 0, *, least: int = 0
    ) -> None:
        self.function, self.left, self.right, self.least = function, left, right, least
        self.rows: Tensor | None = None
        self.given = 0  # rows of `rows` whose result has been given out

    def push(self, rows: Tensor, *, last: bool) -> Tensor:
        """New rows (n, D) -> the results that became final, (m, E); with `last` all that are left."""
        rows = rows if self.rows is None else torch.cat([self.rows, rows])
        final = len(rows) if last else max(len(rows) - self.right, self.given)
        if len(rows) < self.least and not last:
            final = self.given
        results = self.function(rows[None], _length(rows))[0, self.given : final]
        unused = max(final - self.left, 0)
        self.rows, self.given = rows[unused:], final - unused
        return results


class OnlineStage:
    """`online` normalisation of a front end as a `Stage`."""

    def __init__(self, frontend: Frontend) -> None:
        config = frontend.config
        self.frontend = frontend
        self._cmvn = OnlineCmvnStream(config.cmn_window, config.global_frames, config.normalise_variance)

    def push(self, rows: Tensor, *, last: bool) -> Tensor:
        """New frames (n, D) -> the same, normalised; none waits."""
        return self._cmvn.push((rows - self.frontend.mean) * self.frontend.scale)


def _length(rows: Tensor) -> Tensor:
    """Frame lengths, (1,), of a batch that is these rows."""
    return torch.full((1,), len(rows), device=rows.device)
