"""The one writer of rows: what all associations' processes file is recorded here, many objects to a transaction.

A commit waits for the disk; what arrives meanwhile is committed together by the next. All methods are for one thread.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.disk_marks import DiskWatch, refuses_second_versions
from edge.durable import locked, remove
from edge.errors import RadboxError, StorageError, StorageFullError
from edge.intake.completion import Completion
from edge.intake.ledger_link import REFUSED, Quarantined, encode
from edge.intake.status import REFUSALS
from edge.store import InstanceFacts, Store, StudyFacts

_REFUSAL_EVENT_EVERY_S: Final = 60.0
_LOG = logging.getLogger("radbox.receive")


@dataclass(frozen=True)
class Object:
    """A durable object that has no row yet, and the association that brought it."""

    association: int
    study: StudyFacts
    instance: InstanceFacts


class Ledger:
    """Rows of objects, of the quarantine, of refusals."""

    def __init__(self, data_dir: Path, store: Store, completion: Completion, disk: DiskWatch) -> None:
        self._data_dir = data_dir
        self._store = store
        self._disk = disk
        self._completion = completion
        self._told_s: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self.storage_refused_s = float("-inf")  # monotonic time of the last object that the disk did not take

    def record(self, objects: Sequence[Object]) -> list[bytes]:
        """The answers to objects, in their order; each is durable when it says so."""
        folders = {self._file(one).parent for one in objects}
        try:
            with locked(*folders):  # whoever deletes files that no row names holds their folder, too
                return self._record(objects)
        except StorageError as error:
            return [_refusal(error)] * len(objects)

    def _record(self, objects: Sequence[Object]) -> list[bytes]:
        try:
            for one in objects:
                _check_present(self._file(one))
                self._check_room(one)
            added = self._store.add_instances([(one.study, one.instance) for one in objects])
        except Exception as error:  # the border: what one object breaks must not cost the others
            if len(objects) > 1:
                return [answer for one in objects for answer in self._record([one])]
            if isinstance(error, StorageFullError):  # rolled back for certain: nothing stays behind
                self._remove_unknown(objects[0])
            return [_refusal(error)]
        for one, row in zip(objects, added, strict=True):
            self._completion.received(row.study_key, one.association)
            self.count("images_received", int(row.outcome != "duplicate"))
        return [encode(row.outcome, row.study_key) for row in added]

    def count(self, name: str, times: int = 1) -> None:
        """One more of what the box counts; `save_counts` makes it durable."""
        self._counts[name] += times

    def save_counts(self) -> None:
        """Add what was counted since the last time to the box's totals. Raises StorageError, StoreError."""
        counted = +self._counts
        if counted:
            self._store.add_counts(counted)
            self._counts.clear()

    def _check_room(self, one: Object) -> None:
        """A nearly full disk takes no second version of an object. Raises StorageFullError."""
        instance = one.instance
        if not refuses_second_versions(self._disk.reached()):
            return
        if self._store.would_conflict(instance.sop_instance_uid, instance.sha256):
            message = "expected room for a second version of an object, got a nearly full disk"
            raise StorageFullError(message, code="storage.nearly-full")

    def _file(self, one: Object) -> Path:
        return self._data_dir / one.instance.path

    def _remove_unknown(self, one: Object) -> None:
        try:
            if not self._store.holds_object(one.instance.path):
                remove(self._file(one))
        except RadboxError as error:
            _LOG.error("an object without a row stays on the disk: %s", error.message)

    def quarantine(self, one: Quarantined) -> bytes:
        """The answer to refused bytes that lie in the quarantine."""
        path = self._data_dir / one.path
        try:
            with locked(path.parent):
                _check_present(path)
                self._store.add_quarantine(**vars(one))
        except RadboxError as error:
            return _refusal(error)
        return encode("quarantined", 0)

    def refused(self, code: str) -> None:
        """An object was refused: an event for people, at most one a minute for each reason."""
        now_s = time.monotonic()
        if code in ("storage.full", "storage.failed"):
            self.storage_refused_s = now_s
        if now_s - self._told_s.get(code, float("-inf")) < _REFUSAL_EVENT_EVERY_S:
            return
        self._told_s[code] = now_s
        try:
            self._store.add_event(code, REFUSALS[code].comment)
        except RadboxError as error:
            _LOG.error("the refusal could not be recorded: %s", error.message)


def _check_present(path: Path) -> None:
    """Between its rename and now the file may have been deleted: the same bytes were expired, or refused beside us."""
    if not path.exists():
        raise StorageError("expected the object's file, got none")


def _refusal(error: Exception) -> bytes:
    """The answer to an object that got no row."""
    if not isinstance(error, RadboxError):
        _LOG.error("an object could not be recorded: %s", type(error).__name__)
        return encode(REFUSED, "intake.broke")
    _LOG.error("an object could not be recorded: %s", error.message)
    return encode(REFUSED, error.code if error.code in REFUSALS else "storage.failed")
