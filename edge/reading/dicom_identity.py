"""Which study and which object a file belongs to, from its first bytes; nothing is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError


@dataclass(frozen=True)
class Identity:
    """Study and SOP Instance UID (PS3.3 C.7.2.1, C.12.1), "" where the object does not say."""

    study_instance_uid: str
    sop_instance_uid: str


def identity(path: Path) -> Identity:
    """UIDs of a DICOM object; both "" for anything that cannot be parsed. Raises OSError."""
    tags = ["StudyInstanceUID", "SOPInstanceUID"]
    try:
        ds = dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
        return Identity(*(str(ds.get(tag) or "") for tag in tags))
    except (InvalidDicomError, ValueError, TypeError, KeyError, AttributeError, EOFError, NotImplementedError):
        return Identity("", "")
