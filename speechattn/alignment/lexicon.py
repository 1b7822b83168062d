"""Pronunciations: from a corpus's own lexicon, else CMUdict, else eSpeak NG; words without any are reported."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from speechattn.alignment.espeak import espeak_pronunciations
from speechattn.jobs.text import numbered_lines
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

# Includes dashes, double and opening quotes, and ellipsis; the closing quote is also the apostrophe.
PUNCTUATION = '.,;:!?"()[]{}<>/\u2010\u2011\u2012\u2013\u2014\u2015\u2018\u201c\u201d\u2026-'
JOINTS = re.compile("[-/\u2010-\u2015\u2026]+")  # between the parts of a compound, or words without a space


class WordSource(NamedTuple):
    """The source of a word's pronunciations: `cmudict`, `espeak`, or `unknown` if it has none."""

    word: str
    source: str
    pronunciations: Sequence[tuple[str, ...]]
    num_uses: int


def find_pronunciations(texts: Iterable[str], lexicon: Lexicon | None = None) -> tuple[Lexicon, list[WordSource]]:
    """Look up all words of some transcripts: in the lexicon, if given, else in CMUdict, else by eSpeak NG.

    eSpeak NG (an optional extra) pronounces words spelled with letters and apostrophes, in American English. If it is
    not installed, this is logged, and words beyond CMUdict stay unknown.

    Returns:
        Word -> pronunciations, for the words that have any; and, in alphabetical order, the source of each word that
        is not in the first of these lexicons.
    """
    cmudict = default_lexicon()
    first = cmudict if lexicon is None else lexicon
    both = {**cmudict, **first}
    counts = Counter(word for text in texts for word in split_words(text, both))
    # Only letters and apostrophes: digits and signs can be read in many ways.
    unlisted = sorted(word for word in counts if word not in both and word.replace("'", "").isalpha())
    spoken = espeak_pronunciations(unlisted)
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


def read_lexicon(path: str | Path) -> dict[str, list[tuple[str, ...]]]:
    """Read a pronunciation dictionary in CMUdict's format.

    Args:
        path: Text in UTF-8 or UTF-16: a word, white space, its phones. Further pronunciations of a word are on lines of
            their own, as `word` again or as `word(2)`. Lines that start with `;;;`, and text after ` #`, are comments.

    Returns:
        Lower-case word -> pronunciations in the file's order without duplicates, stress removed.

    Raises:
        ValueError: When there is no such file, or a line has no phones or an unknown one (names the line).
    """
    folding = PhoneSet.load("arpabet41").folding
    lexicon: dict[str, list[tuple[str, ...]]] = {}
    for number, line in numbered_lines(path):
        word, *symbols = line.split(" #")[0].split() or [";;;"]
        if word.startswith(";;;"):
            continue
        phones = tuple(folding.get(symbol.upper()) or "?" for symbol in symbols)
        if not phones or "?" in phones:
            problem = f"unknown phone {symbols[phones.index('?')]!r}" if phones else "no phones"
            raise ValueError(f"{path}:{number}: {problem} in the entry of {word!r}; ARPAbet is expected")
        if word.endswith(")"):
            word = re.sub(r"\(\d+\)$", "", word)
        pronunciations = lexicon.setdefault(word.lower(), [])
        if phones not in pronunciations:
            pronunciations.append(phones)
    return lexicon


@cache
def default_lexicon() -> Lexicon:
    """PocketSphinx's CMUdict: some 134,000 English words."""
    from pocketsphinx import get_model_path

    return read_lexicon(get_model_path("en-us/cmudict-en-us.dict"))


def known_words(text: str, lexicon: Lexicon) -> list[str]:
    """Like `split_words`, but raises a ValueError when there are no words, or for words that are not in the lexicon."""
    words = split_words(text, lexicon)
    if not words:
        raise ValueError("empty transcript")
    unknown = [word for word in dict.fromkeys(words) if word not in lexicon]
    if unknown:
        raise ValueError(f"not in the lexicon: {', '.join(unknown)}")
    return words


def split_words(text: str, lexicon: Lexicon) -> list[str]:
    """Split a transcript into lower-case words, as the lexicon spells them.

    Punctuation around words is removed, and compounds that the lexicon lacks are split; other words that it lacks are
    kept. The lexicon chooses between spellings: `'bout` keeps its apostrophe, a word in single quotes loses them.

    Example:
        >>> split_words("Yes, on -- 'on'!", {"yes": [], "on": []})
        ['yes', 'on', 'on']
    """
    words: list[str] = []
    for token in unicodedata.normalize("NFC", text).lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split():
        bare = token.strip(PUNCTUATION)
        unquoted = bare.strip("'")
        known = next((spelling for spelling in (token, bare, unquoted) if spelling in lexicon), None)
        if known is not None:
            words.append(known)
            continue
        # An unknown part loses its quotes here, so that adding it to the lexicon changes no other word.
        words += [part if part in lexicon else part.strip("'") for part in JOINTS.split(unquoted)]
    return [word for word in words if word]
