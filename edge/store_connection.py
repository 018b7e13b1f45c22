"""One SQLite connection that commits durably: WAL, synchronous=FULL, BEGIN IMMEDIATE, and our errors.

apsw's sqlite3mc build brings its own SQLite: the system's 3.40 corrupts a WAL database under two writers
(WAL-reset bug, fixed in 3.51.3), and this build can encrypt at rest.

A write that finds no room gives the reserve file back and is done once more. A database that was replaced by a repair
is opened anew.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from edge.durable import claim_name, free_bytes, fsync_directory, make_directory, remove
from edge.errors import StorageError, StorageFullError, StoreError
from edge.store_guard import Guard
from edge.store_paths import RESERVE
from edge.store_schema import MIGRATIONS, SCHEMA, VERSION

BUSY_TIMEOUT_MS = 10_000  # longest wait for another service's commit
NO_ROOM_BYTES = 2**18  # SQLite reports a disk with less in several ways

Row = tuple[Any, ...]
_LOG = logging.getLogger("radbox.store")


@dataclass(frozen=True)
class _Step:
    """A statement of the open transaction and what it gave: enough to do the transaction again."""

    sql: str
    values: Row
    rows: list[Row]
    key: int | None  # of the row that it added


class Connection:
    """Use by many threads is allowed: one transaction or query at a time."""

    def __init__(self, path: Path, key: bytes | None, guard: Guard | None = None) -> None:
        """Open or create the database at `path`. guard: by default that of its folder.

        Raises StoreError (wrong key, newer schema, damaged, in repair), StorageError.
        """
        make_directory(path.parent)
        self._path, self._key = path, key
        self._lock = threading.RLock()
        self._steps: list[_Step] | None = None  # of the open transaction
        self._guard = guard or Guard(path.parent)
        try:
            with self._guard.using():
                self._db = self._open()
                self._migrate()
        except BaseException:
            self._guard.close()
            raise
        fsync_directory(path.parent)

    def _open(self) -> apsw.Connection:
        self._guard.check_whole()
        claim_name(self._path)  # with SQLite's own mode no other service of the box could write
        with self._translated():
            db = apsw.Connection(str(self._path))
            db.set_busy_timeout(BUSY_TIMEOUT_MS)
            if self._key is not None:
                db.pragma("hexkey", self._key.hex())
            db.pragma("journal_mode", "wal")
            db.pragma("synchronous", "full")
            db.pragma("foreign_keys", True)
        self._file = self._identity()
        return db

    def _identity(self) -> tuple[int, int] | None:
        """Which file now bears the database's name."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    @contextlib.contextmanager
    def _used(self) -> Iterator[None]:
        """Around each use: alone in this process, not during a repair, and of the file that bears the name now."""
        with self._lock, self._guard.using() as outermost, self._translated():
            if outermost and self._identity() != self._file:
                self._guard.check_whole()
                if self._identity() is None:
                    raise StoreError("expected the database's file, got none; it was removed", code="store.missing")
                self._db.close()
                self._db = self._open()
            yield

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's errors as ours; its messages name tables at most, never values."""
        try:
            yield
        except (apsw.FullError, apsw.IOError, apsw.CantOpenError) as error:
            if self._no_room(error):
                raise StorageFullError("expected room for a database row, got a full disk") from error
            raise StorageError(f"expected the database to take a row, got {type(error).__name__}") from error
        except apsw.ReadOnlyError as error:
            raise StorageError("expected the database to take a row, got ReadOnlyError") from error
        except apsw.NotADBError as error:
            message = "expected the database's key to open it, got unreadable pages"
            raise StoreError(message, code="store.key") from error
        except apsw.CorruptError as error:
            try:
                self._guard.mark_damaged()
            except StorageError as unmarked:
                _LOG.error("the damaged database could not be marked: %s", unmarked.message)
            raise StoreError("expected a whole database, got damaged pages", code="store.damaged") from error
        except apsw.Error as error:
            raise StoreError(f"expected the database to answer, got {type(error).__name__}: {error}") from error

    def _no_room(self, error: apsw.Error) -> bool:
        return isinstance(error, apsw.FullError) or free_bytes(self._path.parent) < NO_ROOM_BYTES

    def _migrate(self) -> None:
        with self.transaction():
            found = self.one("PRAGMA user_version")[0]
            if found > VERSION:
                raise StoreError(f"expected a database of version {VERSION} or older, got {found}", code="store.newer")
            steps = [SCHEMA] if found == 0 else [MIGRATIONS[version] for version in range(found, VERSION)]
            for step in steps:
                self.all(step)
            if steps:
                self.all(f"PRAGMA user_version = {VERSION}")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable when left without an exception."""
        with self._used():
            self._with_room("BEGIN IMMEDIATE")
            self._steps = []
            try:
                yield
                self._with_room("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._steps = None

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Several queries that see the same moment; keeps no writer waiting."""
        with self._used():
            self._db.execute("BEGIN DEFERRED")
            try:
                yield
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _with_room(self, sql: str, values: Row = ()) -> list[Row]:
        """Execute; where there is no room, give the reserve back and try once more."""
        try:
            return self._db.execute(sql, values).fetchall()
        except (apsw.FullError, apsw.IOError, apsw.CantOpenError) as error:
            if not self._no_room(error):
                raise
            remove(self._path.parent / RESERVE)
            _LOG.warning("the disk is full: the reserve is given back")
            if self._steps is not None:
                self._repeat(self._steps)
            return self._db.execute(sql, values).fetchall()

    def _repeat(self, steps: list[_Step]) -> None:
        """Do the transaction's statements again: SQLite may have rolled it back, and others may have written since.

        Sound because a transaction here is a function of what it read: if each statement gives what it gave before,
        the same statements are right again. Otherwise raises StorageFullError, and the caller may try again.
        """
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._db.execute("BEGIN IMMEDIATE")
        for step in steps:
            rows = self._db.execute(step.sql, step.values).fetchall()
            if rows != step.rows or (step.key is not None and self._db.last_insert_rowid() != step.key):
                raise StorageFullError("expected room for a database row, got a full disk; there is room now")

    def all(self, sql: str, *values: object) -> list[Row]:
        """Rows of a query."""
        with self._used():
            if self._steps is None:
                return self._db.execute(sql, values).fetchall()
            rows = self._with_room(sql, values)
            self._steps.append(_Step(sql, values, rows, None))
            return rows

    def one(self, sql: str, *values: object) -> Row:
        """The one row of a query; StoreError where there is none."""
        rows = self.all(sql, *values)
        if len(rows) != 1:
            raise StoreError(f"expected one row, got {len(rows)}", code="store.no-such-row")
        return rows[0]

    def insert(self, table: str, **columns: object) -> int:
        """Add a row and return its key."""
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        sql, values = f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values())
        with self._used():
            self._with_room(sql, values)
            key = self._db.last_insert_rowid()
            if self._steps is not None:
                self._steps.append(_Step(sql, values, [], key))
            return key

    def close(self) -> None:
        """Close; the last connection of all services folds the WAL into the database."""
        with self._lock:
            try:
                with self._translated():
                    self._db.close()
            finally:
                self._guard.close()
