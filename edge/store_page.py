"""What the page and people read of the store, and how services say they are."""

from __future__ import annotations

import json
import time

from edge.store_base import StoreBase
from edge.store_rows import EventRow, QuarantineRow, ServiceRow, ServiceState, StudyDetail, StudyFacts, StudySummary
from edge.store_schema import STATES

_SUMMARY = """
    SELECT s.study_key, s.study_instance_uid, s.patient_id, s.patient_name, s.accession_number, s.study_date,
        s.modality, s.study_description, s.urgency, s.state,
        (SELECT count(*) FROM instance i WHERE i.study_key = s.study_key),
        (SELECT count(*) FROM instance i WHERE i.study_key = s.study_key AND i.conflict),
        coalesce(r.code, ''), coalesce(r.message, ''), coalesce(r.report_json, ''),
        coalesce((SELECT i.arrived_unix_s FROM instance i WHERE i.instance_key = s.last_instance_key), 0.0)
    FROM study s LEFT JOIN reading r ON r.reading_key =
        (SELECT max(reading_key) FROM reading WHERE study_key = s.study_key AND NOT superseded)
"""


class PagePart(StoreBase):
    """Queries, and the state row of every service."""

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

    def study_counts(self) -> dict[str, int]:
        """How many studies are in each state, 0 included."""
        return {**dict.fromkeys(STATES, 0), **dict(self._db.all("SELECT state, count(*) FROM study GROUP BY state"))}

    def quarantine(self, limit: int = 100) -> list[QuarantineRow]:
        """Refused bytes, newest first."""
        columns = ", ".join(QuarantineRow.__dataclass_fields__)
        rows = self._db.all(f"SELECT {columns} FROM quarantine ORDER BY quarantine_key DESC LIMIT ?", limit)
        return [QuarantineRow(*row) for row in rows]

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

    def events(self, limit: int = 100) -> list[EventRow]:
        """Events, newest first."""
        columns = ", ".join(EventRow.__dataclass_fields__)
        rows = self._db.all(f"SELECT {columns} FROM event ORDER BY event_key DESC LIMIT ?", limit)
        return [EventRow(*row) for row in rows]
