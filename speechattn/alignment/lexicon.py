"""Pronunciations: of a corpus's own lexicon, else CMUdict's, else eSpeak NG's; a word without any is named."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from speechattn.alignment.espeak import espeak_pronunciations
from speechattn.phones import PhoneSet

__all__ = [
    "Lexicon",
    "WordSource",
    "default_lexicon",
    "find_pronunciations",
    "known_words",
    "read_lexicon",
    "split_words",
]

Lexicon = Mapping[str, Sequence[tuple[str, ...]]]
"""Lower-case word -> its pronunciations, each a tuple of upper-case ARPAbet symbols without stress."""

# With dashes, double and opening quotes, ellipsis; the closing quote is also the apostrophe.
PUNCTUATION = '.,;:!?"()[]{}<>/\u2010\u2011\u2012\u2013\u2014\u2015\u2018\u201c\u201d\u2026-'
JOINTS = re.compile("[-/\u2010-\u2015\u2026]+")  # between the parts of a compound, and words without a space

logger = logging.getLogger(__name__)


class WordSource(NamedTuple):
    """Where the pronunciations of a word come from: `cmudict`, `espeak` or, when it has none, `unknown`."""

    word: str
    source: str
    pronunciations: Sequence[tuple[str, ...]]
    num_uses: int


def read_lexicon(path: str | Path) -> dict[str, list[tuple[str, ...]]]:
    """Read a pronunciation dictionary in CMUdict's format.

    Args:
        path: UTF-8 text: a word, white space, its phones. Further pronunciations of a word follow on lines
            of their own, as `word` again or as `word(2)`. Lines that start with `;;;`, and what follows
            ` #`, are comments.

    Returns:
        Lower-case word -> pronunciations in the file's order without repetitions, stress removed.

    Raises:
        ValueError: There is no such file; a line has no phones, or one that is no ARPAbet symbol (names the line).
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such lexicon")
    folding = PhoneSet.load("arpabet41").folding
    lexicon: dict[str, list[tuple[str, ...]]] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            word, *symbols = line.split(" #")[0].split() or [";;;"]
            if word.startswith(";;;"):
                continue
            phones = tuple(folding.get(symbol.upper()) or "?" for symbol in symbols)
            if not phones or "?" in phones:
                wrong = f"unknown phone {symbols[phones.index('?')]!r}" if phones else "no phones"
                raise ValueError(f"{path}:{number}: {wrong} in the entry of {word!r}; ARPAbet is expected")
            if word.endswith(")"):
                word = re.sub(r"\(\d+\)$", "", word)
            pronunciations = lexicon.setdefault(word.lower(), [])
            if phones not in pronunciations:
                pronunciations.append(phones)
    return lexicon


@cache
def default_lexicon() -> Lexicon:
    """PocketSphinx's own CMUdict: some 134,000 English words. Read once."""
    from pocketsphinx import get_model_path

    return read_lexicon(get_model_path("en-us/cmudict-en-us.dict"))


def split_words(text: str, lexicon: Lexicon) -> list[str]:
    """The words of a transcript, lower case, as the lexicon spells them.

    Punctuation around a word is no part of it. A compound that the lexicon lacks is taken apart.

    Args:
        text: What is said.
        lexicon: Decides between spellings: `'bout` keeps its apostrophe, a word in single quotes does not.

    Returns:
        The words in order; those that are not in the lexicon as well.

    Example:
        >>> split_words("Yes, on -- 'on'!", {"yes": [], "on": []})
        ['yes', 'on', 'on']
    """
    words: list[str] = []
    for token in text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split():
        bare = token.strip(PUNCTUATION)
        known = _spelling((token, bare, bare.strip("'")), lexicon)
        # An unknown part loses its quotes here, so that adding it to the lexicon changes no other word.
        words += (
            [known] if known else [_spelling((part, part.strip("'")), lexicon) or part.strip("'")
            for part in JOINTS.split(bare.strip("'"))]
        )  # fmt: skip
    return [word for word in words if word]


def known_words(text: str, lexicon: Lexicon) -> list[str]:
    """The words of a transcript, all in the lexicon.

    Raises:
        ValueError: When there are none, or the lexicon lacks some; names these.
    """
    words = split_words(text, lexicon)
    if not words:
        raise ValueError("empty transcript")
    unknown = [word for word in dict.fromkeys(words) if word not in lexicon]
    if unknown:
        raise ValueError(f"not in the lexicon: {', '.join(unknown)}")
    return words


def _spelling(spellings: Iterable[str], lexicon: Lexicon) -> str | None:
    return next((spelling for spelling in spellings if spelling in lexicon), None)


def find_pronunciations(texts: Iterable[str], lexicon: Lexicon | None = None) -> tuple[Lexicon, list[WordSource]]:
    """Pronunciations of all words of some transcripts: of the lexicon, else of CMUdict, else by eSpeak NG.

    eSpeak NG (an optional extra) is asked for what is spelled with letters, with and without apostrophes, as American
    English. Where it is not installed, this is logged, and words beyond CMUdict stay unknown.

    Args:
        texts: The transcripts.
        lexicon: The first that is asked; CMUdict when None.

    Returns:
        Word -> pronunciations, for those words of the texts that have any; and where each word that is not of the
        first lexicon comes from, in alphabetical order.
    """
    cmudict = default_lexicon()
    first = cmudict if lexicon is None else lexicon
    both = {**cmudict, **first}
    counts = Counter(word for text in texts for word in split_words(text, both))
    spoken = espeak_pronunciations(sorted(word for word in counts if word not in both and _speakable(word)))
    found: dict[str, Sequence[tuple[str, ...]]] = {}
    sources: list[WordSource] = []
    for word, count in sorted(counts.items()):
        pronunciations = both[word] if word in both else [spoken[word]] if word in spoken else []
        if pronunciations:
            found[word] = pronunciations
        if word not in first:
            source = "cmudict" if word in cmudict else "espeak" if pronunciations else "unknown"
            sources.append(WordSource(word, source, pronunciations, count))
    return found, sources


def _speakable(word: str) -> bool:
    """Whether a word is spelled with letters: digits and signs can be read in many ways."""
    return word.replace("'", "").isalpha()
