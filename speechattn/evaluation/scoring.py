"""`speechattn score`: compare two alignments of the same speech, read from files of any tool."""

import logging
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechattn.audio import SAMPLE_RATE
from speechattn.evaluation.agreement import agreement_figures
from speechattn.evaluation.metrics import percent
from speechattn.jobs.atomic import save_json
from speechattn.jobs.folders import visible_files
from speechattn.labels.files import SUFFIXES, read_alignments
from speechattn.labels.folding import merge_closures
from speechattn.labels.intervals import Interval
from speechattn.labels.textgrid import TIER
from speechattn.labels.units import SAMPLE_RATES
from speechattn.phones import PhoneSet

__all__ = ["format_agreement", "read_phone_intervals", "score_files"]

Alignments = dict[str, list[Interval]]  # utterance -> phones, in samples at 16 kHz
RATIO_TOLERANCE = 0.002
NUM_NAMED = 10  # utterances named in a message; the JSON file lists all

logger = logging.getLogger(__name__)


def score_files(
    reference: str | Path,
    hypothesis: str | Path,
    *,
    phones: str | None = None,
    closures_as_stops: bool = False,
    tier: str = TIER,
    label_rate: float | None = None,
    json_file: str | Path | None = None,
) -> dict[str, Any]:
    """Compare two alignments and print their agreement.

    Only utterances in both are compared. Those in only one are named on stderr and in the JSON file.

    Args:
        reference: See `read_phone_intervals`.
        hypothesis: See `read_phone_intervals`. Two files of one utterance each are compared whatever their names.
        phones: Name or file of the inventory to fold both to; None: compare symbols as they are.
        closures_as_stops: Count TIMIT's closures as parts of their stops.
        tier: Name of the tier in TextGrids.
        label_rate: Units per second of whole-number times in .phn and .lab files; None: 16,000 for .phn, HTK's
            10,000,000 for .lab.
        json_file: If given, save the figures there.

    Returns:
        The result of `agreement.agreement_figures`, and the utterances `only_in_reference` and `only_in_hypothesis`.

    Raises:
        ValueError: If a file cannot be read, no utterance is in both, or as for `agreement_figures`.
    """
    paths = (reference, hypothesis)
    sides = [read_phone_intervals(path, tier=tier, label_rate=label_rate) for path in paths]
    if all(len(side) == 1 and _named_by_file(path) for side, path in zip(sides, paths, strict=True)):
        sides[1] = {next(iter(sides[0])): next(iter(sides[1].values()))}
    common = sorted(sides[0].keys() & sides[1].keys())
    unmatched = [sorted(side.keys() - set(common)) for side in sides]
    if not common:
        names = [next(iter(side), "none") for side in sides]
        raise ValueError(f"{reference} and {hypothesis} share no utterance; their first ones: {', '.join(names)}")
    for path, names in zip(paths, unmatched, strict=True):
        if names:
            more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
            logger.warning("%d utterances only in %s: %s%s", len(names), path, ", ".join(names[:NUM_NAMED]), more)
    for name in common if label_rate is None else ():
        _check_rates(name, *(side[name] for side in sides))
    pair = [{name: side[name] for name in common} for side in sides]
    if closures_as_stops:
        pair = [{name: merge_closures(intervals) for name, intervals in side.items()} for side in pair]
    figures = agreement_figures(pair[0], pair[1], None if phones is None else PhoneSet.load(phones))
    figures |= dict(zip(("only_in_reference", "only_in_hypothesis"), unmatched, strict=True))
    print(format_agreement(figures))
    if json_file is not None:
        save_json(json_file, figures)
    return figures


def read_phone_intervals(path: str | Path, *, tier: str = TIER, label_rate: float | None = None) -> Alignments:
    """Read the phones of all utterances in a file or folder, in samples at 16 kHz.

    Args:
        path: A file of Lhotse cuts (.jsonl or .jsonl.gz); a label file, see `labels.files.read_alignments`; or a
            folder, of which all visible label files at any depth are read that have the first suffix found in the
            order of `labels.files.SUFFIXES`. Utterances are named by their cut, by the first field of a CTM, or by
            the file's path below the folder without suffix.
        tier: Name of the tier in TextGrids.
        label_rate: See `score_files`.

    Raises:
        ValueError: If the file is missing or unreadable, the folder has no label file, or two utterances share a name.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, tier, label_rate)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        # Lhotse takes a second to import, and other files do not need it.
        from speechattn.cuts.files import phone_intervals, read_cuts

        return {cut.id: phone_intervals(cut) for cut in read_cuts(path)}
    return {
        name: [Interval(round(s.start * SAMPLE_RATE), round(s.end * SAMPLE_RATE), s.phone) for s in segments]
        for name, segments in read_alignments(path, tier=tier, label_rate=label_rate).items()
    }


def _read_folder(folder: Path, tier: str, label_rate: float | None) -> Alignments:
    files = visible_files(folder, SUFFIXES)
    if not files:
        raise ValueError(f"{folder}: no label files found ({' '.join(SUFFIXES)})")
    suffix = min((path.suffix.lower() for path in files), key=SUFFIXES.index)
    alignments: Alignments = {}
    for path in (path for path in files if path.suffix.lower() == suffix):
        read = read_phone_intervals(path, tier=tier, label_rate=label_rate)
        if suffix != ".ctm":
            name = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
            read = {name: next(iter(read.values()))}
        for name, intervals in read.items():
            if name in alignments:
                raise ValueError(f"{path}: another file has an utterance {name}, too")
            alignments[name] = intervals
    return alignments


def _check_rates(name: str, reference: Sequence[Interval], hypothesis: Sequence[Interval]) -> None:
    """Refuse alignments whose ends differ by the ratio of 16 kHz and another common sample rate."""
    ends = sorted(max((interval.end for interval in intervals), default=0) for intervals in (reference, hypothesis))
    ratios = [max(rate, SAMPLE_RATE) / min(rate, SAMPLE_RATE) for rate in SAMPLE_RATES if rate != SAMPLE_RATE]
    if ends[0] > 0 and any(abs(ends[1] / ends[0] / ratio - 1) < RATIO_TOLERANCE for ratio in ratios):
        seconds = " and ".join(f"{end / SAMPLE_RATE:g} s" for end in ends)
        raise ValueError(f"utterance {name} ends at {seconds}: labels at another sample rate? use --label-rate")


def _named_by_file(path: str | Path) -> bool:
    """Whether a file holds a single utterance, which is named by the file."""
    return not Path(path).is_dir() and Path(path).suffix.lower() not in (".ctm", ".jsonl", ".gz")


def format_agreement(figures: Mapping[str, Any]) -> str:
    """Format the figures of `score_files` as text."""
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
            f"displacement within {max(map(int, figures['boundaries']))} ms: mean {shift['mean']:+.1f} ms, "
            f"mean absolute {shift['mean_absolute']:.1f} ms, median absolute {shift['median_absolute']:.1f} ms"
        )
    lines.append("agreement and number of frames per phone of the reference:")
    phones = sorted(figures["phones"].items(), key=lambda item: (-item[1]["num_frames"], item[0]))
    cells = [f"{symbol:<6}{percent(row['agreement']):>9}{row['num_frames']:>9,}" for symbol, row in phones]
    lines += ["  " + "    ".join(cells[first : first + 4]) for first in range(0, len(cells), 4)]
    return "\n".join(lines)
