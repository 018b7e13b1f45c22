"""The only place that writes files. What a function here returned from has survived a power cut.

The order is always: bytes into a temporary file of the same file system, fsync of the file, rename, fsync of the
folder (a rename is durable only when its folder is; ext4(5), and measured: without the last step files went missing).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge.errors import StorageError, StorageFullError

TEMPORARY_PREFIX = "."
TEMPORARY_SUFFIX = ".part"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextlib.contextmanager
def _storage(doing: str) -> Iterator[None]:
    """Translate OSError: no room -> StorageFullError, anything else -> StorageError. Paths stay out of the message."""
    try:
        yield
    except OSError as error:
        cause = os.strerror(error.errno) if error.errno else type(error).__name__
        if error.errno in _FULL:
            raise StorageFullError(f"expected room for {doing}, got: {cause}") from error
        raise StorageError(f"expected {doing} to work, got: {cause}") from error


def fsync_directory(path: Path) -> None:
    """Make the names inside `path` durable. Raises StorageError."""
    with _storage("syncing a folder"):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_directory(path: Path) -> None:
    """Create `path` and its missing parents, each one's name durable in its own parent. Raises StorageError."""
    missing = []
    folder = path
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        with _storage("making a folder"):
            folder.mkdir(exist_ok=True)
        fsync_directory(folder.parent)


class DurableFile:
    """A file that grows in a folder for temporary files and gets its name only once its bytes are on disk.

    `size` is in bytes, `sha256` the hex digest of the bytes so far. Not for use by two threads at once.
    """

    def __init__(self, incoming: Path) -> None:
        """Open a temporary file in `incoming` (must exist, same file system as the final place)."""
        with _storage("opening a temporary file"):
            self._handle, name = tempfile.mkstemp(TEMPORARY_SUFFIX, TEMPORARY_PREFIX, incoming)
        self.path = Path(name)
        self.size = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hex digest of all bytes written so far."""
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> int:
        """Append `chunk`, unbuffered. Raises StorageFullError, StorageError; the file is then only good to discard."""
        view = memoryview(chunk)
        with _storage("a chunk of a file"):
            while view:
                view = view[os.write(self._handle, view) :]
        self._digest.update(chunk)
        self.size += len(chunk)
        return len(chunk)

    def fileno(self) -> int:
        """The open descriptor, readable too (for mmap)."""
        return self._handle

    def commit(self, final: Path) -> None:
        """Make bytes and name durable; replaces a file of that name. Raises StorageFullError, StorageError."""
        with _storage("making a file durable"):
            os.fsync(self._handle)
            self.path.replace(final)
        self._close()
        fsync_directory(final.parent)

    def discard(self) -> None:
        """Close and delete; harmless after `commit` or a first `discard`."""
        if self._handle < 0:
            return
        self._close()
        with _storage("deleting a temporary file"):
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def write_file(path: Path, content: bytes) -> None:
    """Write `content` under the name `path`, whole or not at all. Raises StorageFullError, StorageError."""
    file = DurableFile(path.parent)
    try:
        file.write(content)
        file.commit(path)
    except StorageError:
        file.discard()
        raise


def free_bytes(path: Path) -> int:
    """Bytes that an unprivileged process may still write on the file system of `path`. Raises StorageError."""
    with _storage("asking for free space"):
        system = os.statvfs(path)
    return system.f_bavail * system.f_frsize


def remove(path: Path) -> None:
    """Delete a file for good; a missing one is fine. Raises StorageError."""
    with _storage("deleting a file"):
        path.unlink(missing_ok=True)
    fsync_directory(path.parent)


def sweep(incoming: Path) -> int:
    """Delete the temporary files that an earlier process left in `incoming`; returns how many. Raises StorageError."""
    left_over = sorted(incoming.glob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"))
    for path in left_over:
        with _storage("deleting a temporary file"):
            path.unlink(missing_ok=True)
    if left_over:
        fsync_directory(incoming)
    return len(left_over)
