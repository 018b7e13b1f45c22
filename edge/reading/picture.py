"""A JPEG or PNG picture of a radiograph -> Radiograph. The size is read from the header before anything is decoded."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge.errors import DecodeError, StorageError
from edge.reading.colour import has_chroma
from edge.reading.limits import READ_LIMIT_PIXELS
from edge.reading.radiograph import Radiograph

LIMIT_BYTES = 256 * 1024 * 1024
JPEG_MAGIC = b"\xff\xd8\xff"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"  # the last chunk and its CRC (PNG, 11.2.5)
_SAMPLE_SIDE = 512  # colour is judged on about this many pixels a side
# JPEG markers (ISO/IEC 10918-1 B.1.1.3): frame headers are C0 to CF without DHT, JPG and DAC.
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


def read_picture(path: Path) -> Radiograph:
    """Read one JPEG or PNG of 8 or 16 bits, grey or colour, upright by its EXIF orientation.

    Raises DecodeError `picture.malformed`, `picture.too-large`, `dicom.decoder-memory`; StorageError where the file
    itself cannot be read.
    """
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise DecodeError(f"expected a picture of at most {LIMIT_BYTES} bytes, got more", code="picture.too-large")
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"expected a readable file, got {error.strerror or 'a failed read'}") from None
    return decode_picture(content)


def decode_picture(content: bytes) -> Radiograph:
    """`read_picture` on bytes in memory."""
    width, height = _size(content)
    if width < 1 or height < 1:
        raise _malformed("a size of zero")
    if width * height > READ_LIMIT_PIXELS:
        raise DecodeError(
            f"expected at most {READ_LIMIT_PIXELS} pixels, got {width} x {height}", code="picture.too-large"
        )
    try:
        # ANYCOLOR and ANYDEPTH keep grey and 16 bits; the EXIF orientation is applied, transparency dropped.
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except MemoryError:
        raise DecodeError("expected a picture within the memory limit, got more", code="dicom.decoder-memory") from None
    except cv2.error:
        raise _malformed("one the decoder refuses") from None
    if image is None or image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3):
        raise _malformed("one the decoder refuses")
    top = np.float32(255.0 if image.dtype == np.uint8 else 65535.0)
    colour = False
    if image.ndim == 3:
        step = max(1, min(image.shape[:2]) // _SAMPLE_SIDE)
        colour = has_chroma(image[::step, ::step].astype(np.float32) / top)
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)  # ITU-R BT.601 weights
    return Radiograph(pixels=np.asarray(image, np.float32) / top, colour=colour, source="picture")


def _size(content: bytes) -> tuple[int, int]:
    """Width and height from the header, and a check that the file has its end: codecs paint missing parts grey."""
    if content.startswith(PNG_MAGIC):
        if content[12:16] != b"IHDR" or len(content) < 24 or _PNG_END not in content[-64:]:
            raise _malformed("a PNG that is cut short")
        return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    if content.startswith(JPEG_MAGIC):
        return _jpeg_size(content)
    raise _malformed("neither JPEG nor PNG")


def _jpeg_size(content: bytes) -> tuple[int, int]:
    size: tuple[int, int] | None = None
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            raise _malformed("a JPEG with a damaged header")
        marker = content[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        elif marker == _START_OF_SCAN:
            if size is None or content.find(b"\xff\xd9", at) < 0:
                break
            return size
        elif marker == _END_OF_IMAGE:
            break
        else:
            length = int.from_bytes(content[at + 2 : at + 4], "big")
            if marker in _FRAME_HEADERS and at + 9 <= len(content):
                height, width = content[at + 5 : at + 7], content[at + 7 : at + 9]
                size = int.from_bytes(width, "big"), int.from_bytes(height, "big")
            at += 2 + max(2, length)
    raise _malformed("a JPEG that is cut short")


def _malformed(found: str) -> DecodeError:
    return DecodeError(f"expected a complete JPEG or PNG picture, got {found}", code="picture.malformed")
