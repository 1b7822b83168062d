"""Predict audio files: print phone segments, or write them as TextGrid, CTM, JSON, CSV, Audacity labels, pictures."""

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
from speechattn.jobs.text import check_printable
from speechattn.labels.files import write_audacity, write_csv, write_ctm, write_json, write_textgrid
from speechattn.labels.intervals import Segment
from speechattn.labels.ipa import in_ipa, ipa_symbols, speech_and_silence
from speechattn.model.classifier import FrameClassifier
from speechattn.plots import plot_prediction, save_figure
from speechattn.prediction.long_audio import Progress, recording_excerpts, recording_posteriors, recording_segments

__all__ = ["FORMATS", "POSTERIORS", "OutputOptions", "predict_files"]

FORMATS: dict[str, tuple[str, Callable[[Path, list[Segment]], None]]] = {
    "textgrid": (".TextGrid", write_textgrid),
    "ctm": (".ctm", write_ctm),
    "json": (".json", write_json),
    "csv": (".csv", write_csv),
    "audacity": (".txt", write_audacity),
}
POSTERIORS = "npy"  # the format of posteriors, (T, P) float32
LONGEST_PICTURE_S = 30.0  # longer recordings get several pictures
BAR = "{l_bar}{bar}| {n:.0f} of {total} s of audio [{elapsed}<{remaining}]"


