"""Phones of speech that is still going on: from a microphone, a pipe, or blocks of a long file.

A phone is final when the frame after it is another one's; until then nothing of it is given out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import BufferedIOBase

import numpy as np

from speechattn.decoding.smoothing import SmoothingStream
from speechattn.jobs.interruption import Interruption
from speechattn.labels.frames import runs_of_frames
from speechattn.labels.intervals import Segment
from speechattn.labels.ipa import ipa_symbols
from speechattn.model.classifier import FrameClassifier

__all__ = ["LiveSegments", "microphone", "pcm", "print_live"]

log = logging.getLogger("speechattn")

FILES_BEGIN = (b"RIFF", b"fLaC", b"OggS", b"FORM", b"ID3", b"NIST_1A")
PIECE_S = 0.1  # what is read from a microphone or pipe at a time


class LiveSegments:
    """Phone segments of one recording, pushed in pieces of any size.

    All that `push` and `flush` return, one after the other, is what `FrameClassifier.classify` gives for the whole,
    up to the rounding of float32.

    Args:
        model: In eval mode.
        smooth: See `FrameClassifier.classify`; smoothed decisions are final later, once no later frame can change them.

    Attributes:
        num_samples: Taken so far.

    Raises:
        ValueError: When the model needs the whole recording before its first frame, is in training mode, or cannot
            smooth.
    """

    def __init__(self, model: FrameClassifier, *, smooth: bool = False) -> None:
        self._stream = model.stream()
        self._smoothing = SmoothingStream(model.known_phonotactics()) if smooth else None
        self._symbols, self._geometry = model.phones.symbols, model.frontend.geometry
        self._posteriors = np.empty((0, len(self._symbols)), dtype=np.float32)  # of frames that are not decided
        self._classes = np.empty(0, dtype=np.int64)  # of those that are, and whose phone goes on
        self._confidences = np.empty(0, dtype=np.float32)
        self._given, self._start = 0, 0.0  # frames before those, and the seconds at which their phone begins
        self.num_samples = 0

    def push(self, samples: np.ndarray) -> list[Segment]:
        """Take samples, give the phones that became final.

        Args:
            samples: (n,) float in [-1, 1] or int16, at the model's sample rate.

        Raises:
            ValueError: When the samples do not fit, or `flush` came before.
        """
        posteriors = np.exp(self._stream.push(samples))
        self.num_samples += len(samples)
        self._decide(posteriors, last=False)
        return self._final()

    def flush(self, duration: float | None = None) -> list[Segment]:
        """End the recording and give its last phones; none of a recording of less than a frame. Once.

        Args:
            duration: Seconds that the recording lasts, where it had another sample rate; None: as many as there were
                samples.
        """
        # A tensor when nothing was pushed, whose kind would be the result's.
        self._decide(np.exp(np.asarray(self._stream.flush())), last=True)
        end = self.num_samples / self._geometry.sample_rate if duration is None else duration
        return self._final(end)

    @property
    def unfinished(self) -> Segment | None:
        """The phone that goes on, up to the latest frame that is decided; None before the first such frame."""
        if len(self._classes) == 0:
            return None
        end = float(self._geometry.first_owned(self._given + len(self._classes))) / self._geometry.sample_rate
        return Segment(self._symbols[self._classes[0]], self._start, end, float(self._confidences.mean()))

    def _decide(self, posteriors: np.ndarray, *, last: bool) -> None:
        """Take posteriors, and decide for as many of the oldest frames as can be; with `last` for all."""
        classes = posteriors.argmax(axis=1)
        if self._smoothing is not None:
            classes = self._smoothing.push(posteriors)
            classes = np.concatenate([classes, self._smoothing.flush()]) if last else classes
        waiting = np.concatenate([self._posteriors, posteriors])
        self._classes = np.concatenate([self._classes, classes])
        self._confidences = np.concatenate([self._confidences, waiting[np.arange(len(classes)), classes]])
        self._posteriors = waiting[len(classes) :]

    def _final(self, end: float | None = None) -> list[Segment]:
        """The phones that have ended; with the recording's end also the last one."""
        firsts, means = runs_of_frames(self._classes, self._confidences)
        if len(firsts) == 0:
            return []
        ends = (self._geometry.first_owned(self._given + firsts[1:]) / self._geometry.sample_rate).tolist()
        if end is not None:
            ends.append(end)
        if not ends:
            return []
        starts = [self._start, *ends[:-1]]
        phones = [self._symbols[index] for index in self._classes[firsts[: len(ends)]]]
        kept = len(self._classes) if end is not None else int(firsts[-1])
        self._classes, self._confidences = self._classes[kept:], self._confidences[kept:]
        self._given, self._start = self._given + kept, ends[-1]
        return [Segment(*row) for row in zip(phones, starts, ends, means.tolist()[: len(ends)], strict=True)]


