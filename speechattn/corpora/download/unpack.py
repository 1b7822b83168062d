"""Unpack an archive so that its content appears whole, and nothing is written anywhere else.

It is unpacked beside its place and moved there by renaming. A process may be killed at any time: the landmark of the
content arrives after all the rest, and what is left lying about is cleared away by the next attempt.
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath

__all__ = ["ArchiveError", "extract"]

BLOCK_BYTES = 1 << 20


class ArchiveError(ValueError):
    """An archive that is damaged, wants to write outside its folder, or is another one."""


def extract(archive: Path, root: Path, landmark: str | None = None) -> Path:
    """Unpack a .zip or .tar.gz archive into the folder `root`, which other archives may have filled before.

    Files that are there already are replaced by the archive's; only one process may work on a root at a time.

    Args:
        archive: The file. Its content lies in a folder `root.name`, or at its top.
        root: Where the content goes.
        landmark: A file or folder, relative to the root, that the content has and that arrives after all the
            rest; None if nothing is known of it.

    Returns:
        `root`. An empty file in it, `.complete-<archive>`, tells that all of the archive is there.

    Raises:
        ArchiveError: See there; nothing is left behind.
        OSError: The disk is full, or something else than a folder is where one has to be.
    """
    workshop = root.parent / f".{archive.name}.unpacking"
    _clear(workshop)  # of a process that was killed
    try:
        workshop.mkdir()
        _unpack(archive, workshop)
        content = _content(archive, workshop, root.name, landmark)
        marker = content / f".complete-{archive.name}"
        marker.touch()
        _merge(content, root, [marker] if landmark is None else [content / landmark, marker])
    finally:
        _clear(workshop)
    return root


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _content(archive: Path, folder: Path, name: str, landmark: str | None) -> Path:
    """The folder that holds the content: the one called `name`, or else `folder` itself."""
    for content in (folder / name, folder):
        if content.is_dir() and (content / (landmark or "")).exists():
            return content
    raise ArchiveError(f"{archive}: holds no {name}/{landmark}: it is another archive")


def _merge(source: Path, target: Path, last: list[Path]) -> None:
    """Move a file or folder to `target`, entry by entry where a folder is there; what is in `last` goes last."""
    if not target.exists():
        os.replace(source, target)
    elif source.is_dir() != target.is_dir():
        raise FileExistsError(f"{target}: is in the way of what is to be unpacked there: remove it")
    elif source.is_file():
        os.replace(source, target)
    else:

        def turn(path: Path) -> int:
            return max((i for i, late in enumerate(last, 1) if path in (late, *late.parents)), default=0)

        for path in sorted(source.iterdir(), key=turn):
            _merge(path, target / path.name, last)


def _refuse_outside(archive: Path, name: str) -> None:
    """Refuse an entry that would be written outside the folder that it is unpacked to, here or on Windows."""
    path = PureWindowsPath(name)  # takes both kinds of slash
    if path.anchor or ".." in path.parts:
        raise ArchiveError(f"{archive}: refused: {name!r} lies outside the folder")


def _refuse_special(archive: Path, name: str, is_plain: bool) -> None:
    """Refuse links, devices and pipes."""
    if not is_plain:
        raise ArchiveError(f"{archive}: refused: {name!r} is neither a file nor a folder")


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack into `folder`, and nowhere else."""
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as file:
                for entry in file.infolist():
                    kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archiver was not on Unix
                    _refuse_outside(archive, entry.filename)
                    _refuse_special(archive, entry.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
                file.extractall(folder)
        else:
            with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
                # tarfile's own filters are not in every Python that we run on (Debian 12's 3.11.2 lacks them).
                for member in tar:
                    _refuse_outside(archive, member.name)
                    _refuse_special(archive, member.name, member.isfile() or member.isdir())
                    tar.extract(member, folder, set_attrs=False)
                while stream.read(BLOCK_BYTES):  # to the end, where gzip keeps its checksum
                    pass
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ArchiveError(
            f"{archive}: damaged or cut short ({error}); remove it if it is still there, and fetch it again"
        ) from error
    except (NotImplementedError, RuntimeError) as error:  # a zip file with a password, or of an unknown method
        raise ArchiveError(f"{archive}: cannot be unpacked ({error})") from error
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error} while unpacking {archive}", str(folder)) from error
