"""Splits by speaker: train, dev and test drawn with a seed, or taken from lists."""

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from lhotse import MonoCut

from speechattn.cuts.files import SPLITS
from speechattn.jobs.text import numbered_lines

__all__ = ["draw_by_utterances", "draw_speakers", "split_cuts"]


def split_cuts(
    cuts: Sequence[MonoCut], *, dev: float | str, test: float | str, seed: int, allowed: Collection[str]
) -> dict[str, list[MonoCut]]:
    """Divide utterances into train, dev and test.

    Args:
        cuts: The utterances, each with its speaker.
        dev: Share of the speech, in (0, 1), for speakers drawn with the seed; or a file with one utterance or speaker
            per line.
        test: Likewise.
        seed: Seed of the draw.
        allowed: All utterances and speakers that a list may name, including those rejected from `cuts`.

    Returns:
        Split -> its cuts, in their original order; what is neither dev nor test is train.

    Raises:
        ValueError: When a list cannot be read, names somebody unknown or somebody in the other list, or there are too
            few speakers to draw from.
    """
    listed: dict[str, str] = {}
    for split, choice in (("dev", dev), ("test", test)):
        if isinstance(choice, str):
            for number, line in numbered_lines(choice):
                name = line.split()[0]
                if name not in allowed:
                    raise ValueError(f"{choice}:{number}: {name} is neither an utterance nor a speaker of this corpus")
                if listed.setdefault(name, split) != split:
                    raise ValueError(f"{choice}:{number}: {name} is in the list of {listed[name]} already")
    splits: dict[str, list[MonoCut]] = {split: [] for split in SPLITS}
    unlisted: list[MonoCut] = []
    seconds: defaultdict[str, float] = defaultdict(float)
    for cut in cuts:
        speaker = cut.supervisions[0].speaker
        if split_of_cut := listed.get(cut.id) or listed.get(speaker):
            splits[split_of_cut].append(cut)
        else:
            unlisted.append(cut)
            seconds[speaker] += cut.duration
    total = sum(cut.duration for cut in cuts)
    targets = {s: share * total for s, share in (("dev", dev), ("test", test)) if not isinstance(share, str)}
    try:
        drawn = draw_speakers(seconds, targets, seed) if targets else {}
    except ValueError as error:
        raise ValueError(f"{error}; give lists, or see --speaker") from error
    for cut in unlisted:
        splits[drawn.get(cut.supervisions[0].speaker, "train")].append(cut)
    return splits


def draw_by_utterances(speakers: Collection[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Draw speakers for these shares of the utterances, see `draw_speakers`; `speakers` has one entry per utterance."""
    return draw_speakers(Counter(speakers), {split: share * len(speakers) for split, share in shares.items()}, seed)


def draw_speakers(seconds: Mapping[str, float], targets: Mapping[str, float], seed: int) -> dict[str, str]:
    """Draw whole speakers until each split has about its target amount of speech.

    Speakers are visited in random order, and each is taken if that brings the split closer to its target. A split that
    would remain empty gets the speaker with the least speech.

    Args:
        seconds: Speaker -> amount of speech, in seconds or utterances.
        targets: Split -> its target amount, in the same unit.
        seed: Seed of the order.

    Returns:
        Speaker -> split, for the drawn ones; at least one per split, and at least one speaker is left over.

    Raises:
        ValueError: When there are too few speakers for that.
    """
    if len(seconds) <= len(targets):
        names = " and ".join(targets)
        problem = f"{len(seconds)} speakers cannot be divided among train and {names}"
        raise ValueError(f"{problem}: each split needs speakers of its own")
    order = sorted(seconds)
    random.Random(seed).shuffle(order)
    drawn: dict[str, str] = {}
    for number, (split, target) in enumerate(targets.items(), 1):
        needed_later = len(targets) - number + 1  # one speaker for every later split, and one for train
        amount, left = 0.0, [speaker for speaker in order if speaker not in drawn]
        for speaker in list(left):
            if len(left) > needed_later and abs(amount + seconds[speaker] - target) < abs(amount - target):
                drawn[speaker] = split
                left.remove(speaker)
                amount += seconds[speaker]
        if split not in drawn.values():
            drawn[min(left, key=seconds.__getitem__)] = split
    return drawn
