"""The few facts of an object that filing it needs, and whether the object is whole."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydicom.charset import convert_encodings, decode_bytes

from edge.errors import DicomError
from edge.intake.elements import Buffer, Elements, first_item, scan
from edge.store import StudyFacts

_CHARACTER_SET: Final = 0x00080005
_SOP_CLASS: Final = 0x00080016
_SOP_INSTANCE: Final = 0x00080018
_STUDY_INSTANCE: Final = 0x0020000D
_TEXTS: Final[Mapping[str, int]] = {
    "patient_id": 0x00100020,
    "patient_name": 0x00100010,
    "accession_number": 0x00080050,
    "study_date": 0x00080020,
    "modality": 0x00080060,
    "study_description": 0x00081030,
}
_SAMPLES: Final = 0x00280002
_PHOTOMETRIC: Final = 0x00280004
_FRAMES: Final = 0x00280008
_ROWS: Final = 0x00280010
_COLUMNS: Final = 0x00280011
_BITS_ALLOCATED: Final = 0x00280100
_PRIORITY: Final = 0x00401003  # Requested Procedure Priority (PS3.3 C.4.11)
_REQUEST_ATTRIBUTES: Final = 0x00400275
_WANTED: Final = frozenset(
    {_CHARACTER_SET, _SOP_CLASS, _SOP_INSTANCE, _STUDY_INSTANCE, *_TEXTS.values(), _PRIORITY, _REQUEST_ATTRIBUTES}
    | {_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _BITS_ALLOCATED}
)
_DELIMITERS: Final = {ord(sign) for sign in "\\^=\t\n\f\r"}  # PS3.5 6.1.2.5.3
_URGENT: Final = frozenset({b"STAT", b"HIGH", b"URGENT"})  # URGENT is no defined term, but is sent
_TEXT_LIMIT: Final = 256  # characters shown; the longest of these VRs (PN) has 3 x 64

# Samples stored for each pixel of three (PS3.3 C.7.6.3.1.2): chroma halved in one direction or in both.
_STORED_SAMPLES: Final = {"YBR_FULL_422": 2.0, "YBR_PARTIAL_422": 2.0, "YBR_PARTIAL_420": 1.5}


@dataclass(frozen=True)
class Header:
    """What an object says of itself."""

    sop_class_uid: str
    sop_instance_uid: str
    study: StudyFacts


def read_header(buffer: Buffer, start: int, transfer_syntax_uid: str) -> Header:
    """Walk the whole data set in `buffer[start:]` and take its facts.

    Raises DicomError: `dicom.cut`, `dicom.pixels-cut`, `dicom.malformed`, `dicom.empty`, `dicom.no-sop-uid`,
    `dicom.no-study-uid`, `dicom.inflates-too-large`.
    """
    elements = scan(buffer, start, transfer_syntax_uid, _WANTED)
    _check_pixel_bytes(elements)
    sop_class, sop_instance = _uid(elements, _SOP_CLASS), _uid(elements, _SOP_INSTANCE)
    if not sop_class or not sop_instance:
        missing = "expected SOP Class UID and SOP Instance UID in the data set, got none"
        raise DicomError(missing, code="dicom.no-sop-uid")
    study_instance = _uid(elements, _STUDY_INSTANCE)
    if not study_instance:
        raise DicomError("expected a Study Instance UID in the data set, got none", code="dicom.no-study-uid")
    encodings = _encodings(elements)
    texts = {name: _text(elements.values.get(tag, b""), encodings) for name, tag in _TEXTS.items()}
    return Header(sop_class, sop_instance, StudyFacts(study_instance, urgency=_urgency(elements), **texts))


def _uid(elements: Elements, tag: int) -> str:
    """A UID as sent, without padding. Characters are not checked: real devices send UIDs that are none."""
    value = elements.values.get(tag, b"").rstrip(b"\0 ").lstrip(b" ")
    if len(value) > 64 or not value.isascii() or not value.decode("ascii").isprintable():
        raise DicomError("expected a UID of at most 64 characters, got something else")
    return value.decode("ascii")


def _urgency(elements: Elements) -> int:
    """1 where the requested procedure's priority says so, at the top or in the request's attributes; else 0."""
    request = elements.values.get(_REQUEST_ATTRIBUTES, b"")
    inside = first_item(request, elements.little_endian, {_PRIORITY}) if request else {}
    said = (elements.values.get(_PRIORITY, b""), inside.get(_PRIORITY, b""))
    return int(any(value.strip(b"\0 ").upper() in _URGENT for value in said))


def _encodings(elements: Elements) -> list[str]:
    """Python's names of Specific Character Set (PS3.3 C.12.1.1.2); unknown terms count as ASCII."""
    terms = elements.values.get(_CHARACTER_SET, b"").decode("ascii", "replace").replace("\0", "")
    try:
        return convert_encodings([term.strip() for term in terms.split("\\")])
    except (LookupError, ValueError):
        return ["ascii"]


def _text(value: bytes, encodings: list[str]) -> str:
    """Text for people: what cannot be decoded or shown becomes U+FFFD."""
    value = value.rstrip(b"\0 ")
    try:
        text = decode_bytes(value, encodings, _DELIMITERS)
    except (LookupError, ValueError):
        text = value.decode("ascii", "replace")
    shown = "".join(sign if sign.isprintable() else "\ufffd" for sign in text)
    return shown.strip()[:_TEXT_LIMIT]


def _check_pixel_bytes(elements: Elements) -> None:
    """Native pixel data shorter than its own description (PS3.5 8.1.1) was cut before it was sent."""
    if elements.pixel_bytes is None:
        return
    rows, columns = _number(elements, _ROWS), _number(elements, _COLUMNS)
    bits = _number(elements, _BITS_ALLOCATED)
    frames = elements.values.get(_FRAMES, b"").strip(b"\0 ").split(b"\\")[0]
    count = int(frames) if frames.isdigit() and len(frames) < 10 else 1
    photometric = elements.values.get(_PHOTOMETRIC, b"").strip(b"\0 ").decode("ascii", "replace")
    samples = _STORED_SAMPLES.get(photometric, float(_number(elements, _SAMPLES) or 1))
    expected = int(rows * columns * count * samples * bits) // 8
    if elements.pixel_bytes < expected:
        message = f"expected {expected} bytes of pixel data, got {elements.pixel_bytes}"
        raise DicomError(message, code="dicom.pixels-cut")


def _number(elements: Elements, tag: int) -> int:
    """A US value, 0 where absent or of another size."""
    value = elements.values.get(tag, b"")
    if len(value) != 2:
        return 0
    return int(struct.unpack("<H" if elements.little_endian else ">H", value)[0])
