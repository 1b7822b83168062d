"""Phone inventories and the foldings between them.

TIMIT's 61 symbols and their folding to 48 and 39 classes follow Lee and Hon, "Speaker-independent phone
recognition using hidden Markov models", 1989; the 41 ARPAbet classes are CMUdict's 39 phonemes without
stress, silence (SIL), and speech or noise that has no pronunciation (SPN). The tables are files in
`assets/phones/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from unicodedata import normalize

from speechattn.assets import asset_lines

__all__ = ["IGNORED", "PhoneSet", "read_phones", "strip_stress"]

IGNORED = -100  # the class of frames that neither loss nor score sees (PyTorch's own ignore_index)

NAMES = ("timit61", "timit48", "timit39", "arpabet41")
SILENCES = frozenset({"SIL", "sil"})
MFA_MARKS = {"sil": "SIL", "sp": "SIL", "": "SIL", "spn": "SPN"}  # Montreal Forced Aligner's names


def read_phones(path: str | Path) -> tuple[str, ...]:
    """The phones in a file, a symbol a line, as `speechattn prepare folder` leaves them; their order is kept.

    Raises:
        ValueError: When there is no such file, it is empty or not in UTF-8, a line has several words, or a symbol
            comes twice; names file and line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a file of phones in UTF-8: {error}") from error
    symbols: list[str] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if len(words) > 1:
            raise ValueError(f"{path}:{number}: expected one symbol, got {line!r}")
        symbol = normalize("NFC", words[0]) if words else ""
        if symbol in symbols:
            raise ValueError(f"{path}:{number}: {symbol!r} has a line already")
        symbols += [symbol] if symbol else []
    if not symbols:
        raise ValueError(f"{path}: holds no phones")
    return tuple(symbols)


def strip_stress(symbol: str) -> str:
    """An ARPAbet symbol without its stress digit.

    Example:
        >>> strip_stress("AA1"), strip_stress("SH"), strip_stress("ax-h")
        ('AA', 'SH', 'ax-h')
    """
    return re.sub(r"(?<=[A-Z])[012]$", "", symbol)


