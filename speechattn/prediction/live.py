"""Phones of a live stream: from a microphone, a pipe, or blocks of a long file.

A phone is returned once it is final: when a frame of the next phone is decided.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import BufferedIOBase

import numpy as np

from speechattn.audio import is_container
from speechattn.decoding.smoothing import SmoothingStream
from speechattn.jobs.interruption import Interruption
from speechattn.jobs.text import check_printable
from speechattn.labels.frames import runs_of_frames
from speechattn.labels.intervals import Segment
from speechattn.labels.ipa import ipa_symbols
from speechattn.model.classifier import FrameClassifier

__all__ = ["LiveSegments", "microphone", "pcm", "print_live"]

log = logging.getLogger("speechattn")

HEADER_BYTES = 3200  # enough to recognise an audio file
PIECE_S = 0.1  # read at a time from a microphone or pipe


class LiveSegments:
    """Phone segments of one recording that is pushed in pieces of any size.

    The concatenated results of `push` and `flush` equal `FrameClassifier.classify` on the whole recording, up to
    float32 rounding.

    Args:
        model: In eval mode.
        smooth: See `FrameClassifier.classify`. A smoothed decision is final once no later frame can change it.

    Attributes:
        num_samples: Number of samples pushed so far.

    Raises:
        ValueError: If the model needs the whole recording before its first frame, is in training mode, or cannot
            smooth.
    """

    def __init__(self, model: FrameClassifier, *, smooth: bool = False) -> None:
        self._stream = model.stream()
        self._smoothing = SmoothingStream(model.known_phonotactics()) if smooth else None
        self._symbols, self._geometry = model.phones.symbols, model.frontend.geometry
        self._posteriors = np.empty((0, len(self._symbols)), dtype=np.float32)  # of undecided frames
        self._classes = np.empty(0, dtype=np.int64)  # of decided frames whose phone is not final
        self._confidences = np.empty(0, dtype=np.float32)
        self._num_final, self._start = 0, 0.0  # frames before them; start of their phone in seconds
        self.num_samples = 0

    def push(self, samples: np.ndarray) -> list[Segment]:
        """Add samples and return the phones that became final.

        Args:
            samples: (n,) float in [-1, 1] or int16, at the model's sample rate.

        Raises:
            ValueError: If the samples have another shape or type, or after `flush`.
        """
        posteriors = np.exp(self._stream.push(samples))
        self.num_samples += len(samples)
        self._decide(posteriors, last=False)
        return self._final()

    def flush(self, duration: float | None = None) -> list[Segment]:
        """End the recording and return its last phones; none if it is shorter than a frame.

        Args:
            duration: Duration of the recording in seconds, if it was resampled; None: that of the pushed samples.
        """
        # The stream returns a tensor if nothing was pushed.
        self._decide(np.exp(np.asarray(self._stream.flush())), last=True)
        end = self.num_samples / self._geometry.sample_rate if duration is None else duration
        return self._final(end)

    @property
    def unfinished(self) -> Segment | None:
        """The phone that is not final, up to the latest decided frame; None before the first."""
        if len(self._classes) == 0:
            return None
        end = float(self._geometry.first_owned(self._num_final + len(self._classes))) / self._geometry.sample_rate
        return Segment(self._symbols[self._classes[0]], self._start, end, float(self._confidences.mean()))

    def _decide(self, posteriors: np.ndarray, *, last: bool) -> None:
        """Decide the oldest frames that can be decided; with `last` all."""
        classes = posteriors.argmax(axis=1)
        if self._smoothing is not None:
            classes = self._smoothing.push(posteriors)
            classes = np.concatenate([classes, self._smoothing.flush()]) if last else classes
        waiting = np.concatenate([self._posteriors, posteriors])
        self._classes = np.concatenate([self._classes, classes])
        self._confidences = np.concatenate([self._confidences, waiting[np.arange(len(classes)), classes]])
        self._posteriors = waiting[len(classes) :]

    def _final(self, end: float | None = None) -> list[Segment]:
        """Remove and return the phones that are final; given the recording's end, also the last one."""
        firsts, means = runs_of_frames(self._classes, self._confidences)
        if len(firsts) == 0:
            return []
        ends = (self._geometry.first_owned(self._num_final + firsts[1:]) / self._geometry.sample_rate).tolist()
        if end is not None:
            ends.append(end)
        if not ends:
            return []
        starts = [self._start, *ends[:-1]]
        phones = [self._symbols[index] for index in self._classes[firsts[: len(ends)]]]
        num_final = len(self._classes) if end is not None else int(firsts[-1])
        self._classes, self._confidences = self._classes[num_final:], self._confidences[num_final:]
        self._num_final, self._start = self._num_final + num_final, ends[-1]
        return [Segment(*row) for row in zip(phones, starts, ends, means.tolist()[: len(ends)], strict=True)]


