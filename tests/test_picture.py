"""JPEG and PNG pictures: depth, colour, orientation, limits, damage."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import DecodeError
from edge.reading.limits import READ_LIMIT_PIXELS
from edge.reading.picture import decode_picture, read_picture
from edge.reading.read_file import file_kind, read_file


def encoded(image: np.ndarray, kind: str = ".png", *options: int) -> bytes:
    done, content = cv2.imencode(kind, image, list(options))
    assert done
    return bytes(content.tobytes())


def smooth(height: int = 120, width: int = 200, top: int = 255) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return (top * (0.2 + 0.3 * x / width + 0.5 * y / height)).astype(np.uint8 if top == 255 else np.uint16)


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Insert an EXIF APP1 segment with one entry, tag 0x0112."""
    tiff = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHH", 1, 0x0112, 3, 1, orientation, 0) + bytes(4)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def code_of(content: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        decode_picture(content)
    return caught.value.code


def test_grey_png_of_8_and_16_bits_is_exact() -> None:
    for top in (255, 65535):
        image = smooth(top=top)
        found = decode_picture(encoded(image))
        np.testing.assert_allclose(found.pixels, image / np.float32(top), atol=1e-7)
        assert found.pixels.dtype == np.float32
        assert found.source == "picture"
        assert not found.colour
        assert (found.modality, found.view, found.age_years) == (None, None, None)


def test_jpeg_with_three_equal_channels_is_grey_and_a_tint_too() -> None:
    image = smooth()
    found = decode_picture(encoded(cv2.merge([image, image, image]), ".jpg"))
    np.testing.assert_allclose(found.pixels, image / 255, atol=0.02)
    assert not found.colour
    tinted = cv2.merge([image, image, (image * 0.97).astype(np.uint8)])
    assert not decode_picture(encoded(tinted, ".jpg")).colour


def test_colour_is_noticed_and_luminance_kept() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[...] = (50, 100, 200)  # blue, green, red
    found = decode_picture(encoded(image))
    assert found.colour
    np.testing.assert_allclose(found.pixels, (0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255, atol=0.003)


def test_transparency_is_dropped() -> None:
    image = cv2.merge([smooth()] * 3 + [np.full((120, 200), 10, np.uint8)])
    np.testing.assert_allclose(decode_picture(encoded(image)).pixels, smooth() / 255, atol=0.005)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation: int) -> None:
    """The eight forms of EXIF 2.32, 4.6.4.A Orientation: how the stored image is turned to be upright."""
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: np.rot90(a, 1),
    }[orientation]
    image = smooth()
    found = decode_picture(with_orientation(encoded(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 100), orientation))
    np.testing.assert_allclose(found.pixels, upright(image) / 255, atol=0.02)


def test_too_many_pixels_are_refused_by_the_header_alone() -> None:
    side = int(READ_LIMIT_PIXELS**0.5) + 1
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    assert code_of(png) == "picture.too-large"
    jpeg = bytearray(encoded(smooth(), ".jpg"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
    assert code_of(bytes(jpeg)) == "picture.too-large"


def test_a_file_of_too_many_bytes_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.write(b"\xff\xd8\xff")
        file.truncate(300 * 1024 * 1024)  # sparse
    with pytest.raises(DecodeError) as caught:
        read_picture(path)
    assert caught.value.code == "picture.too-large"


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_pictures_cut_short_are_never_read(kind: str) -> None:
    whole = encoded(smooth(), kind)
    for length in range(8, len(whole) - 2, 61):
        assert code_of(whole[:length]) == "picture.malformed"


def test_a_thumbnail_does_not_hide_that_the_picture_is_cut() -> None:
    """The thumbnail in the EXIF segment has an end-of-image marker of its own."""
    whole = encoded(smooth(), ".jpg")
    body = b"Exif\0\0" + encoded(smooth(16, 16), ".jpg")
    whole = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + whole[2:]
    assert decode_picture(whole).pixels.shape == (120, 200)
    assert code_of(whole[: len(whole) - 400]) == "picture.malformed"


def test_progressive_jpeg_and_bytes_after_the_end() -> None:
    image = smooth()
    content = encoded(image, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1) + b"appended by a phone"
    np.testing.assert_allclose(decode_picture(content).pixels, image / 255, atol=0.03)


def test_other_content_is_malformed() -> None:
    for content in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(100), b"\xff\xd8\xff\xd9"):
        assert code_of(content) == "picture.malformed"


def test_files_are_told_apart_by_content(tmp_path: Path) -> None:
    path = tmp_path / "named.dcm"
    path.write_bytes(encoded(smooth(), ".jpg"))
    (found,) = read_file(path)
    assert found.source == "picture"
    assert file_kind(bytes(128) + b"DICM") == "dicom"
    assert file_kind(b"\x08\x00\x05\x00CS\x0a\x00") == "dicom"
    assert file_kind(b"%PDF-1.7 and more") == "unknown"
