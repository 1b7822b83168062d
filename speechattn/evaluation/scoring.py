"""`speechattn score`: two alignments of the same speech, from files of any tool, compared."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechattn.audio import SAMPLE_RATE
from speechattn.corpora.matching import visible_files
from speechattn.evaluation.agreement import agreement_figures
from speechattn.evaluation.metrics import percent
from speechattn.jobs.atomic import save_json
from speechattn.labels.files import SUFFIXES, read_alignments
from speechattn.labels.folding import merge_closures
from speechattn.labels.intervals import Interval
from speechattn.labels.textgrid import TIER
from speechattn.phones import PhoneSet

__all__ = ["format_agreement", "read_phone_intervals", "score_files"]

Alignments = dict[str, list[Interval]]  # utterance -> phones, in samples at 16 kHz
NUM_NAMED = 10  # utterances that a message names; the JSON file has them all

logger = logging.getLogger(__name__)


def score_files(
    reference: str | Path,
    hypothesis: str | Path,
    *,
    phones: str | None = None,
    closures_as_stops: bool = False,
    tier: str = TIER,
    json_file: str | Path | None = None,
) -> dict[str, Any]:
    """Compare two alignments, and print how far they agree.

    Only utterances of both are compared; those of one alone are named on stderr, and in the JSON file.

    Args:
        reference: See `read_phone_intervals`.
        hypothesis: Likewise; a file of one utterance is compared with another such file whatever their names.
        phones: A named inventory, or a file of one, that both are folded to; None: symbols are compared as they are.
        closures_as_stops: Count TIMIT's closures as the stops that they belong to.
        tier: Of TextGrids.
        json_file: Where the figures go as well.

    Returns:
        What `agreement.agreement_figures` gives, and the utterances `only_in_reference` and `only_in_hypothesis`.

    Raises:
        ValueError: When a file cannot be read, no utterance is in both, or `agreement_figures` refuses them.
    """
    sides = [read_phone_intervals(path, tier=tier) for path in (reference, hypothesis)]
    if all(len(side) == 1 and _names_nothing(path) for side, path in zip(sides, (reference, hypothesis), strict=True)):
        ((name, _),) = sides[0].items()
        sides[1] = {name: next(iter(sides[1].values()))}
    common = sorted(sides[0].keys() & sides[1].keys())
    alone = [sorted(side.keys() - set(common)) for side in sides]
    if not common:
        names = [next(iter(side), "none") for side in sides]
        raise ValueError(f"{reference} and {hypothesis} have no utterance in common, such as {' and '.join(names)}")
    for path, names in zip((reference, hypothesis), alone, strict=True):
        if names:
            more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
            logger.warning("%d utterances only in %s: %s%s", len(names), path, ", ".join(names[:NUM_NAMED]), more)
    pair = [{name: side[name] for name in common} for side in sides]
    if closures_as_stops:
        pair = [{name: merge_closures(intervals) for name, intervals in side.items()} for side in pair]
    figures = agreement_figures(pair[0], pair[1], None if phones is None else PhoneSet.load(phones))
    figures |= {"only_in_reference": alone[0], "only_in_hypothesis": alone[1]}
    print(format_agreement(figures))
    if json_file is not None:
        save_json(json_file, figures)
    return figures


def read_phone_intervals(path: str | Path, *, tier: str = TIER) -> Alignments:
    """The phones of all utterances of a file or folder, in samples at 16 kHz.

    Args:
        path: A file of Lhotse cuts (.jsonl or .jsonl.gz); a file of phones, see `alignment_files.read_alignments`; or a
            folder: all its visible files, at any depth, of the first of those formats that it has any of, TextGrid
            before CTM before .phn and so on. An utterance is named by its cut, by CTM's first field, or by the file:
            its path below the folder without suffix.
        tier: Of TextGrids.

    Raises:
        ValueError: When there is no such file, it cannot be read, the folder has none of them, or two have one name.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, tier)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        # Lhotse takes its second to load: not for files that need none of it.
        from speechattn.cuts.files import phone_intervals, read_cuts

        return {cut.id: phone_intervals(cut) for cut in read_cuts(path)}
    return {
        name: [Interval(round(s.start * SAMPLE_RATE), round(s.end * SAMPLE_RATE), s.phone) for s in segments]
        for name, segments in read_alignments(path, tier=tier).items()
    }


def _read_folder(folder: Path, tier: str) -> Alignments:
    files = list(visible_files(folder, SUFFIXES))
    if not files:
        raise ValueError(f"{folder}: has no file of phones: {' '.join(SUFFIXES)}")
    suffix = min((path.suffix.lower() for path in files), key=SUFFIXES.index)
    found: Alignments = {}
    for path in (path for path in files if path.suffix.lower() == suffix):
        read = read_phone_intervals(path, tier=tier)
        if suffix != ".ctm":
            read = {path.relative_to(folder).with_suffix("").as_posix(): next(iter(read.values()))}
        for name, intervals in read.items():
            if name in found:
                raise ValueError(f"{path}: there is an utterance {name} already")
            found[name] = intervals
    return found


def _names_nothing(path: str | Path) -> bool:
    """Whether it is a file of one utterance, whose name is but the file's."""
    return not Path(path).is_dir() and Path(path).suffix.lower() not in (".ctm", ".jsonl", ".gz")


def format_agreement(figures: Mapping[str, Any]) -> str:
    """The figures for a terminal."""
    counts = figures["num_boundaries"]
    shift = figures["displacement_ms"]
    lines = [
        f"frame agreement {percent(figures['frame_agreement'])}, without silence "
        f"{percent(figures['frame_agreement_no_silence'])}, over {figures['num_frames']:,} frames of "
        f"{figures['num_utterances']:,} utterances",
        f"boundaries: {counts['reference']:,} in the reference, {counts['hypothesis']:,} in the hypothesis",
        "  {:<8}{:>12}{:>12}{:>12}{:>12}".format("within", "precision", "recall", "F1", "R-value"),
    ]
    for tolerance, row in figures["boundaries"].items():
        shares = (percent(row[name]) for name in ("precision", "recall", "f1", "r_value"))
        lines.append("  {:<8}{:>12}{:>12}{:>12}{:>12}".format(f"{tolerance} ms", *shares))
    if shift["mean"] is not None:
        lines.append(
            f"displacement of those within {max(map(int, figures['boundaries']))} ms: mean {shift['mean']:+.1f} ms, "
            f"mean absolute {shift['mean_absolute']:.1f} ms, median absolute {shift['median_absolute']:.1f} ms"
        )
    lines.append("agreement by phone of the reference, and its frames:")
    phones = sorted(figures["phones"].items(), key=lambda item: (-item[1]["num_frames"], item[0]))
    cells = [f"{symbol:<6}{percent(row['agreement']):>9}{row['num_frames']:>9,}" for symbol, row in phones]
    lines += ["  " + "    ".join(cells[first : first + 4]) for first in range(0, len(cells), 4)]
    return "\n".join(lines)
