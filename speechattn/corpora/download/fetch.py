"""Fetch a corpus's files and unpack them, so that each lies there whole and right or not at all.

A download goes to a `.part` file, is checked (size, checksum, that it is no web page) and renamed; it may be stopped at
any time and goes on from there. A mirror, a folder or an http(s) address, may stand for the public servers, and may
publish `<file>.md5` for a file that it repacked.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from filelock import FileLock, Timeout

from speechattn.corpora.download.transfer import DownloadError, PassingError, published_md5, require_room, transfer
from speechattn.corpora.download.unpack import ArchiveError, extract
from speechattn.jobs.stamps import checksum

__all__ = [
    "Archive",
    "DownloadError",
    "RemoteFile",
    "download_archive",
    "fetch",
    "openslr_urls",
    "unpacked",
]

OPENSLR = (
    "https://www.openslr.org",
    "https://us.openslr.org",
    "https://openslr.elda.org",
    "https://openslr.magicdatatech.com",
)
BACKOFF_S = (1.0, 4.0, 15.0)  # before the second, third and fourth try in a row that brings nothing

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file on public servers, and how to know it.

    Args:
        urls: Its addresses, tried in this order.
        mirror_path: Its place below a mirror.
        size: Bytes; None when that is not known.
        md5: Official checksum; None when none is published.
        sha256: The same, of the better kind.
    """

    urls: tuple[str, ...]
    mirror_path: str
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """File name."""
        return PurePosixPath(self.mirror_path).name

    @property
    def checksums(self) -> dict[str, str]:
        """The known checksums by algorithm."""
        known = {"sha256": self.sha256, "md5": self.md5}
        return {algorithm: value for algorithm, value in known.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Archive(RemoteFile):
    """A .zip or .tar.gz file of a corpus. Its content lies in a folder `root`, or at its top.

    Args:
        root: The folder, below the corpus's, that the content goes to. Several archives may share one: a later one
            replaces the files of the same names.
        landmark: A file or folder that every unpacked copy has, and no other archive, relative to the root: where
            it is, all is. None: nothing is known of the content, and the root is this archive's alone.
        unpacked_factor: Bytes of the content for each of the archive, about.
    """

    root: str
    landmark: str | None = None
    unpacked_factor: float = 1.1


def openslr_urls(path: str) -> tuple[str, ...]:
    """The addresses of a file on OpenSLR's servers, e.g. `12/dev-clean.tar.gz`."""
    return tuple(f"{base}/resources/{path}" for base in OPENSLR)


def download_archive(archive: Archive, corpus_dir: Path, mirror: str | None = None) -> Path:
    """The corpus's root folder below `corpus_dir`, fetching and unpacking only what is missing.

    Args:
        archive: What to fetch.
        corpus_dir: Where archive or root lie already, or go.
        mirror: A folder or http(s) address instead of the official servers.

    Raises:
        DownloadError: See `fetch`.
        ArchiveError: See `extract`; an archive that was fetched now is removed again.
        OSError: The disk is full, or cannot be written to.
    """
    root = _root(archive, corpus_dir)
    if root is not None:
        return root
    path = corpus_dir / archive.name
    is_new = not path.is_file()
    fetch(archive, path, mirror)
    try:
        return unpacked(archive, corpus_dir)
    except ArchiveError:
        if is_new:
            path.unlink(missing_ok=True)
        raise


def unpacked(archive: Archive, corpus_dir: Path) -> Path:
    """The corpus's root folder: `corpus_dir` or below it, unpacked there when only the archive is.

    Raises:
        ValueError: When neither is there, or the archive is bad (an ArchiveError).
        OSError: The disk is full, or cannot be written to.
    """
    root = _root(archive, corpus_dir)
    if root is not None:
        return root
    path = corpus_dir / archive.name
    if not path.is_file():
        content = f"{archive.root}/" if archive.landmark is None else f"{archive.root}/ with {archive.landmark}"
        raise ValueError(
            f"{corpus_dir}: holds neither {archive.name} nor its folder {content}; "
            f"add --download, or put there what {archive.urls[0]} gives"
        )
    with _alone(corpus_dir / archive.root):
        root = _root(archive, corpus_dir)
        if root is not None:  # another process was faster
            return root
        require_room(corpus_dir, archive.unpacked_factor * path.stat().st_size, f"unpacking {archive.name}")
        return extract(path, corpus_dir / archive.root, archive.landmark)


def _root(archive: Archive, corpus_dir: Path) -> Path | None:
    root = corpus_dir / archive.root
    if archive.landmark is None:
        return root if root.is_dir() else None
    return next((folder for folder in (corpus_dir, root) if (folder / archive.landmark).exists()), None)


def fetch(
    file: RemoteFile, target: Path, mirror: str | None = None, *, sleep: Callable[[float], object] = time.sleep
) -> Path:
    """Get a file from its servers or a mirror; nothing is done when it is there.

    The checksum is the catalogue's, or the one that the mirror publishes. Where there is none, the file's sha256 is
    printed for the record. What may pass, such as a broken connection, is tried again some seconds later; then comes
    the next server's turn. Several processes may call this for the same file: one fetches it, the others wait.

    Args:
        file: What to get.
        target: The file to write; appears only when it is complete and right.
        mirror: A folder or http(s) address instead of the official servers.
        sleep: Called with the seconds to wait.

    Returns:
        `target`.

    Raises:
        DownloadError: Nowhere to be had, interrupted, a web page, or not the right size or checksum.
        OSError: The disk is full, or cannot be written to.
    """
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with _alone(target):
        if target.is_file():  # another process was faster
            return target
        if mirror is not None:
            file = _persist(partial(_mirrored, file, mirror), part, sleep)
        problems = []
        for url in file.urls:
            try:
                _persist(partial(_fetch_from, url, file, part), part, sleep)
                break
            except DownloadError as error:
                problems.append(str(error))
        else:
            raise DownloadError("; ".join(problems))
        os.replace(part, target)
        part.with_name(part.name + ".origin").unlink(missing_ok=True)
    return target


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time work on `path`. The lock's file stays: to remove it would let two processes in."""
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


def _persist(attempt: Callable[[], T], part: Path, sleep: Callable[[float], object]) -> T:
    """The result of `attempt`, repeated while it fails with what may pass; tries that made `part` longer are free."""
    furthest, waits = 0, iter(BACKOFF_S)
    while True:
        try:
            return attempt()
        except PassingError as error:
            reached = part.stat().st_size if part.exists() else 0
            if reached > furthest:
                furthest, waits = reached, iter(BACKOFF_S)
            wait_s = next(waits, None)
            if wait_s is None:
                raise DownloadError(f"{error}; run it again") from error
            wait_s = max(wait_s, error.wait_s)
            log.warning("%s; trying again in %g s", error, wait_s)
            sleep(wait_s)


def _mirrored(file: RemoteFile, mirror: str) -> RemoteFile:
    """The file as the mirror has it. One that publishes a checksum may have repacked it."""
    url = f"{mirror.rstrip('/')}/{file.mirror_path}"
    md5 = published_md5(url)
    return replace(file, urls=(url,)) if md5 is None else replace(file, urls=(url,), size=None, md5=md5, sha256=None)


def _fetch_from(url: str, file: RemoteFile, part: Path) -> None:
    """Bring `part` to the whole and right file."""
    factor = file.unpacked_factor if isinstance(file, Archive) else 0.0
    resumed = transfer(url, part, size=file.size, checked=bool(file.checksums), unpacked_factor=factor)
    for algorithm, expected in file.checksums.items():
        found = checksum(part, algorithm)
        if found != expected:
            part.unlink()
            # Pieces of two versions of the file may have met: then the whole is right.
            kind = PassingError if resumed else DownloadError
            raise kind(f"{url}: checksum does not match: {algorithm} {found}, expected {expected}")
    if not file.checksums:
        print(f"{url}: no checksum is published; sha256 of what came: {checksum(part)}")
