"""Download the files of a corpus and unpack its archives, both atomically.

A download goes to a `.part` file, is checked (size, checksum, not a web page) and renamed; an interrupted one resumes.
A mirror, a folder or an http(s) address, may replace the public servers, and may publish `<file>.md5` for a repacked
file.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from time import sleep
from typing import TypeVar

from filelock import FileLock, Timeout

from speechattn.corpora.download.transfer import DownloadError, TransientError, published_md5, require_space, transfer
from speechattn.corpora.download.unpack import ArchiveError, extract
from speechattn.jobs.stamps import checksum

__all__ = ["Archive", "DownloadError", "RemoteFile", "download_archive", "fetch", "openslr_urls", "unpack_archive"]

OPENSLR = (
    "https://www.openslr.org",
    "https://openslr.trmal.net",
    "https://openslr.elda.org",
    "https://openslr.magicdatatech.com",
)
BACKOFF_S = (1.0, 4.0, 15.0)  # before the second, third and fourth attempt without progress

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file on public servers, with what is known to check it.

    Args:
        urls: Its addresses, tried in this order.
        mirror_path: Its path below a mirror.
        size: In bytes; None if unknown.
        md5: Official checksum; None if none is published.
    """

    urls: tuple[str, ...]
    mirror_path: str
    size: int | None = None
    md5: str | None = None

    @property
    def name(self) -> str:
        """File name."""
        return PurePosixPath(self.mirror_path).name


@dataclass(frozen=True, kw_only=True)
class Archive(RemoteFile):
    """A .zip or .tar.gz file of a corpus, whose content is in a folder `root` or at its top level.

    Args:
        root: Folder below the corpus folder to unpack to. Archives may share it; later ones overwrite files.
        landmark: A file or folder, relative to the root, that only this archive contains. Present only after complete
            extraction. None: the content is unknown, and the root belongs to this archive alone.
        unpacked_factor: Approximate size of the content relative to the archive's.
    """

    root: str
    landmark: str | None = None
    unpacked_factor: float = 1.1


def openslr_urls(path: str) -> tuple[str, ...]:
    """The addresses of a file on OpenSLR's servers, e.g. `12/dev-clean.tar.gz`."""
    return tuple(f"{base}/resources/{path}" for base in OPENSLR)


def download_archive(archive: Archive, corpus_dir: Path, mirror: str | None = None) -> Path:
    """Download and unpack what is missing of an archive, and return the corpus's root folder.

    Args:
        archive: The archive.
        corpus_dir: Folder that holds the archive or the root, or will hold both.
        mirror: A folder or http(s) address to use instead of the official servers.

    Raises:
        DownloadError: See `fetch`.
        ArchiveError: See `extract`; an archive that was just downloaded is deleted again.
        OSError: When the disk is full or not writable.
    """
    path = corpus_dir / archive.name
    is_missing = _root(archive, corpus_dir) is None and not path.is_file()
    if is_missing:
        fetch(archive, path, mirror)
    try:
        return unpack_archive(archive, corpus_dir)
    except ArchiveError:
        if is_missing:
            path.unlink(missing_ok=True)
        raise


def unpack_archive(archive: Archive, corpus_dir: Path) -> Path:
    """The corpus's root folder, `corpus_dir` or below it; unpacks the archive if that is all there is.

    Raises:
        ValueError: When neither is there, or the archive is bad (an ArchiveError).
        OSError: When the disk is full or not writable.
    """
    if root := _root(archive, corpus_dir):
        return root
    path = corpus_dir / archive.name
    if not path.is_file():
        content = f"{archive.root}/" if archive.landmark is None else f"{archive.root}/ with {archive.landmark}"
        raise ValueError(
            f"{corpus_dir}: holds neither {archive.name} nor its folder {content}; "
            f"add --download, or put the file from {archive.urls[0]} there"
        )
    with _locked(corpus_dir / archive.root):
        if root := _root(archive, corpus_dir):  # another process was faster
            return root
        require_space(corpus_dir, archive.unpacked_factor * path.stat().st_size, f"unpacking {archive.name}")
        return extract(path, corpus_dir / archive.root, archive.landmark)


def _root(archive: Archive, corpus_dir: Path) -> Path | None:
    root = corpus_dir / archive.root
    if archive.landmark is None:
        return root if root.is_dir() else None
    return next((folder for folder in (corpus_dir, root) if (folder / archive.landmark).exists()), None)


def fetch(file: RemoteFile, target: Path, mirror: str | None = None) -> Path:
    """Download a file from its servers or a mirror, unless it exists.

    The checksum is the catalogue's, or the one that the mirror publishes; without one, the file's SHA-256 is printed.
    Transient errors are retried with growing waits, then the next server is tried. When several processes fetch the
    same file, one downloads it and the others wait.

    Args:
        file: The file.
        target: Path to write to; appears only when it is complete and correct.
        mirror: A folder or http(s) address to use instead of the official servers.

    Returns:
        `target`.

    Raises:
        DownloadError: When no server provides the file, or it is a web page or has the wrong size or checksum.
        OSError: When the disk is full or not writable.
    """
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with _locked(target):
        if target.is_file():  # another process was faster
            return target
        if mirror is not None:
            file = _retry(partial(_mirrored, file, mirror), part)
        problems = []
        for url in file.urls:
            try:
                _retry(partial(_fetch_from, url, file, part), part)
                break
            except DownloadError as error:
                problems.append(str(error))
        else:
            raise DownloadError("; ".join(problems))
        os.replace(part, target)
        part.with_name(part.name + ".origin").unlink(missing_ok=True)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Admit one process at a time. The lock file stays: after deleting it, two processes could hold the lock."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s: waiting for the process that works on it", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _retry(attempt: Callable[[], T], part: Path) -> T:
    """Repeat `attempt` after transient errors; the waits start over whenever `part` has grown."""
    furthest, waits = 0, iter(BACKOFF_S)
    while True:
        try:
            return attempt()
        except TransientError as error:
            reached = part.stat().st_size if part.exists() else 0
            if reached > furthest:
                furthest, waits = reached, iter(BACKOFF_S)
            if (backoff_s := next(waits, None)) is None:
                raise DownloadError(f"{error}; run it again") from error
            wait_s = max(backoff_s, error.wait_s)
            log.warning("%s; trying again in %g s", error, wait_s)
            sleep(wait_s)


def _mirrored(file: RemoteFile, mirror: str) -> RemoteFile:
    """The file on the mirror. A checksum published there replaces size and checksum: the file may be repacked."""
    url = f"{mirror.rstrip('/')}/{file.mirror_path}"
    md5 = published_md5(url)
    return replace(file, urls=(url,)) if md5 is None else replace(file, urls=(url,), size=None, md5=md5)


def _fetch_from(url: str, file: RemoteFile, part: Path) -> None:
    """Complete and check `part`."""
    factor = file.unpacked_factor if isinstance(file, Archive) else 0.0
    resumed = transfer(url, part, size=file.size, checked=file.md5 is not None, unpacked_factor=factor)
    if file.md5 is None:
        print(f"{url}: no checksum is published; sha256 of the downloaded file: {checksum(part)}")
    elif (actual := checksum(part, "md5")) != file.md5:
        part.unlink()
        # A resumed file may mix two versions: download it again from the start.
        kind = TransientError if resumed else DownloadError
        raise kind(f"{url}: checksum does not match: md5 {actual}, expected {file.md5}")
