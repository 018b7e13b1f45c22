"""The head of a DICOM file: preamble and file meta information (PS3.10 7.1), written for ours, read from others."""

from __future__ import annotations

import struct
from typing import Final

from edge.errors import DicomError
from edge.intake.elements import LONG_VRS, Buffer

IMPLEMENTATION_CLASS_UID: Final = "2.25.14633868532516270786398853352636260375"  # PS3.5 B.2, from a random UUID
IMPLEMENTATION_VERSION: Final = "RADBOX_1"

_PREAMBLE_BYTES: Final = 128
_META_LIMIT_BYTES: Final = 2**16  # real ones have a few hundred
_TRANSFER_SYNTAX: Final = 0x0010


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Everything before the data set.

    The same object always becomes the same bytes: what differs between senders (their AE title) is not in it.
    """
    meta = struct.pack("<HH2sHL2s", 2, 1, b"OB", 0, 2, b"\0\1")
    for element, vr, text, padding in (
        (0x0002, b"UI", sop_class_uid, b"\0"),
        (0x0003, b"UI", sop_instance_uid, b"\0"),
        (0x0010, b"UI", transfer_syntax_uid, b"\0"),
        (0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"),
        (0x0013, b"SH", IMPLEMENTATION_VERSION, b" "),
    ):
        value = text.encode("ascii")
        value += padding * (len(value) % 2)
        meta += struct.pack("<HH2sH", 2, element, vr, len(value)) + value
    return bytes(_PREAMBLE_BYTES) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(meta)) + meta


def read_head(buffer: Buffer) -> tuple[str, int]:
    """Transfer syntax UID of a file of any maker, and where its data set begins.

    The group length is not trusted: makers get it wrong. Raises DicomError (`dicom.malformed`, `dicom.cut`).
    """
    if buffer[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] != b"DICM":
        raise DicomError("expected a DICOM file (PS3.10), got other bytes")
    at, transfer_syntax = _PREAMBLE_BYTES + 4, ""
    while buffer[at : at + 2] == b"\x02\0":
        element, vr = int.from_bytes(buffer[at + 2 : at + 4], "little"), buffer[at + 4 : at + 6]
        head, size = (12, buffer[at + 8 : at + 12]) if vr in LONG_VRS else (8, buffer[at + 6 : at + 8])
        end = at + head + int.from_bytes(size, "little")
        if end > len(buffer) or end - _PREAMBLE_BYTES > _META_LIMIT_BYTES:
            raise DicomError("expected the rest of the file meta information, got the end of it", code="dicom.cut")
        if element == _TRANSFER_SYNTAX:
            transfer_syntax = buffer[at + head : end].rstrip(b"\0 ").decode("ascii", "replace")
        at = end
    if not 0 < len(transfer_syntax) <= 64 or not transfer_syntax.isascii() or not transfer_syntax.isprintable():
        raise DicomError("expected a Transfer Syntax UID in the file meta information, got none")
    return transfer_syntax, at
