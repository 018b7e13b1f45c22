"""The receiver's part of the store: studies, instances, the quarantine."""

from __future__ import annotations

import time
from collections.abc import Sequence

from edge.store_base import StoreBase
from edge.store_rows import Added, AddOutcome, InstanceFacts, StudyFacts
from edge.store_schema import MODALITIES_KEPT


class IntakePart(StoreBase):
    """Written by `receive` alone."""

    def add_instance(self, study: StudyFacts, instance: InstanceFacts) -> AddOutcome:
        """`add_instances` of one."""
        return self.add_instances([(study, instance)])[0].outcome

    def add_instances(self, objects: Sequence[tuple[StudyFacts, InstanceFacts]]) -> list[Added]:
        """Record objects whose files are durable already, all in one transaction.

        Same SOP Instance UID and bytes: `duplicate`, nothing changes. Same UID, other bytes: `conflict`, kept as its
        own row beside the first, with an event. An image new to its study brings a finished study back to `receiving`.
        """
        with self._db.transaction():
            return [self._add(study, instance) for study, instance in objects]

    def _add(self, study: StudyFacts, instance: InstanceFacts) -> Added:
        earlier = "SELECT sha256, study_key FROM instance WHERE sop_instance_uid = ?"
        known = self._db.all(earlier, instance.sop_instance_uid)
        for sha256, study_key in known:
            if sha256 == instance.sha256:
                return Added("duplicate", study_key)
        study_key = self._study_of(study)
        instance_key = self._db.insert(
            "instance",
            study_key=study_key,
            conflict=int(bool(known)),
            boot_id=self._boot_id,
            arrived_unix_s=time.time(),
            **vars(instance),
        )
        self._db.all(
            "UPDATE study SET last_instance_key = ?, arrived_age_s = ?, exported_age_s = NULL WHERE study_key = ?",
            *(instance_key, self._age_s(), study_key),
        )
        self._heard(instance)
        # Bytes that lost their last row were about to be deleted; they are wanted again.
        self._db.all("DELETE FROM removal WHERE path = ?", instance.path)
        if study_key not in {key for _, key in known}:
            self._reopen(study_key)
        if known:
            message = "an object came again under the same SOP Instance UID with other bytes; both are kept"
            self._event("intake.uid-conflict", message, study_key)
        return Added("conflict" if known else "stored", study_key)

    def _heard(self, instance: InstanceFacts) -> None:
        """This machine sent an image now. Only so many machines are remembered: the title is the sender's choice."""
        age_s = self._age_s()
        self._db.all(
            "INSERT INTO modality VALUES (?, 1, ?, ?, ?, ?) ON CONFLICT (calling_ae) DO UPDATE SET "
            "images = images + 1, last_age_s = excluded.last_age_s, last_monotonic_s = excluded.last_monotonic_s, "
            "boot_id = excluded.boot_id",
            *(instance.calling_ae, age_s, age_s, instance.received_monotonic_s, self._boot_id),
        )
        self._db.all(
            "DELETE FROM modality WHERE calling_ae IN "
            "(SELECT calling_ae FROM modality ORDER BY last_age_s DESC, rowid DESC LIMIT -1 OFFSET ?)",
            MODALITIES_KEPT,
        )

    def holds_object(self, path: str) -> bool:
        """True if any row names this object file."""
        return bool(self._db.all("SELECT 1 FROM instance WHERE path = ? LIMIT 1", path))

    def would_conflict(self, sop_instance_uid: str, sha256: str) -> bool:
        """True if the SOP Instance UID is here already, but not with these bytes."""
        known = self._db.all("SELECT sha256 FROM instance WHERE sop_instance_uid = ?", sop_instance_uid)
        return bool(known) and (sha256,) not in known

    def _study_of(self, facts: StudyFacts) -> int:
        columns = vars(facts)
        row = self._db.all(
            f"SELECT study_key, {', '.join(columns)} FROM study WHERE study_instance_uid = ?", facts.study_instance_uid
        )
        if not row:
            return self._db.insert("study", state="receiving", **columns)
        study_key, *known = row[0]
        for (column, new), old in zip(columns.items(), known, strict=True):
            if column == "urgency":
                if new > old:
                    self._db.all("UPDATE study SET urgency = ? WHERE study_key = ?", new, study_key)
            elif new and not old:
                self._db.all(f"UPDATE study SET {column} = ? WHERE study_key = ?", new, study_key)
            elif column == "patient_id" and new and new != old:
                message = "objects of one study name different patients; the first one's facts are shown"
                self._event("intake.patient-contradiction", message, study_key)
        return int(study_key)

    def study_key(self, study_instance_uid: str) -> int | None:
        """Our key of a study, or None."""
        rows = self._db.all("SELECT study_key FROM study WHERE study_instance_uid = ?", study_instance_uid)
        return rows[0][0] if rows else None

    def complete_study(self, study_key: int) -> None:
        """All images are here: receiving -> queued. Nothing to do for a study without new images, or that is gone."""
        with self._db.transaction():
            if not self._db.all("SELECT 1 FROM study WHERE study_key = ?", study_key):
                return
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
            self._db.all("DELETE FROM removal WHERE path = ?", path)
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
