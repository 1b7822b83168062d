"""Fetch a corpus's archive and unpack it, so that it lies there whole or not at all.

A download goes to a `.part` file, is checked (size, checksum, that it is no web page) and renamed; an archive
is unpacked beside its place and moved there in one step. A mirror, a folder or an http(s) address, may stand
for the public servers, and may publish `<file>.md5` for a file that it repacked.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from speechattn.stages import checksum

__all__ = ["Archive", "DownloadError", "download_archive", "extract", "fetch", "unpacked"]

BLOCK_BYTES = 1 << 20
TIMEOUT_S = (20, 60)  # to connect, and between two pieces
MARKER = ".complete"  # in a folder that `extract` made: everything of the archive is there


class DownloadError(ValueError):
    """Something that could not be fetched, or is not what it should be."""


@dataclass(frozen=True)
class Archive:
    """A corpus's archive: where it is, and how to know it.

    Args:
        url: The official address.
        mirror_path: The file's place below a mirror.
        root: The folder that it unpacks to.
        landmark: A file or folder that every unpacked copy has, relative to the root.
        md5: Official checksum; None when none is published.
    """

    url: str
    mirror_path: str
    root: str
    landmark: str
    md5: str | None = None

    @property
    def name(self) -> str:
        """File name."""
        return PurePosixPath(self.mirror_path).name


def download_archive(archive: Archive, corpus_dir: Path, mirror: str | None = None) -> Path:
    """The corpus's root folder below `corpus_dir`, fetching and unpacking only what is missing.

    Args:
        archive: What to fetch.
        corpus_dir: Where archive or root lie already, or go.
        mirror: A folder or http(s) address instead of the official server.

    Raises:
        DownloadError: See `fetch` and `extract`.
    """
    if _root(archive, corpus_dir) is None and not (corpus_dir / archive.name).is_file():
        fetch(archive, corpus_dir / archive.name, mirror)
    return unpacked(archive, corpus_dir)


def unpacked(archive: Archive, corpus_dir: Path) -> Path:
    """The corpus's root folder: `corpus_dir` or below it, unpacked there when only the archive is.

    Raises:
        ValueError: When neither is there, or the archive is damaged.
    """
    root = _root(archive, corpus_dir)
    if root is not None:
        return root
    path = corpus_dir / archive.name
    if not path.is_file():
        raise ValueError(
            f"{corpus_dir}: holds neither {archive.name} nor its folder {archive.root}/ with "
            f"{archive.landmark}; add --download, or put there what {archive.url} gives"
        )
    return extract(path, corpus_dir / archive.root)


def _root(archive: Archive, corpus_dir: Path) -> Path | None:
    candidates = (corpus_dir, corpus_dir / archive.root)
    return next((folder for folder in candidates if (folder / archive.landmark).exists()), None)


def fetch(archive: Archive, target: Path, mirror: str | None = None) -> Path:
    """Get an archive from its server or a mirror.

    The checksum is the catalogue's, or the one that the mirror publishes. Where there is none, the file's
    sha256 is printed for the record. An interrupted download goes on where it stopped if a checksum can tell
    whether the two parts belong together.

    Args:
        archive: What to get.
        target: The file to write; appears only when it is complete and right.
        mirror: A folder or http(s) address instead of the official server.

    Returns:
        `target`.

    Raises:
        DownloadError: Not there, interrupted, a web page, or not the right size or checksum.
    """
    source = archive.url if mirror is None else f"{mirror.rstrip('/')}/{archive.mirror_path}"
    md5 = archive.md5 if mirror is None else _published_md5(source) or archive.md5
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if md5 is None:
        part.unlink(missing_ok=True)
    present = part.stat().st_size if part.exists() else 0
    with _opened(source, present) as (stream, start, size):
        _write(stream, part, start, size, source)
    if size is not None and part.stat().st_size != size:
        part.unlink()
        raise DownloadError(f"{source}: {size} bytes were announced, another number came; run it again")
    if md5 is None:
        print(f"{source}: no checksum is published; sha256 of what came: {checksum(part)}")
    elif (found := checksum(part, "md5")) != md5:
        part.unlink()
        raise DownloadError(f"{source}: checksum does not match: md5 {found}, expected {md5}")
    os.replace(part, target)
    return target


def _is_address(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _get(source: str, headers: dict[str, str]) -> requests.Response:
    """Begin a request; its body is read later."""
    try:
        # The bytes themselves, not a compressed transfer of them: sizes and ranges count them.
        headers = {"Accept-Encoding": "identity", **headers}
        return requests.get(source, headers=headers, stream=True, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        raise DownloadError(f"{source}: cannot be reached ({type(error).__name__})") from error


def _published_md5(source: str) -> str | None:
    """The md5 that a mirror publishes for a file; None when it publishes none."""
    address = source + ".md5"
    if _is_address(source):
        with _get(address, {}) as response:
            if not response.ok and response.status_code not in (403, 404, 410):  # not merely absent
                raise DownloadError(f"{address}: the server answered {response.status_code} {response.reason}")
            text = response.raw.read(1000).decode("utf-8", "replace") if response.ok else None
    else:
        text = Path(address).read_text(encoding="utf-8") if Path(address).is_file() else None
    if text is None:
        return None
    match = re.match(r"\s*\\?([0-9a-fA-F]{32})(\s|$)", text)
    if match is None:
        raise DownloadError(f"{address}: is no md5 file: expected 32 hexadecimal digits")
    return match[1].lower()


@contextmanager
def _opened(source: str, present: int) -> Iterator[tuple[Iterator[bytes], int, int | None]]:
    """A file or address as (blocks, offset of the first block, size of the whole if known).

    Args:
        source: Path or address.
        present: Bytes that need not come again, if the server can leave them out.
    """
    if not _is_address(source):
        try:
            with open(source, "rb") as file:
                yield _blocks(file), 0, os.fstat(file.fileno()).st_size
        except (FileNotFoundError, IsADirectoryError) as error:
            raise DownloadError(f"{source}: no such file at the mirror") from error
        return
    response = _get(source, {"Range": f"bytes={present}-"} if present else {})
    if response.status_code == 416:  # nothing after `present`: begin again
        response.close()
        response = _get(source, {})
    with response:
        if not response.ok:
            raise DownloadError(f"{source}: the server answered {response.status_code} {response.reason}")
        start = present if response.status_code == 206 else 0
        length = response.headers.get("Content-Length")
        size = start + int(length) if length is not None else None
        try:
            # Not iter_content: where a server calls .gz an encoding, that would unpack the file.
            yield response.raw.stream(BLOCK_BYTES, decode_content=False), start, size
        except HTTPError as error:
            raise DownloadError(f"{source}: the connection broke; run it again") from error


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        yield block


def _write(stream: Iterator[bytes], part: Path, start: int, size: int | None, source: str) -> None:
    """Append blocks to `part` from byte `start` on, with a progress bar."""
    bar = tqdm(desc=part.stem, total=size, initial=start, unit="B", unit_scale=True, disable=None)
    with bar, open(part, "ab") as file:
        file.truncate(start)
        for block in stream:
            if file.tell() == 0 and block[:256].lstrip().lower().startswith((b"<!doctype html", b"<html")):
                part.unlink()
                raise DownloadError(f"{source}: gave a web page instead of the file")
            file.write(block)
            bar.update(len(block))


def extract(archive: Path, root: Path) -> Path:
    """Unpack a .zip or .tar.gz archive whose content lies in one folder, `root.name`.

    Args:
        archive: The file.
        root: Where that folder goes. One that `extract` made earlier is kept as it is.

    Returns:
        `root`.

    Raises:
        DownloadError: When the archive is damaged, wants to write outside its folder, or has no such folder
            (nothing is left behind); or something else lies at `root`.
    """
    if (root / MARKER).exists():
        return root
    if root.exists():
        raise DownloadError(f"{root}: is in the way: not a whole copy of {archive.name}; remove it")
    workshop = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        _extract_all(archive, workshop)
        folder = workshop / root.name
        if not folder.is_dir():
            raise DownloadError(f"{archive}: holds no folder {root.name}/: it is another archive")
        (folder / MARKER).touch()
        os.replace(folder, root)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return root


def _refuse_outside(archive: Path, name: str) -> None:
    """Refuse an entry that would be written outside the folder that it is unpacked to."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise DownloadError(f"{archive}: refused: {name!r} lies outside the folder")


def _extract_all(archive: Path, folder: Path) -> None:
    """Unpack into `folder`, and nowhere else. Links in a zip file become ordinary files."""
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as file:
                for name in file.namelist():
                    _refuse_outside(archive, name)
                file.extractall(folder)
        else:
            with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
                # tarfile's own filters are not in every Python that we run on (Debian 12's 3.11.2 lacks them).
                for member in tar:
                    _refuse_outside(archive, member.name)
                    if not (member.isfile() or member.isdir()):
                        raise DownloadError(f"{archive}: refused: {member.name!r} is neither a file nor a folder")
                    tar.extract(member, folder, set_attrs=False)
                while stream.read(BLOCK_BYTES):  # to the end, where gzip keeps its checksum
                    pass
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DownloadError(f"{archive}: damaged or cut short ({error}); remove it and fetch it again") from error
