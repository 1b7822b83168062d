"""Inventories and foldings: every symbol once, and nothing accepted by accident."""

import pickle
from collections import Counter

import pytest

from speechattn.phones import IGNORED, PHONE_SETS, PhoneSet, strip_stress

# Written out by hand, apart from the package's table: what folding changes (Lee and Hon, 1989).
FOLDED_TO_39 = {
    "ao": "aa", "ax": "ah", "ax-h": "ah", "axr": "er", "hv": "hh", "ix": "ih", "el": "l", "em": "m",
    "en": "n", "nx": "n", "eng": "ng", "zh": "sh", "ux": "uw", "pcl": "sil", "tcl": "sil",
    "kcl": "sil", "bcl": "sil", "dcl": "sil", "gcl": "sil", "h#": "sil", "pau": "sil", "epi": "sil",
    "q": None,
}  # fmt: skip
FOLDED_TO_48 = {
    "ax-h": "ax", "axr": "er", "hv": "hh", "em": "m", "nx": "n", "eng": "ng", "ux": "uw", "pcl": "cl",
    "tcl": "cl", "kcl": "cl", "bcl": "vcl", "dcl": "vcl", "gcl": "vcl", "h#": "sil", "pau": "sil", "q": None,
}  # fmt: skip
VOWELS = {"AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"}
SIZES = {"timit61": 61, "timit48": 48, "timit39": 39, "arpabet41": 41, "cpc41": 41}


@pytest.mark.parametrize("name, size", SIZES.items())
def test_sizes_and_own_symbols(name: str, size: int) -> None:
    phones = PhoneSet.load(name)
    assert len(phones) == len(phones.symbols) == len(set(phones.symbols)) == size
    assert all(phones.fold(symbol) == symbol for symbol in phones.symbols)
    assert phones.ids(phones.symbols) == {symbol: index for index, symbol in enumerate(phones.symbols)}
    assert phones.silences < set(phones.symbols)
    assert set(phones.folding.values()) - {None} == set(phones.symbols)


@pytest.mark.parametrize("name, expected", [("timit39", FOLDED_TO_39), ("timit48", FOLDED_TO_48)])
def test_timit_foldings_equal_the_published_ones(name: str, expected: dict) -> None:
    phones = PhoneSet.load(name)
    folded = {symbol: phones.fold(symbol) for symbol in PhoneSet.load("timit61").symbols}
    assert {symbol: target for symbol, target in folded.items() if target != symbol} == expected


@pytest.mark.parametrize("name", ["timit61", "timit48", "timit39"])
def test_arpabet_is_timit_in_upper_case_but_for_its_silence(name: str) -> None:
    strict, arpabet = PhoneSet.load(name), PhoneSet.load("arpabet41")
    timit = strict.accepting_arpabet()
    assert (timit.symbols, timit.silences) == (strict.symbols, strict.silences)
    assert all(timit.fold(symbol) == strict.fold(symbol) for symbol in strict.folding)
    for symbol in arpabet.symbols:
        if symbol not in ("SIL", "SPN"):
            assert timit.fold(symbol) == timit.fold(symbol.lower())
    assert timit.fold("AA1") == "aa" and timit.fold("SPN") is None and timit.fold("spn") is None
    for symbol in ("SIL", "sp", ""):
        assert timit.fold(symbol) == ("h#" if name == "timit61" else "sil") == timit.pause
    assert timit.fold("AO0") == timit.fold("ao") and timit.fold("ZH") == timit.fold("zh")
    assert PhoneSet.of("ab").pause is None and arpabet.pause == "SIL"
    assert arpabet.accepting_arpabet() is arpabet


def test_folding_through_48_is_folding_at_once() -> None:
    small, middle = PhoneSet.load("timit39"), PhoneSet.load("timit48")
    for symbol in PhoneSet.load("timit61").symbols:
        between = middle.fold(symbol)
        assert small.fold(symbol) == (None if between is None else small.fold(between))
    for symbol, target in {
        "cl": "sil",
        "vcl": "sil",
        "epi": "sil",
        "ax": "ah",
        "ix": "ih",
        "el": "l",
    }.items():
        assert small.fold(symbol) == target
    sizes = Counter(small.fold(symbol) for symbol in PhoneSet.load("timit61").symbols)
    assert sizes["sil"] == 9 and sizes[None] == 1 and sizes["ah"] == 3 and sizes.total() == 61


