"""The only place that writes files. What a function here returned from has survived a power cut.

The order is always: bytes into a temporary file of the same file system, fsync of the file, rename, fsync of the
folder (a rename is durable only when its folder is; ext4(5), and measured: without the last step files went missing).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import StorageError, StorageFullError

TEMPORARY_PREFIX = "."
TEMPORARY_SUFFIX = ".part"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_LOCK_RETRY_S = 0.01


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
    _make_name_durable(folder)
    for folder in reversed(missing):
        with _storage("making a folder"):
            folder.mkdir(exist_ok=True)
        _make_name_durable(folder)


def make_siblings(folders: Sequence[Path]) -> None:
    """`make_directory` of folders with one parent, whose names become durable together. Raises StorageError."""
    make_directory(folders[0].parent)
    with _storage("making a folder"):
        for folder in folders:
            folder.mkdir(exist_ok=True)
    fsync_directory(folders[0].parent)
    _durable_folders.update((found.st_dev, found.st_ino) for found in map(os.stat, folders))


_durable_folders: set[tuple[int, int]] = set()  # device and inode of folders whose name this process made durable


def _make_name_durable(folder: Path) -> None:
    """A folder that is there may have been made by a process that died before it could sync the parent."""
    with _storage("looking at a folder"):
        found = folder.stat()
    if (found.st_dev, found.st_ino) not in _durable_folders:
        fsync_directory(folder.parent)
        _durable_folders.add((found.st_dev, found.st_ino))


def file_mode(folder: Path) -> int:
    """Of a new file: a folder with the set-group-ID bit is shared by the box's services, each a user of its own."""
    return 0o660 if folder.stat().st_mode & stat.S_ISGID else 0o600


def _open_temporary(folder: Path) -> tuple[int, Path]:
    path = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(16)}{TEMPORARY_SUFFIX}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, file_mode(folder)), path


def claim_name(path: Path) -> None:
    """See that a file of that name is there, empty if it was not. Raises StorageFullError, StorageError."""
    with _storage("making a file"):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, file_mode(path.parent)))


class DurableFile:
    """A file that grows in a folder for temporary files and gets its name only once its bytes are on disk.

    `size` is in bytes, `sha256` the hex digest of the bytes so far. Not for use by two threads at once.
    """

    def __init__(self, incoming: Path) -> None:
        """Open a temporary file in `incoming` (must exist, same file system as the final place)."""
        with _storage("opening a temporary file"):
            self._handle, self.path = _open_temporary(incoming)
        self.size = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hex digest of all bytes written so far."""
        return self._digest.hexdigest()

    def write(self, chunk: bytes | memoryview) -> int:
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

    def keep_private(self) -> None:
        """Nobody but the owner may read it, whatever the folder shares."""
        with _storage("protecting a file"):
            os.fchmod(self._handle, 0o600)

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


class Mark:
    """A small file that says what a process is at: overwritten in place and never synced, so that it costs nothing.

    It outlives the process, not the machine. `left` is what an earlier process left there, whole. Behind the
    `size_bytes` of the record lies what else was written to `fileno()`, such as by a fault handler.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Open, or create, and empty the file. Raises StorageError."""
        self._size_bytes = size_bytes
        with _storage("opening a mark"):
            self.left = path.read_bytes() if path.exists() else b""
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.lseek(self._handle, size_bytes, os.SEEK_SET)

    def write(self, content: bytes) -> None:
        """Replace the record. Raises StorageFullError, StorageError; ValueError if it is too long."""
        if len(content) > self._size_bytes:
            raise ValueError(f"expected a record of at most {self._size_bytes} bytes, got {len(content)}")
        with _storage("writing a mark"):
            os.pwrite(self._handle, content.ljust(self._size_bytes), 0)

    def fileno(self) -> int:
        """The open descriptor; what is appended through it comes behind the record."""
        return self._handle

    def close(self) -> None:
        """Close; the file stays."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def write_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write `content` under the name `path`, whole or not at all. Raises StorageFullError, StorageError."""
    file = DurableFile(path.parent)
    try:
        if private:
            file.keep_private()
        file.write(content)
        file.commit(path)
    except StorageError:
        file.discard()
        raise


