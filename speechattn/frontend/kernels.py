"""Inner loops of the front end around the Fourier transform, compiled by Numba on first use and kept in its cache.

Arrays are of one floating-point type, and scalars of the same one.
"""

import numpy as np

from speechattn.jobs.compilation import compiled

__all__ = ["cut_frames", "sum_bands"]

TILE = 16  # frames at a time, one per lane of a vector register


@compiled(reorder=True)
def cut_frames(
    signal: np.ndarray,
    hop: int,
    window: np.ndarray,
    emphasis: np.floating,
    remove_dc: bool,
    frames: np.ndarray,
    energy_scale: np.floating,
    energies: np.ndarray,
) -> None:
    """Cut frames, centre them, pre-emphasise and window them in one pass.

    Args:
        signal: (n,), n >= (T - 1) * hop + W.
        hop: Samples between frames.
        window: (W,).
        emphasis: Pre-emphasis p within each frame, x[i] - p x[i-1] and (1 - p) x[0]; 0 for none.
        remove_dc: Whether to subtract each frame's mean first.
        frames: (T, F), F >= W; receives the frames in its first W columns.
        energy_scale: Factor of the energies.
        energies: (T,) or (0,); receives the sum of squares of each centred frame.
    """
    size = len(window)
    rest = signal.dtype.type(1) - emphasis
    for frame in range(len(frames)):
        raw = signal[frame * hop : frame * hop + size]
        row = frames[frame]
        mean = signal.dtype.type(0)
        if remove_dc:
            for i in range(size):
                mean += raw[i]
            mean /= signal.dtype.type(size)
        if len(energies):
            energy = signal.dtype.type(0)
            for i in range(size):
                energy += (raw[i] - mean) * (raw[i] - mean)
            energies[frame] = energy * energy_scale
        offset = rest * mean
        row[0] = (rest * raw[0] - offset) * window[0]
        for i in range(1, size):
            row[i] = (raw[i] - emphasis * raw[i - 1] - offset) * window[i]


@compiled(reorder=True)
def sum_bands(
    spectrum: np.ndarray,
    scale: np.floating,
    magnitude: bool,
    first_bins: np.ndarray,
    widths: np.ndarray,
    weights: np.ndarray,
    floor: np.floating,
    bands: np.ndarray,
    energies: np.ndarray,
) -> None:
    """Power or magnitude spectrum, and its weighted sums over bands, in one pass.

    Args:
        spectrum: (T, 2 * bins), real and imaginary parts in turns.
        scale: Factor of the power.
        magnitude: Whether to sum magnitudes instead.
        first_bins: (bands,) int64, the first bin of each band.
        widths: (bands,) int64, the number of its bins.
        weights: (bands, widest), their weights.
        floor: Lower limit of the sums.
        bands: (T, bands), receives the sums.
        energies: (T,) or (0,); receives the sum over all bins.
    """
    num_bins = spectrum.shape[1] // 2
    rows = np.zeros((TILE, num_bins), dtype=spectrum.dtype)
    power = np.empty((num_bins, TILE), dtype=spectrum.dtype)
    sums = np.empty(TILE, dtype=spectrum.dtype)
    for first in range(0, len(spectrum), TILE):
        count = min(TILE, len(spectrum) - first)
        for lane in range(count):
            parts, row = spectrum[first + lane], rows[lane]
            for k in range(num_bins):
                row[k] = (parts[2 * k] * parts[2 * k] + parts[2 * k + 1] * parts[2 * k + 1]) * scale
            if magnitude:
                for k in range(num_bins):
                    row[k] = np.sqrt(row[k])
        for k in range(num_bins):
            for lane in range(TILE):
                power[k, lane] = rows[lane, k]
        for band in range(len(first_bins)):
            sums[:] = 0
            for offset in range(widths[band]):
                weight, bins = weights[band, offset], power[first_bins[band] + offset]
                for lane in range(TILE):
                    sums[lane] += weight * bins[lane]
            for lane in range(count):
                bands[first + lane, band] = max(sums[lane], floor)
        if len(energies):
            sums[:] = 0
            for k in range(num_bins):
                for lane in range(TILE):
                    sums[lane] += power[k, lane]
            for lane in range(count):
                energies[first + lane] = sums[lane]
