"""The order in which a DICOMDIR names its files (PS3.10 section 8, PS3.3 annex F). It names, it opens nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

import pydicom
from pydicom.dataset import Dataset

from edge.errors import DicomError

NAME: Final = "DICOMDIR"
LARGEST_BYTES: Final = 64 * 2**20  # one with 20,000 images has about 10 MiB
MOST_RECORDS: Final = 100_000
_IN_USE: Final = 0xFFFF  # Record In-use Flag (0004,1410); others are no longer part of the file-set
_LARGEST_COMPONENTS: Final = 8  # of a File ID (PS3.10 8.2)

FileId = tuple[str, ...]


def file_ids(content: bytes) -> list[FileId]:
    """Referenced File IDs (0004,1500), each once: folder by folder from the DICOMDIR's own, then the file.

    In the order of the directory's tree (PS3.3 F.2.2: from the first root record, before each next one those of its
    lower level), then what the tree does not reach, in the order of the records. The components are as in the file;
    they may be anything. Raises DicomError (dicom.dicomdir).
    """
    if len(content) > LARGEST_BYTES:
        raise DicomError(f"expected a DICOMDIR of at most {LARGEST_BYTES} bytes, got more", code="dicom.dicomdir")
    try:
        found = _file_ids(content)
    except Exception as error:  # bytes from outside in a library; its messages may quote them
        message = f"expected a DICOMDIR, got bytes that cannot be read ({type(error).__name__})"
        raise DicomError(message, code="dicom.dicomdir") from None
    return found


def _file_ids(content: bytes) -> list[FileId]:
    ds = pydicom.dcmread(io.BytesIO(content))
    records = list(ds.DirectoryRecordSequence)[:MOST_RECORDS]
    by_offset = {int(record.seq_item_tell): record for record in records}
    first = int(ds.get("OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity", 0))
    found: dict[FileId, None] = {}
    for record in [*_in_tree(by_offset, first), *records]:
        if int(record.get("RecordInUseFlag", _IN_USE)) == _IN_USE and (file_id := _file_id(record)):
            found[file_id] = None
    return list(found)


def _in_tree(by_offset: dict[int, Dataset], first: int) -> Iterator[Dataset]:
    """Depth first along the offsets; each record once, however they point at each other."""
    seen: set[int] = set()
    waiting = [first]
    while waiting:
        offset = waiting.pop()
        if offset in seen or offset not in by_offset:
            continue
        seen.add(offset)
        record = by_offset[offset]
        yield record
        waiting.append(int(record.get("OffsetOfTheNextDirectoryRecord", 0)))
        waiting.append(int(record.get("OffsetOfReferencedLowerLevelDirectoryEntity", 0)))


def _file_id(record: Dataset) -> FileId:
    value = record.get("ReferencedFileID")
    if not value:
        return ()
    parts = (value,) if isinstance(value, str) else tuple(value)
    return tuple(str(part).strip() for part in parts) if len(parts) <= _LARGEST_COMPONENTS else ()