def test_cpc41_is_the_numbers_in_order_and_accepts_nothing_else() -> None:
    phones = PhoneSet.load("cpc41")
    assert phones.symbols == tuple(str(number) for number in range(41))
    assert phones.silences == frozenset() and phones.pause is None and phones.accepting_arpabet() is phones
    listed = PhoneSet.of([str(number) for number in range(41)], "cpc41")  # as older models store it
    assert listed == phones
    for symbol in ("41", "SIL", "", "00"):
        with pytest.raises(ValueError, match="is not in set 'cpc41'"):
            phones.fold(symbol)


def test_every_set_is_tested() -> None:
    assert set(SIZES) == set(PHONE_SETS)


def test_larger_sets_do_not_take_folded_symbols() -> None:
    for symbol in ("sil", "cl", "vcl"):
        with pytest.raises(ValueError, match=f"'{symbol}' is not in set 'timit61'"):
            PhoneSet.load("timit61").fold(symbol)


def test_q_is_a_class_of_61_and_ignored_below() -> None:
    assert PhoneSet.load("timit61").fold("q") == "q"
    for name in ("timit48", "timit39"):
        phones = PhoneSet.load(name)
        assert phones.fold("q") is None and phones.ids(["q"]) == {"q": IGNORED} and "q" not in phones.symbols


def test_silences() -> None:
    closures = {"pcl", "tcl", "kcl", "bcl", "dcl", "gcl"}
    assert PhoneSet.load("timit61").silences == closures | {"h#", "pau", "epi"}
    assert PhoneSet.load("timit48").silences == {"sil", "cl", "vcl", "epi"}
    assert PhoneSet.load("timit39").silences == {"sil"}
    assert PhoneSet.load("arpabet41").silences == {"SIL"}
    assert PhoneSet.of(["a", "b"]).silences == frozenset()
    assert PhoneSet.of(["a", "sil"]).silences == {"sil"}


def test_arpabet_folds_stress_and_mfa_marks() -> None:
    phones = PhoneSet.load("arpabet41")
    for symbol in set(phones.symbols) - {"SIL", "SPN"}:
        for stress in "012":
            if symbol in VOWELS:
                assert phones.fold(symbol + stress) == strip_stress(symbol + stress) == symbol
            else:
                with pytest.raises(ValueError, match=symbol + stress):
                    phones.fold(symbol + stress)
    assert {mark: phones.fold(mark) for mark in ("sil", "sp", "", "spn")} == {
        "sil": "SIL", "sp": "SIL", "": "SIL", "spn": "SPN",
    }  # fmt: skip
    assert phones.ids(["SPN"])["SPN"] >= 0  # a class of its own


def test_case_matters() -> None:
    for name, symbol in (("arpabet41", "aa"), ("timit39", "AA")):
        with pytest.raises(ValueError, match=f"phone '{symbol}' is not in set '{name}'"):
            PhoneSet.load(name).ids(["sil", symbol])


@pytest.mark.parametrize(
    "symbol, expected",
    [("AA1", "AA"), ("ER0", "ER"), ("SH", "SH"), ("AA3", "AA3"), ("ax-h", "ax-h"), ("", ""), ("1", "1")],
)
def test_strip_stress(symbol: str, expected: str) -> None:
    assert strip_stress(symbol) == expected


def test_ids_follow_the_order_of_symbols() -> None:
    phones = PhoneSet.of(["b", "a"])
    assert phones.name == "custom" and phones.ids(["a", "b", "a"]) == {"a": 1, "b": 0}
    with pytest.raises(ValueError, match=r"phone 'c' is not in set 'custom' \(2 symbols: b a\)"):
        phones.ids(["a", "c"])


@pytest.mark.parametrize("name", PHONE_SETS)
def test_a_stored_set_comes_back(name: str) -> None:
    phones = PhoneSet.load(name)
    assert PhoneSet.of(list(phones.symbols), name) == phones
    assert PhoneSet.of(PhoneSet.of(["x", "y"]).symbols, "custom") == PhoneSet.of(["x", "y"])
    assert pickle.loads(pickle.dumps(phones)) == phones and hash(phones) == hash(PhoneSet.load(name))
    backwards = PhoneSet.of(reversed(phones.symbols), name)  # the stored order wins
    assert backwards.ids([phones.symbols[0]])[phones.symbols[0]] == len(phones) - 1
    assert backwards.folding == phones.folding


@pytest.mark.parametrize(
    "symbols, name, message",
    [
        ([], "custom", "at least one symbol"),
        (["a", "b", "a"], "custom", "more than once: a"),
        (["aa", "zzz"], "timit39", "not the symbols of phone set 'timit39'.*zzz"),
    ],
)
def test_bad_sets_are_refused(symbols: list[str], name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhoneSet.of(symbols, name)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown phone set 'timit40'; choose timit61, timit48"):
        PhoneSet.load("timit40")
