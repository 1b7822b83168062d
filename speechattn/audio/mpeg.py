"""MPEG audio frames (MP3): how many a file holds, whatever its header states.

libsndfile trusts the Xing header of the first stream, or guesses the length from the first frames. It reads only a part
of joined files, and of files of variable bit rate without that header. `with_frame_count` writes the true number of
frames in front. Headers: ISO 11172-3, section 2.4.2.3; Xing header as in LAME's VbrTag.c.
"""

from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Frame", "audio_frames", "starts_as_mpeg", "with_frame_count"]

BITRATES = {  # (MPEG-1, layer) -> kbit/s by index
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version bits
XING_WITHIN = 48  # bytes from the start of a frame in which a Xing header begins


class Frame(NamedTuple):
    """A frame of MPEG audio."""

    start: int  # in bytes
    size: int  # in bytes
    num_samples: int
    sample_rate: int
    is_header: bool  # a Xing, Info or VBRI header instead of audio


def _parse(data: bytes, start: int) -> Frame | None:
    """The frame whose header is at `start`, or None."""
    if start + 4 > len(data) or data[start] != 0xFF or data[start + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[start + 1] >> 3 & 3, 4 - (data[start + 1] >> 1 & 3)
    rate_index, bitrate_index = data[start + 2] >> 2 & 3, data[start + 2] >> 4
    if version == 1 or layer == 4 or rate_index == 3 or bitrate_index in (0, 15):
        return None
    rate, padding = SAMPLE_RATES[version][rate_index], data[start + 2] >> 1 & 1
    bits = 1000 * BITRATES[version == 3, layer][bitrate_index]
    if layer == 1:
        size, num_samples = 4 * (12 * bits // rate + padding), 384
    else:
        num_samples = 576 if layer == 3 and version != 3 else 1152
        size = num_samples // 8 * bits // rate + padding
    head = data[start : start + XING_WITHIN]
    return Frame(start, size, num_samples, rate, any(tag in head for tag in (b"Xing", b"Info", b"VBRI")))


def audio_frames(data: bytes) -> Iterator[Frame]:
    """All frames of a file, also of joined streams; tags and damaged bytes between them are skipped."""
    position = 0
    while position < len(data):
        if data.startswith(b"ID3", position) and position + 10 <= len(data):
            a, b, c, d = data[position + 6 : position + 10]
            position += 10 + (a << 21 | b << 14 | c << 7 | d)
            continue
        frame = _parse(data, position)
        # A chance match is not followed by another frame.
        if frame and (_is_boundary(data, position + frame.size)):
            yield frame
            position += frame.size
            continue
        found = [place for mark in (b"\xff", b"ID3") if (place := data.find(mark, position + 1)) >= 0]
        if not found:
            return
        position = min(found)


def _is_boundary(data: bytes, position: int) -> bool:
    """Whether a frame, a tag or the end of the file is at a position."""
    tags = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
    return position == len(data) or _parse(data, position) is not None or data.startswith(tags, position)


def starts_as_mpeg(data: bytes) -> bool:
    """Whether bytes begin with two frames of MPEG audio, or with an ID3 tag."""
    if data.startswith(b"ID3"):
        return True
    frame = _parse(data, 0)
    return frame is not None and frame.size + 4 <= len(data) and _parse(data, frame.size) is not None


def with_frame_count(data: bytes, frames: list[Frame]) -> bytes:
    """The audio frames alone, after an Info header with their true number.

    Args:
        data: The file.
        frames: Its frames, from `audio_frames`, all of one sample rate.
    """
    audio = [frame for frame in frames if not frame.is_header]
    header = bytearray(data[audio[0].start : audio[0].start + 4])
    header[1] |= 1  # no checksum
    is_mpeg1, is_mono = header[1] >> 3 & 1, header[3] >> 6 == 3
    side_info = (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)
    header[2] = header[2] & 0x0D | 0x80  # a bit rate at which a frame has room for the header; no padding
    info = _parse(bytes(header), 0)
    assert info is not None
    tag = b"Info" + (1).to_bytes(4, "big") + len(audio).to_bytes(4, "big")
    first = (bytes(header) + bytes(side_info) + tag).ljust(info.size, b"\0")
    return first + b"".join(data[frame.start : frame.start + frame.size] for frame in audio)
