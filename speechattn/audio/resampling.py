"""Resampling as torchaudio does it, also between rates with few common divisors; and the import of torchaudio."""

import logging
import math
import runpy
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np

__all__ = ["ROLLOFF", "SAMPLE_RATE", "ZERO_CROSSINGS", "import_torchaudio", "resample"]

SAMPLE_RATE = 16000
LARGEST_TABLE = 1 << 22  # weights in the table of torchaudio's resampler
ZERO_CROSSINGS, ROLLOFF = 6, 0.99  # of the resampler's windowed sinc: torchaudio's defaults
MAX_TAPS = 1 << 21  # computed at a time without a table: bounds the memory

logger = logging.getLogger("speechattn")


def resample(samples: np.ndarray, rate: int, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Resample by windowed-sinc interpolation, as `torchaudio.functional.resample` does.

    Args:
        samples: (N,) float32.
        rate: Rate of the samples in Hz.
        sample_rate: Rate of the result in Hz.

    Returns:
        (ceil(N * sample_rate / rate),) float32; `samples` itself if the rates are equal.
    """
    if rate == sample_rate:
        return samples
    import torch

    _log_resampling(rate, sample_rate)
    ratio = Fraction(rate, sample_rate)
    if ratio.numerator * ratio.denominator > LARGEST_TABLE:
        return _interpolate(samples, rate, sample_rate)
    waveform = torch.from_numpy(np.ascontiguousarray(samples))
    return import_torchaudio().functional.resample(waveform, rate, sample_rate).numpy()


def _interpolate(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """The result of `torchaudio.functional.resample` without its table of rate x sample_rate weights.

    For rates with few common divisors, such as 44101 and 16000 Hz, the table would take gigabytes.
    """
    cutoff = min(rate, sample_rate) * ROLLOFF / rate  # as a fraction of the input's bandwidth
    reach = math.ceil(ZERO_CROSSINGS / cutoff)
    num_output = math.ceil(len(samples) * sample_rate / rate)
    padded = np.pad(samples.astype(np.float64), reach + 1)
    output = np.empty(num_output, dtype=np.float32)
    block = max(MAX_TAPS // (2 * reach + 2), 1)
    for first in range(0, num_output, block):
        times = np.arange(first, min(first + block, num_output))[:, None] * rate / sample_rate
        taps = np.floor(times).astype(np.int64) + np.arange(-reach, reach + 2)
        t = np.clip((taps - times) * cutoff, -ZERO_CROSSINGS, ZERO_CROSSINGS)
        weights = cutoff * np.sinc(t) * np.cos(t * np.pi / ZERO_CROSSINGS / 2) ** 2
        output[first : first + block] = (padded[taps + reach + 1] * weights).sum(axis=1)
    return output


@cache  # once per pair of rates
def _log_resampling(rate: int, sample_rate: int) -> None:
    logger.warning("audio at %d Hz is resampled to %d Hz", rate, sample_rate)


def import_torchaudio() -> ModuleType:
    """Import torchaudio, whose compiled part needs a torch of the same build (both CUDA, or both CPU).

    Raises:
        ImportError: If it is not installed or does not fit the installed torch; the message names both versions.
    """
    import torch

    try:
        import torchaudio
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise ImportError(
            f"torchaudio cannot be imported beside torch: torch {torch.__version__} and torchaudio "
            f"{_installed_build()} are installed, and they must be of one kind (both CUDA, or both CPU). "
            f"Install both from one index: pip install --force-reinstall torch torchaudio. ({error})"
        ) from error
    return torchaudio


def _installed_build() -> str:
    """Version and build of torchaudio, such as 2.11.0+cpu, read without importing it."""
    spec = find_spec("torchaudio")
    for folder in (spec and spec.submodule_search_locations) or []:
        version = Path(folder) / "version.py"
        if version.is_file():
            return str(runpy.run_path(str(version)).get("__version__", "of unknown version"))
    return "(none)" if spec is None else "of unknown version"
