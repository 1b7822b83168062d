"""Compare two models on the same cuts, with a significance test."""

from pathlib import Path
from typing import Any

import numpy as np

from speechattn.evaluation.bootstrap import SpeakerCounts, paired_difference
from speechattn.evaluation.class_folding import ClassFolding
from speechattn.evaluation.evaluate import evaluation_batches, utterances
from speechattn.evaluation.metrics import percent
from speechattn.jobs.atomic import save_json
from speechattn.model.classifier import FrameClassifier
from speechattn.phones import IGNORED, PhoneSet

__all__ = ["compare", "compare_and_print", "format_comparison"]


def compare(
    model_a: FrameClassifier,
    model_b: FrameClassifier,
    cuts: str | Path,
    *,
    phones: PhoneSet | None = None,
    closures_as_stops: bool = False,
) -> dict[str, Any]:
    """Frame accuracies of two models on the same frames, and their difference by paired bootstrap over speakers.

    Args:
        model_a: In eval mode, on any device, without pooling.
        model_b: In eval mode, with the same frame geometry as A.
        cuts: As for `evaluate`.
        phones: The phones to score on, see `evaluate`; None: the models' own, which must be the same.
        closures_as_stops: See `evaluate`.

    Returns:
        - `num_utterances`, `num_speakers` (None if a cut does not name its speaker), `num_frames`;
        - `only_a_right` and `only_b_right`: frames that only one model gets right;
        - `frame_accuracy` and `frame_accuracy_no_silence`: the accuracies `a` and `b`, and the result of
          `bootstrap.paired_difference` for B minus A.

    Raises:
        ValueError: If the models cannot be compared, or as for `evaluate`.
    """
    _check_comparable(model_a, model_b)
    phones = _common_phones(model_a, model_b) if phones is None else phones.accepting_arpabet()
    models = [model_a, model_b]
    foldings = [ClassFolding(model.phones, phones, closures_as_stops=closures_as_stops) for model in models]
    speech = np.array([symbol not in phones.silences for symbol in phones.symbols])
    speakers = SpeakerCounts(6)  # right by A, right by B, all; the same without silence
    num_utterances, only_right = 0, np.zeros(2, dtype=np.int64)
    batches = evaluation_batches(model_a, cuts, phones, closures_as_stops=closures_as_stops)
    for cut, labels, logits, _ in utterances(models, batches, cuts):
        scored = labels != IGNORED
        a, b = ((folding.decide(score) == labels)[scored] for folding, score in zip(foldings, logits, strict=True))
        spoken = speech[labels[scored]]
        counts = [a.sum(), b.sum(), len(a), a[spoken].sum(), b[spoken].sum(), spoken.sum()]
        speakers.add(cut.supervisions[0].speaker, counts)
        only_right += [(a & ~b).sum(), (b & ~a).sum()]
        num_utterances += 1
    table = speakers.table()
    num_frames = int(table[:, 2].sum())
    if not num_frames:
        raise ValueError(f"{cuts}: no frame has a label that can be scored")
    return {
        "num_utterances": num_utterances,
        "num_speakers": len(table) if speakers.all_known else None,
        "num_frames": num_frames,
        "only_a_right": int(only_right[0]),
        "only_b_right": int(only_right[1]),
        "frame_accuracy": _compare_accuracies(*table[:, :3].T),
        "frame_accuracy_no_silence": _compare_accuracies(*table[:, 3:].T),
    }


def _common_phones(model_a: FrameClassifier, model_b: FrameClassifier) -> PhoneSet:
    a, b = model_a.phones, model_b.phones
    if set(a.symbols) != set(b.symbols):
        raise ValueError(
            f"the models have different phones, {len(a)} ({a.name}) and {len(b)} ({b.name}): "
            "choose those to score on with --phones, such as --phones timit39"
        )
    return a


def _check_comparable(model_a: FrameClassifier, model_b: FrameClassifier) -> None:
    models = (model_a, model_b)
    if any(model.pooling is not None for model in models):
        raise ValueError("models with pooling label utterances, not frames: they cannot be compared by frame")
    if model_a.feature_dim != model_b.feature_dim:
        a, b = ("waveforms" if m.feature_dim is None else f"{m.feature_dim} features per frame" for m in models)
        raise ValueError(f"the models take different inputs: {a} and {b}")
    if model_a.frontend.geometry != model_b.frontend.geometry:
        a, b = (str(m.frontend.geometry) for m in models)
        raise ValueError(f"the models' frames lie at different times: {a} and {b}")


def _compare_accuracies(right_a: np.ndarray, right_b: np.ndarray, scored: np.ndarray) -> dict[str, Any]:
    total = scored.sum()
    accuracies = {
        name: float(right.sum() / total) if total else None for name, right in (("a", right_a), ("b", right_b))
    }
    return {**accuracies, **paired_difference(right_a, right_b, scored)}


def compare_and_print(
    name_a: str,
    name_b: str,
    cuts: str | Path,
    *,
    phones: str | None = None,
    closures_as_stops: bool = False,
    json_file: str | Path | None = None,
) -> None:
    """Compare two models on cuts and print the result.

    Args:
        name_a: Model A, as for `FrameClassifier.from_pretrained`.
        name_b: Model B.
        cuts: As for `evaluate`.
        phones: Name of the inventory to score on; None: the models' own.
        closures_as_stops: See `evaluate`.
        json_file: If given, save the figures there, with the models' names as `model_a` and `model_b`.

    Raises:
        ValueError: As for `from_pretrained`, `PhoneSet.load` and `compare`.
    """
    scored = None if phones is None else PhoneSet.load(phones)
    model_a, model_b = (FrameClassifier.from_pretrained(name) for name in (name_a, name_b))
    compared = compare(model_a, model_b, cuts, phones=scored, closures_as_stops=closures_as_stops)
    figures = {"model_a": name_a, "model_b": name_b, **compared}
    if json_file is not None:
        save_json(json_file, figures)
    print(format_comparison(figures))


def format_comparison(figures: dict[str, Any]) -> str:
    """Format the figures of `compare`, with the models' names, as text."""
    both = [figures["frame_accuracy"], figures["frame_accuracy_no_silence"]]
    rows = [
        ("", ["all frames", "without silence"]),
        ("A", [percent(row["a"]) for row in both]),
        ("B", [percent(row["b"]) for row in both]),
        ("B - A, points", [_points(row["difference"]) for row in both]),
        ("95 % interval", [" to ".join(map(_points, row["interval"] or [None])) for row in both]),
        ("p-value", ["-" if row["p_value"] is None else f"{row['p_value']:.4f}" for row in both]),
    ]
    speakers = figures["num_speakers"]
    lines = [
        f"A: {figures['model_a']}",
        f"B: {figures['model_b']}",
        f"frame accuracy over {figures['num_frames']:,} frames of {figures['num_utterances']:,} utterances by "
        f"{'unknown' if speakers is None else speakers} speakers",
        *("  {:<16}{:>20}{:>20}".format(name, *cells) for name, cells in rows),
        f"only A is right in {figures['only_a_right']:,} frames, only B in {figures['only_b_right']:,}",
    ]
    if both[0]["interval"] is None:
        lines.append("no interval and no p-value: they need at least two speakers, and every cut must name its speaker")
    return "\n".join(lines)


def _points(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:+.2f}"
