"""The store's part in backups: a copy of the database at one moment, the files that it names, and its way back.

The copy is encrypted under a key of its own that travels inside the sealed archive; so a copy that a power cut leaves
behind cannot be read, the box's own key never leaves the box, and a plain box can restore what an encrypted one wrote.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edge.durable import make_directory
from edge.errors import StoreError
from edge.store import Store, boot_id
from edge.store_connection import Connection, Row
from edge.store_guard import Alone, alone, mark_whole
from edge.store_paths import DATABASE
from edge.store_schema import VERSION

__all__ = ["VERSION", "Named", "Snapshot", "adopt", "alone", "mark_whole", "rows_held", "take_snapshot"]

PAGE_ROWS = 1000


@dataclass(frozen=True)
class Named:
    """A file or (`folder`) all files of a folder that a row names, relative to the data folder."""

    path: str
    folder: bool
    sha256: str
    size_bytes: int


class Snapshot:
    """A copy of the database: rows of one moment, readable while the box goes on."""

    def __init__(self, path: Path, key: bytes) -> None:
        self.path = path
        self.key = key
        self._connection = Connection(path, key, Alone())
        self._closed = False

    def close(self) -> None:
        """Close; the file is then whole by itself, without a WAL beside it. Harmless the second time."""
        if not self._closed:
            self._closed = True
            self._connection.all("PRAGMA journal_mode = DELETE")
            self._connection.close()

    def size_bytes(self) -> int:
        """Bytes of all objects and refused objects, as the rows say."""
        sql = "SELECT (SELECT total(size_bytes) FROM instance) + (SELECT total(size_bytes) FROM quarantine)"
        return int(self._connection.one(sql)[0])

    def names(self, after: Snapshot | None = None) -> Iterator[Named]:
        """What the rows name; with `after`, an earlier copy, only the rows that came since."""
        queries: tuple[tuple[str, str, Callable[..., Named]], ...] = (
            ("instance", "path, sha256, size_bytes", lambda path, sha256, size: Named(path, False, sha256, size)),
            ("quarantine", "path, sha256, size_bytes", lambda path, sha256, size: Named(path, False, sha256, size)),
            ("reading", "rendered", lambda path: Named(path, True, "", 0)),
        )
        for table, columns, named in queries:
            key = after._last_key(table) if after else 0
            while rows := self._page(table, columns, key):
                key = int(rows[-1][0])
                yield from (named(*row[1:]) for row in rows if row[1])

    def still_names(self, path: str) -> bool:
        """True if a row names the file, or the folder that it lies in."""
        folder = str(Path(path).parent)
        sql = (
            "SELECT 1 FROM instance WHERE path = ? UNION ALL SELECT 1 FROM quarantine WHERE path = ? "
            "UNION ALL SELECT 1 FROM reading WHERE rendered IN (?, ?) LIMIT 1"
        )
        return bool(self._connection.all(sql, path, path, path, folder))

    def _page(self, table: str, columns: str, after: int) -> list[Row]:
        key = f"{table}_key"
        sql = f"SELECT {key}, {columns} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT {PAGE_ROWS}"
        return self._connection.all(sql, after)

    def _last_key(self, table: str) -> int:
        return int(self._connection.one(f"SELECT ifnull(max({table}_key), 0) FROM {table}")[0])


def take_snapshot(data_dir: Path, key: bytes | None, path: Path) -> Snapshot:
    """Copy the database of a box, which may go on meanwhile, to `path` (no file yet), under a new key.

    The folder of `path` is made. Raises StoreError, StorageFullError, StorageError.
    """
    make_directory(path.parent)
    with closing(Connection(data_dir / DATABASE, key)) as live:
        live.all("VACUUM INTO ?", str(path))
    own = b"raw:" + os.urandom(32).hex().encode()  # "raw:": 256 random bits need no key derivation
    _change_key(path, key, own)
    return Snapshot(path, own)


def adopt(path: Path, own: bytes, key: bytes | None) -> None:
    """Make a restored copy this box's database: checked, of this software's version, under this box's key.

    What was true of the boot or the processes of the other box goes: a study that was being read waits again, and that
    it was interrupted does not count as a death of the worker. Raises StoreError (store.damaged, store.newer,
    store.key), StorageError.
    """
    with closing(Connection(path, own, Alone())) as copy:
        foreign = copy.all("SELECT 1 FROM sqlite_master WHERE type NOT IN ('table', 'index') LIMIT 1")
        if foreign or copy.all("PRAGMA integrity_check") != [("ok",)] or copy.all("PRAGMA foreign_key_check"):
            raise StoreError("expected a whole database, got one that contradicts itself", code="store.damaged")
        with copy.transaction():
            for table in ("service", "fact", "issue", "request", "outbox", "removal"):  # of the other box, as it was
                copy.all(f"DELETE FROM {table}")
            copy.all("UPDATE study SET claimed_boot_id = '' WHERE state = 'reading'")
            # Run time starts to count again here; the age itself goes on.
            copy.all("UPDATE box SET boot_id = ?, ticked_monotonic_s = ?", boot_id(), time.monotonic())
        store = Store(copy)
        store.requeue_stale()
        store.add_event("backup.restored", "this box was restored from a backup")
    _change_key(path, own, key)


def rows_held(data_dir: Path, key: bytes | None) -> int:
    """Studies and refused objects in the database of a data folder; 0 where there is none. Under `alone`.

    Leaves the database as one file, its WAL folded in. Raises StoreError, StorageError.
    """
    if not (data_dir / DATABASE).exists():
        return 0
    with closing(Connection(data_dir / DATABASE, key, Alone())) as live:
        live.all("PRAGMA journal_mode = DELETE")
        sql = "SELECT (SELECT count(*) FROM study) + (SELECT count(*) FROM quarantine)"
        return int(live.one(sql)[0])


def _change_key(path: Path, old: bytes | None, new: bytes | None) -> None:
    with closing(Connection(path, old, Alone())) as copy:
        copy.all("PRAGMA journal_mode = DELETE")  # pages are not re-encrypted beside a WAL
        copy.all(f"PRAGMA hexrekey = '{new.hex()}'" if new else "PRAGMA rekey = ''")
