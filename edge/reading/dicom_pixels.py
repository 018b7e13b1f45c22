"""Stored pixel values of one frame of a DICOM object, through decoders named explicitly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from edge.errors import DecodeError, DicomError
from edge.reading.dicom_header import number, value, word
from edge.reading.limits import FRAME_LIMIT_PIXELS, FRAMES_READ, OBJECT_LIMIT_PIXELS, READ_LIMIT_PIXELS

_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
_NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
)
# Never left to pydicom's own order of preference: GDCM's RLE codec aborts the process on arm64.
PLUGINS: dict[UID, str] = {
    **dict.fromkeys(_NATIVE, ""),
    **dict.fromkeys(_JPEG, "pylibjpeg"),
    **dict.fromkeys(_JPEG_LS, "pyjpegls"),
    **dict.fromkeys(_JPEG_2000, "pylibjpeg"),
    uid.RLELossless: "pylibjpeg",
}
_END_OF_IMAGE = b"\xff\xd9"  # EOI, ISO/IEC 10918-1 B.2.1
_PADDING = b"\x00\xff"  # what encoders fill a fragment to even length with


@dataclass(frozen=True)
class PixelLayout:
    """The Image Pixel module (PS3.3 C.7.6.3) of an object whose size is within the limits."""

    transfer_syntax: UID
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    bits_stored: int
    signed: bool
    options: dict[str, Any]  # pydicom's decoding options


@dataclass(frozen=True)
class Stored:
    """values: (H, W) or (H, W, samples) integers as stored; photometric, bits_stored: as they are after decoding."""

    values: npt.NDArray[Any]
    photometric: str
    bits_stored: int
    signed: bool


def pixel_layout(ds: Dataset, transfer_syntax: UID) -> PixelLayout:
    """Check the Image Pixel module before anything is decoded.

    Raises DicomError `dicom.malformed`, DecodeError `dicom.transfer-syntax-unsupported` and `dicom.too-large`.
    """
    if transfer_syntax not in PLUGINS:
        name = transfer_syntax.name if transfer_syntax.is_transfer_syntax else "an unknown one"
        raise DecodeError(
            f"expected a transfer syntax this box can decode, got {name}", code="dicom.transfer-syntax-unsupported"
        )
    rows, columns = _integer(ds, "Rows", 1, 65535), _integer(ds, "Columns", 1, 65535)
    frames = max(1, _integer(ds, "NumberOfFrames", -1, 2**31, missing=1))
    if rows * columns > FRAME_LIMIT_PIXELS or rows * columns * frames > OBJECT_LIMIT_PIXELS:
        raise DecodeError(
            f"expected at most {FRAME_LIMIT_PIXELS} pixels a frame and {OBJECT_LIMIT_PIXELS} in all,"
            f" got {rows} x {columns} in {frames} frames",
            code="dicom.too-large",
        )
    allocated = _integer(ds, "BitsAllocated", 1, 32)
    layout: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "number_of_frames": frames,
        "samples_per_pixel": _integer(ds, "SamplesPerPixel", 1, 3, missing=1),
        "photometric_interpretation": word(ds, "PhotometricInterpretation") or "MONOCHROME2",
        "planar_configuration": _integer(ds, "PlanarConfiguration", 0, 1, missing=0),
        "bits_allocated": allocated,
        "bits_stored": _integer(ds, "BitsStored", 1, allocated, missing=allocated),
        "pixel_representation": _integer(ds, "PixelRepresentation", 0, 1, missing=0),
        "pixel_keyword": "PixelData",
        "pixel_vr": str(ds["PixelData"].VR),
        "allow_excess_frames": False,
    }
    offsets, lengths = value(ds, "ExtendedOffsetTable"), value(ds, "ExtendedOffsetTableLengths")
    if isinstance(offsets, bytes) and isinstance(lengths, bytes):
        layout["extended_offsets"] = (offsets, lengths)
    return PixelLayout(
        transfer_syntax=transfer_syntax,
        rows=rows,
        columns=columns,
        frames=frames,
        samples=layout["samples_per_pixel"],
        photometric=layout["photometric_interpretation"],
        bits_stored=layout["bits_stored"],
        signed=bool(layout["pixel_representation"]),
        options=layout,
    )


def frames_to_read(layout: PixelLayout) -> tuple[int, ...]:
    """0-based frame numbers: all of them up to FRAMES_READ and READ_LIMIT_PIXELS, else evenly spaced ones."""
    room = max(1, READ_LIMIT_PIXELS // (layout.rows * layout.columns))
    count = min(layout.frames, FRAMES_READ, room)
    if count == 1:
        return (0,)
    return tuple(round(step * (layout.frames - 1) / (count - 1)) for step in range(count))


def decode_frame(pixel_bytes: bytes, layout: PixelLayout, frame: int) -> Stored:
    """Decode frame number `frame` of the Pixel Data element's value.

    Raises DecodeError `dicom.truncated` where pixel data end early; other exceptions are the codec's own.
    """
    _check_length(pixel_bytes, layout, frame)
    values, properties = get_decoder(layout.transfer_syntax).as_array(
        pixel_bytes,
        index=frame,
        raw=True,
        decoding_plugin=PLUGINS[layout.transfer_syntax],
        **layout.options,
    )
    return Stored(
        values=values,
        photometric=str(properties["photometric_interpretation"]),
        bits_stored=layout.bits_stored,
        signed=layout.signed,
    )


def _check_length(pixel_bytes: bytes, layout: PixelLayout, frame: int) -> None:
    """libjpeg paints what is missing grey and reports success, so a JPEG frame must hold its end-of-image marker.

    The JPEG-LS, JPEG 2000 and RLE codecs refuse a stream cut short themselves.
    """
    if layout.transfer_syntax in _NATIVE:
        samples = 2 if layout.photometric == "YBR_FULL_422" else layout.samples
        bits = layout.rows * layout.columns * samples * layout.options["bits_allocated"] * layout.frames
        complete = len(pixel_bytes) >= (bits + 7) // 8
    elif layout.transfer_syntax in _JPEG:
        offsets = layout.options.get("extended_offsets")
        encoded = get_frame(pixel_bytes, frame, number_of_frames=layout.frames, extended_offsets=offsets)
        complete = encoded[-64:].rstrip(_PADDING).endswith(_END_OF_IMAGE)
    else:
        complete = True
    if not complete:
        raise DecodeError("expected complete pixel data, got fewer bytes", code="dicom.truncated")


def _integer(ds: Dataset, keyword: str, low: int, high: int, *, missing: int | None = None) -> int:
    found = number(ds, keyword)
    if found is None and missing is not None:
        return missing
    if found is None or not low <= found <= high or found != int(found):
        raise DicomError(f"expected {keyword} from {low} to {high}, got something else")
    return int(found)
