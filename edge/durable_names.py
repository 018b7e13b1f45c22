"""Durable names: a file that grows under a name of ours, renames, and folders that go or move as a whole."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edge.durable import fsync_directory, make_directory
from edge.errors import StorageError

SYNC_EVERY_BYTES = 32 * 2**20  # so that a slow stick shows its errors, and its pace, early


class NamedFile:
    """A file that grows under `path` and gets its final name once its bytes are durable.

    Other than `edge.durable.DurableFile` its temporary name is known beforehand, so that one that was left behind is
    found and taken again. Raises OSError: what it means that a stick fails is for the caller to say.
    """

    def __init__(self, path: Path) -> None:
        """Create the file, or empty the one that was left behind; never follows a link."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._handle = os.open(path, flags, 0o600)
        self.path = path
        self._unsynced = 0

    def write(self, content: bytes) -> None:
        """Append."""
        view = memoryview(content)
        while view:
            view = view[os.write(self._handle, view) :]
        self._unsynced += len(content)
        if self._unsynced >= SYNC_EVERY_BYTES:
            self.sync()

    def sync(self) -> None:
        """Make the bytes durable, and forget them in memory, so that a later read asks the medium."""
        os.fsync(self._handle)
        os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_DONTNEED)
        self._unsynced = 0

    def close(self) -> None:
        """Close; harmless the second time."""
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            os.close(handle)


def rename(source: Path, final: Path) -> None:
    """Move a file or folder; takes the place of a file or an empty folder. Durable in both parents. StorageError."""
    with _storage("taking a name"):
        source.replace(final)
    fsync_directory(final.parent)
    if source.parent != final.parent:
        fsync_directory(source.parent)


def merge(source: Path, final: Path) -> None:
    """Move what lies in `source` into `final`, files of the same name replaced; may be cut and run again.

    Raises StorageError.
    """
    if not source.exists():
        return
    if source.is_dir() and final.is_dir():
        for child in sorted(source.iterdir()):
            merge(child, final / child.name)
        with _storage("deleting a folder"):
            source.rmdir()
        fsync_directory(source.parent)
        return
    make_directory(final.parent)
    rename(source, final)


def remove_tree(folder: Path) -> None:
    """Delete a folder and all in it; a missing one is fine. Raises StorageError."""
    if not folder.exists():
        return
    with _storage("deleting a folder"):
        shutil.rmtree(folder)
    fsync_directory(folder.parent)


@contextlib.contextmanager
def _storage(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"expected {doing} to work, got: {os.strerror(error.errno or 0)}") from error
