"""How much audio a file really holds, and a view of the file in which libsndfile reads all of it.

libsndfile reads what a header states. Recorders that were stopped leave sizes that are 0 or too small, sizes above 4 GB
are stored modulo 2^32, and of files that were joined only the first is read. `audio_views` finds these cases.
"""

import io
import mmap
import os
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

from speechattn.audio.flac import TOTAL_SAMPLES, stream_lengths
from speechattn.audio.mpeg import Frame, audio_frames, starts_as_mpeg, with_frame_count

__all__ = ["AudioError", "View", "audio_views", "is_container"]

MAX_PADDING = 4096  # zero bytes after the audio that count as padding
MAX_SIZE = {4: 0xFFFFFFFF, 8: 1 << 62}
MAX_PADDING_SLOT = 4  # bytes by which MPEG frames of one bit rate differ
MP3_SLACK = 4  # frames of encoder delay and padding, which are not counted
# First bytes of formats of audio or of files that often hold audio, beside MPEG frames.
MAGIC = (
    b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"FORM", b".snd", b"dns.", b"caff", b"fLaC", b"OggS", b"NIST_1A",
    b"Creative Voice File", b"2BIT", b" paf", b"fap ", b"PVF1", b"MATLAB", b"Extended Instrument", b"ALawSoundFile",
    b"\x64\xa3", b"\x00\x00\xa3\x64", b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75", b"#!AMR", b"#!SILK", b"wvpk", b"MAC ",
    b"TTA1", b"DSD ", b"\xff\xf1", b"\xff\xf9", b"ADIF",
)  # fmt: skip


Order = Literal["little", "big"]
Views: TypeAlias = "list[io.RawIOBase | io.BytesIO]"
Data: TypeAlias = "mmap.mmap | bytes"
Span: TypeAlias = "tuple[int, int, Mapping[int, bytes]]"  # first byte, byte after the last, bytes to replace: see View


class AudioError(ValueError):
    """Audio that cannot be used; the message names the file and the fault."""


class View(io.RawIOBase):
    """A part of a file, with some bytes replaced, for reading.

    Args:
        path: The file.
        start: First byte.
        end: Byte after the last.
        patches: Position in the part -> bytes to read there instead.
    """

    def __init__(self, path: Path, start: int, end: int, patches: Mapping[int, bytes]) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 (closed with the view)
        self._start, self._size, self._patches, self._position = start, end - start, patches, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position in bytes."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; returns the number of bytes."""
        wanted = memoryview(buffer).cast("B")
        count = max(min(len(wanted), self._size - self._position), 0)
        self._file.seek(self._start + self._position)
        count = self._file.readinto(wanted[:count])
        for place, data in self._patches.items():
            for offset, byte in enumerate(data, place - self._position):
                if 0 <= offset < count:
                    wanted[offset] = byte
        self._position += count
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def is_container(data: bytes) -> bool:
    """Whether bytes begin as an audio file of any format, so that they are not raw samples."""
    return data.startswith(MAGIC) or data[4:8] == b"ftyp" or starts_as_mpeg(data)


