"""Two models on the same cuts: is one better, or could that be chance?"""

from __future__ import annotations

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
    """Frame accuracies of two models on the same frames, and their difference, by paired bootstrap over speakers.

    Args:
        model_a: In eval mode, on any device, without pooling.
        model_b: Likewise; its frames must lie where those of A lie.
        cuts: As for `evaluate`.
        phones: The phones to score on, see `evaluate`; None: the models' own, which must then be the same.
        closures_as_stops: See `evaluate`.

    Returns:
        `num_utterances`, `num_speakers` (None where a cut does not name its speaker), `num_frames`; `only_a_right` and
        `only_b_right`, the frames that one model alone gets right; `frame_accuracy` and `frame_accuracy_no_silence`,
        each with the accuracies `a` and `b` and what `bootstrap.paired_difference` gives for B minus A.

    Raises:
        ValueError: When the models cannot be compared, or as for `evaluate`.
    """
    _refuse_unlike(model_a, model_b)
    phones = _common_phones(model_a, model_b) if phones is None else phones.accepting_arpabet()
    models = [model_a, model_b]
    foldings = [ClassFolding(model.phones, phones, closures_as_stops=closures_as_stops) for model in models]
    speech = np.array([symbol not in phones.silences for symbol in phones.symbols])
    speakers = SpeakerCounts(6)  # right by A, right by B, all; the same without silence
    num_utterances, alone = 0, np.zeros(2, dtype=np.int64)
    batches = evaluation_batches(model_a, cuts, phones, closures_as_stops=closures_as_stops)
    for cut, labels, logits, _ in utterances(models, batches, cuts):
        scored = labels != IGNORED
        a, b = ((folding.decide(score) == labels)[scored] for folding, score in zip(foldings, logits, strict=True))
        voiced = speech[labels[scored]]
        counts = [a.sum(), b.sum(), len(a), a[voiced].sum(), b[voiced].sum(), voiced.sum()]
        speakers.add(cut.supervisions[0].speaker, counts)
        alone += [(a & ~b).sum(), (b & ~a).sum()]
        num_utterances += 1
    table = speakers.table()
    num_frames = int(table[:, 2].sum())
    if not num_frames:
        raise ValueError(f"{cuts}: no frame has a label that can be scored")
    return {
        "num_utterances": num_utterances,
        "num_speakers": len(table) if speakers.all_known else None,
        "num_frames": num_frames,
        "only_a_right": int(alone[0]),
        "only_b_right": int(alone[1]),
        "frame_accuracy": _compared(*table[:, :3].T),
        "frame_accuracy_no_silence": _compared(*table[:, 3:].T),
    }


def _common_phones(model_a: FrameClassifier, model_b: FrameClassifier) -> PhoneSet:
    a, b = model_a.phones, model_b.phones
    if set(a.symbols) != set(b.symbols):
        raise ValueError(
            f"the models have different phones, {len(a)} ({a.name}) and {len(b)} ({b.name}): "
            "--phones SET, such as timit39, says which to score both on"
        )
    return a


def _refuse_unlike(model_a: FrameClassifier, model_b: FrameClassifier) -> None:
    if model_a.pooling is not None or model_b.pooling is not None:
        raise ValueError("models with pooling, which have a label for an utterance, cannot be compared by frame")
    if model_a.feature_dim != model_b.feature_dim:
        a, b = (
            "waveforms" if model.feature_dim is None else f"{model.feature_dim} features a frame"
            for model in (model_a, model_b)
        )
        raise ValueError(f"the models cannot hear the same cuts: one takes {a}, the other {b}")
    if model_a.frontend.geometry != model_b.frontend.geometry:
        raise ValueError(
            f"the models' frames do not lie at the same places: {model_a.frontend.geometry} and "
            f"{model_b.frontend.geometry}"
        )


def _compared(right_a: np.ndarray, right_b: np.ndarray, scored: np.ndarray) -> dict[str, Any]:
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
    """Compare two models on a file of cuts and print what comes of it.

    Args:
        name_a: What `FrameClassifier.from_pretrained` takes.
        name_b: Likewise.
        cuts: The cuts.
        phones: Name of the set to score on; None: the models' own.
        closures_as_stops: See `evaluate`.
        json_file: Where the figures go as well, with the two models' names as `model_a` and `model_b`.

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
    """The figures of `compare`, with the models' names, for a terminal."""
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
        lines.append("neither interval nor p-value: they need at least two speakers, all of them named")
    return "\n".join(lines)


def _points(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:+.2f}"