def pcm(file: BufferedIOBase, sample_rate: int) -> Iterator[np.ndarray]:
    """Read raw samples from a pipe as they arrive: (n,) int16, at most 0.1 s at a time.

    Args:
        file: 16-bit little-endian samples of one channel; an odd byte at the end is dropped.
        sample_rate: In Hz.

    Raises:
        ValueError: If the data begin with the header of an audio file.
    """
    odd, started = b"", False
    while piece := file.read1(2 * round(PIECE_S * sample_rate)):  # read1 returns what is there, without waiting
        while not started and len(piece) < HEADER_BYTES and (more := file.read1(HEADER_BYTES)):
            piece += more
        if not started and is_container(piece):
            raise ValueError("standard input is an audio file, not raw samples: use `speechattn predict -`")
        piece, started = odd + piece, True
        whole = len(piece) // 2 * 2
        odd = piece[whole:]
        yield np.frombuffer(piece[:whole], dtype="<i2")


def microphone(sample_rate: int, *, device: int | str | None = None) -> Iterator[np.ndarray]:
    """Record from a microphone without end: (n,) int16, 0.1 s at a time.

    Args:
        sample_rate: In Hz; the system's sound server resamples if needed.
        device: Number or part of the name, see `python -m sounddevice`; None: the system's default.

    Raises:
        ImportError: If sounddevice, or the PortAudio library that it needs, is not installed.
        ValueError: If there is no such microphone or it cannot be opened.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: no PortAudio
        raise ImportError(f'the microphone needs sounddevice: pip install "speechattn[microphone]" ({error})') from None
    try:
        with sounddevice.InputStream(sample_rate, device=device, channels=1, dtype="int16") as stream:
            warned = False
            while True:
                samples, overflowed = stream.read(round(PIECE_S * sample_rate))
                if overflowed and not warned:
                    log.warning("audio was lost because computation is too slow: from here on, times are too early")
                    warned = True
                yield samples[:, 0]
    except (sounddevice.PortAudioError, ValueError) as error:
        raise ValueError(f"no microphone: {error}; `python -m sounddevice` lists the devices") from error


def print_live(
    model: FrameClassifier, pieces: Iterable[np.ndarray], *, smooth: bool = False, symbols: str = "model"
) -> list[float]:
    """Print `start end phone confidence latency` for each phone as it becomes final; Ctrl-C ends the recording.

    Latency is the audio received since the phone's end, in seconds, plus the computation time.

    Args:
        model: In eval mode.
        pieces: (n,) samples each, at the model's rate.
        smooth: See `LiveSegments`.
        symbols: See `files.OutputOptions`.

    Returns:
        The latencies in seconds.

    Raises:
        ValueError: If the model cannot stream or smooth, or has phones without IPA symbols.
    """
    live, rate = LiveSegments(model, smooth=smooth), model.frontend.geometry.sample_rate
    names = {phone: phone for phone in model.phones.symbols}
    if symbols == "ipa":
        names = ipa_symbols(names)
    check_printable(names.values())
    latencies: list[float] = []
    computing = 0.0
    log.info("listening; phones are final at least %.1f ms after their end; stop with Ctrl-C", model.lookahead_ms)

    def show(segments: list[Segment], seconds: float) -> float:
        for phone, start, end, confidence in segments:
            latency = live.num_samples / rate - end + seconds
            latencies.append(latency)
            print(f"{start:.4f} {end:.4f} {names[phone]} {confidence:.3f} {latency:.3f}", flush=True)
        return seconds

    with Interruption() as interruption, suppress(KeyboardInterrupt):
        for piece in pieces:
            with interruption.held():
                began = time.perf_counter()
                computing += show(live.push(piece), time.perf_counter() - began)
    began = time.perf_counter()
    computing += show(live.flush(), time.perf_counter() - began)
    if latencies:
        log.info(
            "%d phones, latency %.3f s (median), computation took %.1f %% of real time",
            len(latencies), np.median(latencies), 100 * computing * rate / live.num_samples,
        )  # fmt: skip
    return latencies
