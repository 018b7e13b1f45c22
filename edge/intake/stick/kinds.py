"""What a file of a stick is, by its first bytes; its name says nothing."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final, Literal

from edge.errors import DicomError
from edge.intake.elements import BIG_ENDIAN, DEFLATED, IMPLICIT, first_item
from edge.intake.part10 import read_head

HEAD_BYTES: Final = 2**17  # the file meta information and the first attributes of the data set
DICOMDIR_CLASS: Final = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage (PS3.4 I)
EXPLICIT: Final = "1.2.840.10008.1.2.1"
_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018
_LARGEST_UID: Final = 64
_FIRST_ELEMENTS: Final = frozenset({0x0000, 0x0001, 0x0005, 0x0008, 0x0012, 0x0013, 0x0014, 0x0016, 0x0018})
_FIRST_VRS: Final = frozenset((b"UL", b"CS", b"DA", b"TM", b"UI"))  # of those elements
_LARGEST_FIRST_VALUE: Final = 1024

Kind = Literal["object", "picture", "other"]


@dataclass(frozen=True)
class Place:
    """Where the data set of an object begins, and how it is coded."""

    start: int
    transfer_syntax_uid: str


def kind_of(head: bytes) -> Kind:
    """`head`: the first bytes of a file, at least 132 where it has so many."""
    if head[128:132] == b"DICM" or _is_bare(head):
        return "object"
    if head[:3] == b"\xff\xd8\xff" or head[:8] == b"\x89PNG\r\n\x1a\n":
        return "picture"
    return "other"


def place(head: bytes) -> Place:
    """Of an object as `kind_of` says. Files without preamble, or without file meta information too, are older than
    PS3.10, but modalities still write them. Raises DicomError."""
    if head[128:132] == b"DICM":
        syntax, start = read_head(head)
        return Place(start, syntax)
    if head[:2] == b"\x02\0":
        syntax, start = read_head(bytes(128) + b"DICM" + head)
        return Place(start - 132, syntax)
    return Place(0, EXPLICIT if head[4:6] in _FIRST_VRS else IMPLICIT)


def _is_bare(head: bytes) -> bool:
    """True for the first element of a data set, or of file meta information, with nothing before it. Whether a whole
    object follows, the walk through all its elements says."""
    if len(head) < 8 or head[:2] not in (b"\x08\0", b"\x02\0"):
        return False
    element, vr = int.from_bytes(head[2:4], "little"), head[4:6]
    if head[:2] == b"\x02\0":
        return element in (0, 1) and vr in (b"UL", b"OB")
    length = int.from_bytes(head[4:8], "little")
    return element in _FIRST_ELEMENTS and (vr in _FIRST_VRS or length <= _LARGEST_FIRST_VALUE)


def uids(head: bytes, at: Place) -> tuple[str, str]:
    """SOP Class UID and SOP Instance UID of the data set, from its first bytes. Raises DicomError."""
    first = head[at.start :]
    if at.transfer_syntax_uid in DEFLATED:
        try:
            first = zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(first, HEAD_BYTES)
        except zlib.error:
            raise DicomError("expected a deflated data set, got bytes that do not inflate") from None
    # `first_item` passes over the head of an item.
    values = first_item(bytes(8) + first, at.transfer_syntax_uid != BIG_ENDIAN, {_SOP_CLASS, _SOP_INSTANCE})
    sop_class, sop_instance = (_uid(values.get(tag, b"")) for tag in (_SOP_CLASS, _SOP_INSTANCE))
    return sop_class, sop_instance


def _uid(value: bytes) -> str:
    text = value.rstrip(b"\0 ").lstrip(b" ")
    if not 0 < len(text) <= _LARGEST_UID or not text.isascii() or not text.decode("ascii").isprintable():
        message = "expected SOP Class UID and SOP Instance UID in the data set, got none"
        raise DicomError(message, code="dicom.no-sop-uid")
    return text.decode("ascii")