def pcm(file: BufferedIOBase, sample_rate: int) -> Iterator[np.ndarray]:
    """Raw samples from a pipe as they come, (n,) int16, at most a tenth of a second at a time.

    Args:
        file: Of 16-bit little-endian samples of one channel; a byte too many at the end is dropped.
        sample_rate: Theirs, in Hz.

    Raises:
        ValueError: When it begins as an audio file does, whose header would be taken for samples.
    """
    odd, begun = b"", False
    while piece := file.read1(2 * round(PIECE_S * sample_rate)):  # what is there, instead of waiting for all
        if not begun and piece.startswith(FILES_BEGIN):
            raise ValueError("standard input is an audio file, not raw samples: `speechattn predict -` takes those")
        piece, begun = odd + piece, True
        whole = len(piece) // 2 * 2
        odd = piece[whole:]
        yield np.frombuffer(piece[:whole], dtype="<i2")


def microphone(sample_rate: int, *, device: int | str | None = None) -> Iterator[np.ndarray]:
    """What a microphone hears, (n,) int16, a tenth of a second at a time, without end.

    Args:
        sample_rate: In Hz; the system's sound server resamples where the microphone has another.
        device: Its number or a part of its name, see `python -m sounddevice`; None: the system's default.

    Raises:
        ImportError: When sounddevice, or the PortAudio library that it needs, is not installed.
        ValueError: When there is no such microphone, or it does not open.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: no PortAudio
        raise ImportError(f'the microphone needs sounddevice: pip install "speechattn[microphone]" ({error})') from None
    try:
        with sounddevice.InputStream(sample_rate, device=device, channels=1, dtype="int16") as stream:
            told = False
            while True:
                samples, overflowed = stream.read(round(PIECE_S * sample_rate))
                if overflowed and not told:
                    log.warning("sound was lost, since computing takes too long: from here on, times are too early")
                    told = True
                yield samples[:, 0]
    except (sounddevice.PortAudioError, ValueError) as error:
        raise ValueError(f"no microphone: {error}; `python -m sounddevice` lists what there is") from error


def print_live(
    model: FrameClassifier, pieces: Iterable[np.ndarray], *, smooth: bool = False, symbols: str = "model"
) -> list[float]:
    """Print `start end phone confidence latency` for each phone as it becomes final; Ctrl-C ends the recording, too.

    Latency is how many seconds of audio had come since the phone's end, and the time that computing took.

    Args:
        model: In eval mode.
        pieces: (n,) samples at the model's rate, one after the other.
        smooth: See `LiveSegments`.
        symbols: See `prediction.OutputOptions`.

    Returns:
        The latencies, in seconds.

    Raises:
        ValueError: When the model cannot stream or smooth, or has phones without IPA symbols.
    """
    live, rate = LiveSegments(model, smooth=smooth), model.frontend.geometry.sample_rate
    names = {phone: phone for phone in model.phones.symbols}
    if symbols == "ipa":
        names = ipa_symbols(names)
    latencies: list[float] = []
    computing = 0.0
    log.info("listening; a phone is known %.1f ms after it ended, or later; Ctrl-C ends", model.lookahead_ms)

    def told(segments: list[Segment], took: float) -> float:
        for phone, start, end, confidence in segments:
            latency = live.num_samples / rate - end + took
            latencies.append(latency)
            print(f"{start:.4f} {end:.4f} {names[phone]} {confidence:.3f} {latency:.3f}", flush=True)
        return took

    with Interruption() as interruption, suppress(KeyboardInterrupt):
        for piece in pieces:
            with interruption.held():
                began = time.perf_counter()
                computing += told(live.push(piece), time.perf_counter() - began)
    began = time.perf_counter()
    computing += told(live.flush(), time.perf_counter() - began)
    if latencies:
        log.info(
            "%d phones, latency %.3f s (median), computing took %.1f %% of the time",
            len(latencies), np.median(latencies), 100 * computing * rate / live.num_samples,
        )  # fmt: skip
    return latencies
