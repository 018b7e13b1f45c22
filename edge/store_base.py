"""What the parts of the store share: the connection, the states of a study, events."""

from __future__ import annotations

import time

from edge.errors import StoreError
from edge.store_connection import Connection, Row
from edge.store_paths import boot_id
from edge.store_rows import InstanceRow
from edge.store_schema import EVENTS_KEPT, REOPENING, TRANSITIONS

_INSTANCE_COLUMNS = ", ".join(InstanceRow.__dataclass_fields__)


class StoreBase:
    """One database; every change is one transaction and durable on return."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection
        self._boot_id = boot_id()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def add_event(self, code: str, message: str, study_key: int | None = None) -> None:
        """Record something a person may want to know."""
        with self._db.transaction():
            self._event(code, message, study_key)

    def _event(self, code: str, message: str, study_key: int | None) -> None:
        event_key = self._db.insert(
            "event",
            code=code,
            message=message,
            study_key=study_key,
            monotonic_s=time.monotonic(),
            boot_id=self._boot_id,
            happened_unix_s=time.time(),
        )
        self._db.all("DELETE FROM event WHERE event_key <= ?", event_key - EVENTS_KEPT)

    def _count(self, name: str, number: int = 1) -> None:
        """Add to a total that only grows."""
        sql = "INSERT INTO tally VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET total = total + excluded.total"
        self._db.all(sql, name, number)

    def _age_s(self) -> float:
        """Seconds that the box has run, all boots together; a clock that nobody can set wrong."""
        rows = self._db.all("SELECT age_s FROM box")
        return float(rows[0][0]) if rows else 0.0

    def _state(self, study_key: int) -> str:
        return str(self._db.one("SELECT state FROM study WHERE study_key = ?", study_key)[0])

    def _move(self, study_key: int, state: str) -> None:
        now = self._state(study_key)
        if (now, state) not in TRANSITIONS:
            raise StoreError(f"expected a study that may become {state}, got one that is {now}", code="store.state")
        self._db.all("UPDATE study SET state = ? WHERE study_key = ?", state, study_key)

    def _queue(self, study_key: int) -> None:
        self._move(study_key, "queued")
        self._db.all("UPDATE study SET tries = 0 WHERE study_key = ?", study_key)

    def _instances(self, study_key: int) -> list[InstanceRow]:
        sql = f"SELECT {_INSTANCE_COLUMNS} FROM instance WHERE study_key = ? ORDER BY instance_key"
        return [_instance(row) for row in self._db.all(sql, study_key)]

    def _reopen(self, study_key: int) -> None:
        state = self._state(study_key)
        if state in REOPENING:
            self._move(study_key, "receiving")
            self._db.all("UPDATE reading SET superseded = 1 WHERE study_key = ?", study_key)
        elif state == "reading":
            self._db.all("UPDATE study SET late = 1 WHERE study_key = ?", study_key)
        elif state == "signed":
            self._event("intake.images-after-signing", "images arrived after the report was signed", study_key)

    def _apply_late(self, study_key: int) -> None:
        """Images that came while a worker read take effect now."""
        (late,) = self._db.one("SELECT late FROM study WHERE study_key = ?", study_key)
        if not late:
            return
        self._db.all("UPDATE study SET late = 0 WHERE study_key = ?", study_key)
        self._reopen(study_key)
        if late == 2:
            self._queue(study_key)


def _instance(row: Row) -> InstanceRow:
    columns = dict(zip(InstanceRow.__dataclass_fields__, row, strict=True))
    return InstanceRow(**{**columns, "conflict": bool(columns["conflict"])})
