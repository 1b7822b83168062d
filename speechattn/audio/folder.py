"""Find the audio files in a folder."""

import logging
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from speechattn.audio.container import AudioError
from speechattn.jobs.folders import visible_files

__all__ = ["AUDIO_SUFFIXES", "find_audio"]

AUDIO_SUFFIXES = (
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".nist", ".oga", ".ogg", ".opus", ".rf64", ".snd", ".sph",
    ".voc", ".w64", ".wav",
)  # fmt: skip

logger = logging.getLogger("speechattn")


def find_audio(folder: Path, *, expected: Collection[str] = ()) -> list[Path]:
    """The audio files below a folder, sorted. Other files are counted in a log line, so that none is missed silently.

    Args:
        folder: The folder.
        expected: Suffixes of other files that belong here, such as labels, which are not counted.

    Raises:
        AudioError: If there are none.
    """
    paths = visible_files(folder)
    audio = [path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES]
    others = Counter(
        path.suffix.lower() or "(no suffix)" for path in paths if path.suffix.lower() not in AUDIO_SUFFIXES
    )
    for suffix in expected:
        del others[suffix]
    what = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    if not audio:
        raise AudioError(
            f"{folder}: the folder has no audio files ({' '.join(AUDIO_SUFFIXES)})" + (f", but {what}" if what else "")
        )
    if what:
        logger.warning("%s: %d files are not audio that can be read: %s", folder, others.total(), what)
    return audio
