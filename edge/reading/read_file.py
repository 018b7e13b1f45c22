"""Any file the box is given -> Radiographs, told apart by content, never by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edge.errors import DicomError, StorageError
from edge.reading.dicom import read_dicom
from edge.reading.picture import JPEG_MAGIC, PNG_MAGIC, read_picture
from edge.reading.radiograph import Radiograph

FileKind = Literal["dicom", "picture", "unknown"]

_PREAMBLE_BYTES = 128  # PS3.10 7.1
# A data set without preamble begins with group 0002 or 0008 and a low element number, little or big endian.
_BARE_GROUPS = ((b"\x02\x00", b"\x08\x00"), (b"\x00\x02", b"\x00\x08"))


def file_kind(head: bytes) -> FileKind:
    """What the first 132 or more bytes of a file look like."""
    if head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM":
        return "dicom"
    if head.startswith((JPEG_MAGIC, PNG_MAGIC)):
        return "picture"
    little, big = _BARE_GROUPS
    if (head[:2] in little and head[3:4] == b"\x00") or (head[:2] in big and head[2:3] == b"\x00"):
        return "dicom" if len(head) >= 8 else "unknown"
    return "unknown"


def read_file(path: Path) -> tuple[Radiograph, ...]:
    """Read a DICOM object (with or without preamble), a JPEG or a PNG, in this process.

    Raises DicomError `dicom.malformed` for other content and for an empty file, StorageError for an unreadable one,
    and what `read_dicom` and `read_picture` raise.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_PREAMBLE_BYTES + 4)
    except OSError as error:
        raise StorageError(f"expected a readable file, got {error.strerror or 'a failed read'}") from None
    kind = file_kind(head)
    if kind == "dicom":
        return read_dicom(path)
    if kind == "picture":
        return (read_picture(path),)
    raise DicomError("expected a DICOM, JPEG or PNG file, got " + ("something else" if head else "an empty file"))
