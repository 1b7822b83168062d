"""What is in sets of cuts: hours, speakers, shares of the classes, overlaps, samples to look at.

The commonest silent faults of labels show here: a class that swallows the others, utterances without labels, speakers
or sentences that are trained on and scored.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from speechattn.cuts.files import phone_intervals, read_cuts, speaker_in_train
from speechattn.evaluation.metrics import percent
from speechattn.geometry import Geometry
from speechattn.jobs.atomic import save_json, save_text
from speechattn.labels.frames import frame_labels
from speechattn.labels.intervals import Interval, Segment
from speechattn.phones import IGNORED, PHONETIC_SETS, PhoneSet
from speechattn.plots import plot_labels, plot_shares
from speechattn.reports.html import Html, element, page, picture, table

__all__ = ["find_problems", "format_inspection", "inspect_cuts", "inspect_files", "write_inspection"]

GEOMETRY = Geometry()
EXAMPLES = 3  # utterances of a set that are drawn
EXAMPLE_SECONDS = 8
LISTED = 5  # names of a kind on screen and on the page; inspection.json has all


class _Labels(NamedTuple):
    """An utterance: its phones, and its length in samples at 16 kHz."""

    intervals: list[Interval]
    num_samples: int


def inspect_files(
    paths: Sequence[str | Path],
    *,
    phones: str | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    max_share: float | None = None,
    allow_unlabelled: bool = False,
) -> None:
    """Print what is in files of cuts; write it, and a page with examples, where that is wanted.

    Args:
        paths: Files of cuts, one a split; a split is called after its file.
        phones: Name of the phone set to fold to; None: see `inspect_cuts`.
        output: Folder for inspection.json and index.html.
        seed: Draws the examples.
        max_share: Refuse problems (see `find_problems`) after all is printed and written; None: refuse nothing.
            Splits may share speakers where the preparation has marked it, see `cuts.files.speaker_in_train`.
        allow_unlabelled: Whether a split may have no labels at all.

    Raises:
        ValueError: When a file is not one of cuts, labels are not right, or there is a problem.
    """
    names = [Path(path).name.removesuffix(".gz").removesuffix(".jsonl") for path in paths]
    if len(set(names)) != len(names):
        raise ValueError(f"files of cuts must differ in their names, got {' '.join(names)}")
    sets = {name: list(read_cuts(path)) for name, path in zip(names, paths, strict=True)}
    figures = inspect_cuts(sets, phones=phones)
    print(format_inspection(figures))
    if output is not None:
        write_inspection(Path(output), figures, sets, seed=seed)
    if max_share is not None:
        problems = find_problems(
            figures,
            max_share=max_share,
            allow_shared_speakers=any(speaker_in_train(cut) for cuts in sets.values() for cut in cuts),
            allow_unlabelled=allow_unlabelled,
        )
        if problems:
            raise ValueError("; ".join(problems))


def inspect_cuts(sets: Mapping[str, Sequence[Any]], *, phones: str | None = None) -> dict[str, Any]:
    """Figures on sets of cuts.

    Args:
        sets: Name of a split -> its Lhotse cuts.
        phones: Name of the phone set whose classes are counted; a TIMIT set also takes ARPAbet. None: the one that the
            symbols are of, as they stand (TIMIT's 61, 48 or 39, or ARPAbet's 41), else the symbols themselves.

    Returns:
        `phones`, the set's name; `splits`: for each name `utterances`, `hours`, `speakers`, `frames` (10 ms, as the
        default geometry has them), `frames_ignored` (no label, or one that the phone set has no class for),
        `silence_share` of the labelled frames (None where the set has no silence), `shares` of the classes, commonest
        first, `unlabelled` utterances, `longest` and `shortest` ([id, seconds]); `overlaps`: for each two, the shared
        `speakers`, `utterances` (ids), and `sentences` (the transcript in lower case, without punctuation).

    Raises:
        ValueError: When labels overlap, or a symbol is not of the phone set; names the cut.
    """
    labels = {name: [_labels(cut) for cut in cuts] for name, cuts in sets.items()}
    symbols = {i.symbol for utterances in labels.values() for each in utterances for i in each.intervals}
    inventory = PhoneSet.load(phones).accepting_arpabet() if phones is not None else _inventory(symbols)
    ids = inventory.ids(symbols)
    held = {name: _held(cuts) for name, cuts in sets.items()}
    return {
        "phones": inventory.name,
        "splits": {
            name: _split_figures(cuts, labels[name], len(held[name]["speakers"]), inventory, ids)
            for name, cuts in sets.items()
        },
        "overlaps": {
            f"{one}, {other}": {kind: sorted(held[one][kind] & held[other][kind]) for kind in held[one]}
            for one, other in combinations(sets, 2)
        },
    }


def _labels(cut: Any) -> _Labels:
    alignments = [supervision.alignment or {} for supervision in cut.supervisions]
    has_phones = any(alignment.get("phone") for alignment in alignments)
    rate = GEOMETRY.sample_rate
    return _Labels(phone_intervals(cut, rate) if has_phones else [], round(cut.duration * rate))


def _inventory(symbols: set[str]) -> PhoneSet:
    """The named set that has all these symbols as they stand, the largest first; else a set of the symbols."""
    for name in PHONETIC_SETS:
        phones = PhoneSet.load(name)
        if symbols and symbols <= phones.folding.keys():
            return phones
    return PhoneSet.of(sorted(symbols) or ["-"])


def _held(cuts: Iterable[Any]) -> dict[str, set[str]]:
    """What no two splits should have in common."""
    supervisions = [supervision for cut in cuts for supervision in cut.supervisions]
    sentences = (re.sub(r"[^\w' ]+", " ", (each.text or "").casefold()).split() for each in supervisions)
    return {
        "speakers": {str(each.speaker) for each in supervisions if each.speaker is not None},
        "utterances": {cut.id for cut in cuts},
        "sentences": {" ".join(words) for words in sentences if words},
    }


def _split_figures(
    cuts: Sequence[Any], labels: Sequence[_Labels], num_speakers: int, phones: PhoneSet, ids: Mapping[str, int]
) -> dict[str, Any]:
    counts: Counter[int] = Counter()
    for cut, (intervals, num_samples) in zip(cuts, labels, strict=True):
        try:
            counts.update(frame_labels(intervals, num_samples, ids).tolist())
        except ValueError as error:
            raise ValueError(f"cut {cut.id}: {error}") from error
    ignored = counts.pop(IGNORED, 0)
    labelled = sum(counts.values())
    silent = sum(counts[phones.symbols.index(symbol)] for symbol in phones.silences)
    by_length = sorted((float(cut.duration), cut.id) for cut in cuts)
    return {
        "utterances": len(cuts),
        "hours": sum(cut.duration for cut in cuts) / 3600,
        "speakers": num_speakers,
        "frames": labelled + ignored,
        "frames_ignored": ignored,
        "silence_share": silent / labelled if phones.silences and labelled else None,
        "shares": {phones.symbols[index]: count / labelled for index, count in counts.most_common()},
        "unlabelled": [cut.id for cut, (intervals, _) in zip(cuts, labels, strict=True) if not intervals],
        "longest": list(reversed(by_length[-1])) if by_length else None,
        "shortest": list(reversed(by_length[0])) if by_length else None,
    }


def find_problems(
    figures: Mapping[str, Any],
    *,
    max_share: float,
    allow_shared_speakers: bool = False,
    allow_unlabelled: bool = False,
) -> list[str]:
    """What no training should begin with, a line each.

    Args:
        figures: From `inspect_cuts`.
        max_share: The largest share of the labelled frames that a class may have.
        allow_shared_speakers: Whether splits may share speakers, as the published split of the CPC labels does.
        allow_unlabelled: Whether a split may have no labels, as one whose labels somebody keeps.

    Returns:
        An empty split, one without labels, a class above `max_share`, utterance ids or speakers in two splits.
    """
    problems = []
    for name, split in figures["splits"].items():
        if not split["utterances"]:
            problems.append(f"{name} has no utterances")
        elif not split["shares"] and not allow_unlabelled:
            problems.append(f"{name} has no labelled frame")
        for symbol, share in split["shares"].items():
            if share > max_share:
                problems.append(f"{100 * share:.1f} % of the labelled frames of {name} are {symbol!r}")
    for pair, shared in figures["overlaps"].items():
        for kind in ("utterances",) if allow_shared_speakers else ("utterances", "speakers"):
            if shared[kind]:
                problems.append(f"{pair} share {len(shared[kind])} {kind}, such as {shared[kind][0]}")
    return problems


def format_inspection(figures: Mapping[str, Any]) -> str:
    """The figures as a table for a terminal: a column a split."""
    rows = _table(figures)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([*lines, *_remarks(figures)])


def _table(figures: Mapping[str, Any]) -> list[list[str]]:
    splits = figures["splits"]

    def commonest(split: Mapping[str, Any]) -> str:
        return next((f"{symbol} {percent(share, 1)}" for symbol, share in split["shares"].items()), "-")

    def length(utterance: Sequence[Any] | None) -> str:
        return "-" if utterance is None else f"{utterance[1]:.2f} s"

    return [
        [f"classes: {figures['phones']}", *splits],
        ["utterances", *(f"{split['utterances']:,}" for split in splits.values())],
        ["hours", *(f"{split['hours']:.2f}" for split in splits.values())],
        ["speakers", *(f"{split['speakers']:,}" for split in splits.values())],
        ["frames", *(f"{split['frames']:,}" for split in splits.values())],
        ["frames ignored", *(f"{split['frames_ignored']:,}" for split in splits.values())],
        ["utterances without labels", *(f"{len(split['unlabelled']):,}" for split in splits.values())],
        ["classes that occur", *(f"{len(split['shares'])}" for split in splits.values())],
        ["commonest class", *(commonest(split) for split in splits.values())],
        ["silence", *(percent(split["silence_share"], 1) for split in splits.values())],
        ["longest", *(length(split["longest"]) for split in splits.values())],
        ["shortest", *(length(split["shortest"]) for split in splits.values())],
    ]


def _remarks(figures: Mapping[str, Any]) -> Iterator[str]:
    """What a table has no room for."""
    for name, split in figures["splits"].items():
        if split["unlabelled"]:
            yield f"{name}: without labels: {_listing(split['unlabelled'])}"
    for pair, shared in figures["overlaps"].items():
        found = [f"{len(items)} {kind}" for kind, items in shared.items() if items]
        yield f"{pair}: " + (f"share {', '.join(found)}" if found else "nothing in common")


def _listing(names: Sequence[str]) -> str:
    return " ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def write_inspection(
    folder: Path, figures: Mapping[str, Any], sets: Mapping[str, Sequence[Any]], *, seed: int = 0
) -> None:
    """Write inspection.json, and index.html: the figures, shares of the classes, and spectrograms with their labels.

    Args:
        folder: Where to; made when missing.
        figures: From `inspect_cuts`, of the same sets.
        sets: Name of a split -> its cuts.
        seed: Draws the utterances that are shown.

    Raises:
        ValueError: When the audio of an example cannot be read; names the cut.
    """
    save_json(folder / "inspection.json", figures)
    save_text(folder / "index.html", _page(figures, sets, seed))


def _page(figures: Mapping[str, Any], sets: Mapping[str, Sequence[Any]], seed: int) -> str:
    header, *rows = _table(figures)
    remarks = [element("p", remark) for remark in _remarks(figures)]
    sections: dict[str, list[Html]] = {"Figures": [table("A column for each set of cuts", header, rows), *remarks]}
    shares = {name: split["shares"] for name, split in figures["splits"].items() if split["shares"]}
    if shares:
        sections["Shares of the classes"] = [picture(plot_shares(shares), "bars: shares of the classes in each set")]
    for name, cuts in sets.items():
        with_audio = [cut for cut in cuts if cut.has_recording]
        chosen = random.Random(f"{seed} {name}").sample(with_audio, min(EXAMPLES, len(with_audio)))
        examples = []
        for cut in chosen:
            text = " ".join(supervision.text or "" for supervision in cut.supervisions)
            drawn = picture(_draw(cut), f"spectrogram of {cut.id} with its phones")
            examples += [element("h3", cut.id), element("p", text), drawn]
        if chosen:
            sections[f"{name}: {len(chosen)} utterances, drawn with seed {seed}"] = examples
    return page("What is in these cuts", sections)


def _draw(cut: Any) -> Any:
    """The beginning of an utterance, with its phones as they stand in the cut."""
    from speechattn.cuts.model_inputs import cut_waveform

    rate = cut.sampling_rate
    samples = cut_waveform(cut)[: EXAMPLE_SECONDS * rate]
    geometry = Geometry(rate, round(0.025 * rate), round(0.01 * rate))
    end = len(samples) / rate
    segments = [
        Segment(symbol, start / GEOMETRY.sample_rate, min(stop / GEOMETRY.sample_rate, end))
        for start, stop, symbol in _labels(cut).intervals
        if start / GEOMETRY.sample_rate < end
    ]
    return plot_labels(samples, segments, geometry)
