"""Look at a database without changing it: is it whole, and which rows can still be read where it is not?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import apsw

from edge.store_schema import SCHEMA, VERSION

Verdict = Literal["missing", "whole", "damaged", "locked-away", "newer", "older"]

_TABLES: Final = frozenset(re.findall(r"CREATE TABLE (\w+)", SCHEMA))
_BATCH: Final = 100
_HEADER_BYTES: Final = 16
_COMPLAINTS: Final = 5


@dataclass(frozen=True)
class Condition:
    """How a database file is. `locked-away`: no SQLite file to the key at hand. `version`: of its schema, or 0.

    `complaint`: what SQLite says of a damaged one; names tables and pages, no values.
    """

    verdict: Verdict
    version: int = 0
    complaint: str = ""


def examine(path: Path, key: bytes | None) -> Condition:
    """How the database at `path` is. Reads all of it, writes nothing."""
    if not path.exists() or not path.stat().st_size:
        return Condition("missing")
    try:
        with closing(_open(path, key)) as database:
            version = int(_pragma(database, "user_version"))
            if version > VERSION:
                return Condition("newer", version)
            complaints = [str(row[0]) for row in database.execute(f"PRAGMA integrity_check({_COMPLAINTS})")]
            if complaints != ["ok"]:
                return Condition("damaged", version, "; ".join(complaints))
            if list(database.execute("PRAGMA foreign_key_check")):
                return Condition("damaged", version, "rows name rows that are not there")
            tables = {str(row[0]) for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if version == VERSION and not tables >= _TABLES:
                return Condition("damaged", version, "tables are missing")
            return Condition("whole" if version == VERSION else "older", version)
    except apsw.NotADBError:
        with path.open("rb") as file:
            zeros = not any(file.read(_HEADER_BYTES))
        return Condition("damaged", 0, "the first page is empty") if zeros else Condition("locked-away")
    except apsw.Error as error:
        return Condition("damaged", 0, type(error).__name__)


def readable_rows(path: Path, key: bytes | None, table: str) -> list[dict[str, Any]]:
    """The rows of a table that SQLite can still read, from both ends towards the damage, by row id; [] if none."""
    rows: dict[int, dict[str, Any]] = {}
    try:
        with closing(_open(path, key)) as database:
            for upwards in (True, False):
                for row_id, row in _read(database, table, upwards):
                    if row_id in rows:
                        break
                    rows[row_id] = row
    except apsw.Error:
        return [rows[row_id] for row_id in sorted(rows)]
    return [rows[row_id] for row_id in sorted(rows)]


def _read(database: apsw.Connection, table: str, upwards: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows from one end up to the damage, one by one."""
    beyond, order, last = (">", "ASC", -(2**63)) if upwards else ("<", "DESC", 2**63 - 1)
    sql = f"SELECT rowid, * FROM {table} WHERE rowid {beyond} ? ORDER BY rowid {order} LIMIT {_BATCH}"
    while True:
        found = 0
        try:
            cursor = database.execute(sql, (last,))
            for row in cursor:
                names = [column[0] for column in cursor.get_description()]
                last, found = int(row[0]), found + 1
                yield last, dict(zip(names[1:], row[1:], strict=True))
        except apsw.Error:
            return
        if found < _BATCH:
            return


def _open(path: Path, key: bytes | None) -> apsw.Connection:
    database = apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY)
    database.set_busy_timeout(10_000)
    if key is not None:
        database.pragma("hexkey", key.hex())
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # what is damaged is kept as it was found
    return database


def _pragma(database: apsw.Connection, name: str) -> Any:
    return database.execute(f"PRAGMA {name}").fetchall()[0][0]
