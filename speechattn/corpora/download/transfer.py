"""One file from one place, an http(s) address or a path, continued where an earlier attempt stopped.

The bytes go to a `.part` file. What came earlier is kept if the pieces can be told to belong together: by the checksum
of the whole, or, where none is known, by the server, which gets back what it called the version of the file then
(RFC 9110, sections 13.1.5 and 14.2: If-Range, Range).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

__all__ = ["DownloadError", "PassingError", "published_md5", "require_room", "transfer"]

BLOCK_BYTES = 1 << 16  # little, so that a slow connection's bytes are soon on the disk
TIMEOUT_S = (20, 60)  # to connect, and between two pieces
MAX_WAIT_S = 60  # a server may ask for more, and is not asked again by us


class DownloadError(ValueError):
    """Something that could not be fetched, or is not what it should be."""


class PassingError(DownloadError):
    """A failure that may be over in a moment: a broken connection, a time-out, a busy server (429, 5xx).

    Args:
        message: What happened.
        wait_s: How long the server wants to be left alone, in seconds.
    """

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class _Body(NamedTuple):
    """What a source answers."""

    blocks: Iterator[bytes]
    start: int  # offset of the first block
    size: int | None  # of the whole, if known
    validator: str | None  # the server's name for this version of the file


def transfer(source: str, part: Path, *, size: int | None, checked: bool, unpacked_factor: float = 0.0) -> bool:
    """Bring `part` from wherever it is to the whole file.

    Args:
        source: Address or path.
        part: The file that grows. When the server names its version, `<part>.origin` remembers that.
        size: Bytes that the file must have; None if that is not known.
        checked: A checksum will tell afterwards whether the pieces fit, so they may come from anywhere.
        unpacked_factor: Bytes that unpacking will need, for each of the file's own: looked for before starting.

    Returns:
        Whether a part of an earlier attempt was used.

    Raises:
        DownloadError: Not there, a web page, or of another size.
        PassingError: See there; what came is kept.
        OSError: Too little room on the disk, or it cannot be written to; what came is kept.
    """
    origin = part.with_name(part.name + ".origin")
    present, validator = _resumable(source, part, origin, checked)
    if present and present == size:
        return True
    with _opened(source, present, validator) as body:
        blocks, first = body.blocks, next(body.blocks, b"")
        if body.start == 0 and first[:256].lstrip().lower().startswith((b"<!doctype html", b"<html")):
            raise DownloadError(f"{source}: gave a web page instead of the file")
        if None not in (size, body.size) and size != body.size:
            raise DownloadError(f"{source}: has {body.size} bytes, not {size}: it is another file")
        total = body.size if size is None else size
        if total is not None:
            on_disk = part.stat().st_size if part.exists() else 0
            require_room(part.parent, total - min(on_disk, total) + unpacked_factor * total, part.stem)
        if body.start == 0:
            part.unlink(missing_ok=True)
            origin.unlink(missing_ok=True)
            if body.validator is not None and not checked:
                origin.write_text(f"{source}\n{body.validator}\n", encoding="utf-8")
        _append(first, blocks, part, total, source)
    came = part.stat().st_size
    if total is not None and came < total:
        raise PassingError(f"{source}: the connection broke at byte {came} of {total}")
    if total is not None and came > total:
        part.unlink()
        raise DownloadError(f"{source}: {total} bytes were announced, {came} came")
    return body.start > 0


def require_room(folder: Path, num_bytes: float, purpose: str) -> None:
    """Raise OSError when the disk of `folder` has less than `num_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OSError(f"{folder}: {free / 1e6:.0f} MB are free, {purpose} needs {num_bytes / 1e6:.0f} MB: make room")


def published_md5(source: str) -> str | None:
    """The md5 that a mirror publishes for a file, as `<source>.md5`; None when it publishes none.

    Raises:
        DownloadError: It cannot be asked, or publishes something else there.
    """
    address = source + ".md5"
    if _is_address(source):
        with _get(address, {}) as response:
            if response.status_code not in (403, 404, 410):  # not merely absent
                _require_ok(response, address)
            text = response.raw.read(1000).decode("utf-8", "replace") if response.ok else None
    else:
        text = Path(address).read_text(encoding="utf-8") if Path(address).is_file() else None
    if text is None:
        return None
    match = re.match(r"\s*\\?([0-9a-fA-F]{32})(\s|$)", text)
    if match is None:
        raise DownloadError(f"{address}: is no md5 file: expected 32 hexadecimal digits")
    return match[1].lower()


def _resumable(source: str, part: Path, origin: Path, checked: bool) -> tuple[int, str | None]:
    """How many bytes of `part` need not come again, and the version that the server must still have for that."""
    present = part.stat().st_size if part.exists() else 0
    if checked or present == 0:
        return present, None
    noted = origin.read_text(encoding="utf-8").splitlines() if origin.exists() else []
    return (present, noted[1]) if len(noted) == 2 and noted[0] == source else (0, None)


def _is_address(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _get(source: str, headers: dict[str, str]) -> requests.Response:
    """Begin a request; its body is read later."""
    try:
        # The bytes themselves, not a compressed transfer of them: sizes and ranges count them.
        headers = {"Accept-Encoding": "identity", **headers}
        return requests.get(source, headers=headers, stream=True, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        passing = isinstance(error, requests.ConnectionError | requests.Timeout)
        kind = PassingError if passing and not isinstance(error, requests.exceptions.SSLError) else DownloadError
        raise kind(f"{source}: cannot be reached ({type(error).__name__})") from error


def _require_ok(response: requests.Response, source: str) -> None:
    if response.ok:
        return
    message = f"{source}: the server answered {response.status_code} {response.reason}"
    if response.status_code in (408, 429) or response.status_code >= 500:
        asked = response.headers.get("Retry-After", "")
        raise PassingError(message, min(int(asked), MAX_WAIT_S) if asked.isdecimal() else 0.0)
    raise DownloadError(message)


@contextmanager
def _opened(source: str, present: int, validator: str | None) -> Iterator[_Body]:
    """Begin to read a source.

    Args:
        source: Path or address.
        present: Bytes that need not come again, if the source can leave them out.
        validator: The version of the file that they are of; None when that will show otherwise.
    """
    if not _is_address(source):
        try:
            with open(source, "rb") as file:
                yield _Body(_blocks(file), 0, os.fstat(file.fileno()).st_size, None)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise DownloadError(f"{source}: no such file at the mirror") from error
        return
    headers = {"Range": f"bytes={present}-"} if present else {}
    if validator is not None:
        headers["If-Range"] = validator
    with _get(source, headers) as response:
        answered = response.headers.get("Content-Range", "")
        if present and response.status_code == 416 and answered == f"bytes */{present}":  # all is here
            yield _Body(iter(()), present, present, None)
            return
        again = response.status_code == 416 or (
            response.status_code == 206 and not answered.startswith(f"bytes {present}-")
        )
        if not (present and again):
            _require_ok(response, source)
            start = present if response.status_code == 206 else 0
            length = response.headers.get("Content-Length")
            # Not iter_content: where a server calls .gz an encoding, that would unpack the file.
            blocks = response.raw.stream(BLOCK_BYTES, decode_content=False)
            try:
                yield _Body(blocks, start, start + int(length) if length is not None else None, _validator(response))
            except HTTPError as error:
                raise PassingError(f"{source}: the connection broke") from error
            return
    with _opened(source, 0, None) as body:  # nothing after `present`, or another piece than was asked for
        yield body


def _validator(response: requests.Response) -> str | None:
    """What If-Range may hold: a strong entity tag, or else a date."""
    tag = response.headers.get("ETag")
    return tag if tag is not None and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        yield block


def _append(first: bytes, blocks: Iterator[bytes], part: Path, total: int | None, source: str) -> None:
    """Append blocks to `part`, with a progress bar."""
    try:
        with open(part, "ab") as file:
            bar = tqdm(desc=part.stem, total=total, initial=file.tell(), unit="B", unit_scale=True, disable=None)
            with bar:
                block = first
                while block:
                    file.write(block)
                    bar.update(len(block))
                    block = next(blocks, b"")
            file.flush()
            os.fsync(file.fileno())  # some disks say only now that they are full
    except OSError as error:
        reason = f"{error.strerror or error} while fetching {source} (what came is kept: run it again)"
        raise OSError(error.errno, reason, str(part)) from error
