"""Train, dev and test by speaker: drawn with a seed, or as lists say."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lhotse import MonoCut

from speechattn.cuts.manifest import SPLITS
from speechattn.labels.line_files import numbered_lines

__all__ = ["draw_speakers", "share_out", "split_cuts"]


def split_cuts(
    cuts: Sequence[MonoCut], *, dev: float | str, test: float | str, seed: int, known: Collection[str]
) -> dict[str, list[MonoCut]]:
    """Share utterances out among train, dev and test.

    Args:
        cuts: The utterances, each with its speaker.
        dev: Share of the speech, for speakers drawn with the seed; or a file with an utterance or a speaker a line.
        test: Likewise.
        seed: Of the draw.
        known: Every utterance and speaker that a list may name, those left out of `cuts` too.

    Returns:
        Split -> its cuts, in the order given; what is neither dev nor test is train.

    Raises:
        ValueError: When a list cannot be read, names somebody unknown or what the other one has, or there are too
            few speakers to draw from.
    """
    listed: dict[str, str] = {}
    for split, choice in (("dev", dev), ("test", test)):
        if isinstance(choice, str):
            for number, name in _read_list(Path(choice)):
                if name not in known:
                    raise ValueError(f"{choice}:{number}: {name} is neither an utterance nor a speaker of this corpus")
                if listed.setdefault(name, split) != split:
                    raise ValueError(f"{choice}:{number}: {name} is in the list of {listed[name]} already")
    splits: dict[str, list[MonoCut]] = {split: [] for split in SPLITS}
    free: list[MonoCut] = []
    seconds: dict[str, float] = {}
    for cut in cuts:
        speaker = cut.supervisions[0].speaker
        split_of_cut = listed.get(cut.id) or listed.get(speaker)
        if split_of_cut is not None:
            splits[split_of_cut].append(cut)
        else:
            free.append(cut)
            seconds[speaker] = seconds.get(speaker, 0.0) + cut.duration
    total = sum(cut.duration for cut in cuts)
    wanted = {s: share * total for s, share in (("dev", dev), ("test", test)) if not isinstance(share, str)}
    try:
        drawn = draw_speakers(seconds, wanted, seed) if wanted else {}
    except ValueError as error:
        raise ValueError(f"{error}; give lists, or see --speaker") from error
    for cut in free:
        splits[drawn.get(cut.supervisions[0].speaker, "train")].append(cut)
    return splits


def share_out(speakers: Collection[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Speaker -> split, for speakers with these shares of the utterances; `speakers` has one for each utterance."""
    return draw_speakers(Counter(speakers), {split: share * len(speakers) for split, share in shares.items()}, seed)


def draw_speakers(seconds: Mapping[str, float], wanted: Mapping[str, float], seed: int) -> dict[str, str]:
    """Draw whole speakers until each split has about as much speech as it should.

    In the order that the seed gives them, a speaker is taken if that brings the split nearer to what is wanted. A
    split that would get nobody gets whoever speaks least.

    Args:
        seconds: Speaker -> how long they speak; or how many utterances.
        wanted: Split -> how much of that it should get.
        seed: Of the order.

    Returns:
        Speaker -> split, for those drawn; at least one for each split, and at least one speaker is left over.

    Raises:
        ValueError: When there are too few speakers for that.
    """
    if len(seconds) <= len(wanted):
        raise ValueError(
            f"{len(seconds)} speakers cannot be shared out among train and {' and '.join(wanted)}: each split needs "
            "speakers of its own"
        )
    order = sorted(seconds)
    random.Random(seed).shuffle(order)
    drawn: dict[str, str] = {}
    for number, (split, target) in enumerate(wanted.items(), 1):
        needed_later = len(wanted) - number + 1  # a speaker for every later split, and one for train
        time, left = 0.0, [speaker for speaker in order if speaker not in drawn]
        for speaker in list(left):
            if len(left) > needed_later and abs(time + seconds[speaker] - target) < abs(time - target):
                drawn[speaker] = split
                left.remove(speaker)
                time += seconds[speaker]
        if split not in drawn.values():
            drawn[min(left, key=seconds.__getitem__)] = split
    return drawn


def _read_list(path: Path) -> list[tuple[int, str]]:
    """The first word of every line that is not blank, with the line's number."""
    return [(number, line.split()[0]) for number, line in numbered_lines(path)]
