"""The true length of a FLAC stream, which its last frame tells whatever the header states (RFC 9639, section 9)."""

import mmap

__all__ = ["TOTAL_SAMPLES", "stream_lengths"]

TOTAL_SAMPLES = 21  # offset of the 36-bit number of samples: the lower half of this byte and the next four bytes
FIRST_BLOCK = 4  # position of the first block of metadata
LARGEST_FRAME = 1 << 21  # bytes to search for the last frame: 65,535 samples of 8 channels
ID3V1_BYTES = 128
MAX_CHECKS = 3  # frames whose checksum is computed, which is slow
EXTRA_BYTES = {6: 1, 7: 2}  # by the code of the block size: bytes after the number that hold the size
EXTRA_RATE_BYTES = {12: 1, 13: 2, 14: 2}  # likewise, for the code of the sample rate


def stream_lengths(data: "mmap.mmap | bytes") -> tuple[int, int]:
    """Number of samples by the header (0: unknown), and by the last whole frame.

    The second equals the first when no frame is found or the frames hold fewer samples.
    """
    stated = int.from_bytes(data[TOTAL_SAMPLES : TOTAL_SAMPLES + 5], "big") & 0xFFFFFFFFF
    largest_block = int.from_bytes(data[10:12], "big")
    first = FIRST_BLOCK
    is_last = False
    while not is_last and first + 4 <= len(data):  # blocks of metadata
        is_last = bool(data[first] & 0x80)
        first += 4 + int.from_bytes(data[first + 1 : first + 4], "big")
    sync = data[first : first + 2]
    if sync not in (b"\xff\xf8", b"\xff\xf9"):
        return stated, stated
    position = end = len(data) - (ID3V1_BYTES if data[-ID3V1_BYTES:].startswith(b"TAG") else 0)
    checks = 0
    while checks < MAX_CHECKS and (position := data.rfind(sync, max(first, end - LARGEST_FRAME), position + 1)) >= 0:
        number_and_size = _frame_header(data[position : position + 16])
        if number_and_size is not None:
            number, size = number_and_size
            there = (number if sync[1] & 1 else number * largest_block) + size
            if there <= stated:  # as stated, or cut short, which decoding finds
                return stated, stated
            if _crc(data[position:end], 0x8005, 16) == 0:
                return stated, there
            checks, end = checks + 1, position  # an incomplete frame
        position -= 1
    return stated, stated


def _frame_header(header: bytes) -> tuple[int, int] | None:
    """The coded number and the block size of a frame, if these are the first bytes of one."""
    if len(header) < 6 or header[3] & 1:
        return None
    size_code, rate_code = header[2] >> 4, header[2] & 15
    ones = 8 - (header[4] ^ 0xFF).bit_length()  # as in UTF-8
    length = max(ones, 1)
    if size_code == 0 or rate_code == 15 or ones in (1, 8):
        return None
    number = header[4] & (0x7F >> ones)
    for byte in header[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    at = 4 + length
    extra = EXTRA_BYTES.get(size_code, 0)
    end = at + extra + EXTRA_RATE_BYTES.get(rate_code, 0)
    if end >= len(header) or _crc(header[: end + 1], 0x07, 8):
        return None
    if extra:
        return number, int.from_bytes(header[at : at + extra], "big") + 1
    return number, 192 if size_code == 1 else 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    """The cyclic redundancy check; 0 for data that end in their own."""
    top, mask, remainder = 1 << bits - 1, (1 << bits) - 1, 0
    for byte in data:
        remainder ^= byte << bits - 8
        for _ in range(8):
            remainder = (remainder << 1 ^ polynomial if remainder & top else remainder << 1) & mask
    return remainder
