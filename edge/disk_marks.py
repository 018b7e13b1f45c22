"""Three marks of a filling disk, and what each one allows. Pure but for `DiskWatch`: numbers in, decisions out.

clean: what another machine keeps and what is old may go. warn: people are told, and second versions of an object (same
SOP Instance UID, other bytes) are refused; a first copy never is. refuse: nothing new comes in (DICOM 0xA700).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from edge.board import Board, Storage
from edge.board_keys import GIB, MIB
from edge.durable import DiskUse, disk_use

Mark = Literal["calm", "clean", "warn", "refuse"]

# A share of the disk says little about a very small one and about a very large one. So the marks also follow the room
# below which everything is refused (`receive.min_free_bytes`, 512 MiB): with less than 4 or 2 times that room the box
# cleans and warns whatever the share is, and with 100 times that room (50 GiB) it never says that the disk is full.
CLEAN_TIMES: Final = 4
WARN_TIMES: Final = 2
PLENTY_TIMES: Final = 100
LOOK_AGAIN_S: Final = 1.0


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


class DiskWatch:
    """The mark of a board's disk now; looks at most once a second. For one thread."""

    def __init__(
        self,
        board: Board,
        look: Callable[[Path], DiskUse] = disk_use,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """look, clock: for tests."""
        self._board = board
        self._look = look
        self._clock = clock
        self._looked_s = float("-inf")
        self._reached: Mark = "calm"

    def reached(self) -> Mark:
        """Raises StorageError."""
        if self._clock() - self._looked_s >= LOOK_AGAIN_S:
            self._reached = mark(
                self._look(self._board.data_dir), self._board.storage, self._board.receive.min_free_bytes
            )
            self._looked_s = self._clock()
        return self._reached
