"""A stored object read again: its bytes checked against its name, and the facts that its row holds."""

from __future__ import annotations

import hashlib
import mmap
import struct
import time
from pathlib import Path
from typing import Final

from edge.errors import DicomError
from edge.intake.elements import data_set_offset
from edge.intake.header import read_header
from edge.store import InstanceFacts, StudyFacts

_TRANSFER_SYNTAX: Final = 0x00020010
_LONG_VRS: Final = frozenset((b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN"))  # PS3.5 7.1.2
_CHUNK_BYTES: Final = 2**20


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def read_object(data_dir: Path, path: str, calling_ae: str = "") -> tuple[StudyFacts, InstanceFacts]:
    """The facts of an object of ours. Its name is believed to be its sha256. Raises DicomError, OSError."""
    file_path = data_dir / path
    size = file_path.stat().st_size
    if not size:
        raise DicomError("expected an object, got no bytes", code="dicom.empty")
    with file_path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        try:
            if view[128:132] != b"DICM":
                raise DicomError("expected a DICOM file, got something else")
            start = data_set_offset(view[:144])
            transfer_syntax_uid = _transfer_syntax(view[132:start])
            header = read_header(view, start, transfer_syntax_uid)
        except struct.error:
            raise DicomError("expected the head of a DICOM file, got its end", code="dicom.cut") from None
    facts = InstanceFacts(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        sha256=file_path.stem,
        size_bytes=size,
        path=path,
        calling_ae=calling_ae,
        received_monotonic_s=time.monotonic(),
    )
    return header.study, facts


def _transfer_syntax(meta: bytes) -> str:
    """Transfer Syntax UID of the file meta information, which is explicit VR little endian (PS3.10 7.1)."""
    at = 0
    while at + 8 <= len(meta):
        group, element, vr, length = struct.unpack_from("<HH2sH", meta, at)
        at += 8
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from("<L", meta, at)
            at += 4
        if group << 16 | element == _TRANSFER_SYNTAX:
            return meta[at : at + length].rstrip(b"\0 ").decode("ascii", "replace")
        at += length
    raise DicomError("expected a Transfer Syntax UID in the file's head, got none")
