"""The worker's part of the store: claims, readings, and what a dead worker left."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable

from edge.store_base import StoreBase
from edge.store_rows import ClaimedStudy, InstanceRow

_TOTALS = {"draft": "studies_read", "refused": "studies_refused", "failed": "studies_failed"}


class ReadingsPart(StoreBase):
    """Written by `worker` alone."""

    def claim_next(self, worker: str) -> ClaimedStudy | None:
        """Take the next study: queued -> reading. None when nothing waits.

        worker: who reads, such as the slot of its model; `deaths` and `pardon` know it by this name.
        Urgent ones first, then the newest: after a night without accelerator the patients who are there now count. A
        study that a worker stopped on goes behind all others, so that it cannot block them.
        """
        with self._db.transaction():
            waiting = self._db.all(
                "SELECT study_key FROM study WHERE state = 'queued' "
                "ORDER BY tries, urgency DESC, last_instance_key DESC LIMIT 1"
            )
            if not waiting:
                return None
            study_key = int(waiting[0][0])
            self._move(study_key, "reading")
            self._db.all(
                "UPDATE study SET attempt = attempt + 1, tries = tries + 1, worker = ?, claimed_boot_id = ? "
                "WHERE study_key = ?",
                *(worker, self._boot_id, study_key),
            )
            (attempt,) = self._db.one("SELECT attempt FROM study WHERE study_key = ?", study_key)
            received = self._instances(study_key)
        first: dict[str, InstanceRow] = {}
        for row in received:
            first.setdefault(row.sop_instance_uid, row)
        last = list(first.values())[-1]
        return ClaimedStudy(
            study_key, attempt, tuple(first.values()), last.received_monotonic_s, last.boot_id == self._boot_id
        )

    def deaths(self) -> list[str]:
        """Names of the workers that died while they read, in this boot; `requeue_stale` clears the list."""
        sql = "SELECT worker FROM study WHERE state = 'reading' AND claimed_boot_id = ?"
        return [str(worker) for (worker,) in self._db.all(sql, self._boot_id)]

    def requeue_stale(self, max_attempts: int = 3, on_trial: str | None = None) -> list[int]:
        """At a worker's start: give back what a dead worker was reading; returns the studies that wait again.

        A study that `max_attempts` workers died on becomes `failed` (`worker.died-repeatedly`). A reading that ended
        with the machine (another boot) is no such death: a clinic with daily power cuts must not lose its studies.
        on_trial: name of a worker whose model is to blame before any study is; none is set aside for its deaths.
        """
        with self._db.transaction():
            requeued = []
            stale = "SELECT study_key, tries, claimed_boot_id, worker FROM study WHERE state = 'reading'"
            for study_key, tries, claimed_boot_id, worker in self._db.all(stale):
                if claimed_boot_id != self._boot_id:
                    self._db.all("UPDATE study SET tries = tries - 1 WHERE study_key = ?", study_key)
                elif tries >= max_attempts and worker != on_trial:
                    message = f"the reader stopped {tries} times while it read this study"
                    self._finish(study_key, "failed", "worker.died-repeatedly", message)
                    continue
                self._move(study_key, "queued")
                self._apply_late(study_key)
                requeued.append(int(study_key))
            return requeued

    def pardon(self, worker: str) -> None:
        """Forget what happened to waiting studies under `worker`: its model is gone, another one reads them afresh."""
        with self._db.transaction():
            waiting = "state = 'queued' AND worker = ? AND tries > 0"
            self._db.all(f"UPDATE study SET tries = 0 WHERE {waiting}", worker)

    def give_back(self, study_key: int) -> None:
        """reading -> queued, and the attempt does not count: what stopped it has nothing to do with the study."""
        with self._db.transaction():
            self._move(study_key, "queued")
            self._db.all("UPDATE study SET tries = tries - 1 WHERE study_key = ?", study_key)
            self._apply_late(study_key)

    def rendered_folders(self) -> set[str]:
        """Folders of pictures that a reading names, relative to the data folder."""
        return {folder for (folder,) in self._db.all("SELECT rendered FROM reading WHERE rendered != ''")}

    def waiting(self) -> int:
        """How many studies wait to be read."""
        return int(self._db.one("SELECT count(*) FROM study WHERE state = 'queued'")[0])

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
        self._count(_TOTALS[outcome])
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
            content_sha256=_content(self._instances(study_key)),
            finished_unix_s=time.time(),
        )
        self._apply_late(study_key)


def _content(instances: Iterable[InstanceRow]) -> str:
    """Names what was read: the sha256 over the sorted sha256 of every object of the study."""
    return hashlib.sha256("".join(sorted(row.sha256 for row in instances)).encode()).hexdigest()