def audio_views(path: Path) -> tuple[Views, str]:
    """Views that together hold all audio of a file, and what was wrong with it.

    Returns:
        (views, remark): no views if libsndfile reads all of the file by itself. The remark is for a warning.

    Raises:
        AudioError: If not all audio can be read; the message has both lengths.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        magic, remark = data[:4], ""
        if magic == b"OggS":
            spans = _spans(_ogg_starts(data), len(data))
        elif magic == b"fLaC":
            spans, remark = _flac_spans(data)
        elif magic == b"NIST" or magic == b"Crea":
            spans = _spans(_starts(data, data[: data.find(b"\n" if magic == b"NIST" else b"\x1a") + 1]), len(data))
        elif starts_as_mpeg(data[:8192]):
            return _mpeg_views(path, data[:])
        else:
            spans, remark = _chunked_spans(path, data)
    if len(spans) == 1 and not spans[0][2]:
        return [], ""
    joined = f"{len(spans)} joined streams are read one after the other" if len(spans) > 1 else ""
    return [View(path, *span) for span in spans], "; ".join(filter(None, (joined, remark)))


def _spans(starts: Sequence[int], size: int) -> list[Span]:
    """Streams that begin at these bytes and follow each other."""
    bounds = [*starts, size] if starts else [0, size]
    return [(start, end, {}) for start, end in pairwise(bounds)]


def _starts(data: Data, marker: bytes) -> list[int]:
    """Offset of a marker that is too long to occur by chance."""
    return [found.start() for found in re.finditer(re.escape(marker), data)]


def _ogg_starts(data: mmap.mmap) -> list[int]:
    """Where the chained streams of an Ogg file begin (RFC 3533, section 6)."""
    starts, position, in_headers = [], 0, False
    while (position := data.find(b"OggS", position)) >= 0 and position + 27 <= len(data):
        begins = bool(data[position + 5] & 2)
        if begins and not in_headers:
            starts.append(position)
        in_headers = begins
        num_segments = data[position + 26]
        position += 27 + num_segments + sum(data[position + 27 : position + 27 + num_segments])
    return starts


def _flac_spans(data: mmap.mmap) -> tuple[list[Span], str]:
    """The streams of a FLAC file, their lengths corrected."""
    marks = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")  # the marker, and a STREAMINFO block of 34 bytes
    spans: list[Span] = []
    remarks = []
    for start, end, _ in _spans(sorted(start for mark in marks for start in _starts(data, mark)), len(data)):
        stated, there = stream_lengths(data if end - start == len(data) else data[start:end])
        patches: dict[int, bytes] = {}
        if there > stated:
            remarks.append(f"its header states {stated:,} samples, {there:,} are there; all are read")
            patches = {TOTAL_SAMPLES: (data[start + TOTAL_SAMPLES] & 0xF0 | there >> 32).to_bytes(1, "big")}
            patches[TOTAL_SAMPLES + 1] = (there & 0xFFFFFFFF).to_bytes(4, "big")
        spans.append((start, end, patches))
    return spans, "; ".join(remarks)


def _mpeg_views(path: Path, data: bytes) -> tuple[Views, str]:
    frames = list(audio_frames(data))
    audio = [frame for frame in frames if not frame.is_header]
    if not audio or len({frame.sample_rate for frame in audio}) > 1:
        rates = sorted({frame.sample_rate for frame in audio})
        if len(rates) > 1:
            raise AudioError(f"{path}: joined streams of {' and '.join(map(str, rates))} Hz; convert it to WAV")
        return [], ""
    sizes = [frame.size for frame in audio]
    if not frames[0].is_header and max(sizes) - min(sizes) <= MAX_PADDING_SLOT:
        return [], ""  # constant bit rate: the size tells the length
    remark = ""
    place = max(data.find(tag, frames[0].start, frames[0].start + 48) for tag in (b"Xing", b"Info"))
    if frames[0].is_header and place >= 0 and data[place + 7] & 1:
        stated = int.from_bytes(data[place + 8 : place + 12], "big")
        if stated + MP3_SLACK >= len(audio):
            return [], ""  # or cut short, which decoding finds
        remark = f"its header states {_seconds(audio[:stated]):.1f} s, {_seconds(audio):.1f} s are there; all are read"
    return [io.BytesIO(with_frame_count(data, frames))], remark


def _seconds(frames: list[Frame]) -> float:
    return sum(frame.num_samples for frame in frames) / frames[0].sample_rate if frames else 0.0


def _chunked_spans(path: Path, data: Data, first: int = 0) -> tuple[list[Span], str]:
    """WAV, RF64, Wave64, AIFF, CAF and AU: compare the stated size of the audio with the file's.

    `data` are the bytes of the file from `first` on.
    """
    size = len(data)
    whole: Span = (first, first + size, {})
    found = _data_chunk(data)
    if found is None:
        return [whole], ""
    start, stated, field, width, order, extra = found
    there = size - start
    end = start + stated
    if stated >= there or _ends_well(data, end, size):
        return [whole], ""
    magic = data[:4]
    following = end + (end % 2 if magic in (b"RIFF", b"RIFX", b"FORM") else 0)
    if stated and data[following : following + 4] == magic and size - following > 64:
        spans, remark = _chunked_spans(path, data[following:], first + following)
        return [(first, first + following, {}), *spans], remark
    if there + extra > MAX_SIZE[width]:
        raise AudioError(
            f"{path}: its header states {stated:,} bytes of audio, {there:,} are there; convert it to RF64"
        )
    patches = {field: (there + extra).to_bytes(width, order)} | _frame_count(data, there)
    remark = f"its header states {stated:,} bytes of audio, {there:,} are there; all are read"
    return [(first, first + size, patches)], remark


# Start and stated size of the audio; position, width, byte order of the size field; how many other bytes it counts.
Chunk: TypeAlias = "tuple[int, int, int, int, Order, int]"


def _data_chunk(data: Data) -> "Chunk | None":
    """Where the audio is, by the header; None for other formats, or when the length is stated as unknown."""
    magic = data[:4]
    if magic == b".snd" and len(data) >= 24:
        start, stated = (int.from_bytes(data[place : place + 4], "big") for place in (4, 8))
        return None if stated == 0xFFFFFFFF else (start, stated, 8, 4, "big", 0)
    if magic in (b"RIFF", b"RIFX"):
        return _find_chunk(data, b"data", 12, 4, "little" if magic == b"RIFF" else "big")
    if magic == b"FORM" and data[8:12] == b"AIFF":
        found = _find_chunk(data, b"SSND", 12, 4, "big")
        return found and (found[0] + 8, max(found[1] - 8, 0), found[2], 4, "big", 8)
    if magic == b"RF64" and data[12:16] == b"ds64":
        stated = int.from_bytes(data[28:36], "little")
        found = _find_chunk(data, b"data", 12, 4, "little")
        return found and (found[0], stated if found[1] == 0xFFFFFFFF else found[1], 28, 8, "little", 0)
    if magic == b"riff" and len(data) > 40:
        position = 40
        while position + 24 <= len(data):
            stated = int.from_bytes(data[position + 16 : position + 24], "little")
            if data[position : position + 4] == b"data":
                return position + 24, max(stated - 24, 0), position + 16, 8, "little", 24
            position += max(stated + 7 & ~7, 24)
    if magic == b"caff":
        position = 8
        while position + 12 <= len(data):
            stated = int.from_bytes(data[position + 4 : position + 12], "big", signed=True)
            if data[position : position + 4] == b"data":
                return None if stated < 0 else (position + 16, max(stated - 4, 0), position + 4, 8, "big", 4)
            position += 12 + max(stated, 0)
    return None


def _find_chunk(data: Data, name: bytes, position: int, width: int, order: Order) -> "Chunk | None":
    while position + 8 <= len(data):
        stated = int.from_bytes(data[position + 4 : position + 8], order)
        if data[position : position + 4] == name:
            return position + 8, stated, position + 4, width, order, 0
        position += 8 + stated + stated % 2
    return None


def _ends_well(data: Data, end: int, size: int) -> bool:
    """Whether padding or whole chunks fill the file from the stated end of the audio."""
    if size - end <= MAX_PADDING and not any(data[end:size]):
        return True
    magic = data[:4]
    if magic == b".snd":
        return False
    position = end
    while position < size:
        if magic in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
            position += position % 2
            order: Order = "big" if magic in (b"RIFX", b"FORM") else "little"
            name, length = data[position : position + 4], data[position + 4 : position + 8]
            step = 8 + int.from_bytes(length, order)
        elif magic == b"riff":
            position = position + 7 & ~7
            name, length = data[position : position + 4], data[position + 16 : position + 24]
            step = int.from_bytes(length, "little")
        else:
            name, length = data[position : position + 4], data[position + 4 : position + 12]
            step = 12 + int.from_bytes(length, "big")
        if name == magic or not name.isascii() or not name.decode("ascii").isprintable() or not step:
            return False
        position += step
        if size <= position <= size + 8:
            return True
    return position == size


def _frame_count(data: Data, num_bytes: int) -> dict[int, bytes]:
    """The patch of a second place that states the length, in frames."""
    if data[:4] == b"FORM" and (found := _find_chunk(data, b"COMM", 12, 4, "big")):
        place = found[0]
        channels, bits = (int.from_bytes(data[p : p + 2], "big") for p in (place, place + 6))
        return {place + 2: (num_bytes // max(channels * (bits + 7) // 8, 1)).to_bytes(4, "big")}
    if data[:4] == b"RF64" and (found := _find_chunk(data, b"fmt ", 12, 4, "little")):
        align = int.from_bytes(data[found[0] + 12 : found[0] + 14], "little")
        return {36: (num_bytes // max(align, 1)).to_bytes(8, "little")}
    return {}
