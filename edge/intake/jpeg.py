"""The segments of a JPEG (ITU-T T.81 annex B): what kind it is, and the same picture without what it says beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_START, _END, _SCAN, _COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
_BASELINE, _ADOBE, _JFIF = 0xC0, 0xEE, 0xE0
_NO_FRAME: Final = frozenset({0xC4, 0xC8, 0xCC})  # DHT, JPG, DAC: in the range of frame headers, but none
_APPLICATION: Final = range(0xE0, 0xF0)
_KEPT_APPLICATION: Final = frozenset({_JFIF, _ADOBE})  # they say how the colours are meant


def jpeg_frame(content: bytes) -> tuple[int, int, str] | None:
    """(rows, columns, photometric interpretation) of a whole baseline 8-bit JPEG (T.81 B.2.2), else None."""
    rgb = False
    for marker, at, end in segments(content):
        body = content[at + 4 : end]
        if marker == _ADOBE and body[:5] == b"Adobe" and len(body) >= 12:
            rgb = body[11] == 0
        elif marker == _BASELINE and len(body) >= 6:
            return _baseline(body, rgb)
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            return None
    return None


def jpeg_size(content: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG of any process, or None."""
    for marker, at, end in segments(content):
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME and end - at >= 9:
            return int.from_bytes(content[at + 5 : at + 7], "big"), int.from_bytes(content[at + 7 : at + 9], "big")
    return None


def bare_jpeg(content: bytes) -> bytes | None:
    """The same picture, bit for bit, without comments, EXIF (place, time, owner) and what follows its end.

    None if it has no end.
    """
    kept = bytearray(b"\xff\xd8")
    for marker, at, end in segments(content):
        if marker == _END:
            return bytes(kept + b"\xff\xd9")
        if marker == _COMMENT or (marker in _APPLICATION and marker not in _KEPT_APPLICATION):
            continue
        kept += content[at:end]
    return None


def segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of every segment after SOI; that of a scan includes its coded data. Ends where it must."""
    if content[:2] != bytes((0xFF, _START)):
        return
    at = 2
    while at + 2 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # fill byte (T.81 B.1.1.2)
            at += 1
            continue
        if marker == _END:
            yield marker, at, at + 2
            return
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if end < at + 4 or end > len(content):
            return
        if marker == _SCAN:
            end = _end_of_scan(content, end)
        yield marker, at, end
        at = end


def _end_of_scan(content: bytes, at: int) -> int:
    """Where the coded data stops: at a marker that is neither a stuffed zero nor a restart (T.81 B.1.1.5)."""
    while (at := content.find(b"\xff", at)) >= 0 and at + 1 < len(content):
        if content[at + 1] != 0 and not 0xD0 <= content[at + 1] <= 0xD7:
            return at
        at += 2
    return len(content)


def _baseline(body: bytes, rgb: bool) -> tuple[int, int, str] | None:
    rows, columns, components = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), body[5]
    if body[0] != 8 or not rows or not columns or components not in (1, 3) or len(body) < 6 + 3 * components:
        return None
    if components == 1:
        return rows, columns, "MONOCHROME2"
    if rgb:
        return rows, columns, "RGB"
    # PS3.5 8.2.1: JPEG in YBR_FULL_422 when the chroma is subsampled, YBR_FULL when it is not.
    return rows, columns, "YBR_FULL" if body[7] == 0x11 else "YBR_FULL_422"
