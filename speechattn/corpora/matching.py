"""Match recordings with alignments: by relative path, by utterance id, or by file name."""

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from speechattn.jobs.folders import visible_files
from speechattn.labels.files import SUFFIXES, read_ctm
from speechattn.labels.intervals import Segment

__all__ = ["AlignmentSource", "UnlabelledUtterance", "find_alignments", "match"]


class UnlabelledUtterance(NamedTuple):
    """An utterance whose phones are not known yet.

    Attributes:
        id: Unique within the corpus.
        audio: The audio file.
        speaker: The speaker's name.
        path: The audio's path below its folder, without suffix; the id if there is no such folder.
        text: The transcript; empty if unknown.
        start: Start of the utterance in the file, in seconds.
        end: Its end; None: the end of the file.
    """

    id: str
    audio: Path
    speaker: str
    path: str
    text: str = ""
    start: float = 0.0
    end: float | None = None


class AlignmentSource(NamedTuple):
    """Where the phones of an utterance are: in a file that is not read yet, or in part of a CTM.

    Attributes:
        file: The file.
        path: Its path below its folder, without suffix; None for a CTM of several utterances.
        utterance: The utterance id in a CTM; None for other files.
        segments: The utterance's phones in a CTM; None for other files.
    """

    file: Path
    path: str | None
    utterance: str | None = None
    segments: list[Segment] | None = None

    def __str__(self) -> str:
        return str(self.file) if self.utterance is None else f"{self.utterance} in {self.file}"


Names = set[str | None]


def find_alignments(root: Path, format: str | None, *, ctm_channel: str | None = None) -> list[AlignmentSource]:
    """The alignments in a folder, or in a single file.

    Args:
        root: The folder or file.
        format: Suffix of the files, without dot; None: any of `labels.files.SUFFIXES`.
        ctm_channel: Channel to read of a CTM's utterances that have several.

    Raises:
        ValueError: When there are none, a CTM cannot be read, or it has an utterance with several channels and none is
            chosen.
    """
    suffixes = SUFFIXES if format is None else (f".{format}",)
    folder, files = (root.parent, [root]) if root.is_file() else (root, visible_files(root, suffixes))
    alignments = []
    for file in files:
        path = unicodedata.normalize("NFC", file.relative_to(folder).with_suffix("").as_posix())
        if file.suffix.lower() == ".ctm":
            ctm = read_ctm(file, channel=ctm_channel)
            if several := next((name for name in ctm if " " in name), None):
                utterance, channel = several.split()
                raise ValueError(
                    f"{file}: utterance {utterance} has phones on several channels, such as {channel}; "
                    "choose one with --ctm-channel"
                )
            ctm_path = path if len(ctm) == 1 else None
            alignments += [AlignmentSource(file, ctm_path, utterance, segments) for utterance, segments in ctm.items()]
        else:
            alignments.append(AlignmentSource(file, path))
    if not alignments:
        raise ValueError(f"{root}: holds no alignments; files that end in {' '.join(suffixes)} are looked for")
    return alignments


def match(
    utterances: Sequence[UnlabelledUtterance], alignments: Sequence[AlignmentSource]
) -> tuple[dict[str, AlignmentSource], list[AlignmentSource]]:
    """Find the alignment of each utterance.

    They match by relative path, or by utterance id. Only if none match are bare file names compared: once some match by
    path, an equal name in another folder is more likely another speaker's.

    Returns:
        (matched, left): utterance id -> its alignment, and the alignments that match no utterance.

    Raises:
        ValueError: When two alignments match an utterance, or two utterances an alignment; names them.
    """
    matched = _match(utterances, alignments, lambda u: {u.path, u.id}, lambda a: {a.path, a.utterance})
    if not matched:
        matched = _match(utterances, alignments, lambda u: {_name(u.path)}, lambda a: {_name(a.path), a.utterance})
    used = {id(alignment) for alignment in matched.values()}
    return matched, [alignment for alignment in alignments if id(alignment) not in used]


def _name(path: str | None) -> str | None:
    return None if path is None else path.rsplit("/", 1)[-1]


def _match(
    utterances: Sequence[UnlabelledUtterance],
    alignments: Sequence[AlignmentSource],
    names_of_utterance: Callable[[UnlabelledUtterance], Names],
    names_of_alignment: Callable[[AlignmentSource], Names],
) -> dict[str, AlignmentSource]:
    """Utterance id -> the alignment that shares a name with it."""
    by_name: dict[str | None, list[AlignmentSource]] = {}
    for alignment in alignments:
        for name in names_of_alignment(alignment) - {None}:
            by_name.setdefault(name, []).append(alignment)
    matched: dict[str, AlignmentSource] = {}
    utterance_of: dict[int, UnlabelledUtterance] = {}
    for utterance in utterances:
        names = names_of_utterance(utterance)
        shared = {id(alignment): alignment for name in names for alignment in by_name.get(name, ())}
        if len(shared) > 1:
            first, second, *_ = shared.values()
            raise ValueError(
                f"utterance {utterance.id}: {first} and {second} both fit {utterance.audio}; "
                "keep one, or choose a format with --format"
            )
        for alignment in shared.values():
            other = utterance_of.setdefault(id(alignment), utterance)
            if other is not utterance:
                raise ValueError(f"{alignment} fits both {other.audio} and {utterance.audio}")
            matched[utterance.id] = alignment
    return matched
