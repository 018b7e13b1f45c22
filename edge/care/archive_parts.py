"""The files of an archive on a stick: NAME, NAME.2, NAME.3 ..., each under 4 GiB, written as NAME.part, NAME.2.part.

A stick that is pulled shows itself in many errors of the system; here they become one sentence.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

from edge.durable import fsync_directory
from edge.durable_names import NamedFile, rename
from edge.errors import BackupError, StorageError

UNFINISHED: Final = ".part"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_GONE: Final = frozenset(
    {errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOENT, errno.EROFS, errno.ENOTCONN, errno.ESTALE, errno.ESHUTDOWN}
    | {errno.EREMOTEIO, errno.ENOMEDIUM, errno.ENOTDIR, errno.EBADF}
)
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP})


def part_path(path: Path, part: int) -> Path:
    """Name of a part, counted from 0."""
    return path if part == 0 else path.with_name(f"{path.name}.{part + 1}")


def fail(error: OSError) -> NoReturn:
    """Raise what an error of the stick means: backup.no-room, .stick-removed, .not-allowed, .failed."""
    if error.errno in _FULL:
        raise BackupError("expected room for the whole backup, got a full stick", code="backup.no-room") from error
    if error.errno in _GONE:
        message = "expected the stick to stay until the end, got none or one that fails"
        raise BackupError(message, code="backup.stick-removed") from error
    cause = os.strerror(error.errno) if error.errno else type(error).__name__
    code = "backup.not-allowed" if error.errno in _REFUSED else "backup.failed"
    raise BackupError(f"expected the stick to take and give files, got: {cause}", code=code) from error


@contextmanager
def stick() -> Iterator[None]:
    """Around everything that touches the stick: OSError and StorageError as BackupError."""
    try:
        yield
    except OSError as error:
        fail(error)
    except StorageError as error:
        if isinstance(error.__cause__, OSError):
            fail(error.__cause__)
        raise


class PartsWriter:
    """Unfinished parts that become the archive only when all are written and were read back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: list[NamedFile] = []

    def open_part(self, part: int) -> Callable[[bytes], None]:
        """Begin the next part; returns what writes to it. The one before is made durable."""
        with stick():
            if self._parts:
                self._parts[-1].sync()
            file = NamedFile(_unfinished(part_path(self._path, part)))
        self._parts.append(file)

        def write(content: bytes) -> None:
            with stick():
                file.write(content)

        return write

    def sync(self) -> None:
        """Make all bytes durable."""
        with stick():
            for file in self._parts:
                file.sync()
            fsync_directory(self._path.parent)

    def finish(self) -> None:
        """Give the parts their names, the first part last: an archive under its name is a whole one."""
        with stick():
            for part in reversed(range(len(self._parts))):
                self._parts[part].close()
                rename(self._parts[part].path, part_path(self._path, part))

    def discard(self) -> None:
        """Delete what is unfinished, as far as the stick still answers; harmless after `finish`."""
        for file in self._parts:
            with suppress(OSError):  # the stick may be gone; an unfinished part is never taken for an archive
                file.close()
            with suppress(OSError):
                file.path.unlink(missing_ok=True)


class PartsReader:
    """Opens the parts of an archive one after another; `unfinished`: those that are not renamed yet."""

    def __init__(self, path: Path, *, unfinished: bool = False) -> None:
        self._path = path
        self._unfinished = unfinished
        self._open: _Part | None = None
        self.size_bytes = self._size_bytes()

    def next_part(self, part: int) -> _Part | None:
        """The part open for reading, None where there is none. Raises BackupError."""
        self.close()
        path = self._name(part)
        with stick():
            if not path.is_file():
                if part == 0 and not path.parent.is_dir():
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                return None
            self._open = _Part(path.open("rb", buffering=0))
        return self._open

    def close(self) -> None:
        """Close what is open."""
        if self._open:
            self._open.stream.close()
            self._open = None

    def _name(self, part: int) -> Path:
        name = part_path(self._path, part)
        return _unfinished(name) if self._unfinished else name

    def _size_bytes(self) -> int:
        size_bytes = part = 0
        with stick():
            while (path := self._name(part)).is_file():
                size_bytes += path.stat().st_size
                part += 1
        return size_bytes


class _Part:
    """One part; `read` fills up to what was asked for."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; fewer only at the end. Raises BackupError."""
        pieces = []
        with stick():
            while size > 0 and (piece := self.stream.read(size)):
                pieces.append(piece)
                size -= len(piece)
        return b"".join(pieces)


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + UNFINISHED)
