"""A request's body as a file on the disk, and its name as it may be shown and used."""

from __future__ import annotations

from pathlib import Path

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request

from speechattn.server.limits import Limits

__all__ = ["clean_name", "receive"]

LONGEST_NAME = 100  # bytes in UTF-8
RESERVED = '<>:"/\\|?*'  # by one file system or another


async def receive(request: Request, path: Path, limits: Limits) -> None:
    """Write the body of a request to a file, no further than its largest size.

    Raises:
        HTTPException: 400, when there is none; 408, when it does not arrive in time; 413, when it is too large.
    """
    most = round(limits.upload_mb * 1e6)
    too_large = HTTPException(413, f"the file is larger than {limits.upload_mb:g} MB, the most that this server takes")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise too_large  # before the client is asked for it
    size = 0
    try:
        with anyio.fail_after(limits.upload_timeout_s):
            async with await anyio.open_file(path, "wb") as file:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > most:
                        raise too_large
                    await file.write(chunk)
    except TimeoutError as error:
        raise HTTPException(408, f"the file did not arrive within {limits.upload_timeout_s:g} s") from error
    if size == 0:
        raise HTTPException(400, "the file is empty (0 bytes): send the audio as the body of the request")


def clean_name(name: str) -> str:
    r"""A file's name without folders, and without what is no part of a name on some system.

    Example:
        >>> clean_name("../../etc/passwd"), clean_name("C:\\speech\\a b?.wav"), clean_name("..")
        ('passwd', 'a b.wav', 'recording')
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(character for character in last if character.isprintable() and character not in RESERVED)
    return kept.encode()[:LONGEST_NAME].decode(errors="ignore").strip(" .") or "recording"
