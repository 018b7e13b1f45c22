"""A GUID partition table as bytes (UEFI 2.10, section 5.3); pure, so that it is tested without a disk."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SECTOR_BYTES: Final = 512
ALIGN_BYTES: Final = 1 << 20
ENTRIES: Final = 128
ENTRY_BYTES: Final = 128
TABLE_SECTORS: Final = ENTRIES * ENTRY_BYTES // SECTOR_BYTES  # 32
HEAD_SECTORS: Final = 2 + TABLE_SECTORS  # protective MBR, header, entries
LARGEST_NAME: Final = 36  # UTF-16 code units

ESP: Final = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
ROOT_AMD64: Final = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")  # UAPI group, discoverable partitions
LINUX: Final = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


@dataclass(frozen=True)
class Partition:
    """One partition; `start` and `size` in bytes, both multiples of ALIGN_BYTES."""

    name: str
    kind: uuid.UUID
    id: uuid.UUID
    start: int
    size: int


@dataclass(frozen=True)
class Table:
    """What lies on the disk: `head` from byte 0 on, `tail` up to the last byte."""

    disk_bytes: int
    partitions: tuple[Partition, ...]
    head: bytes
    tail: bytes


def lay_out(wanted: Sequence[tuple[str, uuid.UUID, uuid.UUID, int]], disk_id: uuid.UUID) -> Table:
    """Partitions one after the other: (name, kind, id, least size in bytes), sizes rounded up to ALIGN_BYTES.

    Raises ValueError for no or too many partitions, for a name that is too long or used twice, for a size under 1.
    """
    if not 1 <= len(wanted) <= ENTRIES:
        raise ValueError(f"expected 1 to {ENTRIES} partitions, got {len(wanted)}")
    partitions = []
    start = ALIGN_BYTES
    for name, kind, partition_id, least in wanted:
        if least < 1 or not 1 <= len(name.encode("utf-16-le")) // 2 <= LARGEST_NAME:
            raise ValueError(
                f"expected a partition with a size and a name of 1 to {LARGEST_NAME} letters, got {name!r}"
            )
        size = -(-least // ALIGN_BYTES) * ALIGN_BYTES
        partitions.append(Partition(name, kind, partition_id, start, size))
        start += size
    for key in ("name", "id"):
        if len({getattr(one, key) for one in partitions}) != len(partitions):
            raise ValueError(f"expected every {key} once, got one twice")
    disk_bytes = start + ALIGN_BYTES  # room for the second table
    entries = b"".join(_entry(one) for one in partitions).ljust(ENTRIES * ENTRY_BYTES, b"\0")
    last = disk_bytes // SECTOR_BYTES - 1
    first_header = _header(disk_id, entries, own=1, other=last, table=2)
    second_header = _header(disk_id, entries, own=last, other=1, table=last - TABLE_SECTORS)
    return Table(disk_bytes, tuple(partitions), _protective_mbr(last) + first_header + entries, entries + second_header)


def _entry(partition: Partition) -> bytes:
    first = partition.start // SECTOR_BYTES
    last = (partition.start + partition.size) // SECTOR_BYTES - 1
    return struct.pack(
        "<16s16sQQQ72s",
        partition.kind.bytes_le,
        partition.id.bytes_le,
        first,
        last,
        0,
        partition.name.encode("utf-16-le"),
    )


def _header(disk_id: uuid.UUID, entries: bytes, *, own: int, other: int, table: int) -> bytes:
    last_sector = max(own, other)

    def packed(checksum: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII",
            b"EFI PART",
            0x00010000,  # revision 1.0
            92,  # bytes of this header
            checksum,
            0,
            own,
            other,
            HEAD_SECTORS,  # first usable sector
            last_sector - TABLE_SECTORS - 1,  # last usable sector
            disk_id.bytes_le,
            table,
            ENTRIES,
            ENTRY_BYTES,
            zlib.crc32(entries),
        )

    return packed(zlib.crc32(packed(0))).ljust(SECTOR_BYTES, b"\0")


def _protective_mbr(last_sector: int) -> bytes:
    """One partition of type 0xEE over the whole disk, so that old tools leave it alone (section 5.2.3)."""
    entry = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(last_sector, 0xFFFFFFFF))
    return (b"\0" * 446 + entry).ljust(510, b"\0") + b"\x55\xaa"
