"""What lies inside the sealed stream: records, closed and bounded, with a digest of each file and one of the whole.

    record = kind 1 | length 4 (big-endian) | payload
    ABOUT (FILE BYTES* (DONE | BROKEN) | BROKEN)* END, then zeros

Names are paths below the data folder and only those that match `NAMES` exist; so no record can reach outside of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from edge.closed import ClosedError, build
from edge.errors import BackupError

ABOUT, FILE, BYTES, DONE, BROKEN, END = range(1, 7)
_FRAME: Final = struct.Struct(">BI")
LARGEST_DOCUMENT_BYTES: Final = 4096
LARGEST_PIECE_BYTES: Final = 2**20
FILES_LIMIT: Final = 20_000_000
_BOUNDS: Final = {"store_version": (1, 10_000), "files": (0, FILES_LIMIT), "broken": (0, FILES_LIMIT)} | {
    "snapshots": (1, 1000),
    "size_bytes": (0, 2**53),
}

DATABASE_NAME: Final = "radbox.sqlite3"
STATE_NAME: Final = "update/state.json"
NAMES: Final = re.compile(
    r"radbox\.sqlite3"
    r"|spool/objects/(?P<two>[0-9a-f]{2})/(?P=two)[0-9a-f]{62}\.dcm"
    r"|quarantine/[0-9a-f]{64}\.bin"
    r"|rendered/[0-9]{1,18}/[0-9]{1,18}/[a-z0-9][a-z0-9._-]{0,63}"
    r"|update/state\.json"
    r"|update/roots/[0-9]{1,9}\.root\.json"
    r"|slots/[0-9a-f]{64}/[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
)

T = TypeVar("T")


@dataclass(frozen=True)
class About:
    """The box that was backed up: `name` of its board, its software's version and that of its database."""

    name: str
    radbox: str
    store_version: int


@dataclass(frozen=True)
class File:
    """A file begins. `key`: what opens the copy of the database (hex), "" for every other file."""

    name: str
    key: str


