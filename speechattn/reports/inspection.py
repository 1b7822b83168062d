"""Inspection of cuts: hours, speakers, class shares, overlaps between splits, example spectrograms.

It shows the most frequent silent faults of labels: a class that dominates, utterances without labels, speakers or
sentences in both train and test.
"""

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
NUM_EXAMPLES = 3  # per split
EXAMPLE_SECONDS = 8
NUM_LISTED = 5  # names on screen and page; inspection.json lists all


class _Labels(NamedTuple):
    """Phones and length of an utterance, in samples at 16 kHz."""

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
    """Print a summary of cuts, and optionally write it with a page of examples.

    Args:
        paths: Files of cuts, one per split; splits are named by their files.
        phones: Name of the phone set to fold to; None: see `inspect_cuts`.
        output: Folder for inspection.json and index.html; None: write nothing.
        seed: Random seed for the examples.
        max_share: Refuse problems (see `find_problems`) after printing and writing; None: refuse nothing. Splits may
            share speakers if the preparation marked this, see `cuts.files.speaker_in_train`.
        allow_unlabelled: Whether a split may have no labels.

    Raises:
        ValueError: If a file does not hold cuts, labels are wrong, or a problem is refused.
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
    """Summarise cuts.

    Args:
        sets: Split -> its Lhotse cuts.
        phones: Name of the phone set to count in; a TIMIT set also takes ARPAbet. None: the largest of TIMIT's 61, 48
            or 39 and ARPAbet's 41 phones that contains all symbols, else the symbols themselves.

    Returns:
        - `phones`: name of the phone set;
        - `splits`: for each split `utterances`, `hours`, `speakers`, `frames` (of the default geometry),
          `frames_ignored` (no label, or one without a class), `silence_share` of the labelled frames (None if the set
          has no silence), `shares` of the classes, most frequent first, `unlabelled` utterances, `longest` and
          `shortest` ([id, seconds]);
        - `overlaps`: for each pair of splits the common `speakers`, `utterances` (ids), and `sentences` (transcripts in
          lower case, without punctuation).

    Raises:
        ValueError: If labels overlap, or a symbol is not in the phone set; names the cut.
    """
    labels = {name: [_labels(cut) for cut in cuts] for name, cuts in sets.items()}
    symbols = {i.symbol for utterances in labels.values() for each in utterances for i in each.intervals}
    inventory = PhoneSet.load(phones).accepting_arpabet() if phones is not None else _inventory(symbols)
    ids = inventory.ids(symbols)
    identities = {name: _identities(cuts) for name, cuts in sets.items()}
    return {
        "phones": inventory.name,
        "splits": {
            name: _split_figures(cuts, labels[name], len(identities[name]["speakers"]), inventory, ids)
            for name, cuts in sets.items()
        },
        "overlaps": {
            f"{one}, {other}": {
                kind: sorted(identities[one][kind] & identities[other][kind]) for kind in identities[one]
            }
            for one, other in combinations(sets, 2)
        },
    }


def _labels(cut: Any) -> _Labels:
    alignments = [supervision.alignment or {} for supervision in cut.supervisions]
    has_phones = any(alignment.get("phone") for alignment in alignments)
    rate = GEOMETRY.sample_rate
    return _Labels(phone_intervals(cut, rate) if has_phones else [], round(cut.duration * rate))


def _inventory(symbols: set[str]) -> PhoneSet:
    """The largest named set that contains all these symbols, else a set of the symbols."""
    for name in PHONETIC_SETS:
        phones = PhoneSet.load(name)
        if symbols and symbols <= phones.folding.keys():
            return phones
    return PhoneSet.of(sorted(symbols) or ["-"])


def _identities(cuts: Iterable[Any]) -> dict[str, set[str]]:
    """Speakers, utterances and sentences, which splits should not share."""
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
    """List the problems that should stop a run.

    Args:
        figures: From `inspect_cuts`.
        max_share: Largest share of the labelled frames that a class may have.
        allow_shared_speakers: Whether splits may share speakers, as in the published split of the CPC labels.
        allow_unlabelled: Whether a split may have no labels, such as the test set of a competition.

    Returns:
        One line per problem: an empty split, a split without labels, a class above `max_share`, utterances or speakers
        in two splits.
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
    """Format the figures as a text table with one column per split."""
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

    def majority(split: Mapping[str, Any]) -> str:
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
        ["most frequent class", *(majority(split) for split in splits.values())],
        ["silence", *(percent(split["silence_share"], 1) for split in splits.values())],
        ["longest", *(length(split["longest"]) for split in splits.values())],
        ["shortest", *(length(split["shortest"]) for split in splits.values())],
    ]


def _remarks(figures: Mapping[str, Any]) -> Iterator[str]:
    """Details below the table."""
    for name, split in figures["splits"].items():
        if split["unlabelled"]:
            yield f"{name}: without labels: {_listing(split['unlabelled'])}"
    for pair, shared in figures["overlaps"].items():
        found = [f"{len(items)} {kind}" for kind, items in shared.items() if items]
        yield f"{pair}: " + (f"share {', '.join(found)}" if found else "nothing in common")


def _listing(names: Sequence[str]) -> str:
    return " ".join(names[:NUM_LISTED]) + (f" and {len(names) - NUM_LISTED} more" if len(names) > NUM_LISTED else "")


def write_inspection(
    folder: Path, figures: Mapping[str, Any], sets: Mapping[str, Sequence[Any]], *, seed: int = 0
) -> None:
    """Write inspection.json, and index.html with figures, class shares, and spectrograms with their labels.

    Args:
        folder: The folder; created if missing.
        figures: From `inspect_cuts`, for the same sets.
        sets: Split -> its cuts.
        seed: Random seed for the examples.

    Raises:
        ValueError: If the audio of an example cannot be read; names the cut.
    """
    save_json(folder / "inspection.json", figures)
    save_text(folder / "index.html", _page(figures, sets, seed))


def _page(figures: Mapping[str, Any], sets: Mapping[str, Sequence[Any]], seed: int) -> str:
    header, *rows = _table(figures)
    remarks = [element("p", remark) for remark in _remarks(figures)]
    sections: dict[str, list[Html]] = {"Figures": [table("One column per split", header, rows), *remarks]}
    shares = {name: split["shares"] for name, split in figures["splits"].items() if split["shares"]}
    if shares:
        sections["Class shares"] = [picture(plot_shares(shares), "bars: class shares in each split")]
    for name, cuts in sets.items():
        with_audio = [cut for cut in cuts if cut.has_recording]
        chosen = random.Random(f"{seed} {name}").sample(with_audio, min(NUM_EXAMPLES, len(with_audio)))
        examples = []
        for cut in chosen:
            text = " ".join(supervision.text or "" for supervision in cut.supervisions)
            drawn = picture(_draw(cut), f"spectrogram of {cut.id} with its phones")
            examples += [element("h3", cut.id), element("p", text), drawn]
        if chosen:
            sections[f"{name}: {len(chosen)} utterances, drawn with seed {seed}"] = examples
    return page("Inspection of cuts", sections)


def _draw(cut: Any) -> Any:
    """Draw the first seconds of an utterance with its phones."""
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
