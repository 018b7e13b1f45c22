"""The only SQL, the only spool paths. Which state follows which is the table in `store_schema.TRANSITIONS`."""

from __future__ import annotations

import json
import time
from pathlib import Path

from edge.errors import StoreError
from edge.store_connection import Connection, Row
from edge.store_paths import DATABASE, INCOMING, boot_id, database_key, object_path, quarantine_path, rendered_path
from edge.store_rows import (
    AddOutcome,
    ClaimedStudy,
    EventRow,
    InstanceFacts,
    InstanceRow,
    QuarantineRow,
    ServiceRow,
    ServiceState,
    StudyDetail,
    StudyFacts,
    StudySummary,
)
from edge.store_schema import EVENTS_KEPT, REOPENING, TRANSITIONS

__all__ = [
    "INCOMING",
    "AddOutcome",
    "ClaimedStudy",
    "EventRow",
    "InstanceFacts",
    "InstanceRow",
    "QuarantineRow",
    "ServiceRow",
    "Store",
    "StudyDetail",
    "StudyFacts",
    "StudySummary",
    "boot_id",
    "database_key",
    "object_path",
    "open_store",
    "quarantine_path",
    "rendered_path",
]

_INSTANCE_COLUMNS = ", ".join(InstanceRow.__dataclass_fields__)
_SUMMARY = """
    SELECT s.study_key, s.study_instance_uid, s.patient_id, s.patient_name, s.accession_number, s.study_date,
        s.modality, s.study_description, s.state,
        (SELECT count(*) FROM instance i WHERE i.study_key = s.study_key),
        (SELECT count(*) FROM instance i WHERE i.study_key = s.study_key AND i.conflict),
        coalesce(r.code, ''), coalesce(r.message, ''), coalesce(r.report_json, ''),
        coalesce((SELECT i.arrived_unix_s FROM instance i WHERE i.instance_key = s.last_instance_key), 0.0)
    FROM study s LEFT JOIN reading r ON r.reading_key =
        (SELECT max(reading_key) FROM reading WHERE study_key = s.study_key AND NOT superseded)
"""


def open_store(data_dir: Path, *, key: bytes | None = None) -> Store:
    """Open, or create, the database of a data folder. Raises StoreError (wrong key, damage), StorageError."""
    return Store(Connection(data_dir / DATABASE, key))


