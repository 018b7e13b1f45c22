"""Three marks of a filling disk, and what each one allows. Pure: numbers in, decisions out.

clean: what another machine keeps and what is old may go. warn: people are told, and second versions of an object (same
SOP Instance UID, other bytes) are refused; a first copy never is. refuse: nothing new comes in (DICOM 0xA700).
"""

from __future__ import annotations

from typing import Final, Literal

from edge.board import GIB, MIB, Storage
from edge.durable import DiskUse

Mark = Literal["calm", "clean", "warn", "refuse"]

# A share of the disk says little about a very small one and about a very large one. So the marks also follow the room
# below which everything is refused (`receive.min_free_bytes`, 512 MiB): with less than 4 or 2 times that room the box
# cleans and warns whatever the share is, and with 100 times that room (50 GiB) it never says that the disk is full.
CLEAN_TIMES: Final = 4
WARN_TIMES: Final = 2
PLENTY_TIMES: Final = 100


def mark(use: DiskUse, storage: Storage, min_free_bytes: int) -> Mark:
    """The highest mark that the disk has reached."""
    if use.free < min_free_bytes:
        return "refuse"
    plenty = use.free >= PLENTY_TIMES * min_free_bytes
    if use.free < WARN_TIMES * min_free_bytes or (use.percent >= storage.warn_percent and not plenty):
        return "warn"
    if use.free < CLEAN_TIMES * min_free_bytes or use.percent >= storage.clean_percent:
        return "clean"
    return "calm"


def refuses_second_versions(reached: Mark) -> bool:
    """True where an object that would be a second version of one that is here is refused (`storage.nearly-full`)."""
    return reached in ("warn", "refuse")


def refuses_everything(reached: Mark) -> bool:
    """True where every object is refused (`storage.full`)."""
    return reached == "refuse"


def wants_reserve(free: int, reserve_bytes: int, min_free_bytes: int) -> bool:
    """True if the reserve, which is missing, should be made now: its room is there and nobody is turned away for it."""
    left = free - reserve_bytes
    return left >= max(min_free_bytes, reserve_bytes) or (free < min_free_bytes and left >= 2 * reserve_bytes)


def in_words(use: DiskUse) -> str:
    """For example "93 % of 120.0 GiB are used, 8.4 GiB are free"."""
    return f"{use.percent:.0f} % of {_size(use.used + use.free)} are used, {_size(use.free)} are free"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB" if size_bytes >= GIB else f"{size_bytes // MIB} MiB"
