"""Audio files -> phone segments, and the files that people open them in."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
import torch
from tqdm import tqdm

from speechattn.jobs.atomic import atomic_path
from speechattn.labels.files import write_audacity, write_csv, write_ctm, write_json, write_textgrid
from speechattn.labels.intervals import Segment
from speechattn.labels.ipa import in_ipa, ipa_symbols, speech_and_silence
from speechattn.model.classifier import FrameClassifier
from speechattn.plots import plot_prediction, save_figure
from speechattn.prediction.long_audio import Progress, recording_posteriors, recording_segments, recording_stretches

__all__ = ["FORMATS", "POSTERIORS", "OutputOptions", "predict_files"]

FORMATS: dict[str, tuple[str, Callable[[Path, list[Segment]], None]]] = {
    "textgrid": (".TextGrid", write_textgrid),
    "ctm": (".ctm", write_ctm),
    "json": (".json", write_json),
    "csv": (".csv", write_csv),
    "audacity": (".txt", write_audacity),
}
POSTERIORS = "npy"  # a format, too: (T, P) float32
LONGEST_PICTURE_S = 30.0  # of more there are several pictures
BAR = "{l_bar}{bar}| {n:.0f} of {total} s of audio [{elapsed}<{remaining}]"


@dataclass(frozen=True)
class OutputOptions:
    """What is to be known of each recording.

    Args:
        formats: Which files to write: some of FORMATS and POSTERIORS.
        plot: Whether to draw spectrogram, segments and posteriors; of a model without pooling.
        channel: Which channel to take, counted from 0; None: the mean of all.
        smooth: See `FrameClassifier.classify`.
        symbols: `model`: the model's own; `ipa`: those of the International Phonetic Alphabet.
        speech_only: Whether to tell speech from silence instead of phones, see `speech_and_silence`.

    Raises:
        ValueError: When a format or set of symbols does not exist.
    """

    formats: Sequence[str] = ("textgrid",)
    plot: bool = False
    channel: int | None = None
    smooth: bool = False
    symbols: str = "model"
    speech_only: bool = False

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in (*FORMATS, POSTERIORS):
                raise ValueError(f"format must be one of {', '.join((*FORMATS, POSTERIORS))}, got {name!r}")
        if self.symbols not in ("model", "ipa"):
            raise ValueError(f"symbols must be model or ipa, got {self.symbols!r}")

    def check(self, model: FrameClassifier) -> None:
        """Refuse, by a ValueError, what the model cannot give."""
        if model.feature_dim is not None:
            raise ValueError("the model has no front end: it takes features, not audio")
        if self.smooth:
            model.known_phonotactics()
        if model.pooling is not None and (self.plot or POSTERIORS in self.formats or self.speech_only):
            raise ValueError("pictures, posteriors of frames and speech need frames, and a model with pooling has none")
        if self.symbols == "ipa":
            ipa_symbols(model.phones.symbols)
        if self.speech_only and not model.phones.silences:
            raise ValueError("the model has no phone that is silence (SIL or sil): it cannot tell speech from silence")


def predict_files(
    model: FrameClassifier,
    recordings: Mapping[str, Path],
    wanted: OutputOptions = OutputOptions(),  # noqa: B008 (frozen)
    *,
    output: str | Path | None = None,
    num_jobs: int = 1,
) -> list[str]:
    """Predict the phones of files.

    Args:
        model: In eval mode.
        recordings: Name of the files to write -> audio file; see `find_recordings`.
        wanted: What of each.
        output: Folder for <name>.TextGrid, .ctm, .json, .csv, .txt, .npy and .png (.001.png, .002.png ... of a
            recording of more than 30 s); None: lines `start end phone confidence` on standard output, under a line
            `# name` where there are several recordings.
        num_jobs: Recordings at a time, 1 or more; they share PyTorch's threads.

    Returns:
        One line for each file that could not be done, in order; the others are.

    Raises:
        ValueError: Before any work, when the model cannot give what is wanted, a picture or posteriors are wanted
            without a folder, or `output` is a file.
    """
    wanted.check(model)
    if output is None and (wanted.plot or POSTERIORS in wanted.formats):
        raise ValueError("--plot and --format npy need --output: a folder for the files")
    if output is not None and Path(output).exists() and not Path(output).is_dir():
        raise ValueError(f"{output} is a file: the results need a folder")
    stopped = Event()

    def on_progress(seconds: float) -> None:
        if stopped.is_set():
            raise CancelledError
        bar.update(seconds)

    def predict(name: str) -> list[Segment] | str:
        torch.set_num_threads(threads)  # OpenMP's are of each thread that asks
        try:
            if output is None:
                segments = recording_segments(
                    model, recordings[name], channel=wanted.channel, smooth=wanted.smooth, on_progress=on_progress
                )
                return _renamed(model, segments, wanted)
            _write(model, recordings[name], wanted, Path(output) / name, on_progress)
            return []
        except ValueError as error:
            return str(error)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # the next file could not be written, either
                raise
            return f"{recordings[name]}: its name is too long for the files that would be written"

    num_jobs = max(min(num_jobs, len(recordings)), 1)
    threads, failures = max(torch.get_num_threads() // num_jobs, 1), []
    seconds = sum(_duration(model, path) for path in recordings.values())
    printing = output is None and sys.stdout.isatty()  # lines that a bar would be drawn over
    bar = tqdm(total=round(seconds), bar_format=BAR, leave=False, disable=True if printing else None)
    with bar, ThreadPoolExecutor(num_jobs) as pool:
        try:
            for name, result in zip(recordings, pool.map(predict, recordings), strict=True):
                if isinstance(result, str):
                    failures.append(result)
                elif output is None:
                    _print(result, name if len(recordings) > 1 else None)
        except BaseException:
            stopped.set()  # a recording of hours ends after its block
            pool.shutdown(cancel_futures=True)
            raise
    return failures


def _duration(model: FrameClassifier, path: Path) -> float:
    """Seconds of a file, 0 of one that cannot be read."""
    try:
        return model.duration(path)
    except (ValueError, OSError):
        return 0.0


def _renamed(model: FrameClassifier, segments: list[Segment], wanted: OutputOptions) -> list[Segment]:
    if wanted.speech_only:
        return speech_and_silence(segments, model.phones.silences)
    return in_ipa(segments) if wanted.symbols == "ipa" else segments


def _write(model: FrameClassifier, path: Path, wanted: OutputOptions, target: Path, on_progress: Progress) -> None:
    """All files of one recording; `target` lacks their suffixes."""
    channel, smooth = wanted.channel, wanted.smooth
    if not (wanted.plot or POSTERIORS in wanted.formats):
        segments = recording_segments(model, path, channel=channel, smooth=smooth, on_progress=on_progress)
    else:
        posteriors = recording_posteriors(model, path, channel=channel, on_progress=on_progress)
        segments = model.segments(posteriors, model.duration(path), smooth=smooth)
        start, symbols, geometry = 0, model.phones.symbols, model.frontend.geometry
        several = segments[-1].end > LONGEST_PICTURE_S
        stretches = recording_stretches(model, path, LONGEST_PICTURE_S, channel=channel) if wanted.plot else ()
        for number, samples in enumerate(stretches, 1):
            on_progress(0.0)  # a picture takes longer than its phones
            picture = plot_prediction(samples, posteriors, segments, symbols, geometry, start=start)
            save_figure(picture, _with_suffix(target, f".{number:03}.png" if several else ".png"))
            start += len(samples)
        if POSTERIORS in wanted.formats:
            with atomic_path(_with_suffix(target, ".npy")) as temporary, open(temporary, "wb") as file:
                np.save(file, posteriors)
    segments = _renamed(model, segments, wanted)
    for name in wanted.formats:
        if name != POSTERIORS:
            suffix, write = FORMATS[name]
            write(_with_suffix(target, suffix), segments)


def _with_suffix(target: Path, suffix: str) -> Path:
    return target.parent / (target.name + suffix)  # a name may have a dot of its own


def _print(segments: list[Segment], name: str | None) -> None:
    if name is not None:  # it may have line breaks, or bytes that are no UTF-8
        print(f"# {' '.join(name.splitlines()).encode(errors='replace').decode()}")
    for segment in segments:
        print(f"{segment.start:.4f} {segment.end:.4f} {segment.phone} {segment.confidence:.3f}")
