"""`radbox restore`: an archive into an empty data folder, all of it or nothing.

Everything is unpacked into the folder STAGING, read again and compared with the database that came with it. Then one
mark says that it is whole, and only then do things move to their places, the database last: before that the box is
empty, after it whole. A restore that was cut off is run again: without the mark it starts over, with it it finishes.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

from edge.board import Board
from edge.care.archive_parts import PartsReader
from edge.care.archive_records import DATABASE_NAME, STATE_NAME, About, Broken, Done, End, File, is_name, read_records
from edge.care.archive_stream import Unsealer
from edge.care.backup import Options, Progress, read_passphrase
from edge.durable import DurableFile, free_bytes, make_directory, remove, write_file
from edge.durable_names import merge, remove_tree, rename
from edge.errors import BackupError, BundleError, RadboxError, StoreError
from edge.slots import SLOTS, UPDATE, in_use, parse_state
from edge.store import database_key
from edge.store_backup import VERSION, Snapshot, adopt, alone, mark_whole, rows_held
from edge.store_paths import RESTORING

STAGING: Final = RESTORING.parent
EMPTIED: Final = Path(".restore.done")
_CHECK_ROOM_EVERY_BYTES: Final = 16 * 2**20
_MARGIN_BYTES: Final = 16 * 2**20
# In this order; the database is what makes the box hold studies.
PLACES: Final = tuple(
    map(Path, ("spool/objects", "quarantine", "rendered", "slots", "update/roots", STATE_NAME, DATABASE_NAME))
)


def main(board: Board, path: Path, passphrase_file: Path) -> int:
    """Restore the archive `path` into the board's data folder. Returns 0; 1 if the backup itself lacked files.

    Raises BackupError, StoreError, StorageError.
    """
    passphrase = read_passphrase(passphrase_file)
    broken = restore(board, path, passphrase, Options())
    sys.stdout.write("The box is restored. Start its services.\n")
    if broken:
        sys.stdout.write(f"{broken} files were lost before the backup was written: radbox fsck names them.\n")
    return int(broken > 0)


def restore(board: Board, path: Path, passphrase: bytes, options: Options) -> int:
    """Restore, or finish a restore that was cut off. Returns how many files the backup itself lacked.

    Raises BackupError: backup.not-empty, .not-a-backup, .newer, .wrong-passphrase, .cut, .damaged, .no-room,
    .stick-removed; StoreError (store.in-use: a service runs); StorageError.
    """
    make_directory(board.data_dir)
    with alone(board.data_dir):
        if (board.data_dir / EMPTIED).exists():
            remove_tree(board.data_dir / EMPTIED)  # all was in place when the power went
            return 0
        if (board.data_dir / RESTORING).exists():
            options.tell("restore: finishing the one that was cut off")
            return _place(board)
        _check_empty(board)
        _stage(board, path, passphrase, options)
        return _place(board)


def finish(board: Board) -> None:
    """Finish a restore whose content was verified before the power went; neither archive nor passphrase is needed.

    Raises StoreError (store.in-use), StorageError.
    """
    with alone(board.data_dir):
        if (board.data_dir / RESTORING).exists():
            _place(board)


def _place(board: Board) -> int:
    """Move what is staged to its places; all of it is there. Returns how many files the backup itself lacked."""
    staging = board.data_dir / STAGING
    broken = int((board.data_dir / RESTORING).read_text(encoding="ascii"))
    if (_tree(staging) / DATABASE_NAME).exists():  # the last one to move
        mark_whole(board.data_dir)
        for place in PLACES:
            merge(_tree(staging) / place, board.data_dir / place)
    rename(staging, board.data_dir / EMPTIED)  # says that it is done, whatever happens to what is left of the folder
    remove_tree(board.data_dir / EMPTIED)
    return broken


def _tree(staging: Path) -> Path:
    return staging / "box"


def _check_empty(board: Board) -> None:
    """Raises BackupError (backup.not-empty): studies, or files of studies."""
    held = rows_held(board.data_dir, database_key())
    lying = any(path.is_file() for folder in PLACES[:3] for path in (board.data_dir / folder).rglob("*"))
    if held or lying:
        message = (
            f"expected a data folder without studies, got one with {held} studies"
            if held
            else ("expected a data folder without studies, got one with files of studies")
        )
        raise BackupError(message, code="backup.not-empty")


def _stage(board: Board, path: Path, passphrase: bytes, options: Options) -> None:
    staging = board.data_dir / STAGING
    remove_tree(staging)
    make_directory(_tree(staging))
    try:
        unpacked = _Unpacking(board, _tree(staging), options)
        end = unpacked.run(path, passphrase)
        options.tell("restore: comparing files and database")
        _check_files(_tree(staging), unpacked, end)
        _keep_model(board, _tree(staging), unpacked.about)
        adopt(_tree(staging) / DATABASE_NAME, unpacked.key, database_key())
    except RadboxError:
        remove_tree(staging)
        raise
    write_file(board.data_dir / RESTORING, str(end.broken).encode())


class _Unpacking:
    """Records into files. `about`, `key` (of the database) and `broken` (names) are what the archive said."""

    def __init__(self, board: Board, tree: Path, options: Options) -> None:
        self.about = About("", "", 1)
        self.key = b""
        self.broken: set[str] = set()
        self._board = board
        self._tree = tree
        self._tell = options.tell
        self._file: DurableFile | None = None
        self._unchecked_bytes = 0

    def run(self, path: Path, passphrase: bytes) -> End:
        """Unpack all of it. Raises BackupError, StorageError."""
        with closing(PartsReader(path)) as parts:
            self._check_room(parts.size_bytes + _MARGIN_BYTES)
            stream = Unsealer(parts.next_part, passphrase)
            progress = Progress("restored", parts.size_bytes, self._tell)
            try:
                for record in read_records(stream.read):
                    self._take(record)
                    progress.add(len(record) if isinstance(record, bytes) else 0)
            finally:
                self._drop()
            stream.finish()
        assert isinstance(record, End)
        return record

    def _take(self, record: object) -> None:
        if isinstance(record, About):
            self._check_version(record)
        elif isinstance(record, File):
            self._begin(record)
        elif isinstance(record, bytes) and self._file:
            self._grow(self._file, record)
        elif isinstance(record, Done) and self._file:
            target = self._tree / record.name
            make_directory(target.parent)
            self._file.commit(target)
            self._file = None
            self.broken.discard(record.name)
        elif isinstance(record, Broken):
            self._drop()
            self.broken.add(record.name)

    def _check_version(self, about: About) -> None:
        if about.store_version > VERSION:
            message = f"expected a backup of this software or older, got one of radbox {_short(about.radbox)}"
            raise BackupError(message, code="backup.newer")
        self.about = about

    def _begin(self, file: File) -> None:
        if file.key:
            try:
                self.key = bytes.fromhex(file.key)
            except ValueError as error:
                raise BackupError("expected a key of the database, got none", code="backup.damaged") from error
        self._file = DurableFile(self._tree)

    def _grow(self, file: DurableFile, piece: bytes) -> None:
        self._unchecked_bytes += len(piece)
        if self._unchecked_bytes >= _CHECK_ROOM_EVERY_BYTES:
            self._check_room(self._unchecked_bytes)
            self._unchecked_bytes = 0
        file.write(piece)

    def _drop(self) -> None:
        if self._file:
            self._file.discard()
            self._file = None

    def _check_room(self, needed_bytes: int) -> None:
        # The receiver refuses images under its own limit: a restored box must be above it.
        free = free_bytes(self._board.data_dir) - self._board.receive.min_free_bytes
        if free < needed_bytes:
            message = f"expected {needed_bytes / 1e6:.0f} MB free on this box, got {max(0, free) / 1e6:.0f} MB"
            raise BackupError(message, code="backup.no-room")


def _check_files(tree: Path, unpacked: _Unpacking, end: End) -> None:
    """Every file that a row names is there, read again from disk; what no row names goes. Raises BackupError."""
    try:
        snapshot = Snapshot(tree / DATABASE_NAME, unpacked.key)
    except StoreError as error:
        raise BackupError(f"expected the backup's database to open: {error.message}", code="backup.damaged") from error
    with closing(snapshot):
        wanted: set[str] = set()
        for named in snapshot.names():
            if not is_name(f"{named.path}/image.png" if named.folder else named.path):
                raise BackupError("expected a database that names files of a box, got others", code="backup.damaged")
            path = tree / named.path
            there = path.is_dir() if named.folder else path.is_file() and _sha256(path) == named.sha256
            excused = named.path in unpacked.broken or (named.folder and f"{named.path}/image.png" in unpacked.broken)
            if not there and not excused:
                raise BackupError("expected every file that the database names, got fewer", code="backup.damaged")
            if end.snapshots > 1:
                wanted.add(named.path)
    if end.snapshots > 1:  # studies were forgotten while the backup ran: they stay forgotten
        _drop_unnamed(tree, wanted)


def _drop_unnamed(tree: Path, wanted: set[str]) -> None:
    for folder in PLACES[:3]:
        for path in (tree / folder).rglob("*"):
            name = path.relative_to(tree)
            if path.is_file() and not {str(name), str(name.parent)} & wanted:
                remove(path)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while piece := stream.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _keep_model(board: Board, tree: Path, about: About) -> None:
    """The model comes along to a box of the same board that has had no update of its own; no other slot does.

    A model is proven for one kind of board, and what a box knows of withdrawn models must not become less.
    """
    state = tree / STATE_NAME
    wanted: frozenset[str] = frozenset()
    if about.name == board.name and state.exists() and not (board.data_dir / STATE_NAME).exists():
        try:
            wanted = in_use(parse_state(state.read_bytes()))
        except BundleError as error:
            raise BackupError(f"expected a state of the model: {error.message}", code="backup.damaged") from error
    else:
        remove_tree(tree / UPDATE)
    for slot in (tree / SLOTS).glob("*"):
        if slot.name not in wanted:
            remove_tree(slot)


def _short(text: str) -> str:
    return "".join(character for character in text[:20] if character.isascii() and character.isprintable())
