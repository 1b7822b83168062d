"""Which alignment belongs to which recording: by relative path, by utterance id, by the stem of the name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from speechattn.labels.files import SUFFIXES, read_ctm
from speechattn.labels.intervals import Segment

__all__ = ["AlignmentTrack", "Candidate", "find_alignments", "match", "visible_files"]


class Candidate(NamedTuple):
    """An utterance whose phones are still to be found.

    Attributes:
        id: Unique within the corpus.
        audio: The file.
        speaker: Who speaks.
        text: What is said; empty when it is not known.
        start: Where the utterance begins in the file, in seconds.
        end: Where it ends; None: with the file.
        path: The audio's path below its folder, without the suffix; the id where there is none.
    """

    id: str
    audio: Path
    speaker: str
    path: str
    text: str = ""
    start: float = 0.0
    end: float | None = None


class AlignmentTrack(NamedTuple):
    """The phones of an utterance: a file that is still to be read, or a part of a CTM.

    Attributes:
        file: The file.
        path: Its path below its folder, without the suffix; None for a part of a CTM of several utterances.
        utterance: Whose phones they are, as a CTM says; None for other files.
        segments: What the CTM says.
    """

    file: Path
    path: str | None
    utterance: str | None = None
    segments: list[Segment] | None = None

    def __str__(self) -> str:
        return str(self.file) if self.utterance is None else f"{self.utterance} in {self.file}"


def visible_files(folder: Path, suffixes: Iterable[str]) -> Iterator[Path]:
    """The files below a folder that end in one of these suffixes, in any case, sorted; none that is hidden."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in suffixes and not hidden and path.is_file():
            yield path


def find_alignments(root: Path, format: str | None) -> list[AlignmentTrack]:
    """The alignments in a folder, or in a single file.

    Args:
        root: The folder or file.
        format: Only files with this suffix, without its dot; None: any of `alignment_files.SUFFIXES`.

    Raises:
        ValueError: When there are none, or a CTM cannot be read.
    """
    suffixes = SUFFIXES if format is None else (f".{format}",)
    if root.is_file():
        files, top = [root], root.parent
    else:
        files, top = list(visible_files(root, suffixes)), root
    found = []
    for file in files:
        path = file.relative_to(top).with_suffix("").as_posix()
        if file.suffix.lower() == ".ctm":
            utterances = read_ctm(file)
            own = path if len(utterances) == 1 else None
            found += [AlignmentTrack(file, own, utterance, segments) for utterance, segments in utterances.items()]
        else:
            found.append(AlignmentTrack(file, path))
    if not found:
        raise ValueError(f"{root}: holds no alignments; files that end in {' '.join(suffixes)} are looked for")
    return found


def match(
    candidates: Sequence[Candidate], alignments: Sequence[AlignmentTrack]
) -> tuple[dict[str, AlignmentTrack], list[AlignmentTrack]]:
    """Find the alignment of every utterance.

    An alignment belongs to the utterance whose audio lies at the same path below its own folder, or whose id it
    bears. Only where that is true of none of them do bare file names count: once some are found by their paths,
    an equal name elsewhere is more likely another speaker's.

    Returns:
        (matched, left): utterance id -> its alignment, and the alignments that are nobody's.

    Raises:
        ValueError: When two alignments fit an utterance, or two utterances an alignment; names them.
    """
    exact = [(alignment, {alignment.path, alignment.utterance}) for alignment in alignments]
    matched = _match({candidate: {candidate.path, candidate.id} for candidate in candidates}, exact)
    if not matched:
        bare = [(alignment, {_name(alignment.path), alignment.utterance}) for alignment in alignments]
        matched = _match({candidate: {_name(candidate.path)} for candidate in candidates}, bare)
    used = {id(alignment) for alignment in matched.values()}
    return matched, [alignment for alignment in alignments if id(alignment) not in used]


def _name(path: str | None) -> str | None:
    return None if path is None else path.rsplit("/", 1)[-1]


def _match(
    candidates: Mapping[Candidate, set[str | None]], alignments: Sequence[tuple[AlignmentTrack, set[str | None]]]
) -> dict[str, AlignmentTrack]:
    """The pairs that share a name, by the utterance's id."""
    by_name: dict[str | None, list[AlignmentTrack]] = {}
    for alignment, names in alignments:
        for name in names - {None}:
            by_name.setdefault(name, []).append(alignment)
    matched: dict[str, AlignmentTrack] = {}
    owner: dict[int, Candidate] = {}
    for candidate, own_names in candidates.items():
        fitting = {id(alignment): alignment for name in own_names for alignment in by_name.get(name, ())}
        if len(fitting) > 1:
            first, second, *_ = fitting.values()
            raise ValueError(
                f"utterance {candidate.id}: {first} and {second} both fit {candidate.audio}; "
                "keep one, or say by --format which kind counts"
            )
        for alignment in fitting.values():
            other = owner.setdefault(id(alignment), candidate)
            if other is not candidate:
                raise ValueError(f"{alignment} fits both {other.audio} and {candidate.audio}")
            matched[candidate.id] = alignment
    return matched
