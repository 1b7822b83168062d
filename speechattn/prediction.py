"""Audio files -> phone segments, and the files that people open them in."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from speechattn.alignment import Segment
from speechattn.alignment_files import write_csv, write_ctm, write_json, write_textgrid
from speechattn.classifier import FrameClassifier, model_files
from speechattn.geometry import Geometry
from speechattn.plots import plot_prediction, save_figure
from speechattn.stages import atomic_path, is_done, mark_done

__all__ = ["FORMATS", "by_cut", "by_stem", "predict_cuts", "predict_files", "predict_frames"]

STAMP = "predict.done.json"

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
    smooth: bool = False,
) -> list[str]:
    """Predict the phones of files, one after the other.

    Args:
        model: In eval mode.
        recordings: Stem of the files to write -> audio file; see `by_stem`.
        formats: Which files to write, see FORMATS.
        output: Folder for <stem>.TextGrid, .ctm, .json, .csv and, with `plot`, .png; None: lines
            `start end phone confidence` on standard output.
        channel: Which channel to take, counted from 0; None: the mean of all.
        plot: Whether to draw spectrogram, segments and posteriors; of a model without pooling.
        smooth: See `FrameClassifier.classify`.

    Returns:
        One line for each file that could not be done; the others are.

    Raises:
        ValueError: Before any work, when a format does not exist, a picture is wanted without a folder or of a model
            with pooling, or the model cannot smooth.
    """
    if smooth:
        model.known_phonotactics()  # or refuse
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
    if output is None and plot:
        raise ValueError("--plot needs --output: a folder for the picture")
    if plot and model.pooling is not None:
        raise ValueError("--plot draws the posteriors of frames, and a model with pooling has none")
    failures = []
    for stem, path in tqdm(recordings.items(), unit="file", leave=False, disable=None if output else True):
        try:
            samples = model.samples(path, channel=channel)
            posteriors = model.posteriors(samples)
            segments = model.segments(posteriors, model.duration(path), smooth=smooth)
            if output is None:
                for segment in segments:
                    print(f"{segment.start:.4f} {segment.end:.4f} {segment.phone} {segment.confidence:.3f}")
                continue
            for name in formats:
                suffix, write = FORMATS[name]
                write(Path(output) / (stem + suffix), segments)
            if plot:
                geometry = model.frontend.geometry
                picture = plot_prediction(samples, posteriors, segments, model.phones.symbols, geometry)
                save_figure(picture, Path(output) / f"{stem}.png")
        except ValueError as error:
            failures.append(str(error))
    return failures


def predict_cuts(
    model_name: str, cuts: str | Path, output: str | Path, *, formats: Sequence[str] = ("textgrid",)
) -> None:
    """Predict the phones of every recording in a file of cuts; what has been done already is not done again.

    Args:
        model_name: What `FrameClassifier.from_pretrained` takes.
        cuts: Cuts, each a whole single-channel recording; their ids name the results. Those below one frame are left
            out and listed.
        output: Folder for the files.
        formats: Which files to write, see FORMATS.

    Raises:
        ValueError: When model or cuts cannot be read, or a cut is not a whole recording; or of a model without a front
            end, which `predict_frames` is for.
    """
    stamp, options = Path(output) / STAMP, {"model": str(model_name), "formats": list(formats)}
    inputs = {"cuts": Path(cuts), **model_files(model_name)}
    if is_done(stamp, options, inputs):
        print(f"{output}: predicted already")
        return
    model = FrameClassifier.from_pretrained(model_name)
    if model.feature_dim is not None:
        raise ValueError(f"{model_name} takes features, not audio: it predicts frames (--frames), not segments")
    recordings = by_cut(cuts, model.frontend.geometry)
    stamp.unlink(missing_ok=True)
    failures = predict_files(model, recordings, formats=formats, output=output)
    if failures:
        raise ValueError("; ".join(failures))
    outputs = [Path(output) / (stem + FORMATS[name][0]) for stem in recordings for name in formats]
    mark_done(stamp, options, inputs, outputs)
    print(f"{output}: {len(recordings)} recordings predicted")


def predict_frames(model_name: str, cuts: str | Path, output: str | Path) -> None:
    """Write the likeliest phone of every frame of all cuts as one table; not again when it has been done already.

    The file is CSV with a header `Id,Class`: frames are counted through all cuts from 0, in the file's order, and a
    class is written by its phone. This is what the NTU machine learning course takes as a submission, whose phones are
    called 0 to 40.

    Args:
        model_name: What `FrameClassifier.from_pretrained` takes.
        cuts: A file of cuts with recordings, or shards; for a model without a front end, a file of cuts with features.
            They need no phones. Those below one frame are left out.
        output: The file.

    Raises:
        ValueError: When model or cuts cannot be read or do not fit, or the model, with pooling, has no frames.
    """
    from speechattn.corpora.shards import checksum_or_path
    from speechattn.cuts import cut_features, cut_waveform, long_enough

    stamp, options = Path(f"{output}.done.json"), {"model": str(model_name)}
    inputs = {"cuts": checksum_or_path(cuts), **model_files(model_name)}
    if is_done(stamp, options, inputs):
        print(f"{output}: predicted already")
        return
    model = FrameClassifier.from_pretrained(model_name)
    if model.pooling is not None:
        raise ValueError(f"{model_name} has one label for an utterance, with pooling, and no frames")
    read = cut_waveform if model.feature_dim is None else cut_features
    utterances = long_enough(cuts, model.frontend.geometry, feature_dim=model.feature_dim)
    number = 0
    with atomic_path(output) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("Id", "Class"))
        for cut in tqdm(utterances, unit="utt", leave=False, disable=None):
            for index in model.posteriors(read(cut)).argmax(axis=1):
                table.writerow((number, model.phones.symbols[index]))
                number += 1
    mark_done(stamp, options, inputs, [Path(output)])
    print(f"{output}: {number:,} frames of {len(utterances)} utterances")


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


def by_cut(cuts: str | Path, geometry: Geometry) -> dict[str, Path]:
    """The recordings of a file of cuts that have at least one frame, by the cuts' ids.

    Raises:
        ValueError: When a cut is not a whole single-channel recording, or its id cannot name a file or is taken.
    """
    from speechattn.corpora.manifest import recording_file
    from speechattn.cuts import long_enough

    recordings: dict[str, Path] = {}
    for cut in long_enough(cuts, geometry):
        if cut.id in recordings or cut.id != Path(cut.id).name:
            raise ValueError(f"{cuts}: cut id {cut.id!r} occurs twice or cannot name a file")
        if cut.recording.num_channels != 1:
            raise ValueError(f"{cuts}: cut {cut.id} is one channel of {cut.recording.num_channels}")
        recordings[cut.id] = recording_file(cut)
    return recordings
