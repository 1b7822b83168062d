"""Pronunciations of words that are in no lexicon, by eSpeak NG."""

import logging
import re
from collections.abc import Sequence

from speechattn.alignment.espeak_process import Request, is_installed, synthesise
from speechattn.assets import asset_lines

__all__ = ["STRESS_MARKS", "espeak_pronunciations", "phones_by_mnemonic"]

logger = logging.getLogger(__name__)

ACCENT = "en-us"  # that of CMUdict
BATCH_WORDS = 500  # words per process, whose audio must fit into memory
STRESS_MARKS = re.compile("[',%]")


def espeak_pronunciations(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Pronounce words in American English with eSpeak NG; it spells out words without a vowel.

    Returns:
        Word -> ARPAbet without stress. Words with phonemes that our table lacks, such as foreign words, are left out.
        Empty when eSpeak NG is not installed, which is logged.
    """
    if not words:
        return {}
    if not is_installed():
        missing = "eSpeak NG, which could pronounce them, is not installed: pip install espeakng-loader"
        logger.warning("%d words are not in the lexicon, and %s", len(words), missing)
        return {}
    table = phones_by_mnemonic(ACCENT)
    found: dict[str, tuple[str, ...]] = {}
    for first in range(0, len(words), BATCH_WORDS):
        batch = words[first : first + BATCH_WORDS]
        speeches = synthesise(ACCENT, [Request(word, 175, 50) for word in batch])
        for word, speech in zip(batch, speeches, strict=True):
            mnemonics = [STRESS_MARKS.sub("", event.mnemonic) for event in speech.events]
            phones = [phone for mnemonic in mnemonics for phone in table.get(mnemonic, ("?",))]
            pronunciation = tuple(phone for phone in phones if phone not in ("SIL", "+"))
            if pronunciation and "?" not in pronunciation:
                found[word] = pronunciation
    return found


def phones_by_mnemonic(accent: str) -> dict[str, tuple[str, ...]]:
    """Map eSpeak's phoneme mnemonics, without stress marks, to ARPAbet; `+` continues the previous phone."""
    table: dict[str, dict[str, tuple[str, ...]]] = {"*": {}, accent: {}}
    for line in asset_lines("espeak/mnemonics.tsv"):
        row_accent, mnemonic, phones, _ = line.split("\t")
        if row_accent in table:
            table[row_accent][mnemonic] = tuple(phones.split())
    return table["*"] | table[accent]
