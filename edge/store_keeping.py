"""How old things are, what was signed and exported, and what may go.

Nothing here looks at the wall clock: the age of a study is counted in seconds that the box has run.
"""

from __future__ import annotations

import hashlib
import time

from edge.errors import StoreError
from edge.store_base import StoreBase
from edge.store_rows import Removable

# Of a study s: nobody waits for it, and another machine has confirmed that it keeps it.
_MAY_GO = "s.state IN ('signed', 'refused') AND s.exported_age_s IS NOT NULL"
_NAMED = (
    "SELECT 1 FROM instance WHERE path",
    "SELECT 1 FROM quarantine WHERE path",
    "SELECT 1 FROM reading WHERE rendered",
)


class KeepingPart(StoreBase):
    """Written by `care` (age, removals), the page (signatures) and whoever forwards studies (exports)."""

    # --- age ---

    def tick_age(self) -> float:
        """Add the time since the last tick of this boot to the box's age; returns the age in seconds."""
        now_s = time.monotonic()
        with self._db.transaction():
            self._db.all("INSERT OR IGNORE INTO box VALUES (1, 0.0, ?, ?)", now_s, self._boot_id)
            age_s, ticked_s, boot_id = self._db.one("SELECT age_s, ticked_monotonic_s, boot_id FROM box")
            # A new boot counts from its own start; between two ticks of one boot the monotonic clock is the truth.
            age_s += max(0.0, now_s - ticked_s) if boot_id == self._boot_id else now_s
            self._db.all("UPDATE box SET age_s = ?, ticked_monotonic_s = ?, boot_id = ?", age_s, now_s, self._boot_id)
        return float(age_s)

    def age_s(self) -> float:
        """The box's age at the last tick, in seconds."""
        return self._age_s()

    # --- signing and export ---

    def sign(self, study_key: int, attempt: int, signer: str, report_json: str) -> None:
        """draft -> signed: keep the report as a person signed it. `attempt`: of the draft that the person saw.

        Raises StoreError: `store.state` (no draft), `store.draft-changed` (another draft than the one seen).
        """
        with self._db.transaction():
            self._move(study_key, "signed")
            (current,) = self._db.one("SELECT attempt FROM reading WHERE study_key = ? AND NOT superseded", study_key)
            if current != attempt:
                message = f"expected draft {current} to be signed, got {attempt}: the study was read again meanwhile"
                raise StoreError(message, code="store.draft-changed")
            self._db.insert(
                "signature",
                study_key=study_key,
                attempt=attempt,
                signer=signer,
                report_json=report_json,
                report_sha256=hashlib.sha256(report_json.encode()).hexdigest(),
                signed_age_s=self._age_s(),
                signed_unix_s=time.time(),
            )

    def signed_report(self, study_key: int) -> str | None:
        """The report as it was signed, or None."""
        rows = self._db.all("SELECT report_json, report_sha256 FROM signature WHERE study_key = ?", study_key)
        if not rows:
            return None
        report_json, sha256 = rows[0]
        if hashlib.sha256(report_json.encode()).hexdigest() != sha256:
            raise StoreError("expected the report as it was signed, got other bytes", code="store.damaged")
        return str(report_json)

    def mark_exported(self, study_key: int) -> None:
        """Another machine has confirmed that it keeps the study (Storage Commitment, PS3.4 J, or the like)."""
        with self._db.transaction():
            self._db.all("UPDATE study SET exported_age_s = ? WHERE study_key = ?", self._age_s(), study_key)

    # --- what may go ---

    def removable(self, idle_s: float, keep_newest: int) -> list[Removable]:
        """Studies that are settled, exported with all their images, and idle for `idle_s`; the longest idle first.

        Never one of the `keep_newest` studies, a draft that nobody signed, or one that failed or still waits.
        """
        age_s = self._age_s()
        rows = self._db.all(
            f"""
            SELECT s.study_key, ? - s.exported_age_s AS idle,
                (SELECT total(size_bytes) FROM instance i WHERE i.study_key = s.study_key)
            FROM study s
            WHERE {_MAY_GO} AND idle >= ?
                AND s.study_key NOT IN (SELECT study_key FROM study ORDER BY last_instance_key DESC LIMIT ?)
            ORDER BY idle DESC, s.study_key
            """,
            *(age_s, idle_s, keep_newest),
        )
        return [Removable(study_key, idle, int(size_bytes)) for study_key, idle, size_bytes in rows]

    def forget_study(self, study_key: int) -> bool:
        """Delete a study's rows; its files are noted in `removals` in the same transaction.

        A crash leaves either the whole study or names to delete, never a row without its file. False, and nothing is
        deleted, if the study may not go after all: an image came since `removable` named it, or it is gone already.
        """
        with self._db.transaction():
            if not self._db.all(f"SELECT 1 FROM study s WHERE {_MAY_GO} AND s.study_key = ?", study_key):
                return False
            self._db.all(
                "INSERT OR IGNORE INTO removal SELECT path FROM instance WHERE study_key = ? UNION "
                "SELECT rendered FROM reading WHERE study_key = ? AND rendered != ''",
                *(study_key, study_key),
            )
            for table in ("signature", "reading", "instance", "event"):
                self._db.all(f"DELETE FROM {table} WHERE study_key = ?", study_key)
            self._db.all("DELETE FROM study WHERE study_key = ?", study_key)
            return True

    def drop_superseded_renderings(self) -> int:
        """Note the images of readings that another one replaced for removal; returns how many."""
        with self._db.transaction():
            where = "superseded AND rendered != ''"
            self._db.all(f"INSERT OR IGNORE INTO removal SELECT rendered FROM reading WHERE {where}")
            return len(self._db.all(f"UPDATE reading SET rendered = '' WHERE {where} RETURNING reading_key"))

    def drop_quarantine(self, keep_bytes: int) -> int:
        """Note the oldest quarantined bytes beyond `keep_bytes` for removal; returns how many rows went."""
        with self._db.transaction():
            rows = self._db.all("SELECT quarantine_key, path, size_bytes FROM quarantine ORDER BY quarantine_key DESC")
            kept: set[str] = set()
            kept_bytes = dropped = 0
            for key, path, size_bytes in rows:
                kept_bytes += 0 if path in kept else size_bytes
                if kept_bytes <= keep_bytes:
                    kept.add(path)
                    continue
                dropped += 1
                self._db.all("DELETE FROM quarantine WHERE quarantine_key = ?", key)
                if path not in kept:
                    self._db.all("INSERT OR IGNORE INTO removal VALUES (?)", path)
            return dropped

    def quarantine_bytes(self) -> int:
        """Size of all quarantined bytes, each counted once."""
        (total,) = self._db.one("SELECT total(size_bytes) FROM (SELECT DISTINCT path, size_bytes FROM quarantine)")
        return int(total)

    def file_counts(self) -> tuple[int, int]:
        """Files that the rows name: of objects, of the quarantine."""
        (objects,) = self._db.one("SELECT count(*) FROM instance")
        (quarantined,) = self._db.one("SELECT count(DISTINCT path) FROM quarantine")
        return int(objects), int(quarantined)

    def removals(self) -> list[str]:
        """Paths, relative to the data folder, whose last row is gone."""
        return [path for (path,) in self._db.all("SELECT path FROM removal ORDER BY path")]

    def may_remove(self, path: str) -> bool:
        """True if the path is noted for removal and nothing names it: ask while its folder is locked."""
        with self._db.snapshot():
            noted = self._db.all("SELECT 1 FROM removal WHERE path = ?", path)
            return bool(noted) and not any(self._db.all(f"{named} = ? LIMIT 1", path) for named in _NAMED)

    def holds_object(self, path: str) -> bool:
        """True if the file of some object or quarantined bytes is this one."""
        return any(self._db.all(f"{named} = ? LIMIT 1", path) for named in _NAMED[:2])

    def removed(self, path: str) -> None:
        """The path is deleted, durably."""
        with self._db.transaction():
            self._db.all("DELETE FROM removal WHERE path = ?", path)