class Store:
    """Every change is one transaction and durable on return. Usable by many threads and many processes.

    All methods raise StorageFullError, StorageError (disk) and StoreError (a transition the table does not have).
    """

    def __init__(self, connection: Connection) -> None:
        self._db = connection
        self._boot_id = boot_id()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    # --- intake ---

    def add_instance(self, study: StudyFacts, instance: InstanceFacts) -> AddOutcome:
        """Record an object whose file is durable already.

        Same SOP Instance UID and bytes: `duplicate`, nothing changes. Same UID, other bytes: `conflict`, kept as its
        own row beside the first, with an event. An image new to its study brings a finished study back to `receiving`.
        """
        with self._db.transaction():
            earlier = "SELECT sha256, study_key FROM instance WHERE sop_instance_uid = ?"
            known = self._db.all(earlier, instance.sop_instance_uid)
            if instance.sha256 in {sha256 for sha256, _ in known}:
                return "duplicate"
            study_key = self._study_of(study)
            instance_key = self._db.insert(
                "instance",
                study_key=study_key,
                conflict=int(bool(known)),
                boot_id=self._boot_id,
                arrived_unix_s=time.time(),
                **vars(instance),
            )
            self._db.all("UPDATE study SET last_instance_key = ? WHERE study_key = ?", instance_key, study_key)
            if study_key not in {key for _, key in known}:
                self._reopen(study_key)
            if known:
                message = "an object came again under the same SOP Instance UID with other bytes; both are kept"
                self._event("intake.uid-conflict", message, study_key)
            return "conflict" if known else "stored"

    def _study_of(self, facts: StudyFacts) -> int:
        columns = vars(facts)
        row = self._db.all(
            f"SELECT study_key, {', '.join(columns)} FROM study WHERE study_instance_uid = ?", facts.study_instance_uid
        )
        if not row:
            return self._db.insert("study", state="receiving", **columns)
        study_key, *known = row[0]
        for (column, new), old in zip(columns.items(), known, strict=True):
            if new and not old:
                self._db.all(f"UPDATE study SET {column} = ? WHERE study_key = ?", new, study_key)
            elif column == "patient_id" and new and new != old:
                message = "objects of one study name different patients; the first one's facts are shown"
                self._event("intake.patient-contradiction", message, study_key)
        return int(study_key)

    def _reopen(self, study_key: int) -> None:
        state = self._state(study_key)
        if state in REOPENING:
            self._move(study_key, "receiving")
            self._db.all("UPDATE reading SET superseded = 1 WHERE study_key = ?", study_key)
        elif state == "reading":
            self._db.all("UPDATE study SET late = 1 WHERE study_key = ?", study_key)
        elif state == "signed":
            self._event("intake.images-after-signing", "images arrived after the report was signed", study_key)

    def study_key(self, study_instance_uid: str) -> int | None:
        """Our key of a study, or None."""
        rows = self._db.all("SELECT study_key FROM study WHERE study_instance_uid = ?", study_instance_uid)
        return rows[0][0] if rows else None

    def complete_study(self, study_key: int) -> None:
        """All images are here: receiving -> queued. Nothing to do for a study that got no new images."""
        with self._db.transaction():
            state = self._state(study_key)
            if state == "receiving":
                self._queue(study_key)
            elif state == "reading":
                self._db.all("UPDATE study SET late = 2 WHERE study_key = ? AND late = 1", study_key)

    def receiving_studies(self) -> list[int]:
        """Studies that images still arrive for, those included that a worker is reading meanwhile."""
        return [key for (key,) in self._db.all("SELECT study_key FROM study WHERE state = 'receiving' OR late = 1")]

    def add_quarantine(self, sha256: str, size_bytes: int, path: str, code: str, message: str, calling_ae: str) -> None:
        """Record refused bytes that lie in the quarantine; the same bytes and fault again only count up."""
        with self._db.transaction():
            now_s = time.time()
            again = "SELECT quarantine_key FROM quarantine WHERE sha256 = ? AND code = ?"
            if rows := self._db.all(again, sha256, code):
                count_up = "UPDATE quarantine SET times = times + 1, arrived_unix_s = ? WHERE quarantine_key = ?"
                self._db.all(count_up, now_s, rows[0][0])
                return
            self._db.insert(
                "quarantine",
                sha256=sha256,
                size_bytes=size_bytes,
                path=path,
                code=code,
                message=message,
                calling_ae=calling_ae,
                arrived_unix_s=now_s,
            )

    def quarantine(self, limit: int = 100) -> list[QuarantineRow]:
        """Refused bytes, newest first."""
        columns = ", ".join(QuarantineRow.__dataclass_fields__)
        rows = self._db.all(f"SELECT {columns} FROM quarantine ORDER BY quarantine_key DESC LIMIT ?", limit)
        return [QuarantineRow(*row) for row in rows]

    # --- worker ---

    def claim_next(self, worker: str) -> ClaimedStudy | None:
        """Take the study that has waited longest: queued -> reading. None when nothing waits."""
        with self._db.transaction():
            waiting = self._db.all(
                "SELECT study_key FROM study WHERE state = 'queued' ORDER BY last_instance_key LIMIT 1"
            )
            if not waiting:
                return None
            study_key = int(waiting[0][0])
            self._move(study_key, "reading")
            count_up = "UPDATE study SET attempt = attempt + 1, tries = tries + 1, worker = ? WHERE study_key = ?"
            self._db.all(count_up, worker, study_key)
            (attempt,) = self._db.one("SELECT attempt FROM study WHERE study_key = ?", study_key)
            received = self._instances(study_key)
        first: dict[str, InstanceRow] = {}
        for row in received:
            first.setdefault(row.sop_instance_uid, row)
        last = list(first.values())[-1]
        return ClaimedStudy(
            study_key, attempt, tuple(first.values()), last.received_monotonic_s, last.boot_id == self._boot_id
        )

    def requeue_stale(self, max_attempts: int = 3) -> list[int]:
        """At a worker's start: give back what a dead worker was reading; returns the studies that wait again.

        A study that `max_attempts` workers died on becomes `failed` (`worker.died-repeatedly`).
        """
        with self._db.transaction():
            requeued = []
            for study_key, tries in self._db.all("SELECT study_key, tries FROM study WHERE state = 'reading'"):
                if tries >= max_attempts:
                    message = f"the reader stopped {tries} times while it read this study"
                    self._finish(study_key, "failed", "worker.died-repeatedly", message)
                else:
                    self._move(study_key, "queued")
                    self._apply_late(study_key)
                    requeued.append(int(study_key))
            return requeued

    def finish_draft(self, study_key: int, report_json: str, rendered: str, timings_s: dict[str, float]) -> None:
        """reading -> draft. `rendered`: folder of the images, relative to the data folder."""
        with self._db.transaction():
            self._finish(study_key, "draft", "", "", report_json, rendered, timings_s)

    def finish_refused(
        self, study_key: int, code: str, message: str, timings_s: dict[str, float], rendered: str = ""
    ) -> None:
        """reading -> refused, with the stable reason code and a plain sentence."""
        with self._db.transaction():
            self._finish(study_key, "refused", code, message, "", rendered, timings_s)

    def fail(self, study_key: int, code: str, message: str, retry: bool, max_attempts: int = 3) -> None:
        """reading -> queued if it may be tried again and attempts are left, else reading -> failed."""
        with self._db.transaction():
            (tries,) = self._db.one("SELECT tries FROM study WHERE study_key = ?", study_key)
            if retry and tries < max_attempts:
                self._move(study_key, "queued")
                self._event(code, message, study_key)
                self._apply_late(study_key)
            else:
                self._finish(study_key, "failed", code, message)

    def _finish(
        self,
        study_key: int,
        outcome: str,
        code: str,
        message: str,
        report_json: str = "",
        rendered: str = "",
        timings_s: dict[str, float] | None = None,
    ) -> None:
        self._move(study_key, outcome)
        (attempt,) = self._db.one("SELECT attempt FROM study WHERE study_key = ?", study_key)
        self._db.insert(
            "reading",
            study_key=study_key,
            attempt=attempt,
            outcome=outcome,
            code=code,
            message=message,
            report_json=report_json,
            rendered=rendered,
            timings_json=json.dumps(timings_s or {}),
            finished_unix_s=time.time(),
        )
        self._apply_late(study_key)

    def _apply_late(self, study_key: int) -> None:
        """Images that came while a worker read take effect now."""
        (late,) = self._db.one("SELECT late FROM study WHERE study_key = ?", study_key)
        if not late:
            return
        self._db.all("UPDATE study SET late = 0 WHERE study_key = ?", study_key)
        self._reopen(study_key)
        if late == 2:
            self._queue(study_key)

    # --- states ---

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

    # --- the page ---

    def studies(self, limit: int = 50, offset: int = 0) -> list[StudySummary]:
        """The list, the study with the newest image first."""
        rows = self._db.all(f"{_SUMMARY} ORDER BY s.last_instance_key DESC LIMIT ? OFFSET ?", limit, offset)
        return [StudySummary(*row) for row in rows]

    def study(self, study_key: int) -> StudyDetail | None:
        """One study, or None."""
        with self._db.snapshot():
            rows = self._db.all(f"{_SUMMARY} WHERE s.study_key = ?", study_key)
            if not rows:
                return None
            (attempt,) = self._db.one("SELECT attempt FROM study WHERE study_key = ?", study_key)
            instances = self._instances(study_key)
            readings = self._db.all(
                "SELECT superseded, report_json, rendered, timings_json FROM reading WHERE study_key = ? ORDER BY 1",
                study_key,
            )
        summary = StudySummary(*rows[0])
        current = [row for row in readings if not row[0]]
        rendered, timings_json = (current[-1][2], current[-1][3]) if current else ("", "{}")
        return StudyDetail(
            summary=summary,
            state=summary.state,
            facts=StudyFacts(**{name: getattr(summary, name) for name in StudyFacts.__dataclass_fields__}),
            code=summary.code,
            message=summary.message,
            report_json=summary.report_json,
            rendered=rendered,
            timings_s=json.loads(timings_json),
            attempt=attempt,
            instances=tuple(instances),
            conflicts=tuple(row for row in instances if row.conflict),
            superseded_reports=tuple(row[1] for row in readings if row[0] and row[1]),
        )

    # --- services and events ---

    def set_service(self, name: str, state: ServiceState, code: str, message: str) -> None:
        """Say how a service is; also its sign of life."""
        with self._db.transaction():
            self._db.all(
                "INSERT OR REPLACE INTO service (name, state, code, message, monotonic_s, boot_id) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                *(name, state, code, message, time.monotonic(), self._boot_id),
            )

    def services(self) -> list[ServiceRow]:
        """What every service last said."""
        columns = ", ".join(ServiceRow.__dataclass_fields__)
        return [ServiceRow(*row) for row in self._db.all(f"SELECT {columns} FROM service ORDER BY name")]

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

    def events(self, limit: int = 100) -> list[EventRow]:
        """Events, newest first."""
        columns = ", ".join(EventRow.__dataclass_fields__)
        rows = self._db.all(f"SELECT {columns} FROM event ORDER BY event_key DESC LIMIT ?", limit)
        return [EventRow(*row) for row in rows]


def _instance(row: Row) -> InstanceRow:
    columns = dict(zip(InstanceRow.__dataclass_fields__, row, strict=True))
    return InstanceRow(**{**columns, "conflict": bool(columns["conflict"])})
