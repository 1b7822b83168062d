"""Phone inventories and the foldings between them.

TIMIT's 61 symbols and their folding to 48 and 39 classes follow Lee and Hon, "Speaker-independent phone recognition
using hidden Markov models", 1989. The 41 ARPAbet classes are CMUdict's 39 phonemes without stress, silence (SIL), and
speech or noise without a pronunciation (SPN). The 41 CPC classes, numbered from 0, are those of van den Oord et al.,
"Representation Learning with Contrastive Predictive Coding", 2018. The tables are files in `assets/phones/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from speechattn.assets import asset_lines
from speechattn.jobs.text import numbered_lines

__all__ = ["IGNORED", "PHONETIC_SETS", "PHONE_SETS", "PhoneSet", "read_phones", "strip_stress"]

IGNORED = -100  # class of frames that loss and scores leave out (PyTorch's default ignore_index)
PHONETIC_SETS = ("timit61", "timit48", "timit39", "arpabet41")  # recognisable by their symbols; larger sets come first
PHONE_SETS = (*PHONETIC_SETS, "cpc41")

SILENCES = frozenset({"SIL", "sil"})
MFA_MARKS = {"sil": "SIL", "sp": "SIL", "": "SIL", "spn": "SPN"}  # the Montreal Forced Aligner's


def read_phones(path: str | Path) -> tuple[str, ...]:
    """Read a file with one phone per line, as `speechattn prepare folder` writes it, in the file's order.

    Raises:
        ValueError: When the file is missing, empty or not in UTF-8, a line has several words, or a symbol is repeated;
            names file and line.
    """
    symbols: list[str] = []
    for number, line in numbered_lines(path):
        symbol, *more = line.split()
        if more:
            raise ValueError(f"{path}:{number}: expected one symbol, got {line!r}")
        if symbol in symbols:
            raise ValueError(f"{path}:{number}: {symbol!r} occurs twice")
        symbols.append(symbol)
    if not symbols:
        raise ValueError(f"{path}: holds no phones")
    return tuple(symbols)


def strip_stress(symbol: str) -> str:
    """Remove the stress digit of an ARPAbet symbol.

    Example:
        >>> strip_stress("AA1"), strip_stress("SH"), strip_stress("ax-h")
        ('AA', 'SH', 'ax-h')
    """
    return re.sub(r"(?<=[A-Z])[012]$", "", symbol)


@dataclass(frozen=True)
class PhoneSet:
    """A phone inventory: the classes of a model, and which class each symbol of a corpus belongs to.

    Create one with `PhoneSet.load` (a named set) or `PhoneSet.of` (any list of symbols).

    Args:
        name: One of `timit61`, `timit48`, `timit39`, `arpabet41`, `cpc41`, or "custom".
        symbols: The phones; a phone's index is its class.
        folding: Accepted symbol -> symbol of this set, or None if its frames are ignored.
        silences: The symbols that count as silence: in a TIMIT set those that the 39 fold to `sil`, closures included;
            `SIL` in `arpabet41`; none in `cpc41`; `SIL` and `sil` in a custom set.

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
        """Load a set by name, or from a file, see `read_phones`.

        A TIMIT set accepts the symbols of every larger set (`timit39`: the 61, the 48 and the 39). `q`, the glottal
        stop, is a class of `timit61`; the smaller sets ignore it, as Lee and Hon do. `arpabet41` also accepts vowels
        with a stress digit, and the Montreal Forced Aligner's `sil`, `sp`, `spn` and empty mark. Case matters: TIMIT's
        symbols are lower case, ARPAbet's upper case.

        Raises:
            ValueError: When there is no such set, or the file is not a valid list of phones.
        """
        if name not in PHONE_SETS and Path(name).is_file():
            return PhoneSet.of(read_phones(name))
        if name not in PHONE_SETS:
            raise ValueError(f"unknown phone set {name!r}; choose {', '.join(PHONE_SETS)}, or the path of a file")
        if name == "cpc41":
            symbols = tuple(asset_lines("phones/cpc41.txt"))
            return PhoneSet(name, symbols, {symbol: symbol for symbol in symbols}, frozenset())
        return _arpabet() if name == "arpabet41" else _timit(int(name.removeprefix("timit")))

    @staticmethod
    def of(symbols: Iterable[str], name: str = "custom") -> PhoneSet:
        """Build a set with these symbols, in this order, as a model's configuration stores it.

        If `name` is a named set, the symbols must be that set's, in any order, and its folding is used. With any other
        name, the set accepts only its own symbols.

        Raises:
            ValueError: When there are no symbols, one is repeated, or they are not those of the named set.
        """
        symbols = tuple(symbols)
        if not symbols:
            raise ValueError("a phone set needs at least one symbol")
        repeated = sorted({symbol for symbol in symbols if symbols.count(symbol) > 1})
        if repeated:
            raise ValueError(f"phone set {name!r} has symbols more than once: {' '.join(repeated)}")
        if name not in PHONE_SETS:
            return PhoneSet(name, symbols, {symbol: symbol for symbol in symbols}, SILENCES & set(symbols))
        named = PhoneSet.load(name)
        if difference := sorted(set(symbols) ^ set(named.symbols)):
            raise ValueError(f"not the symbols of phone set {name!r}; missing or extra: {' '.join(difference)}")
        return replace(named, symbols=symbols)

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def pause(self) -> str | None:
        """The symbol for a long pause: `SIL`, `sil` or `h#`, whichever is a silence of this set; None if none is."""
        return next((symbol for symbol in ("SIL", "sil", "h#") if symbol in self.silences), None)

    def accepting_arpabet(self) -> PhoneSet:
        """A TIMIT set that also folds ARPAbet symbols, for comparisons across corpora; other sets unchanged.

        ARPAbet symbols are TIMIT's in upper case. SIL becomes `pause`, SPN is ignored.
        """
        if not self.name.startswith("timit"):
            return self
        special = {"SIL": self.pause, "SPN": None}
        arpabet = {
            symbol: special[phone] if phone in special else self.fold(phone.lower())
            for symbol, phone in _arpabet().folding.items()
            if phone is not None
        }
        return replace(self, folding={**arpabet, **self.folding})

    def fold(self, symbol: str) -> str | None:
        """Fold a corpus symbol to this set; None if it is ignored.

        Raises:
            ValueError: When the set does not accept the symbol.
        """
        if symbol not in self.folding:
            shown = " ".join(self.symbols[:6]) + (" ..." if len(self) > 6 else "")
            raise ValueError(f"phone {symbol!r} is not in set {self.name!r} ({len(self)} symbols: {shown})")
        return self.folding[symbol]

    def ids(self, symbols: Iterable[str]) -> dict[str, int]:
        """Map corpus symbols to classes, for `frame_labels`; ignored symbols have class IGNORED (-100).

        Raises:
            ValueError: When the set does not accept a symbol.

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
        folding |= {symbol: target for symbol in row[: column + 1] if symbol != "-"}
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
