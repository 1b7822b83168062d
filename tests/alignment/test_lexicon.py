"""Pronunciations: where each word's comes from, and that no unknown word is passed over."""

import logging

import pytest

from speechattn.alignment import espeak
from speechattn.alignment.espeak import espeak_pronunciations
from speechattn.alignment.lexicon import WordSource, default_lexicon, find_pronunciations, read_lexicon, split_words

SMALL = {
    "yes": [("Y", "EH", "S")],
    "no": [("N", "OW")],
    "on": [("AA", "N"), ("AO", "N")],
    "x-ray": [("EH", "K", "S", "R", "EY")],
    "'bout": [("B", "AW", "T")],
}


@pytest.fixture(scope="module")
def cmudict():
    return default_lexicon()


def edit_distance(a, b):
    """Levenshtein's, slow and obvious."""
    if not a or not b:
        return len(a) + len(b)
    return min(edit_distance(a[1:], b) + 1, edit_distance(a, b[1:]) + 1, edit_distance(a[1:], b[1:]) + (a[0] != b[0]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("YES no", "yes no"),
        ("Yes, on -- 'on'!", "yes on on"),
        ("\u201cNo\u201d x-ray yes-no", "no x-ray yes no"),
        ("yes\u2014no/on\u2026yes", "yes no on yes"),
        ("'bout \u2018yes\u2019 'zzq' rock-'n'-roll yes\u2019s", "'bout yes zzq rock n roll yes's"),
        ("... ' -", ""),
        ("no 42 yes", "no 42 yes"),
    ],
)
def test_words_of_a_transcript(text, words):
    assert split_words(text, SMALL) == words.split()


def test_adding_unknown_words_changes_no_other_word():
    text = "rock-'n'-roll 'n' 'zzq' zzq's dogs' x-zzq"
    words = split_words(text, SMALL)
    assert split_words(text, SMALL | {word: [("N",)] for word in words}) == words


def test_own_lexicon_first_then_cmudict_then_espeak(cmudict):
    pytest.importorskip("espeakng_loader")
    texts = ["Yes, the blorptastic cat", "the 42 Yes"]
    lexicon, sources = find_pronunciations(texts, {"yes": [("Y", "AE")]})
    assert lexicon["yes"] == [("Y", "AE")]  # not CMUdict's
    assert lexicon["cat"] == [("K", "AE", "T")] == cmudict["cat"]
    assert "42" not in lexicon
    assert sources == [
        WordSource("42", "unknown", [], 1),
        WordSource("blorptastic", "espeak", lexicon["blorptastic"], 1),
        WordSource("cat", "cmudict", cmudict["cat"], 1),
        WordSource("the", "cmudict", cmudict["the"], 2),
    ]
    assert set(lexicon) == {"yes", "cat", "the", "blorptastic"}
    # Without a lexicon CMUdict comes first, and its words are not listed.
    assert [source.word for source in find_pronunciations(texts)[1]] == ["42", "blorptastic"]


def test_espeak_speaks_as_cmudict_does(cmudict):
    pytest.importorskip("espeakng_loader")
    words = ["cat", "thing", "judge", "measure", "vision", "boy", "house", "church", "yellow", "zebra", "bird", "fire"]
    spoken = espeak_pronunciations(words)
    assert list(spoken) == words
    errors = sum(min(edit_distance(spoken[word], known) for known in cmudict[word]) for word in words)
    assert errors <= 2
    symbols = {phone for pronunciation in spoken.values() for phone in pronunciation}
    assert symbols <= {phone for variants in cmudict.values() for known in variants for phone in known}


def test_espeak_gives_the_same_result_in_any_order():
    pytest.importorskip("espeakng_loader")
    words = ["blorptastic", "vrumph", "zzqx", "frimble's", "o'snorkel"]
    together, backwards = espeak_pronunciations(words), espeak_pronunciations(words[::-1])
    assert together == backwards and set(together) == set(words)
    assert espeak_pronunciations(["vrumph"]) == {"vrumph": together["vrumph"]}


def test_words_with_unknown_espeak_phonemes_are_left_out(monkeypatch):
    from speechattn.alignment.espeak_process import Event, Speech

    def speak(voice, requests):
        mnemonics = {"good": ["_:", "k", "'a", "t", "_:"], "odd": ["k", "y:"], "silent": ["_:"]}
        return [Speech(None, [Event(0, mnemonic) for mnemonic in mnemonics[request.text]]) for request in requests]

    monkeypatch.setattr(espeak, "is_installed", lambda: True)
    monkeypatch.setattr(espeak, "synthesise", speak)
    assert espeak_pronunciations(["good", "odd", "silent"]) == {"good": ("K", "AE", "T")}


def test_without_espeak_the_chain_ends_at_cmudict_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(espeak, "is_installed", lambda: False)
    with caplog.at_level(logging.WARNING):
        lexicon, sources = find_pronunciations(["the blorptastic 42"])
    assert set(lexicon) == {"the"}
    assert [(source.word, source.source) for source in sources] == [("42", "unknown"), ("blorptastic", "unknown")]
    assert "1 words are not in the lexicon, and eSpeak NG" in caplog.text and "pip install" in caplog.text
    caplog.clear()
    find_pronunciations(["the 42"])
    assert caplog.text == ""


def test_read_lexicon(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text(
        ";;; comment\nYOUR\tY AO1 R\nYOUR\tY UH0 R\nYOUR\tY AO0 R\nRead R EH1 D # past\nread(2) R IY1 D\n\n"
    )
    assert read_lexicon(path) == {
        "your": [("Y", "AO", "R"), ("Y", "UH", "R")],
        "read": [("R", "EH", "D"), ("R", "IY", "D")],
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("yes Y QQ S", "2: unknown phone 'QQ' in the entry of 'yes'"),
        ("yes", "2: no phones in the entry of 'yes'"),
    ],
)
def test_read_lexicon_names_the_bad_line(tmp_path, line, message):
    path = tmp_path / "lexicon.txt"
    path.write_text(f"no N OW1\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_lexicon(path)
    with pytest.raises(ValueError, match=r"nothing.txt: no such file"):
        read_lexicon(tmp_path / "nothing.txt")


def test_default_lexicon_is_cmudict(cmudict):
    assert len(cmudict) > 120_000
    assert cmudict["read"] == [("R", "EH", "D"), ("R", "IY", "D")]
