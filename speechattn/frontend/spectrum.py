"""Waveform -> frames -> spectrum -> log-energies of frequency bands, on two paths that agree.

The blocked path is for speed: one utterance, a few hundred frames at a time, in buffers that stay in the CPU cache and
are reused from call to call (fresh memory costs more than the arithmetic). The plain path computes the whole batch in
ordinary differentiable operations: for gradients to the waveform, for other devices and, with the Fourier transform as
a matrix product, for exported graphs.
"""

import math
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechattn.frontend.config import FrontendConfig
from speechattn.frontend.execution import is_traced
from speechattn.frontend.kernels import cut_frames, sum_bands
from speechattn.frontend.masks import frame_mask
from speechattn.frontend.tables import analysis_window, fourier_matrix

__all__ = ["LogBandEnergies"]

INT16_SCALE = 32768.0
BLOCK_FRAMES = 768  # frames and spectrum of a block are 3 MB at 16 kHz


class LogBandEnergies(nn.Module):
    """Log-energies of frequency bands in every frame and, in an optional last column, of the whole frame.

    Args:
        config: A resolved configuration.
        filters: (bins, bands) weights of the bins, bins = n_fft // 2 + 1. None: every bin, without the logarithm.
        frame_energy: Add the column, always a natural logarithm.
    """

    window: Tensor
    fourier: Tensor
    filters: Tensor | None
    first_bins: Tensor
    widths: Tensor
    band_weights: Tensor

    def __init__(self, config: FrontendConfig, filters: Tensor | None, *, frame_energy: bool = False) -> None:
        super().__init__()
        self.config, self.geometry, self.fft_length = config, config.geometry, config.fft_length
        self.num_bands = self.fft_length // 2 + 1 if filters is None else filters.shape[1]
        self.frame_energy = frame_energy
        self.columns = self.num_bands + frame_energy
        # Without filters, each bin is a band.
        first_bins, widths, weights = _bands(torch.eye(self.num_bands) if filters is None else filters)
        self.log_unit = 10 / math.log(10) if config.decibels else 1.0
        self.energy_floor = max(config.floor, config.energy_floor)
        self.register_buffer("window", config.scale * analysis_window(config), persistent=False)
        self.register_buffer("fourier", fourier_matrix(config), persistent=False)
        filters = None if filters is None else filters.float()
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("first_bins", first_bins, persistent=False)
        self.register_buffer("widths", widths, persistent=False)
        self.register_buffer("band_weights", weights.float(), persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Compute the log-energies of whole utterances.

        Args:
            waveforms: (B, N) float in [-1, 1] or int16.
            lengths: (B,) int64, samples in each row. Samples past the length are ignored.

        Returns:
            (B, T, columns). Padded frames are finite but otherwise undefined.
        """
        if is_traced():  # a loop over lengths would break the graph
            return self.plain(waveforms, lengths)
        differentiate = torch.is_grad_enabled() and waveforms.requires_grad
        num_frames = self.geometry.num_frames(waveforms.shape[1])
        if (
            num_frames and len(waveforms) and (differentiate or waveforms.device.type != "cpu")
        ):  # an empty batch has no transform
            return self.plain(waveforms, lengths)
        energies = self.window.new_empty(len(waveforms), num_frames, self.columns)
        for row, length in enumerate(lengths.tolist()):
            count = self.geometry.num_frames(length)
            self.blocked(waveforms[row, :length], -self.geometry.left, energies[row, :count])
            energies[row, count:] = 0.0
        return energies

    def blocked(self, samples: Tensor, start: int, energies: Tensor) -> None:
        """The blocked path: write the log-energies of T successive frames of one signal into (T, columns).

        `samples` (N,) are float or int16, at least one window unless T is 0; the first frame begins at `start`. Beyond
        its edges the signal is extended by `edge_padding`.
        """
        if not energies.is_cpu:
            self.in_torch(samples, start, energies)
            return
        config, geometry, number = self.config, self.geometry, _numpy_type(self.window)
        emphasis = config.preemphasis if config.preemphasis_over == "frame" else 0.0
        padded = _buffer(geometry.window, self.fft_length, self.window.dtype)
        none = np.empty(0, dtype=number)
        for first in range(0, len(energies), BLOCK_FRAMES):
            block = energies[first : first + BLOCK_FRAMES]
            size, begin = len(block), start + first * geometry.hop
            signal = self._signal(samples, begin, begin + (size - 1) * geometry.hop + geometry.window)
            cut_frames(
                signal.numpy(), geometry.hop, self.window.numpy(), number(emphasis), config.remove_dc,
                padded[:size].numpy(), number(config.scale**2),
                block[:, -1].numpy() if self.frame_energy and config.energy_from == "samples" else none,
            )  # fmt: skip
            spectrum = torch.view_as_real(torch.fft.rfft(padded[:size])).flatten(1)
            self._sum_bands(spectrum, block)

    def in_torch(self, samples: Tensor, start: int, energies: Tensor) -> None:
        """`blocked` in PyTorch's operations, for other devices than the CPU."""
        if len(energies):
            window, hop = self.geometry.window, self.geometry.hop
            signal = self._signal(samples, start, start + (len(energies) - 1) * hop + window)
            energies.copy_(self.of_frames(signal.unfold(0, window, hop)[None])[0])

    def _signal(self, samples: Tensor, begin: int, end: int) -> Tensor:
        """Samples [begin, end), extended beyond the edges, pre-emphasised if that comes before framing."""
        over_signal = self.config.preemphasis_over == "signal"
        if begin < over_signal or end > len(samples):
            positions = torch.arange(begin, end, device=samples.device)
            return self.continued(samples, 0, positions, torch.tensor(len(samples), device=samples.device))
        signal = self.as_float(samples[begin:end])
        if not over_signal:
            return signal
        return signal.sub(self.as_float(samples[begin - 1 : end - 1]), alpha=self.config.preemphasis)

    def _sum_bands(self, spectrum: Tensor, energies: Tensor) -> None:
        """Write the log-energies of (T, 2 * bins), real and imaginary parts in turns."""
        config, number = self.config, _numpy_type(self.window)
        scale = number(1 / self.fft_length if config.periodogram else 1.0)
        first, widths, weights = (table.numpy() for table in (self.first_bins, self.widths, self.band_weights))
        from_spectrum = self.frame_energy and config.energy_from == "spectrum"
        sum_bands(
            spectrum.numpy(), scale, config.power == 1, first, widths, weights,
            number(-math.inf if self.filters is None else config.floor), energies[:, : self.num_bands].numpy(),
            energies[:, -1].numpy() if from_spectrum else np.empty(0, dtype=number),
        )  # fmt: skip
        if self.filters is None:
            return
        logs = energies.numpy()  # NumPy's logarithm and limits need no other threads to wait for
        if self.frame_energy:
            np.maximum(logs[:, -1], number(self.energy_floor), out=logs[:, -1])
        np.log(logs, out=logs)
        if config.decibels:
            logs[:, : self.num_bands] *= number(self.log_unit)

    def plain(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """The plain path: `forward` in differentiable operations, for at least one frame."""
        return self.of_frames(self._frames(self.as_float(waveforms), lengths))

    def of_frames(self, frames: Tensor) -> Tensor:
        """Frames as cut from the signal, (B, T, window) -> (B, T, columns), in differentiable operations."""
        config = self.config
        if config.remove_dc:
            frames = frames - frames.mean(dim=2, keepdim=True)
        energy = config.scale**2 * frames.square().sum(dim=2)
        if config.preemphasis and config.preemphasis_over == "frame":
            before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
            frames = frames - config.preemphasis * before
        power = self._power(frames * self.window)
        if self.filters is None:
            return power
        bands = (power @ self.filters).clamp(min=config.floor).log() * self.log_unit
        if not self.frame_energy:
            return bands
        energy = energy if config.energy_from == "samples" else power.sum(dim=2)
        return torch.cat([bands, energy.clamp(min=self.energy_floor).log()[..., None]], dim=2)

    def _frames(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, N) -> (B, T, window)."""
        geometry, config = self.geometry, self.config
        # Otherwise a frame that straddles an utterance's end would pass a NaN in the padding on to the gradient.
        waveforms = waveforms.masked_fill(~frame_mask(lengths, waveforms.shape[1]), 0.0)
        if config.preemphasis_over == "signal":
            waveforms = waveforms - config.preemphasis * nn.functional.pad(waveforms, (1, 0))[:, :-1]
        count = geometry.num_frames(waveforms.shape[1])
        if geometry.left or geometry.right:
            span = (count - 1) * geometry.hop + geometry.window
            positions = torch.arange(-geometry.left, span - geometry.left, device=lengths.device)
            sources, inside = self._sources(positions, lengths[:, None])
            waveforms = waveforms.gather(1, sources) * inside
        if torch.compiler.is_compiling():  # unfold would fix the minimum length
            first = geometry.hop * torch.arange(count, device=lengths.device)
            return waveforms[:, first[:, None] + torch.arange(geometry.window, device=lengths.device)]
        return waveforms.unfold(1, geometry.window, geometry.hop)

    def _power(self, frames: Tensor) -> Tensor:
        """(B, T, window) -> (B, T, bins), the power or magnitude spectrum."""
        if torch.compiler.is_exporting():
            real, imaginary = (frames @ self.fourier).chunk(2, dim=-1)
        else:
            spectrum = torch.fft.rfft(frames, n=self.fft_length)
            real, imaginary = spectrum.real, spectrum.imag
        power = real.square() + imaginary.square()
        if self.config.periodogram:
            return power / self.fft_length
        if self.config.power == 1:  # the slope of the root at 0 is infinite
            return power.clamp(min=torch.finfo(power.dtype).tiny).sqrt()
        return power

    def continued(self, samples: Tensor, first: int | Tensor, positions: Tensor, length: Tensor) -> Tensor:
        """Values of a signal at any positions (m,) int64, extended beyond its edges by `edge_padding` -> (m,) float.

        `samples` (n,) are the part of it from sample `first` on; () int64 `length` is that of the whole signal. Values
        that depend on other samples are undefined. Includes pre-emphasis if that comes before framing.
        """
        sources, inside = self._sources(positions, length)
        last = len(samples) - 1
        signal = self.as_float(samples[(sources - first).clamp(0, last)] * inside)
        if self.config.preemphasis_over != "signal":
            return signal
        before = samples[(sources - first - 1).clamp(0, last)] * (inside & (sources > 0))
        return signal.sub(self.as_float(before), alpha=self.config.preemphasis)

    def as_float(self, samples: Tensor) -> Tensor:
        """Samples in the precision of the tables; int16 is scaled to [-1, 1]."""
        if samples.dtype == torch.int16:
            return samples.to(self.window.dtype) / INT16_SCALE
        return samples.to(self.window.dtype)

    def _sources(self, positions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The sample that stands at each position, also beyond the edges; and False where there is a zero instead."""
        inside = (positions >= 0) & (positions < lengths)
        sources = positions + torch.zeros_like(lengths)
        if self.config.edge_padding in ("mirror", "reflect"):
            edge = int(self.config.edge_padding == "mirror")  # 1: the edge sample comes twice
            sources = torch.where(sources < 0, -edge - sources, sources)
            sources = torch.where(sources < lengths, sources, 2 * lengths - 2 + edge - sources)
            inside = torch.ones_like(inside)
        return torch.minimum(sources.clamp(min=0), (lengths - 1).clamp(min=0)), inside


def _buffer(window: int, fft_length: int, dtype: torch.dtype) -> Tensor:
    """(BLOCK_FRAMES, fft_length), this thread's frames of a block: `window` columns, then zeros."""
    kept: dict[tuple[int, int, torch.dtype], Tensor] = _threads.__dict__.setdefault("buffers", {})
    key = window, fft_length, dtype
    if key not in kept:
        with torch.inference_mode(False):  # a buffer made in inference mode could not be written outside of it
            kept[key] = torch.zeros(BLOCK_FRAMES, fft_length, dtype=dtype)
    return kept[key]


_threads = threading.local()  # buffers are kept from call to call


def _numpy_type(tensor: Tensor) -> Any:
    return np.float64 if tensor.dtype == torch.float64 else np.float32


def _bands(filters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Filters (bins, bands) -> each one's first bin and number of bins, (bands,), and weights, (bands, widest)."""
    used = [column.nonzero().flatten().tolist() or [0] for column in filters.T]
    first = torch.tensor([bins[0] for bins in used])
    widths = torch.tensor([bins[-1] - bins[0] + 1 for bins in used])
    widest = int(widths.max())
    padded = torch.cat([filters, filters.new_zeros(widest, filters.shape[1])])
    weights = [padded[start : start + widest, band] for band, start in enumerate(first.tolist())]
    return first, widths, torch.stack(weights)
