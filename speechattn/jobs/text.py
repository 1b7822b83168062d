"""Read text files from users (labels, lexicons, transcripts, lists, tables), and check what can be printed."""

import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["check_printable", "has_byte_order_mark", "numbered_lines", "read_text", "unprintable"]

BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def has_byte_order_mark(path: str | Path) -> bool:
    """Whether a file begins with a mark of UTF-8 or UTF-16."""
    with open(path, "rb") as file:
        return file.read(3).startswith((*BYTE_ORDER_MARKS, b"\xef\xbb\xbf"))


def read_text(path: str | Path, *, compose: bool = True) -> str:
    r"""Read a file in UTF-8, or in UTF-16 with a byte order mark.

    Line ends become "\n".

    Args:
        path: The file.
        compose: Whether to compose letters and their marks (Unicode's NFC), so that equal-looking words are equal. Not
            for names of files.

    Raises:
        ValueError: If there is no such file, or it has another encoding; names file and line.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-16" if data.startswith(BYTE_ORDER_MARKS) else "utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{number}: not text in UTF-8 or UTF-16: {error.reason}") from error
    if "\0" in text:
        number = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{path}:{number}: not text in UTF-8 or UTF-16: it has null characters")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text) if compose else text


def numbered_lines(path: str | Path, *, compose: bool = True) -> Iterator[tuple[int, str]]:
    """The non-blank lines of a file, with their line numbers from 1; arguments and errors as for `read_text`."""
    for number, line in enumerate(read_text(path, compose=compose).split("\n"), 1):
        if line.strip():
            yield number, line


def unprintable(symbol: str, encoding: str) -> str:
    """The message for a symbol that standard output cannot show."""
    return f"standard output ({encoding}) cannot show {symbol!r}: set PYTHONIOENCODING=utf-8, or write files (--output)"


def check_printable(symbols: Iterable[str]) -> None:
    """Refuse to begin if standard output cannot show one of these symbols.

    Raises:
        ValueError: If there is one; the message has the remedy.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    for symbol in symbols:
        try:
            symbol.encode(encoding)
        except UnicodeEncodeError:
            raise ValueError(unprintable(symbol, encoding)) from None
