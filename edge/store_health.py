"""How the box is: what services measured, totals, history, who sends, what is wrong, what a person asked for.

Every fact has one writer, named in docs/operations.md. No patient data in any of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from edge.errors import StoreError
from edge.store_base import StoreBase
from edge.store_connection import Row
from edge.store_rows import FactRow, IssueFacts, IssueRow, ModalityRow, RequestRow
from edge.store_schema import REQUESTS_KEPT, SAMPLES_KEPT

Values = Mapping[str, Any]

_REQUEST = "SELECT request_key, action, values_json, code, message, monotonic_s, boot_id FROM request"


class HealthPart(StoreBase):
    """Small rows that are replaced in place, so that a box that runs for years does not grow by them."""

    # --- facts, totals, history ---

    def set_fact(self, name: str, value: Values) -> None:
        """What a service measured last, as JSON. One writer for each name."""
        with self._db.transaction():
            self._db.all(
                "INSERT OR REPLACE INTO fact VALUES (?, ?, ?, ?)",
                *(name, json.dumps(value, sort_keys=True, allow_nan=False), time.monotonic(), self._boot_id),
            )

    def facts(self) -> dict[str, FactRow]:
        """All facts by name; those of an earlier boot are still there, with its boot_id."""
        rows = self._db.all("SELECT name, value_json, monotonic_s, boot_id FROM fact")
        return {name: FactRow(name, json.loads(value), at_s, boot) for name, value, at_s, boot in rows}

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Add to totals that only grow; nothing is written when there is nothing to add."""
        added = {name: number for name, number in counts.items() if number}
        if not added:
            return
        with self._db.transaction():
            for name, number in added.items():
                self._count(name, number)

    def counts(self) -> dict[str, int]:
        """Totals since the box was new."""
        return {name: int(total) for name, total in self._db.all("SELECT name, total FROM tally ORDER BY name")}

    def add_samples(self, values: Mapping[str, float]) -> None:
        """One point of history for each name, at the box's age; the oldest beyond SAMPLES_KEPT go."""
        with self._db.transaction():
            age_s = self._age_s()
            for name, value in values.items():
                self._db.insert("sample", name=name, age_s=age_s, value=float(value))
                self._db.all(
                    "DELETE FROM sample WHERE name = ? AND sample_key <= (SELECT sample_key FROM sample "
                    "WHERE name = ? ORDER BY sample_key DESC LIMIT 1 OFFSET ?)",
                    *(name, name, SAMPLES_KEPT),
                )

    def samples(self, name: str, limit: int = SAMPLES_KEPT) -> list[tuple[float, float]]:
        """(age of the box in seconds, value), oldest first, the newest `limit` of them."""
        sql = "SELECT age_s, value FROM sample WHERE name = ? ORDER BY sample_key DESC LIMIT ?"
        return [(float(age_s), float(value)) for age_s, value in reversed(self._db.all(sql, name, limit))]

    def modalities(self) -> list[ModalityRow]:
        """Who sends images, the one heard last first."""
        columns = ", ".join(ModalityRow.__dataclass_fields__)
        rows = self._db.all(f"SELECT {columns} FROM modality ORDER BY last_age_s DESC, calling_ae")
        return [ModalityRow(*row) for row in rows]

    # --- what is wrong ---

    def set_issues(self, found: Sequence[IssueFacts]) -> None:
        """What is wrong now. An issue that was open already keeps its time; one that is not named is over."""
        with self._db.transaction():
            before = {(row.code, row.subject): row for row in self.issues()}
            named = {(one.code, one.subject): one for one in found}
            for code, subject in before.keys() - named.keys():
                self._db.all("DELETE FROM issue WHERE code = ? AND subject = ?", code, subject)
            for key, one in named.items():
                values_json = json.dumps(dict(one.values), sort_keys=True, allow_nan=False)
                known = before.get(key)
                if known is None:
                    self._open_issue(one, values_json)
                elif (known.severity, dict(known.values)) != (one.severity, json.loads(values_json)):
                    sql = "UPDATE issue SET severity = ?, values_json = ? WHERE code = ? AND subject = ?"
                    self._db.all(sql, one.severity, values_json, *key)

    def _open_issue(self, one: IssueFacts, values_json: str) -> None:
        self._db.insert(
            "issue",
            code=one.code,
            subject=one.subject,
            severity=one.severity,
            values_json=values_json,
            since_monotonic_s=time.monotonic(),
            boot_id=self._boot_id,
            since_age_s=self._age_s(),
            since_unix_s=time.time(),
        )

    def issues(self) -> list[IssueRow]:
        """What is wrong now: critical first, then the longest known."""
        rows = self._db.all(
            "SELECT code, subject, severity, values_json, since_monotonic_s, boot_id, since_age_s, since_unix_s, "
            "put_off_until_age_s FROM issue ORDER BY CASE severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 "
            "ELSE 2 END, since_age_s, code, subject"
        )
        return [_issue(row) for row in rows]

    def put_off_issue(self, code: str, subject: str, for_s: float) -> None:
        """A person said "not now": `for_s` seconds of running time."""
        with self._db.transaction():
            sql = "UPDATE issue SET put_off_until_age_s = ? WHERE code = ? AND subject = ?"
            self._db.all(sql, self._age_s() + for_s, code, subject)

    # --- what a person asked for ---

    def ask(self, action: str, values: Values) -> int:
        """A person's wish, for the one service that acts on it; returns its key."""
        with self._db.transaction():
            key = self._db.insert(
                "request",
                action=action,
                values_json=json.dumps(dict(values), sort_keys=True, allow_nan=False),
                monotonic_s=time.monotonic(),
                boot_id=self._boot_id,
            )
            self._db.all("DELETE FROM request WHERE request_key <= ?", key - REQUESTS_KEPT)
        return key

    def asked(self, prefix: str = "") -> list[RequestRow]:
        """Open wishes whose action begins with `prefix`, oldest first."""
        rows = self._db.all(f"{_REQUEST} WHERE code = '' ORDER BY request_key")
        return [_request(row) for row in rows if str(row[1]).startswith(prefix)]

    def answer(self, request_key: int, code: str, message: str) -> None:
        """What became of a wish. Raises StoreError (store.request): it is not open."""
        with self._db.transaction():
            sql = "UPDATE request SET code = ?, message = ? WHERE request_key = ? AND code = '' RETURNING 1"
            if not code or not self._db.all(sql, code, message, request_key):
                raise StoreError("expected an open request and an answer to it, got none", code="store.request")

    def request(self, request_key: int) -> RequestRow | None:
        """One wish, or None."""
        rows = self._db.all(f"{_REQUEST} WHERE request_key = ?", request_key)
        return _request(rows[0]) if rows else None


def _issue(row: Row) -> IssueRow:
    columns = dict(zip(IssueRow.__dataclass_fields__, row, strict=True))
    return IssueRow(**{**columns, "values": json.loads(columns["values"])})


def _request(row: Row) -> RequestRow:
    return RequestRow(row[0], row[1], json.loads(row[2]), *row[3:])