@dataclass(frozen=True)
class PhoneSet:
    """An inventory of phones: the classes of a model, and which symbols of a corpus fall into each.

    Make one with `PhoneSet.load` (a named set) or `PhoneSet.of` (any list of symbols).

    Args:
        name: One of `timit61`, `timit48`, `timit39`, `arpabet41`, or "custom".
        symbols: The phones; a phone's index is its class.
        folding: Every accepted symbol -> the symbol of this set, or None where its frames are ignored.
        silences: The symbols of this set that count as silence: in a TIMIT set those that fold to `sil` of
            the 39 (so closures are among them), `SIL` in `arpabet41`, `SIL` and `sil` in a custom set.

    Example:
        >>> phones = PhoneSet.load("timit39")
        >>> len(phones.symbols), phones.fold("ix"), phones.fold("tcl"), phones.fold("q")
        (39, 'ih', 'sil', None)
    """

    name: str
    symbols: tuple[str, ...]
    folding: Mapping[str, str | None] = field(repr=False, hash=False)
    silences: frozenset[str] = field(repr=False)

    @staticmethod
    def load(name: str) -> PhoneSet:
        """A set by its name, or from a file, see `read_phones`.

        A TIMIT set accepts the symbols of every larger set (`timit39`: the 61, the 48 and the 39). `q`, the
        glottal stop, is a class of `timit61` and ignored in the smaller sets, where Lee and Hon give it none.
        `arpabet41` also accepts vowels with a stress digit, and `sil`, `sp`, `spn` and the empty mark of the
        Montreal Forced Aligner. Case matters: TIMIT's symbols are lower case, ARPAbet's upper case.

        Raises:
            ValueError: When there is no such set, or the file is none of phones.
        """
        if name not in NAMES and Path(name).is_file():
            return PhoneSet.of(read_phones(name))
        if name not in NAMES:
            raise ValueError(f"unknown phone set {name!r}; there are {', '.join(NAMES)}, or the path of a file")
        return _arpabet() if name == "arpabet41" else _timit(int(name.removeprefix("timit")))

    @staticmethod
    def of(symbols: Iterable[str], name: str = "custom") -> PhoneSet:
        """A set with these symbols, in this order, as a model's configuration stores it.

        Args:
            symbols: The phones, each once.
            name: A named set: its folding is used, and the symbols must be its own, in any order. Any other
                name: the set accepts its own symbols only.

        Raises:
            ValueError: When there are no symbols, one occurs twice, or they are not those of the named set.
        """
        symbols = tuple(symbols)
        if not symbols:
            raise ValueError("a phone set needs at least one symbol")
        twice = sorted({symbol for symbol in symbols if symbols.count(symbol) > 1})
        if twice:
            raise ValueError(f"phone set {name!r} has symbols more than once: {' '.join(twice)}")
        if name not in NAMES:
            return PhoneSet(name, symbols, {symbol: symbol for symbol in symbols}, SILENCES & set(symbols))
        known = PhoneSet.load(name)
        odd = sorted(set(symbols) ^ set(known.symbols))
        if odd:
            raise ValueError(f"not the symbols of phone set {name!r}; missing or too many: {' '.join(odd)}")
        return PhoneSet(name, symbols, known.folding, known.silences)

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.symbols)

    @property
    def pause(self) -> str | None:
        """The symbol for a long pause: `SIL`, `sil` or `h#`, whichever is a silence of this set; None if none is."""
        return next((symbol for symbol in ("SIL", "sil", "h#") if symbol in self.silences), None)

    def accepting_arpabet(self) -> PhoneSet:
        """A TIMIT set that also folds ARPAbet's symbols, for comparisons across corpora; other sets unchanged.

        ARPAbet's symbols are TIMIT's in upper case. SIL becomes `pause`, SPN is ignored.
        """
        if not self.name.startswith("timit"):
            return self
        places = {"SIL": self.pause, "SPN": None}
        arpabet = {
            symbol: places[phone] if phone in places else self.fold(phone.lower())
            for symbol, phone in _arpabet().folding.items()
            if phone is not None
        }
        return replace(self, folding={**arpabet, **self.folding})

    def fold(self, symbol: str) -> str | None:
        """The symbol of this set that a corpus's symbol falls into; None where it is ignored.

        Raises:
            ValueError: When the set does not know the symbol.
        """
        if symbol not in self.folding:
            shown = " ".join(self.symbols[:6]) + (" ..." if len(self) > 6 else "")
            raise ValueError(f"phone {symbol!r} is not of set {self.name!r} ({len(self)} symbols: {shown})")
        return self.folding[symbol]

    def ids(self, symbols: Iterable[str]) -> dict[str, int]:
        """The class of each of a corpus's symbols, as `frame_labels` takes it.

        Args:
            symbols: Symbols of the corpus, in any order, repeated or not.

        Returns:
            Symbol -> class after folding, IGNORED (-100) for ignored ones.

        Raises:
            ValueError: When the set does not know a symbol.

        Example:
            >>> PhoneSet.load("timit39").ids(["aa", "ao", "q"])
            {'aa': 0, 'ao': 0, 'q': -100}
        """
        index: dict[str | None, int] = {symbol: number for number, symbol in enumerate(self.symbols)}
        return {symbol: index.get(self.fold(symbol), IGNORED) for symbol in symbols}


@cache
def _timit(size: int) -> PhoneSet:
    header, *rows = (line.split() for line in asset_lines("phones/timit.tsv"))
    column = header.index(str(size))
    folding: dict[str, str | None] = {}
    silences = set()
    for row in rows:
        target = None if row[column] == "-" else row[column]
        for symbol in row[: column + 1]:
            if symbol != "-":
                folding[symbol] = target
        if target is not None and row[-1] == "sil":
            silences.add(target)
    symbols = tuple(sorted({symbol for symbol in folding.values() if symbol is not None}))
    return PhoneSet(f"timit{size}", symbols, folding, frozenset(silences))


@cache
def _arpabet() -> PhoneSet:
    symbols = tuple(line.split()[0] for line in asset_lines("phones/arpabet41.txt"))
    folding: dict[str, str | None] = {symbol: symbol for symbol in symbols}
    # In ARPAbet exactly the vowels begin with a vowel letter.
    folding |= {symbol + stress: symbol for symbol in symbols if symbol[0] in "AEIOU" for stress in "012"}
    return PhoneSet("arpabet41", symbols, folding | MFA_MARKS, frozenset({"SIL"}))
