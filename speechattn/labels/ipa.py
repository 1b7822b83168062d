"""Relabel segments: with IPA symbols, or as speech and silence."""

from collections.abc import Collection, Sequence

from speechattn.assets import asset_lines
from speechattn.labels.intervals import Segment

__all__ = ["in_ipa", "ipa_symbols", "speech_and_silence"]

MIN_PAUSE_S, MIN_SPEECH_S = 0.2, 0.1


def in_ipa(segments: Sequence[Segment]) -> list[Segment]:
    """The same segments with IPA symbols; silence and noise are named `sil` and `spn`.

    Raises:
        ValueError: As for `ipa_symbols`.
    """
    names = ipa_symbols({segment.phone for segment in segments})
    return [segment._replace(phone=names[segment.phone]) for segment in segments]


def ipa_symbols(symbols: Collection[str]) -> dict[str, str]:
    """Map symbols of `arpabet41` (without stress) or of TIMIT's sets to the International Phonetic Alphabet.

    Raises:
        ValueError: When a symbol belongs to neither; names it.

    Example:
        >>> ipa_symbols(["SH", "axr"])
        {'SH': 'ʃ', 'axr': 'ɚ'}
    """
    table = dict(line.split("\t") for line in asset_lines("phones/ipa.tsv"))
    if unknown := sorted(set(symbols) - set(table)):
        raise ValueError(f"no IPA symbol for {' '.join(unknown)}: only ARPAbet's and TIMIT's phones have one")
    return {symbol: table[symbol] for symbol in symbols}


def speech_and_silence(segments: Sequence[Segment], silences: Collection[str]) -> list[Segment]:
    """Merge contiguous phones into alternating segments `speech` and `silence`.

    Pauses shorter than 0.2 s between speech become speech. After that, speech shorter than 0.1 s between silences
    becomes silence. The confidence is the mean over the merged phones, weighted by duration.
    """
    kinds = ["silence" if segment.phone in silences else "speech" for segment in segments]
    turns = _merged([segment._replace(phone=kind) for segment, kind in zip(segments, kinds, strict=True)])
    for kind, other, shortest in (("silence", "speech", MIN_PAUSE_S), ("speech", "silence", MIN_SPEECH_S)):
        inner = [
            turn._replace(phone=other) if turn.phone == kind and turn.end - turn.start < shortest else turn
            for turn in turns[1:-1]
        ]
        turns = _merged([*turns[:1], *inner, *turns[1:][-1:]])
    return turns


def _merged(segments: Sequence[Segment]) -> list[Segment]:
    """Merge adjacent segments with the same name."""
    merged: list[Segment] = []
    for segment in segments:
        if not merged or merged[-1].phone != segment.phone:
            merged.append(segment)
            continue
        before = merged[-1]
        durations = before.end - before.start, segment.end - segment.start
        confidence = (before.confidence * durations[0] + segment.confidence * durations[1]) / sum(durations)
        merged[-1] = Segment(segment.phone, before.start, segment.end, confidence)
    return merged
