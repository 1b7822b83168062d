"""Segments under other names: in the International Phonetic Alphabet, or as speech and silence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

from speechattn.assets import asset_lines
from speechattn.labels.intervals import Segment

__all__ = ["in_ipa", "ipa_symbols", "speech_and_silence"]

SHORTEST_PAUSE_S, SHORTEST_SPEECH_S = 0.2, 0.1


def in_ipa(segments: Sequence[Segment]) -> list[Segment]:
    """The same segments with IPA symbols; silence and noise keep names of their own, `sil` and `spn`.

    Raises:
        ValueError: As for `ipa_symbols`.
    """
    names = ipa_symbols({segment.phone for segment in segments})
    return [segment._replace(phone=names[segment.phone]) for segment in segments]


def ipa_symbols(symbols: Collection[str]) -> dict[str, str]:
    """Each ARPAbet symbol's in the International Phonetic Alphabet.

    Args:
        symbols: Of `arpabet41` (without stress) or of TIMIT's sets.

    Raises:
        ValueError: When one is neither; names it.

    Example:
        >>> ipa_symbols(["SH", "axr"])
        {'SH': 'ʃ', 'axr': 'ɚ'}
    """
    table = _table()
    if unknown := sorted(set(symbols) - set(table)):
        raise ValueError(f"no IPA symbol is known for {' '.join(unknown)}: only ARPAbet's and TIMIT's phones have one")
    return {symbol: table[symbol] for symbol in symbols}


@cache
def _table() -> dict[str, str]:
    return dict(line.split("\t") for line in asset_lines("phones/ipa.tsv"))


def speech_and_silence(segments: Sequence[Segment], silences: Collection[str]) -> list[Segment]:
    """Where somebody speaks: segments `speech` and `silence` in turns.

    A pause of less than 0.2 s between speech is speech; then, what lasts less than 0.1 s between silence is silence.

    Args:
        segments: Phones that follow each other without gaps.
        silences: Those that are silence.

    Returns:
        Segments over the same time; confidence is the mean of their phones', by how long they last.
    """
    kinds = ["silence" if segment.phone in silences else "speech" for segment in segments]
    turns = _merged([segment._replace(phone=kind) for segment, kind in zip(segments, kinds, strict=True)])
    for kind, other, shortest in (("silence", "speech", SHORTEST_PAUSE_S), ("speech", "silence", SHORTEST_SPEECH_S)):
        inner = range(1, len(turns) - 1)
        turns = _merged(
            [
                turn._replace(phone=other)
                if number in inner and turn.phone == kind and turn.end - turn.start < shortest
                else turn
                for number, turn in enumerate(turns)
            ]
        )
    return turns


def _merged(segments: Sequence[Segment]) -> list[Segment]:
    """Neighbours of one name as one."""
    merged: list[Segment] = []
    for segment in segments:
        if not merged or merged[-1].phone != segment.phone:
            merged.append(segment)
            continue
        before = merged[-1]
        longer = before.end - before.start, segment.end - segment.start
        confidence = (before.confidence * longer[0] + segment.confidence * longer[1]) / sum(longer)
        merged[-1] = Segment(segment.phone, before.start, segment.end, confidence)
    return merged
