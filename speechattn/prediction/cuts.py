"""Predict prepared cuts: write phone segments per recording, or one table of all frames.

Repeated calls with the same inputs do nothing.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from speechattn.jobs.atomic import atomic_path
from speechattn.jobs.stamps import is_done, mark_done
from speechattn.model.classifier import FrameClassifier
from speechattn.model.device import checked_device
from speechattn.model.files import model_files
from speechattn.prediction.files import FORMATS, OutputOptions, predict_files
from speechattn.prediction.recordings import by_cut

__all__ = ["predict_cuts", "predict_frames"]

PREDICT_STAMP = "predict.done.json"


def predict_cuts(
    model_name: str,
    cuts: str | Path,
    output: str | Path,
    *,
    formats: Sequence[str] = ("textgrid",),
    num_jobs: int = 1,
    device: str = "cpu",
) -> None:
    """Predict the phones of every recording in a file of cuts.

    Args:
        model_name: As for `FrameClassifier.from_pretrained`.
        cuts: Each cut is a whole single-channel recording, and its id names the results. Cuts shorter than one frame
            are skipped and logged.
        output: Folder for the files.
        formats: Keys of FORMATS.
        num_jobs: See `predict_files`.
        device: Of the computation, such as `cuda`.

    Raises:
        ValueError: If model or cuts cannot be read, a cut is not a whole recording, or the model takes features (see
            `predict_frames`).
    """
    if unknown := set(formats) - set(FORMATS):
        raise ValueError(f"the formats for cuts are {', '.join(FORMATS)}, not {', '.join(sorted(unknown))}")
    stamp, options = Path(output) / PREDICT_STAMP, {"model": str(model_name), "formats": list(formats)}
    inputs = {"cuts": Path(cuts), **model_files(model_name)}
    if is_done(stamp, options, inputs):
        print(f"{output}: predicted already")
        return
    model = FrameClassifier.from_pretrained(model_name).to(checked_device(device))
    if model.feature_dim is not None:
        raise ValueError(f"{model_name} takes features, not audio: use --frames")
    recordings = by_cut(cuts, model.frontend.geometry)
    stamp.unlink(missing_ok=True)
    failures = predict_files(model, recordings, OutputOptions(formats), output=output, num_jobs=num_jobs)
    if failures:
        raise ValueError("; ".join(failures))
    outputs = [Path(output) / (stem + FORMATS[name][0]) for stem in recordings for name in formats]
    mark_done(stamp, options, inputs, outputs)
    print(f"{output}: {len(recordings)} recordings predicted")


def predict_frames(model_name: str, cuts: str | Path, output: str | Path, *, device: str = "cpu") -> None:
    """Write the likeliest phone of every frame of all cuts as one table.

    The file is CSV with a header `Id,Class`. Ids count the frames of all cuts from 0, in the order of the file; a class
    is written as its phone. The NTU machine learning course, whose phones are 0 to 40, takes this as a submission.

    Args:
        model_name: As for `FrameClassifier.from_pretrained`.
        cuts: A file of cuts with recordings, or shards; for a model without a front end, a file of cuts with features.
            They need no phones. Cuts shorter than one frame are skipped.
        output: The file to write.
        device: Of the computation, such as `cuda`.

    Raises:
        ValueError: If model or cuts cannot be read or do not fit, or the model has pooling.
    """
    from speechattn.cuts.model_inputs import cut_features, cut_waveform, load_cuts
    from speechattn.cuts.shards import checksum_or_path

    stamp, options = Path(f"{output}.done.json"), {"model": str(model_name)}
    inputs = {"cuts": checksum_or_path(cuts), **model_files(model_name)}
    if is_done(stamp, options, inputs):
        print(f"{output}: predicted already")
        return
    model = FrameClassifier.from_pretrained(model_name).to(checked_device(device))
    if model.pooling is not None:
        raise ValueError(f"{model_name} has pooling: it labels utterances, not frames")
    read = cut_waveform if model.feature_dim is None else cut_features
    utterances = load_cuts(cuts, model.frontend.geometry, feature_dim=model.feature_dim)
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
