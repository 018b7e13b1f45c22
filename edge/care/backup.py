"""`radbox backup`: the whole box, sealed, in one archive on a stick, while the box goes on.

Inside: the database, every object and refused object that it names, the pictures of its readings, and which model the
box runs, with that model. Not inside: the keys of the box (each box has its own), the reserve file, and what is
temporary. The archive gets its name only after it was read back from the stick and found whole.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.board import Board
from edge.care.archive import HEADER_BYTES, Kdf, new_header
from edge.care.archive_parts import UNFINISHED, PartsReader, PartsWriter, stick
from edge.care.archive_records import DATABASE_NAME, About, End, RecordWriter, read_records
from edge.care.archive_stream import CHUNKS_PER_PART, SEALED_BYTES, Sealer, Unsealer
from edge.care.backup_source import WORKSPACE, Source
from edge.durable import Lock, free_bytes
from edge.durable_names import remove_tree
from edge.errors import BackupError
from edge.store import database_key, open_store
from edge.store_backup import VERSION

LOCK: Final = Path("backup.lock")
SHORTEST_PASSPHRASE: Final = 12  # characters
LARGEST_PASSPHRASE_FILE_BYTES: Final = 4096
TELL_EVERY_S: Final = 5.0

Tell = Callable[[str], None]
_KDF: Final = Kdf()


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


@dataclass(frozen=True)
class Options:
    """What tests make smaller."""

    kdf: Kdf = _KDF
    chunks_per_part: int = CHUNKS_PER_PART
    tell: Tell = _tell


def main(board: Board, path: Path, passphrase_file: Path) -> int:
    """Write the archive `path` (a new file, or a folder that gets the next free name) and verify it.

    Returns 0; 1 if the archive is whole but the box has lost files that its database names. Raises BackupError,
    StoreError, StorageError.
    """
    passphrase = read_passphrase(passphrase_file)
    target = _target(path)
    end = write_backup(board, target, passphrase, Options())
    lines = [f"The backup is written and was read back: {end.files} files, {_megabytes(end.size_bytes)}, {target.name}"]
    if end.broken:
        lines.append(f"{end.broken} files that the database names could not be read on this box: run radbox fsck.")
    sys.stdout.write("\n".join(lines) + "\n")
    return int(end.broken > 0)


def write_backup(board: Board, path: Path, passphrase: bytes, options: Options) -> End:
    """Write, read back, name. Returns what the archive holds.

    Raises BackupError: backup.exists, .no-room, .stick-removed, .not-allowed, .busy, .no-box, .damaged; StoreError;
    StorageError.
    """
    if not (board.data_dir / DATABASE_NAME).exists():
        raise BackupError("expected a box with a database, got a data folder without one", code="backup.no-box")
    key = database_key()
    with _alone(board.data_dir), _workspace(board.data_dir):
        parts = PartsWriter(path)
        try:
            end = _write(board, key, path, passphrase, parts, options)
            parts.sync()
            options.tell("backup: reading it back from the stick")
            _verify(path, passphrase, end, options.tell)
            parts.finish()
        finally:
            parts.discard()
    with closing(open_store(board.data_dir, key=key)) as store:
        store.add_event("backup.written", f"a backup of {end.files} files was written and read back")
    return end


def _write(board: Board, key: bytes | None, path: Path, passphrase: bytes, parts: PartsWriter, options: Options) -> End:
    with closing(Source(board.data_dir, key)) as source:
        total_bytes = source.size_bytes()
        _check_room(board, path.parent, total_bytes)
        header, sealing_key = new_header(passphrase, options.kdf)
        sealer = Sealer(header, sealing_key, parts.open_part, options.chunks_per_part)
        about = About(board.name, importlib.metadata.version("radbox"), VERSION)
        progress = Progress("backup", total_bytes, options.tell, lambda: sealer.size)
        records = RecordWriter(progress.watch(sealer.write), about)
        end = source.write(records)
        sealer.close()
        return end


def _verify(path: Path, passphrase: bytes, written: End, tell: Tell) -> None:
    """Read the unfinished archive as a restore would. Raises BackupError."""
    with closing(PartsReader(path, unfinished=True)) as parts:
        stream = Unsealer(parts.next_part, passphrase)
        progress = Progress("verified", written.size_bytes, tell)
        last = None
        for last in read_records(stream.read):
            progress.add(len(last) if isinstance(last, bytes) else 0)
        stream.finish()
    if last != written:
        raise BackupError("expected the stick to give back what was written, got less", code="backup.damaged")


def _check_room(board: Board, folder: Path, total_bytes: int) -> None:
    needed = total_bytes + total_bytes // 100 + 4 * SEALED_BYTES + HEADER_BYTES
    with stick():
        free = free_bytes(folder)
        same_disk = folder.stat().st_dev == board.data_dir.stat().st_dev
    if same_disk:
        free -= board.receive.min_free_bytes  # a backup must not stop the receiver
    if free < needed:
        message = f"expected {_megabytes(needed)} free for the backup, got {_megabytes(max(0, free))}"
        raise BackupError(message, code="backup.no-room")


def _target(path: Path) -> Path:
    """The archive's name: `path`, or in a folder the next free radbox-<n>.rbk. Raises BackupError (backup.exists)."""
    with stick():
        if path.is_dir():
            taken = {file.name.removesuffix(UNFINISHED) for file in path.iterdir()}
            return next(path / name for name in map("radbox-{:04}.rbk".format, range(1, 10_000)) if name not in taken)
        if path.exists():
            message = "expected a new name for the backup, got one that is taken: an older backup is never replaced"
            raise BackupError(message, code="backup.exists")
        if not path.parent.is_dir():
            message = "expected the folder for the backup to be there, got none: is the stick mounted?"
            raise BackupError(message, code="backup.stick-removed")
    return path


