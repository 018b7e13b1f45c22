"""One SQLite connection that commits durably: WAL, synchronous=FULL, BEGIN IMMEDIATE, and our errors.

apsw's sqlite3mc build brings its own SQLite: the system's 3.40 corrupts a WAL database under two writers
(WAL-reset bug, fixed in 3.51.3), and this build can encrypt at rest.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from edge.durable import fsync_directory, make_directory
from edge.errors import StorageError, StorageFullError, StoreError
from edge.store_schema import SCHEMA, VERSION

BUSY_TIMEOUT_MS = 10_000  # longest wait for another service's commit

Row = tuple[Any, ...]


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """SQLite's errors as ours; its messages name tables at most, never values."""
    try:
        yield
    except apsw.FullError as error:
        raise StorageFullError("expected room for a database row, got a full disk") from error
    except (apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError) as error:
        raise StorageError(f"expected the database to take a row, got {type(error).__name__}") from error
    except apsw.NotADBError as error:
        raise StoreError("expected the database's key to open it, got unreadable pages", code="store.key") from error
    except apsw.CorruptError as error:
        raise StoreError("expected a whole database, got damaged pages", code="store.damaged") from error
    except apsw.Error as error:
        raise StoreError(f"expected the database to answer, got {type(error).__name__}: {error}") from error


class Connection:
    """Use by many threads is allowed: one transaction or query at a time."""

    def __init__(self, path: Path, key: bytes | None) -> None:
        """Open or create the database at `path`. Raises StoreError (wrong key, newer schema), StorageError."""
        make_directory(path.parent)
        self._lock = threading.RLock()
        with _translated():
            self._db = apsw.Connection(str(path))
            self._db.set_busy_timeout(BUSY_TIMEOUT_MS)
            if key is not None:
                self._db.pragma("hexkey", key.hex())
            self._db.pragma("journal_mode", "wal")
            self._db.pragma("synchronous", "full")
            self._db.pragma("foreign_keys", True)
        self._migrate()
        fsync_directory(path.parent)

    def _migrate(self) -> None:
        with self.transaction():
            found = self.one("PRAGMA user_version")[0]
            if found > VERSION:
                raise StoreError(f"expected a database of version {VERSION} or older, got {found}", code="store.newer")
            if found == 0:
                with _translated():
                    self._db.execute(SCHEMA)
                    self._db.pragma("user_version", VERSION)

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """All or nothing, durable when left without an exception."""
        return self._between("BEGIN IMMEDIATE")

    def snapshot(self) -> contextlib.AbstractContextManager[None]:
        """Several queries that see the same moment; keeps no writer waiting."""
        return self._between("BEGIN DEFERRED")

    @contextlib.contextmanager
    def _between(self, begin: str) -> Iterator[None]:
        with self._lock, _translated():
            self._db.execute(begin)
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def all(self, sql: str, *values: object) -> list[Row]:
        """Rows of a query."""
        with self._lock, _translated():
            return self._db.execute(sql, values).fetchall()

    def one(self, sql: str, *values: object) -> Row:
        """The one row of a query; StoreError where there is none."""
        rows = self.all(sql, *values)
        if len(rows) != 1:
            raise StoreError(f"expected one row, got {len(rows)}", code="store.no-such-row")
        return rows[0]

    def insert(self, table: str, **columns: object) -> int:
        """Add a row and return its key."""
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        with self._lock:
            self.all(f"INSERT INTO {table} ({names}) VALUES ({marks})", *columns.values())
            return self._db.last_insert_rowid()

    def close(self) -> None:
        """Close; the last connection of all services folds the WAL into the database."""
        with self._lock, _translated():
            self._db.close()
