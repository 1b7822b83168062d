"""Unpack an archive atomically, and only into its folder.

It is unpacked to a temporary folder and moved from there. If the process is killed, the next attempt cleans up; the
landmark of the content is moved last, so that it marks a complete copy.
"""

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
    """An archive that is damaged, contains unsafe paths, or is not the expected one."""


def extract(archive: Path, root: Path, landmark: str | None = None) -> Path:
    """Unpack a .zip or .tar.gz archive into `root`, replacing existing files; only one process at a time may do so.

    Args:
        archive: The file, whose content is in a folder `root.name` or at its top level.
        root: Where the content goes; may hold the content of other archives.
        landmark: A file or folder of the content, relative to the root, to move last; None if the content is unknown.

    Returns:
        `root`, with an empty file `.complete-<archive>` in it, written last.

    Raises:
        ArchiveError: See there; nothing is left behind.
        OSError: When the disk is full, or a file is where a folder has to be or vice versa.
    """
    temporary = root.parent / f".{archive.name}.unpacking"
    _clear(temporary)  # from a killed process
    try:
        temporary.mkdir()
        _unpack(archive, temporary)
        content = _content(archive, temporary, root.name, landmark)
        marker = content / f".complete-{archive.name}"
        marker.touch()
        _merge(content, root, [marker] if landmark is None else [content / landmark, marker])
    finally:
        _clear(temporary)
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
    """Move a file or folder to `target`, entry by entry into existing folders; the paths in `last` are moved last."""
    if not target.exists():
        os.replace(source, target)
    elif source.is_dir() != target.is_dir():
        raise FileExistsError(f"{target}: is in the way of the archive's content: remove it")
    elif source.is_file():
        os.replace(source, target)
    else:

        def rank(path: Path) -> int:
            return max((i for i, late in enumerate(last, 1) if path in (late, *late.parents)), default=0)

        for path in sorted(source.iterdir(), key=rank):
            _merge(path, target / path.name, last)


def _check_entry(archive: Path, name: str, *, is_plain: bool) -> None:
    """Refuse links and devices, and paths that leave the folder, here or on Windows."""
    path = PureWindowsPath(name)  # accepts both kinds of slash
    if path.anchor or ".." in path.parts:
        raise ArchiveError(f"{archive}: refused: {name!r} lies outside the folder")
    if not is_plain:
        raise ArchiveError(f"{archive}: refused: {name!r} is neither a file nor a folder")


def _unpack(archive: Path, folder: Path) -> None:
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as file:
                for entry in file.infolist():
                    kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 if archived on another system than Unix
                    _check_entry(archive, entry.filename, is_plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
                file.extractall(folder)
        else:
            with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
                # Own checks, since some Pythons that we support lack tarfile's filters (Debian 12's 3.11.2).
                for member in tar:
                    _check_entry(archive, member.name, is_plain=member.isfile() or member.isdir())
                    tar.extract(member, folder, set_attrs=False)
                while stream.read(BLOCK_BYTES):  # gzip's checksum is at the end
                    pass
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ArchiveError(
            f"{archive}: damaged or cut short ({error}); remove it if it is still there, and fetch it again"
        ) from error
    except (NotImplementedError, RuntimeError) as error:  # a zip file with a password or an unsupported method
        raise ArchiveError(f"{archive}: cannot be unpacked ({error})") from error
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error} while unpacking {archive}", str(folder)) from error