def allocate(path: Path, size_bytes: int) -> None:
    """A file of `size_bytes` whose blocks are really taken, durable, or none. Raises StorageFullError, StorageError."""
    with _storage("opening a temporary file"):
        handle, temporary = _open_temporary(path.parent)
    try:
        with _storage("setting room aside"):
            os.posix_fallocate(handle, 0, size_bytes)
            os.fsync(handle)
            temporary.replace(path)
    except StorageError:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    fsync_directory(path.parent)


@dataclass(frozen=True)
class DiskUse:
    """Bytes of a file system as df(1) counts them: `free` is what an unprivileged process may still write."""

    size: int
    used: int
    free: int

    @property
    def percent(self) -> float:
        """Share in use, 0 to 100, of what may be used at all."""
        usable = self.used + self.free
        return 100.0 * self.used / usable if usable else 100.0


def disk_use(path: Path) -> DiskUse:
    """How full the file system of `path` is. Raises StorageError."""
    with _storage("asking for free space"):
        system = os.statvfs(path)
    block = system.f_frsize
    return DiskUse(system.f_blocks * block, (system.f_blocks - system.f_bfree) * block, system.f_bavail * block)


def free_bytes(path: Path) -> int:
    """Bytes that an unprivileged process may still write on the file system of `path`. Raises StorageError."""
    return disk_use(path).free


def remove(path: Path) -> None:
    """Delete a file for good; a missing one is fine. Raises StorageError."""
    with _storage("deleting a file"):
        path.unlink(missing_ok=True)
    fsync_directory(path.parent)


def is_temporary(path: Path) -> bool:
    """True for the name of a file that was never finished."""
    return path.name.startswith(TEMPORARY_PREFIX) and path.name.endswith(TEMPORARY_SUFFIX)


def sweep(incoming: Path) -> int:
    """Delete the temporary files that an earlier process left in `incoming`; returns how many. Raises StorageError."""
    left_over = sorted(incoming.glob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"))
    for path in left_over:
        with _storage("deleting a temporary file"):
            path.unlink(missing_ok=True)
    if left_over:
        fsync_directory(incoming)
    return len(left_over)


class Lock:
    """flock(2) on a file or folder: keeps out every other process and every other Lock, those of this process too.

    The kernel drops it when the process ends, however it ends. Not for use by two threads at once.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open `path`, not locked yet. Raises StorageError."""
        with _storage("opening a lock"):
            flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_CREAT if create else 0)
            self._handle = os.open(path, flags, file_mode(path.parent) if create else 0)

    def acquire(self, *, shared: bool = False, wait_s: float | None = None) -> bool:
        """Take the lock; False if others kept it for `wait_s` seconds (None: wait as long as it takes)."""
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        if wait_s is None:
            with _storage("locking"):
                fcntl.flock(self._handle, kind)
            return True
        deadline_s = time.monotonic() + wait_s
        while True:
            try:
                with _storage("locking"):
                    fcntl.flock(self._handle, kind | fcntl.LOCK_NB)
                return True
            except StorageError as error:
                if not isinstance(error.__cause__, BlockingIOError):
                    raise
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(_LOCK_RETRY_S)

    def release(self) -> None:
        """Let others have it; harmless if it was not taken."""
        with _storage("unlocking"):
            fcntl.flock(self._handle, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release for good; harmless a second time."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


@contextlib.contextmanager
def locked(*folders: Path) -> Iterator[None]:
    """Hold every one of these folders (each must exist): no other process and no other thread does so meanwhile.

    Always taken in the same order, so two holders never wait for each other. Raises StorageError.
    """
    with contextlib.ExitStack() as stack:
        for folder in sorted(set(folders)):
            lock = Lock(folder)
            stack.callback(lock.close)
            lock.acquire()
        yield
