"""The store's part for `radbox fsck`: what the rows name, rows of what is gone, and rows put together again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.errors import StoreError
from edge.store import Store
from edge.store_rows import StudyFacts

LOST = "storage.object-lost"
_UNREAD = ("receiving", "queued", "reading")


@dataclass(frozen=True)
class NamedFile:
    """A file as its row describes it; `path` relative to the data folder."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class NamedRendering:
    """A reading's folder of images, relative to the data folder."""

    study_key: int
    state: str
    superseded: bool
    path: str


class CheckStore(Store):
    """For whoever holds the data folder alone, or only looks."""

    # --- what rows name ---

    def objects(self) -> list[NamedFile]:
        """The file of every object."""
        return [NamedFile(*row) for row in self._db.all("SELECT path, sha256, size_bytes FROM instance")]

    def quarantined(self) -> list[NamedFile]:
        """The file of all refused bytes."""
        return [NamedFile(*row) for row in self._db.all("SELECT DISTINCT path, sha256, size_bytes FROM quarantine")]

    def renderings(self) -> list[NamedRendering]:
        """The folder of every reading that has one."""
        sql = (
            "SELECT r.study_key, s.state, r.superseded, r.rendered FROM reading r JOIN study s USING (study_key) "
            "WHERE r.rendered != ''"
        )
        return [NamedRendering(key, state, bool(old), path) for key, state, old, path in self._db.all(sql)]

    def damaged_signatures(self) -> int:
        """Signed reports that are not what was signed."""
        rows = self._db.all("SELECT report_json, report_sha256 FROM signature")
        return sum(_sha256(report_json) != sha256 for report_json, sha256 in rows)

    def study_count(self) -> int:
        """How many studies there are."""
        return int(self._db.one("SELECT count(*) FROM study")[0])

    # --- rows of what is gone ---

    def drop_object(self, path: str, message: str) -> None:
        """The object's file is lost or damaged: its row goes. A study without any image left becomes `failed`."""
        with self._db.transaction():
            for (study_key,) in self._db.all("DELETE FROM instance WHERE path = ? RETURNING study_key", path):
                self._event(LOST, message, study_key)
                if self._state(study_key) in _UNREAD and not self._instances(study_key):
                    self._fail_unread(study_key, message)

    def _fail_unread(self, study_key: int, message: str) -> None:
        self._db.all(
            "UPDATE study SET state = 'failed', late = 0, attempt = attempt + 1 WHERE study_key = ?", study_key
        )
        (attempt,) = self._db.one("SELECT attempt FROM study WHERE study_key = ?", study_key)
        row = {"outcome": "failed", "code": LOST, "message": message, "attempt": attempt, "superseded": 0}
        self._add_reading(study_key, row)

    def drop_quarantined(self, path: str) -> None:
        """Refused bytes are gone: their rows go."""
        with self._db.transaction():
            self._db.all("DELETE FROM quarantine WHERE path = ?", path)

    def drop_rendering(self, rendering: NamedRendering) -> None:
        """A reading's images are gone: an unsigned reading is done again, an older or signed one stays without."""
        with self._db.transaction():
            self._db.all("UPDATE reading SET rendered = '' WHERE rendered = ?", rendering.path)
            unsigned = rendering.state in ("draft", "refused") and not rendering.superseded
            if unsigned and self._instances(rendering.study_key):
                self._reopen(rendering.study_key)
                self._queue(rendering.study_key)

    # --- rows put together again ---

    def hurry(self) -> None:
        """Commits are not durable until `settle`: for a database that nobody uses yet."""
        self._db.all("PRAGMA synchronous = OFF")

    def settle(self) -> None:
        """Everything is durable, in one file."""
        self._db.all("PRAGMA synchronous = FULL")
        self._db.all("PRAGMA wal_checkpoint(TRUNCATE)")

    def start_keys_after(self, table: str, key: int) -> None:
        """New rows of `table` get larger keys: names of files on the disk are made of keys."""
        with self._db.transaction():
            self._db.all("DELETE FROM sqlite_sequence WHERE name = ?", table)
            self._db.all("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", table, key)

    def place_study(self, study_key: int, facts: StudyFacts, attempt: int) -> bool:
        """A study without images under the key that it had; False if study or key is there already."""
        with self._db.transaction():
            taken = "SELECT 1 FROM study WHERE study_key = ? OR study_instance_uid = ?"
            if self._db.all(taken, study_key, facts.study_instance_uid):
                return False
            self._db.insert("study", study_key=study_key, state="receiving", attempt=attempt, **vars(facts))
            return True

    def add_reading(self, study_key: int, row: Mapping[str, Any]) -> None:
        """A reading with the columns of `row`; what it lacks is empty. Raises StoreError: no such reading can be."""
        with self._db.transaction():
            self._add_reading(study_key, row)

    def _add_reading(self, study_key: int, row: Mapping[str, Any]) -> None:
        empty = {"code": "", "message": "", "report_json": "", "rendered": "", "timings_json": "{}"}
        columns = {"superseded": 1, "finished_unix_s": time.time(), **empty, **row, "study_key": study_key}
        self._db.insert("reading", **columns)

    def add_signed(self, study_key: int, signature: Mapping[str, Any], rendered: str) -> None:
        """A report as it was signed; the study is `signed` from now on.

        Raises StoreError (store.damaged): the report is not what was signed.
        """
        if _sha256(str(signature["report_json"])) != signature["report_sha256"]:
            raise StoreError("expected the report as it was signed, got other bytes", code="store.damaged")
        report = {"outcome": "draft", "attempt": signature["attempt"], "report_json": signature["report_json"]}
        with self._db.transaction():
            self._db.all("UPDATE reading SET superseded = 1 WHERE study_key = ?", study_key)
            self._add_reading(study_key, {**report, "rendered": rendered, "superseded": 0})
            self._db.insert("signature", **{**signature, "study_key": study_key})
            self._db.all("UPDATE study SET state = 'signed', late = 0 WHERE study_key = ?", study_key)

    def add_row(self, table: str, row: Mapping[str, Any]) -> None:
        """A row as it was (event, quarantine). Raises StoreError: no such row can be, or its key is taken."""
        with self._db.transaction():
            self._db.insert(table, **row)

    def set_age(self, age_s: float) -> None:
        """The box is this old, in seconds of running time; this boot counts from now on."""
        with self._db.transaction():
            self._db.all("INSERT OR REPLACE INTO box VALUES (1, ?, ?, ?)", age_s, time.monotonic(), self._boot_id)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