@dataclass(frozen=True)
class Done:
    """The file that began has ended; its bytes are the ones that were written. sha256 in hex."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Broken:
    """A file that the box names but could not read to its end, or that is not what it was when it was received."""

    name: str


@dataclass(frozen=True)
class End:
    """What the archive holds. size_bytes: of all files. snapshots: how often the database was copied.

    sha256: over the names and digests of all files in their order.
    """

    files: int
    broken: int
    size_bytes: int
    snapshots: int
    sha256: str


Record = About | File | bytes | Done | Broken | End


def is_name(name: str) -> bool:
    """True for a path, relative to the data folder, that an archive may hold."""
    return NAMES.fullmatch(name) is not None


class RecordWriter:
    """Writes the records. `write` takes bytes."""

    def __init__(self, write: Callable[[bytes], object], about: About) -> None:
        self._write = write
        self._digest = hashlib.sha256()
        self._files = self._broken = self._size_bytes = 0
        self._document(ABOUT, about)

    def file(self, name: str, pieces: Iterable[bytes], key: str = "") -> str:
        """Add a file; returns its sha256. An OSError of `pieces` makes it a broken one and is raised again."""
        self._document(FILE, File(name, key))
        digest, size_bytes = hashlib.sha256(), 0
        try:
            for piece in pieces:
                digest.update(piece)
                size_bytes += len(piece)
                self._frame(BYTES, piece)
        except OSError:
            self.broken(name)
            raise
        self._frame(DONE, digest.digest())
        self._files += 1
        self._size_bytes += size_bytes
        self._digest.update(_line(name, digest.hexdigest()))
        return digest.hexdigest()

    def broken(self, name: str) -> None:
        """Note a file that cannot be read."""
        self._broken += 1
        self._document(BROKEN, Broken(name))

    def end(self, snapshots: int) -> End:
        """Write the last record and return it."""
        end = End(self._files, self._broken, self._size_bytes, snapshots, self._digest.hexdigest())
        self._document(END, end)
        return end

    def _document(self, kind: int, document: object) -> None:
        self._frame(kind, json.dumps(vars(document)).encode())

    def _frame(self, kind: int, payload: bytes) -> None:
        self._write(_FRAME.pack(kind, len(payload)))
        self._write(payload)


def read_records(read: Callable[[int], bytes]) -> Iterator[Record]:
    """The records in their order, `About` first and `End` last, with the pieces of each file between File and Done.

    read: returns exactly as many bytes as asked for. Raises BackupError (backup.damaged) for what is no such stream.
    """
    yield from _Reader(read).records()


class _Reader:
    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._digest = hashlib.sha256()
        self._found = End(0, 0, 0, 1, "")
        self._databases = 0

    def records(self) -> Iterator[Record]:
        kind, payload = self._next()
        if kind != ABOUT:
            raise _damaged("its first record to say what it is")
        yield _document(About, payload)
        while True:
            kind, payload = self._next()
            if kind == END:
                yield self._check_end(_document(End, payload))
                return
            if kind == BROKEN:
                yield self._broken(payload)
            elif kind == FILE:
                yield from self._file(_document(File, payload))
            else:
                raise _damaged("a file to begin")
            if self._found.files + self._found.broken > FILES_LIMIT:
                raise _damaged(f"at most {FILES_LIMIT} files")

    def _next(self) -> tuple[int, bytes]:
        kind, length = _FRAME.unpack(self._read(_FRAME.size))
        if not ABOUT <= kind <= END or length > (LARGEST_PIECE_BYTES if kind == BYTES else LARGEST_DOCUMENT_BYTES):
            raise _damaged("records of a known kind and length")
        return kind, self._read(length)

    def _file(self, file: File) -> Iterator[Record]:
        if not is_name(file.name) or bool(file.key) != (file.name == DATABASE_NAME):
            raise _damaged("names of a box's files")
        self._databases += file.name == DATABASE_NAME
        yield file
        digest, size_bytes = hashlib.sha256(), 0
        while True:
            kind, payload = self._next()
            if kind == BYTES and payload:
                digest.update(payload)
                size_bytes += len(payload)
                yield payload
            elif kind == DONE and payload == digest.digest():
                self._digest.update(_line(file.name, digest.hexdigest()))
                self._count(files=1, size_bytes=size_bytes)
                yield Done(file.name, digest.hexdigest())
                return
            elif kind == BROKEN:
                broken = self._broken(payload)
                if broken.name != file.name:
                    raise _damaged("the file that began to end")
                yield broken
                return
            else:
                raise _damaged("a file's bytes and their digest")

    def _broken(self, payload: bytes) -> Broken:
        broken = _document(Broken, payload)
        if not is_name(broken.name):
            raise _damaged("names of a box's files")
        self._count(broken=1)
        return broken

    def _count(self, files: int = 0, broken: int = 0, size_bytes: int = 0) -> None:
        found = self._found
        self._found = dataclasses.replace(
            found,
            files=found.files + files,
            broken=found.broken + broken,
            size_bytes=found.size_bytes + size_bytes,
        )

    def _check_end(self, end: End) -> End:
        if end != dataclasses.replace(self._found, snapshots=end.snapshots, sha256=self._digest.hexdigest()):
            raise _damaged("as many files as its last record says")
        if self._databases != 1:
            raise _damaged("one database")
        return end


def _document(cls: type[T], payload: bytes) -> T:
    try:
        return build(cls, json.loads(payload), cls.__name__.lower(), _BOUNDS)
    except (ValueError, RecursionError, ClosedError) as error:
        raise _damaged("records of a known shape") from error


def _line(name: str, sha256: str) -> bytes:
    return f"{sha256} {name}\n".encode()


def _damaged(expected: str) -> BackupError:
    return BackupError(f"expected the backup to have {expected}, got something else", code="backup.damaged")
