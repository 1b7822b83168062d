"""Waveform -> frames -> spectrum -> log-energies of frequency bands, by two paths that agree.

The blocked path is for speed: one utterance, a few hundred frames at a time, through buffers that stay in the
cache and from call to call (fresh memory costs more than the arithmetic). The plain path works on the whole
batch in ordinary differentiable operations: for gradients to the waveform, for other devices and, with the
Fourier transform as a matrix product, for graphs to compile and export.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache

import torch
from torch import Tensor, nn

from speechattn.frontend.config import FrontendConfig
from speechattn.frontend.masks import frame_mask
from speechattn.frontend.tables import analysis_window, fourier_matrix
from speechattn.geometry import Geometry

__all__ = ["BandEnergies"]

INT16_SCALE = 32768.0
BLOCK_FRAMES = 768  # frames and spectrum of a block are 3 MB at 16 kHz
GROUP_BANDS = 12  # bands summed up in one matrix product, over the bins that any of them needs


class BandEnergies(nn.Module):
    """Log-energies of frequency bands in every frame, and, in one more column, of the whole frame.

    Args:
        config: The recipe.
        filters: (bins, bands) weights of the bins, bins = n_fft // 2 + 1; None: the bins themselves, without
            the logarithm.
        frame_energy: Add the column, always a natural logarithm.
    """

    window: Tensor
    fourier: Tensor
    filters: Tensor | None
    transposed_filters: Tensor | None

    def __init__(self, config: FrontendConfig, filters: Tensor | None, *, frame_energy: bool = False) -> None:
        super().__init__()
        self.config, self.geometry, self.fft_length = config, config.geometry, config.fft_length
        self.num_bands = self.fft_length // 2 + 1 if filters is None else filters.shape[1]
        self.frame_energy = frame_energy
        transposed = None if filters is None else filters.T.contiguous()
        if transposed is not None and config.power == 2:
            # Real and imaginary parts are squared where they lie, in turns; the filters add them up.
            transposed = transposed.repeat_interleave(2, dim=1)
        self.log_unit = 10 / math.log(10) if config.decibels else 1.0
        self.energy_floor = max(config.floor, config.energy_floor)
        self.groups = [] if transposed is None else _groups(transposed)
        self.register_buffer("window", config.scale * analysis_window(config), persistent=False)
        self.register_buffer("fourier", fourier_matrix(config), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("transposed_filters", transposed, persistent=False)

    @property
    def columns(self) -> int:
        """Columns of the result."""
        return self.num_bands + self.frame_energy

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Log-energies of whole utterances, by the path that fits.

        Args:
            waveforms: (B, N) float in [-1, 1], or int16.
            lengths: (B,) int64, samples in each row. What stands past them does not matter.

        Returns:
            (B, T, columns). Padded frames are finite and mean nothing.
        """
        if torch.compiler.is_compiling():
            return self.plain(waveforms, lengths)
        differentiate = torch.is_grad_enabled() and waveforms.requires_grad
        num_frames = self.geometry.num_frames(waveforms.shape[1])
        if num_frames and (differentiate or waveforms.device.type != "cpu"):  # an empty batch has no transform
            return self.plain(waveforms, lengths)
        energies = self.window.new_empty(len(waveforms), num_frames, self.columns)
        for number, length in enumerate(lengths.tolist()):
            count = self.geometry.num_frames(length)
            self.blocked(waveforms[number, :length], -self.geometry.left, energies[number, :count])
            energies[number, count:] = 0.0
        return energies

    # ------------------------------------------------------------------------------------ one signal, blocked

    def blocked(self, samples: Tensor, start: int, energies: Tensor) -> None:
        """Log-energies of T frames of one signal that lie a hop apart.

        Args:
            samples: (N,) float or int16; at least a window long, unless T is 0.
            start: The sample where the first frame begins. Beyond its ends the signal goes on as the
                configuration says.
            energies: (T, columns), written.
        """
        geometry, like = self.geometry, self.window
        buffers = _Buffers.of(geometry, self.fft_length, self.num_bands, like.dtype, like.device)
        for first in range(0, len(energies), BLOCK_FRAMES):
            block = energies[first : first + BLOCK_FRAMES]
            size, begin = len(block), start + first * geometry.hop
            padded = buffers.padded[:size]
            signal = self._signal(samples, begin, begin + (size - 1) * geometry.hop + geometry.window)
            self._cut_frames(signal, buffers.emphasised, padded[:, : geometry.window], block)
            spectrum = torch.fft.rfft(padded)  # with out= it would be computed elsewhere and copied
            self._sum_bands(torch.view_as_real(spectrum), buffers.bands[:, :size], block)

    def _signal(self, samples: Tensor, begin: int, end: int) -> Tensor:
        """Samples [begin, end), pre-emphasised if that comes before framing, with what lies beyond the edges."""
        over_signal = self.config.preemphasis_over == "signal"
        if begin < over_signal or end > len(samples):
            positions = torch.arange(begin, end, device=samples.device)
            return self.continued(samples, 0, positions, torch.tensor(len(samples), device=samples.device))
        signal = self.as_float(samples[begin:end])
        if not over_signal:
            return signal
        return signal.sub(self.as_float(samples[begin - 1 : end - 1]), alpha=self.config.preemphasis)

    def _cut_frames(self, signal: Tensor, emphasised: Tensor, frames: Tensor, energies: Tensor) -> None:
        """Write the windowed frames of `signal` into (T, window), and their energy into the last column."""
        config = self.config
        raw = signal.unfold(0, self.geometry.window, self.geometry.hop)
        mean = raw.mean(1, keepdim=True) if config.remove_dc else None
        if self.frame_energy and config.energy_from == "samples":
            centred = raw if mean is None else raw - mean
            torch.sum(centred.square(), 1, out=energies[:, -1]).mul_(config.scale**2)
        emphasis = config.preemphasis if config.preemphasis_over == "frame" else 0.0
        if emphasis:
            # The signal is emphasised once, not frame by frame: (x[i] - m) - p (x[i-1] - m) = x[i] - p x[i-1] - (1-p) m
            emphasised = torch.sub(signal[1:], signal[:-1], alpha=emphasis, out=emphasised[: len(signal) - 1])
            offset = 0.0 if mean is None else mean.mul_(1 - emphasis)
            torch.sub(emphasised.unfold(0, self.geometry.window - 1, self.geometry.hop), offset, out=frames[:, 1:])
            torch.sub((1 - emphasis) * raw[:, :1], offset, out=frames[:, :1])
            frames.mul_(self.window)
        elif mean is not None:
            torch.sub(raw, mean, out=frames).mul_(self.window)
        else:
            torch.mul(raw, self.window, out=frames)

    def _sum_bands(self, parts: Tensor, bands: Tensor, energies: Tensor) -> None:
        """Write the bands' log-energies; `parts` (T, bins, 2) is spoilt, `bands` (bands, T) a buffer."""
        parts.square_()
        if self.config.periodogram:
            parts.div_(self.fft_length)
        spectrum = parts.flatten(1)
        if self.config.power == 1 or self.transposed_filters is None:
            spectrum = parts[..., 0] + parts[..., 1]
            if self.config.power == 1:
                spectrum.sqrt_()
        if self.transposed_filters is None:
            energies.copy_(spectrum)
            return
        for rows, columns in self.groups:  # (bands, T): twice as fast as (T, bands)
            torch.mm(self.transposed_filters[rows, columns], spectrum[:, columns].t(), out=bands[rows])
        bands.clamp_(min=self.config.floor).log_()
        if self.config.decibels:
            bands.mul_(self.log_unit)
        energies[:, : self.num_bands] = bands.t()
        if self.frame_energy:
            if self.config.energy_from == "spectrum":
                torch.sum(spectrum, 1, out=energies[:, -1])
            energies[:, -1].clamp_(min=self.energy_floor).log_()

    # ------------------------------------------------------------------------------------- whole batch, plain

    def plain(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """The same as `forward` in differentiable operations, for one frame or more; graphs hold no complex numbers."""
        return self.of_frames(self._frames(self.as_float(waveforms), lengths))

    def of_frames(self, frames: Tensor) -> Tensor:
        """Log-energies of frames as they were cut, (B, T, window) -> (B, T, columns), in differentiable operations."""
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
        # A frame that straddles an utterance's end would carry a NaN of the padding into its gradient.
        real = frame_mask(lengths, waveforms.shape[1])
        waveforms = waveforms.masked_fill(~real, 0.0)
        if config.preemphasis_over == "signal":
            before = nn.functional.pad(waveforms, (1, 0))[:, :-1]
            waveforms = waveforms - config.preemphasis * before
        count = geometry.num_frames(waveforms.shape[1])
        span = (count - 1) * geometry.hop + geometry.window
        if geometry.left or geometry.right:
            positions = torch.arange(-geometry.left, span - geometry.left, device=lengths.device)
            sources, inside = self._sources(positions, lengths[:, None])
            waveforms = waveforms.gather(1, sources) * inside
        if torch.compiler.is_compiling():  # unfold would fix the least length
            first = geometry.hop * torch.arange(count, device=lengths.device)
            return waveforms[:, first[:, None] + torch.arange(geometry.window, device=lengths.device)]
        return waveforms.unfold(1, geometry.window, geometry.hop)

    def _power(self, frames: Tensor) -> Tensor:
        """(B, T, window) -> (B, T, bins), the power or magnitude spectrum."""
        if torch.compiler.is_compiling():
            real, imaginary = (frames @ self.fourier).chunk(2, dim=-1)
        else:
            spectrum = torch.fft.rfft(frames, n=self.fft_length)
            real, imaginary = spectrum.real, spectrum.imag
        power = real.square() + imaginary.square()
        if self.config.periodogram:
            return power / self.fft_length
        if self.config.power == 1:  # the root's slope at 0 is infinite
            return power.clamp(min=torch.finfo(power.dtype).tiny).sqrt()
        return power

    # ---------------------------------------------------------------------------------------------- both

    def continued(self, samples: Tensor, first: int | Tensor, positions: Tensor, length: Tensor) -> Tensor:
        """A signal, pre-emphasised if that comes before framing, also beyond its edges: as the configuration says.

        Args:
            samples: (n,) float or int16, those of the signal from `first` on.
            first: Which sample of the signal the first one given is.
            positions: (m,) int64, which to give; what depends on a sample that is not given has no meaning.
            length: () int64, samples of the whole signal.

        Returns:
            (m,) float.
        """
        sources, real = self._sources(positions, length)
        given = len(samples) - 1
        signal = self.as_float(samples[(sources - first).clamp(0, given)] * real)
        if self.config.preemphasis_over != "signal":
            return signal
        before = samples[(sources - first - 1).clamp(0, given)] * (real & (sources > 0))
        return signal.sub(self.as_float(before), alpha=self.config.preemphasis)

    def as_float(self, samples: Tensor) -> Tensor:
        """Samples, float or int16, in the tables' precision; int16 is brought to [-1, 1]."""
        if samples.dtype == torch.int16:
            return samples.to(self.window.dtype) / INT16_SCALE
        return samples.to(self.window.dtype)

    def _sources(self, positions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Which sample stands at each position, also beyond the edges, and whether any does."""
        inside = (positions >= 0) & (positions < lengths)
        sources = positions + torch.zeros_like(lengths)
        if self.config.edge_padding == "mirror":
            sources = torch.where(sources < 0, -1 - sources, sources)
            sources = torch.where(sources < lengths, sources, 2 * lengths - 1 - sources)
            inside = torch.ones_like(inside)
        elif self.config.edge_padding == "reflect":
            sources = sources.abs()
            sources = torch.where(sources < lengths, sources, 2 * lengths - 2 - sources)
            inside = torch.ones_like(inside)
        return torch.minimum(sources.clamp(min=0), (lengths - 1).clamp(min=0)), inside


class _Buffers(threading.local):
    """What the blocked path works in, kept from call to call; each thread that uses one gets tensors of its own."""

    @classmethod
    @lru_cache(maxsize=4)
    def of(
        cls, geometry: Geometry, fft_length: int, num_bands: int, dtype: torch.dtype, device: torch.device
    ) -> _Buffers:
        """The buffers for these sizes."""
        return cls(geometry, fft_length, num_bands, dtype, device)

    def __init__(
        self, geometry: Geometry, fft_length: int, num_bands: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        samples = (BLOCK_FRAMES - 1) * geometry.hop + geometry.window - 1
        with torch.inference_mode(False):  # buffers made in inference mode could not be written outside of it
            self.emphasised = torch.empty(samples, dtype=dtype, device=device)
            self.padded = torch.zeros(BLOCK_FRAMES, fft_length, dtype=dtype, device=device)  # frames, then zeros
            self.bands = torch.empty(num_bands, BLOCK_FRAMES, dtype=dtype, device=device)


def _groups(filters: Tensor) -> list[tuple[slice, slice]]:
    """Bands in groups, and the columns of (bands, columns) outside of which a group's filters are 0."""
    groups = []
    for first in range(0, len(filters), GROUP_BANDS):
        rows = slice(first, min(first + GROUP_BANDS, len(filters)))
        used = filters[rows].any(dim=0).nonzero()
        groups.append((rows, slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)))
    return groups
