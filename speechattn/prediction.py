"""Audio files -> phone segments, and the files that people open them in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from speechattn.alignment import Segment
from speechattn.alignment_files import write_csv, write_ctm, write_json, write_textgrid
from speechattn.classifier import FrameClassifier
from speechattn.plots import plot_prediction, save_figure

__all__ = ["FORMATS", "by_cut", "by_stem", "predict_files"]

FORMATS: dict[str, tuple[str, Callable[[Path, list[Segment]], None]]] = {
    "textgrid": (".TextGrid", write_textgrid),
    "ctm": (".ctm", write_ctm),
    "json": (".json", write_json),
    "csv": (".csv", write_csv),
}


def predict_files(
    model: FrameClassifier,
    recordings: Mapping[str, Path],
    *,
    formats: Sequence[str] = ("textgrid",),
    output: str | Path | None = None,
    channel: int | None = None,
    plot: bool = False,
) -> list[str]:
    """Predict the phones of files, one after the other.

    Args:
        model: In eval mode.
        recordings: Stem of the files to write -> audio file; see `by_stem` and `by_cut`.
        formats: Which files to write, see FORMATS.
        output: Folder for <stem>.TextGrid, .ctm, .json, .csv and, with `plot`, .png; None: lines
            `start end phone confidence` on standard output.
        channel: Which channel to take, counted from 0; None: the mean of all.
        plot: Whether to draw spectrogram, segments and posteriors.

    Returns:
        One line for each file that could not be done; the others are.

    Raises:
        ValueError: Before any work, when a format does not exist or a picture is wanted without a folder.
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
    if output is None and plot:
        raise ValueError("--plot needs --output: a folder for the picture")
    failures = []
    for stem, path in tqdm(recordings.items(), unit="file", leave=False, disable=None if output else True):
        try:
            samples = model.samples(path, channel=channel)
        except ValueError as error:
            failures.append(str(error))
            continue
        posteriors = model.posteriors(samples)
        segments = model.segments(posteriors, model.duration(path))
        if output is None:
            for segment in segments:
                print(f"{segment.start:.4f} {segment.end:.4f} {segment.phone} {segment.confidence:.3f}")
        else:
            for name in formats:
                suffix, write = FORMATS[name]
                write(Path(output) / (stem + suffix), segments)
            if plot:
                geometry = model.frontend.geometry
                picture = plot_prediction(samples, posteriors, segments, model.phones.symbols, geometry)
                save_figure(picture, Path(output) / f"{stem}.png")
    return failures


def by_stem(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Audio files by the stem of their names.

    Raises:
        ValueError: When two have the same, since the results of one would overwrite the other's.
    """
    recordings: dict[str, Path] = {}
    for path in map(Path, paths):
        first = recordings.setdefault(path.stem, path)
        if first != path:
            raise ValueError(f"{first} and {path} would both write {path.stem}.*: predict them apart")
    return recordings


def by_cut(cuts: str | Path) -> dict[str, Path]:
    """The whole recordings of a file of cuts, by the cuts' ids."""
    from speechattn.corpora.manifest import read_cuts

    return {cut.id: Path(cut.recording.sources[0].source) for cut in read_cuts(cuts)}