@dataclass(frozen=True)
class OutputOptions:
    """What to write for each recording.

    Args:
        formats: Files to write: keys of FORMATS, and POSTERIORS.
        plot: Also draw spectrogram, segments and posteriors.
        channel: Channel, counted from 0; None: the mean of all channels.
        smooth: See `FrameClassifier.classify`.
        symbols: `model`: the model's symbols; `ipa`: the International Phonetic Alphabet.
        speech_only: Segment into speech and silence instead of phones, see `speech_and_silence`.

    Raises:
        ValueError: If a format or set of symbols is unknown.
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
        """Raise ValueError if the model cannot provide one of these."""
        if model.feature_dim is not None:
            raise ValueError("the model has no front end: it takes features, not audio")
        if self.smooth:
            model.known_phonotactics()
        if model.pooling is not None and (self.plot or POSTERIORS in self.formats or self.speech_only):
            raise ValueError("the model has pooling: it cannot draw pictures, write posteriors or find speech")
        if self.symbols == "ipa":
            ipa_symbols(model.phones.symbols)
        if self.speech_only and not model.phones.silences:
            raise ValueError("the model has no silence phone (SIL or sil): it cannot find speech")


def predict_files(
    model: FrameClassifier,
    recordings: Mapping[str, Path],
    options: OutputOptions = OutputOptions(),  # noqa: B008 (frozen)
    *,
    output: str | Path | None = None,
    num_jobs: int = 1,
) -> list[str]:
    """Predict the phones of audio files.

    Args:
        model: In eval mode.
        recordings: Name of the results -> audio file; see `find_recordings`.
        options: What to write.
        output: Folder for <name>.TextGrid, .ctm, .json, .csv, .txt, .npy and .png (.001.png, .002.png ... if the
            recording is longer than 30 s); None: print lines `start end phone confidence`, below a line `# name` if
            there are several recordings.
        num_jobs: Recordings processed at the same time, at least 1; they share PyTorch's threads.

    Returns:
        One error message per file that failed, in order; all others were processed.

    Raises:
        ValueError: Before any work, if the model cannot provide the options, pictures or posteriors are requested
            without `output`, or `output` is a file.
    """
    options.check(model)
    if output is None and (options.plot or POSTERIORS in options.formats):
        raise ValueError("--plot and --format npy need --output FOLDER")
    if output is not None and Path(output).exists() and not Path(output).is_dir():
        raise ValueError(f"{output} is a file: --output takes a folder")
    if output is None:
        symbols = model.phones.symbols
        check_printable(ipa_symbols(symbols).values() if options.symbols == "ipa" else symbols)
    stopped = Event()

    def on_progress(seconds: float) -> None:
        if stopped.is_set():
            raise CancelledError
        bar.update(seconds)

    def predict(name: str) -> list[Segment] | str:
        torch.set_num_threads(threads)  # OpenMP keeps the number per calling thread
        try:
            if output is None:
                return _segments(model, recordings[name], options, on_progress)
            _write(model, recordings[name], options, Path(output), name, on_progress)
            return []
        except ValueError as error:
            return str(error)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # a full disk, for example, would fail all other files, too
                raise
            return f"{recordings[name]}: file name too long to add a suffix"

    num_jobs = max(min(num_jobs, len(recordings)), 1)
    threads, failures = max(torch.get_num_threads() // num_jobs, 1), []
    seconds = sum(_duration(model, path) for path in recordings.values())
    printing = output is None and sys.stdout.isatty()  # a progress bar would overwrite the printed lines
    bar = tqdm(total=round(seconds), bar_format=BAR, leave=False, disable=True if printing else None)
    with bar, ThreadPoolExecutor(num_jobs) as pool:
        try:
            for name, result in zip(recordings, pool.map(predict, recordings), strict=True):
                if isinstance(result, str):
                    failures.append(result)
                elif output is None:
                    _print(result, name if len(recordings) > 1 else None)
        except BaseException:
            stopped.set()  # running recordings end after their current block
            pool.shutdown(cancel_futures=True)
            raise
    return failures


def _duration(model: FrameClassifier, path: Path) -> float:
    """Duration in seconds; 0 if the file cannot be read."""
    try:
        return model.duration(path)
    except (ValueError, OSError):
        return 0.0


def _segments(model: FrameClassifier, path: Path, options: OutputOptions, on_progress: Progress) -> list[Segment]:
    segments = recording_segments(model, path, channel=options.channel, smooth=options.smooth, on_progress=on_progress)
    return _renamed(model, segments, options)


def _renamed(model: FrameClassifier, segments: list[Segment], options: OutputOptions) -> list[Segment]:
    if options.speech_only:
        return speech_and_silence(segments, model.phones.silences)
    return in_ipa(segments) if options.symbols == "ipa" else segments


def _write(
    model: FrameClassifier, path: Path, options: OutputOptions, output: Path, recording: str, on_progress: Progress
) -> None:
    """Write all files of the recording of this name."""
    target = output / recording
    if options.plot or POSTERIORS in options.formats:
        posteriors = recording_posteriors(model, path, channel=options.channel, on_progress=on_progress)
        segments = model.segments(posteriors, model.duration(path), smooth=options.smooth)
        segments = _renamed(model, segments, options)
        if options.plot:
            _draw(model, path, options, target, posteriors, segments, on_progress)
        if POSTERIORS in options.formats:
            with atomic_path(_with_suffix(target, ".npy")) as temporary, open(temporary, "wb") as file:
                np.save(file, posteriors)
    else:
        segments = _segments(model, path, options, on_progress)
    for name in options.formats:
        if name != POSTERIORS:
            suffix, write = FORMATS[name]
            path = _with_suffix(target, suffix)
            if name == "ctm":  # with its folders: CTM files of several folders may be joined
                write_ctm(path, segments, utterance=recording)
            else:
                write(path, segments)


def _draw(
    model: FrameClassifier,
    path: Path,
    options: OutputOptions,
    target: Path,
    posteriors: np.ndarray,
    segments: list[Segment],
    on_progress: Progress,
) -> None:
    """Draw a recording, in several pictures if it is long."""
    start, several = 0, segments[-1].end > LONGEST_PICTURE_S
    symbols = model.phones.symbols
    if options.symbols == "ipa":
        symbols = tuple(ipa_symbols(symbols)[symbol] for symbol in symbols)
    excerpts = recording_excerpts(model, path, LONGEST_PICTURE_S, channel=options.channel)
    for number, samples in enumerate(excerpts, 1):
        on_progress(0.0)  # drawing takes longer than prediction: stop here when interrupted
        picture = plot_prediction(samples, posteriors, segments, symbols, model.frontend.geometry, start=start)
        save_figure(picture, _with_suffix(target, f".{number:03}.png" if several else ".png"))
        start += len(samples)


def _with_suffix(target: Path, suffix: str) -> Path:
    return target.parent / (target.name + suffix)  # Path.with_suffix would cut a name at its own dot


def _print(segments: list[Segment], name: str | None) -> None:
    if name is not None:  # it may contain line breaks or invalid UTF-8
        print(f"# {' '.join(name.splitlines()).encode(errors='replace').decode()}")
    for segment in segments:
        print(f"{segment.start:.4f} {segment.end:.4f} {segment.phone} {segment.confidence:.3f}")
