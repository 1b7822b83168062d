"""Pronunciations of words that no lexicon has, by eSpeak NG."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Sequence

from speechattn.alignment.espeak_process import Request, synthesise
from speechattn.assets import asset_lines

__all__ = ["STRESS_MARKS", "espeak_pronunciations", "phones_by_mnemonic"]

logger = logging.getLogger(__name__)


ESPEAK_ACCENT = "en-us"  # CMUdict's


ESPEAK_BATCH = 500  # words a process: their audio is held in memory, if only for a moment


def _espeak_is_installed() -> bool:
    return importlib.util.find_spec("espeakng_loader") is not None


def espeak_pronunciations(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Ask eSpeak NG, in a process of its own, how American English pronounces words.

    Args:
        words: Words; what has no vowel it spells out.

    Returns:
        Word -> ARPAbet without stress. Words of which eSpeak says something that is not in our table of its phonemes,
        as in foreign words, are left out; so are all when it is not installed.
    """
    if not words:
        return {}
    if not _espeak_is_installed():
        logger.warning(
            "%d words are not in the lexicon, and eSpeak NG, which could pronounce them, is not installed: "
            "pip install espeakng-loader", len(words),
        )  # fmt: skip
        return {}
    # Here, since this module is below the corpora.
    from speechattn.alignment.espeak import STRESS_MARKS, phones_by_mnemonic

    table = phones_by_mnemonic(ESPEAK_ACCENT)
    found: dict[str, tuple[str, ...]] = {}
    for first in range(0, len(words), ESPEAK_BATCH):
        batch = words[first : first + ESPEAK_BATCH]
        speeches = synthesise(ESPEAK_ACCENT, [Request(word, 175, 50) for word in batch])
        for word, speech in zip(batch, speeches, strict=True):
            mnemonics = [STRESS_MARKS.sub("", event.mnemonic) for event in speech.events]
            if all(mnemonic in table for mnemonic in mnemonics):
                phones = (phone for mnemonic in mnemonics for phone in table[mnemonic])
                pronunciation = tuple(phone for phone in phones if phone not in ("SIL", "+"))  # +: no phone of its own
                if pronunciation:
                    found[word] = pronunciation
    return found


STRESS_MARKS = re.compile("[',%]")


def phones_by_mnemonic(accent: str) -> dict[str, tuple[str, ...]]:
    """The mnemonics of eSpeak, without stress marks, as ARPAbet; `+` stands for more of the phone before."""
    table: dict[str, dict[str, tuple[str, ...]]] = {"*": {}, accent: {}}
    for line in asset_lines("espeak/mnemonics.tsv"):
        row_accent, mnemonic, phones, _ = line.split("\t")
        if row_accent in table:
            table[row_accent][mnemonic] = tuple(phones.split())
    return table["*"] | table[accent]
