"""Copy one file from an http(s) address or a path, resuming an earlier attempt.

The bytes go to a `.part` file. It is resumed if a checksum will verify the whole, or else if the server confirms that
the file has not changed since (RFC 9110, sections 13.1.5 and 14.2: If-Range, Range).
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

__all__ = ["DownloadError", "TransientError", "published_md5", "require_space", "transfer"]

BLOCK_BYTES = 1 << 16  # small, so that bytes from a slow connection are saved soon
TIMEOUT_S = (20, 60)  # to connect, and between two blocks
MAX_WAIT_S = 60  # cap on the wait that a server asks for


class DownloadError(ValueError):
    """A file that cannot be downloaded, or is not the expected one."""


class TransientError(DownloadError):
    """An error that may go away: a broken connection, a time-out, a busy server (429, 5xx).

    Args:
        message: What happened.
        wait_s: How long the server asks to wait, in seconds.
    """

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class _Body(NamedTuple):
    blocks: Iterator[bytes]
    start: int  # offset of the first block
    size: int | None  # of the whole file, if known
    validator: str | None  # identifies this version of the file, see If-Range


def transfer(source: str, part: Path, *, size: int | None, checked: bool, unpacked_factor: float = 0.0) -> bool:
    """Complete `part`, whatever it holds already.

    Args:
        source: Address or path.
        part: The file to write. `<part>.origin` records the server's version of the file.
        size: Expected size in bytes; None if unknown.
        checked: Whether the caller verifies a checksum, so that `part` may be resumed from any source.
        unpacked_factor: Space needed for unpacking, relative to the file's size; checked before starting.

    Returns:
        Whether bytes of an earlier attempt were reused.

    Raises:
        DownloadError: When there is no such file, or it is a web page or has another size.
        TransientError: See there; the received bytes are kept.
        OSError: When the disk is full or not writable; the received bytes are kept.
    """
    origin = part.with_name(part.name + ".origin")
    present, validator = _resumable(source, part, origin, checked)
    if present and present == size:
        return True
    with _open(source, present, validator) as body:
        first = next(body.blocks, b"")
        if body.start == 0 and first[:256].lstrip().lower().startswith((b"<!doctype html", b"<html")):
            raise DownloadError(f"{source}: returned a web page instead of the file")
        if None not in (size, body.size) and size != body.size:
            raise DownloadError(f"{source}: has {body.size} bytes, not {size}: it is another file")
        total = body.size if size is None else size
        if total is not None:
            on_disk = part.stat().st_size if part.exists() else 0
            require_space(part.parent, total - min(on_disk, total) + unpacked_factor * total, part.stem)
        if body.start == 0:
            part.unlink(missing_ok=True)
            origin.unlink(missing_ok=True)
            if body.validator is not None and not checked:
                origin.write_text(f"{source}\n{body.validator}\n", encoding="utf-8")
        _append(chain([first], body.blocks), part, total, source)
    received = part.stat().st_size
    if total is not None and received < total:
        raise TransientError(f"{source}: the connection broke at byte {received} of {total}")
    if total is not None and received > total:
        part.unlink()
        raise DownloadError(f"{source}: expected {total} bytes, received {received}")
    return body.start > 0


def require_space(folder: Path, num_bytes: float, purpose: str) -> None:
    """Raise an OSError when the disk of `folder` has less than `num_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OSError(f"{folder}: {free / 1e6:.0f} MB free, {purpose} needs {num_bytes / 1e6:.0f} MB: free some space")


def published_md5(source: str) -> str | None:
    """The md5 that a mirror publishes as `<source>.md5`; None if it publishes none.

    Raises:
        DownloadError: When the mirror cannot be reached, or the file is not an md5 file.
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
        raise DownloadError(f"{address}: not an md5 file: expected 32 hexadecimal digits")
    return match[1].lower()


def _resumable(source: str, part: Path, origin: Path, checked: bool) -> tuple[int, str | None]:
    """How many bytes of `part` can be reused, and the validator that the server must confirm for that."""
    present = part.stat().st_size if part.exists() else 0
    if checked or present == 0:
        return present, None
    recorded = origin.read_text(encoding="utf-8").splitlines() if origin.exists() else []
    return (present, recorded[1]) if len(recorded) == 2 and recorded[0] == source else (0, None)


def _is_address(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _get(source: str, headers: dict[str, str]) -> requests.Response:
    try:
        # Uncompressed, since sizes and ranges count the file's bytes.
        headers = {"Accept-Encoding": "identity", **headers}
        return requests.get(source, headers=headers, stream=True, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        transient = isinstance(error, requests.ConnectionError | requests.Timeout)
        kind = TransientError if transient and not isinstance(error, requests.exceptions.SSLError) else DownloadError
        raise kind(f"{source}: cannot be reached ({type(error).__name__})") from error


def _require_ok(response: requests.Response, source: str) -> None:
    if response.ok:
        return
    message = f"{source}: the server answered {response.status_code} {response.reason}"
    if response.status_code in (408, 429) or response.status_code >= 500:
        wait_s = response.headers.get("Retry-After", "")
        raise TransientError(message, min(int(wait_s), MAX_WAIT_S) if wait_s.isdecimal() else 0.0)
    raise DownloadError(message)


@contextmanager
def _open(source: str, present: int, validator: str | None) -> Iterator[_Body]:
    """Open a source, from byte `present` on if it can and its file still has this validator (None: in any case)."""
    if not _is_address(source):
        try:
            with open(source, "rb") as file:
                blocks = iter(lambda: file.read(BLOCK_BYTES), b"")
                yield _Body(blocks, 0, os.fstat(file.fileno()).st_size, None)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise DownloadError(f"{source}: no such file at the mirror") from error
        return
    headers = {"Range": f"bytes={present}-"} if present else {}
    if validator is not None:
        headers["If-Range"] = validator
    with _get(source, headers) as response:
        status, content_range = response.status_code, response.headers.get("Content-Range", "")
        if present and status == 416 and content_range == f"bytes */{present}":  # nothing is missing
            yield _Body(iter(()), present, present, None)
            return
        wrong_range = status == 416 or (status == 206 and not content_range.startswith(f"bytes {present}-"))
        if not (present and wrong_range):
            _require_ok(response, source)
            start = present if status == 206 else 0
            length, tag = response.headers.get("Content-Length"), response.headers.get("ETag", "W/")
            size = start + int(length) if length is not None else None
            # If-Range takes a strong entity tag, or else a date.
            validator = response.headers.get("Last-Modified") if tag.startswith("W/") else tag
            # Not iter_content, which would decompress the file where a server declares .gz as an encoding.
            blocks = response.raw.stream(BLOCK_BYTES, decode_content=False)
            try:
                yield _Body(blocks, start, size, validator)
            except HTTPError as error:
                raise TransientError(f"{source}: the connection broke") from error
            return
    with _open(source, 0, None) as body:
        yield body


def _append(blocks: Iterator[bytes], part: Path, total: int | None, source: str) -> None:
    """Append blocks to `part`, with a progress bar."""
    try:
        with open(part, "ab") as file:
            with tqdm(desc=part.stem, total=total, initial=file.tell(), unit="B", unit_scale=True, disable=None) as bar:
                for block in blocks:
                    file.write(block)
                    bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())  # some disks report only here that they are full
    except OSError as error:
        reason = f"{error.strerror or error} while fetching {source} (the received bytes are kept: run it again)"
        raise OSError(error.errno, reason, str(part)) from error
