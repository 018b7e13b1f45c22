"""The reserve: a file that only takes room, so that there is some to give back when the disk is full.

The database gives it back by itself when a commit finds no room (`edge.store_connection`); service `care` does when
free space falls below the reserve's own size, so that reports and their images can be finished too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edge.disk_marks import wants_reserve
from edge.durable import DiskUse, allocate, remove
from edge.errors import StorageFullError
from edge.store_paths import RESERVE


def keep_reserve(
    data_dir: Path, use: DiskUse, reserve_bytes: int, min_free_bytes: int
) -> Literal["made", "given back", ""]:
    """Make the reserve, give it back or leave all as it is; says which. Raises StorageError."""
    path = data_dir / RESERVE
    held = path.stat().st_size if path.exists() else 0
    if held and use.free < reserve_bytes:
        remove(path)
        return "given back"
    if held == reserve_bytes or not wants_reserve(use.free + held, reserve_bytes, min_free_bytes):
        return ""
    if held:  # the board file asks for another size now
        remove(path)
    try:
        allocate(path, reserve_bytes)
    except StorageFullError:
        return ""
    return "made"