def read_passphrase(path: Path) -> bytes:
    """First line of the file, in Unicode's composed form: the same however a keyboard made it. Raises BackupError."""
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_PASSPHRASE_FILE_BYTES + 1)
        lines = content.decode().splitlines() or [""]
    except OSError as error:
        cause = os.strerror(error.errno or 0)
        raise BackupError(f"expected a file with the passphrase, got: {cause}", code="backup.passphrase") from error
    except UnicodeDecodeError as error:
        raise BackupError("expected a passphrase in UTF-8, got other bytes", code="backup.passphrase") from error
    passphrase = unicodedata.normalize("NFC", lines[0].strip())
    if len(passphrase) < SHORTEST_PASSPHRASE or len(content) > LARGEST_PASSPHRASE_FILE_BYTES:
        message = f"expected a passphrase of {SHORTEST_PASSPHRASE} characters or more, got {len(passphrase)}"
        raise BackupError(message, code="backup.passphrase")
    return passphrase.encode()


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """One backup at a time for a data folder. Raises BackupError (backup.busy)."""
    lock = Lock(data_dir / LOCK, create=True)
    try:
        if not lock.acquire(wait_s=0):
            message = "expected no other backup of this box to run, got one"
            raise BackupError(message, code="backup.busy")
        yield
    finally:
        lock.close()


@contextmanager
def _workspace(data_dir: Path) -> Iterator[None]:
    """A folder for the copies of the database, empty at the start and gone at the end."""
    remove_tree(data_dir / WORKSPACE)
    try:
        yield
    finally:
        remove_tree(data_dir / WORKSPACE)


class Progress:
    """A line now and then. `done`: where the count comes from, else `add`."""

    def __init__(self, word: str, total_bytes: int, tell: Tell, done: Callable[[], int] | None = None) -> None:
        self._word = word
        self._total = _megabytes(total_bytes)
        self._tell = tell
        self._bytes = 0
        self._done = done or (lambda: self._bytes)
        self._next_s = time.monotonic() + TELL_EVERY_S

    def add(self, size_bytes: int) -> None:
        """So many bytes more."""
        self._bytes += size_bytes
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + TELL_EVERY_S
            self._tell(f"{self._word}: {_megabytes(self._done())} of about {self._total}")

    def watch(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """`write`, counted."""

        def counted(content: bytes) -> None:
            write(content)
            self.add(len(content))

        return counted


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
