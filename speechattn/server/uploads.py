"""Save the body of a request, and clean its file name."""

from pathlib import Path

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request

from speechattn.server.limits import Limits

__all__ = ["clean_name", "receive"]

MAX_NAME_BYTES = 100  # in UTF-8
RESERVED = '<>:"/\\|?*'  # in some file systems


async def receive(request: Request, path: Path, limits: Limits) -> None:
    """Write the body of a request to a file, up to the maximum size.

    Raises:
        HTTPException: 400 if there is no body; 408 if it does not arrive in time; 413 if it is too large.
    """
    max_size = round(limits.upload_mb * 1e6)
    too_large = HTTPException(413, f"the file is larger than {limits.upload_mb:g} MB, the limit of this server")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_size:
        raise too_large  # before the client sends it
    size = 0
    try:
        with anyio.fail_after(limits.upload_timeout_s):
            async with await anyio.open_file(path, "wb") as file:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > max_size:
                        raise too_large
                    await file.write(chunk)
    except TimeoutError as error:
        raise HTTPException(408, f"the file did not arrive within {limits.upload_timeout_s:g} s") from error
    if size == 0:
        raise HTTPException(400, "the file is empty (0 bytes): send the audio as the body of the request")


def clean_name(name: str) -> str:
    r"""A file name without folders and characters that some systems do not allow.

    Example:
        >>> clean_name("../../etc/passwd"), clean_name("C:\\speech\\a b?.wav"), clean_name("..")
        ('passwd', 'a b.wav', 'recording')
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(character for character in last if character.isprintable() and character not in RESERVED)
    return kept.encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip(" .") or "recording"
