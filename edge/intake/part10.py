"""The head of the file that an object becomes: preamble and file meta information (PS3.10 7.1)."""

from __future__ import annotations

import struct
from typing import Final

IMPLEMENTATION_CLASS_UID: Final = "2.25.14633868532516270786398853352636260375"  # PS3.5 B.2, from a random UUID
IMPLEMENTATION_VERSION: Final = "RADBOX_1"


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
    return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(meta)) + meta
