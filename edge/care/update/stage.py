"""From the stick into slots/<sha256 of targets.json>: whole and verified, or not at all.

The bytes are hashed while they are copied into slots/.stage-*, every file is made durable, and only then the folder
gets its name. A power cut leaves at most a .stage-* folder, which the next update sweeps away.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edge import durable
from edge.care.update.stick import Stick, changed
from edge.durable_names import remove_tree, rename
from edge.errors import BundleError, StorageError, UpdateError
from edge.slots import SLOTS, TARGETS, check_slot_files
from edge.trust import FileEntry, Offer

STAGE: Final = ".stage-"
ROOM: Final = 2  # times the size of the update must be free


def stage(stick: Stick, bundle: str, targets: bytes, offer: Offer, data_dir: Path, reserve_bytes: int) -> Path:
    """Copy the bundle that `offer` (verified, from the bytes `targets`) describes; returns the folder of its slot.

    reserve_bytes: must stay free besides twice the update's size. Nothing is written when the slot is there already
    and whole. Raises UpdateError: update.no-room, update.file-changed, and what `Stick` raises; StorageFullError,
    StorageError.
    """
    slots = data_dir / SLOTS
    durable.make_directory(slots)
    sweep(slots)
    final = slots / offer.slot
    if _is_whole(final, targets, offer):
        durable.fsync_directory(slots)  # whoever named it may have died before the name was durable
        return final
    stick.check_files(bundle, offer)
    _check_room(slots, offer.size + len(targets), reserve_bytes)
    staging = slots / f"{STAGE}{offer.slot}"
    try:
        durable.make_directory(staging)
        for entry in offer.files:
            _copy(stick.chunks(bundle, entry), entry, staging)
        durable.write_file(staging / TARGETS, targets)
    except (UpdateError, StorageError):
        remove_tree(staging)
        raise
    if final.exists():  # damaged: it was found to be not whole
        _retire(final)
    rename(staging, final)
    return final


def collect(data_dir: Path, keep: frozenset[str]) -> int:
    """Delete every slot that is not in `keep`; returns how many. Raises StorageError."""
    slots = data_dir / SLOTS
    old = [path for path in _folders(slots) if not path.name.startswith(".") and path.name not in keep]
    for path in old:
        _retire(path)
    return len(old)


def sweep(slots: Path) -> int:
    """Delete what an interrupted update or removal left; returns how many folders. Raises StorageError."""
    left_over = [path for path in _folders(slots) if path.name.startswith(STAGE)]
    for path in left_over:
        remove_tree(path)
    return len(left_over)


def _is_whole(folder: Path, targets: bytes, offer: Offer) -> bool:
    try:
        if (folder / TARGETS).read_bytes() != targets:
            return False
        check_slot_files(folder, offer)
    except (OSError, BundleError):
        return False
    return True


def _check_room(slots: Path, size_bytes: int, reserve_bytes: int) -> None:
    needed = ROOM * size_bytes + reserve_bytes
    free = durable.free_bytes(slots)
    if free < needed:
        message = f"expected {needed >> 20} MiB free for the update, got {free >> 20} MiB"
        raise UpdateError(message, code="update.no-room")


def _copy(chunks: Iterable[bytes], entry: FileEntry, folder: Path) -> None:
    file = durable.DurableFile(folder)
    try:
        for chunk in chunks:
            file.write(chunk)
        if file.sha256 != entry.sha256:
            raise changed(entry)
        file.commit(folder / entry.name)
    finally:
        file.discard()


def _retire(folder: Path) -> None:
    """Delete a slot: it loses its name first, so that no half slot is ever seen."""
    gone = folder.with_name(f"{STAGE}old-{folder.name}")
    rename(folder, gone)
    remove_tree(gone)


def _folders(slots: Path) -> list[Path]:
    return sorted(path for path in slots.iterdir() if path.is_dir()) if slots.is_dir() else []
