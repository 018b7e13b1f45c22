"""One file of a stick becomes a file of the inbox, durably, or a reason why not.

What is written is what the receiver would have kept, had the object come over the network (`part10.file_head`): the
same object is known again by its sha256, whichever way it comes.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from edge.durable import DurableFile, make_directory, sweep
from edge.errors import DicomError
from edge.intake.header import read_header
from edge.intake.part10 import file_head
from edge.intake.stick.kinds import DICOMDIR_CLASS, HEAD_BYTES, kind_of, place, uids
from edge.intake.stick.pictures import wrap
from edge.intake.stick.tree import Names, Tree, read_head, read_rest
from edge.store import Store, object_path

INBOX: Final = Path("inbox", "USB-STICK")  # below the data folder; the receiver takes what lies there
LARGEST_PICTURE_BYTES: Final = 128 * 2**20

Outcome = Literal["taken", "known", "other"]


class Taking:
    """Into one data folder. `pictures`: whether JPEG and PNG count as images here."""

    def __init__(self, data_dir: Path, store: Store, largest_bytes: int, *, pictures: bool) -> None:
        """Makes the inbox and clears away what an import that was cut off has left. Raises StorageError."""
        self._data_dir = data_dir
        self._store = store
        self._largest_bytes = largest_bytes
        self._pictures = pictures
        make_directory(data_dir / INBOX)
        sweep(data_dir / INBOX)

    def take(self, tree: Tree, names: Names, room: Callable[[int], None]) -> Outcome:
        """Take one file. room: called with its size before anything is written; it may raise.

        Raises DicomError (`dicom.*`, `intake.picture-*`, `stick.too-large`, `stick.not-a-file`: count it and go on),
        OSError (the stick), StorageError (the disk), and what `room` raises.
        """
        with tree.open(names) as handle:
            size = os.fstat(handle).st_size
            head = read_head(handle, min(size, HEAD_BYTES))
            kind = kind_of(head)
            if kind == "other" or (kind == "picture" and not self._pictures):
                return "other"
            if size > (self._largest_bytes if kind == "object" else min(LARGEST_PICTURE_BYTES, self._largest_bytes)):
                raise DicomError("expected a smaller file, got one beyond the board's limit", code="stick.too-large")
            if kind == "object":
                return self._object(handle, head, size, room)
            return self._picture(handle, size, room)

    def _object(self, handle: int, head: bytes, size: int, room: Callable[[int], None]) -> Outcome:
        at = place(head)
        sop_class, sop_instance = uids(head, at)
        if sop_class == DICOMDIR_CLASS:
            return "other"
        room(size)
        ours = file_head(sop_class, sop_instance, at.transfer_syntax_uid)
        file = DurableFile(self._data_dir / INBOX)
        try:
            file.write(ours)
            read_rest(handle, at.start, size, file.write)
            self._check(file, len(ours), at.transfer_syntax_uid, (sop_class, sop_instance))
            return self._keep(file)
        finally:
            file.discard()

    def _check(self, file: DurableFile, start: int, transfer_syntax_uid: str, named: tuple[str, str]) -> None:
        """Whole, and what its first bytes say. Raises DicomError."""
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            header = read_header(view, start, transfer_syntax_uid)
        if (header.sop_class_uid, header.sop_instance_uid) != named:
            raise DicomError("expected each SOP UID once in the data set, got two")

    def _picture(self, handle: int, size: int, room: Callable[[int], None]) -> Outcome:
        room(2 * size)
        content = bytearray()
        read_rest(handle, 0, size, content.extend)
        wrapped = wrap(bytes(content))
        room(len(wrapped))
        head = wrapped[:HEAD_BYTES]
        at = place(head)
        file = DurableFile(self._data_dir / INBOX)
        try:
            file.write(file_head(*uids(head, at), at.transfer_syntax_uid))
            file.write(memoryview(wrapped)[at.start :])
            return self._keep(file)
        finally:
            file.discard()

    def _keep(self, file: DurableFile) -> Outcome:
        final = self._data_dir / INBOX / f"{file.sha256}.dcm"
        if final.exists() or self._store.holds_object(str(object_path(file.sha256))):
            return "known"
        file.commit(final)
        return "taken"
