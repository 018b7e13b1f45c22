"""Everything the checks look at, frozen, and how it is gathered: a handful of small queries and one statvfs.

Times are CLOCK_MONOTONIC seconds of this boot, or ages of the box; nothing here reads the wall clock.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge.board import Board
from edge.care.issues.habits import learn
from edge.care.issues.notes import Notes
from edge.durable import DiskUse, disk_use
from edge.service_limits import SILENT_AFTER_S
from edge.slots import Outcome, Slots
from edge.store import ServiceRow, Store, boot_id
from edge.store_rows import IssueFacts, ModalityRow
from edge.update_seen import seen_mark, unseen_failure

WINDOW_S: Final = 3600.0  # over which rising totals are looked at
WINDOW_STEP_S: Final = 60.0
REPAIRED: Final = "storage.repaired"
# What a service measured last is worth nothing once it gives no sign of life.
WRITERS: Final[Mapping[str, str]] = {
    "printer": "link",
    "mqtt": "link",
    "grabber": "capture",
    "escalation": "worker",
}

Key = tuple[str, str]  # code and subject of an issue


@dataclass(frozen=True)
class Told:
    """When a check began to say this without a break, when it last did, and what it said."""

    first_s: float
    last_s: float
    facts: IssueFacts
    raised: bool


@dataclass(frozen=True)
class Seen:
    """The box at one moment. facts: of this boot, and only from services that are alive.

    watched_s: how long care has been looking. recent: how much each total rose in the last WINDOW_S. failure: of a new
    model, that nobody took note of. told: of the look before.
    """

    board: Board
    now_s: float
    boot_id: str
    age_s: float
    watched_s: float
    disk: DiskUse
    services: Mapping[str, ServiceRow] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    recent: Mapping[str, int] = field(default_factory=dict)
    machines: tuple[ModalityRow, ...] = ()
    failure: Outcome | None = None
    notes: Notes = field(default_factory=Notes)
    told: Mapping[Key, Told] = field(default_factory=dict)

    def is_open(self, code: str, subject: str = "") -> bool:
        """True if this issue was raised at the look before: leaving needs more than not coming."""
        told = self.told.get((code, subject))
        return told is not None and told.raised

    def silent(self, service: str) -> bool:
        """True if the service has given no sign of life for its time, nor in all the time that care has been looking.

        One that was silent when care was started again is so until it gives a sign.
        """
        limit_s = SILENT_AFTER_S[service]
        row = self.services.get(service)
        if row is not None and row.boot_id == self.boot_id and self.now_s - row.monotonic_s <= limit_s:
            return False
        return self.watched_s > limit_s or self.is_open("issue.service-silent", service)


class Gatherer:
    """Looks, and remembers what a single look cannot tell."""

    def __init__(self, board: Board, store: Store) -> None:
        self._board = board
        self._store = store
        self._slots = Slots(board.data_dir, board.worker.bundle)
        self._boot_id = boot_id()
        self._start_s = time.monotonic()
        self._window: collections.deque[tuple[float, dict[str, int]]] = collections.deque()

    def look(self, notes: Notes, told: Mapping[Key, Told]) -> Seen:
        """The box now. Raises StorageError, StoreError."""
        store, now_s = self._store, time.monotonic()
        services = {row.name: row for row in store.services()}
        machines = tuple(store.modalities())
        seen = Seen(
            board=self._board,
            now_s=now_s,
            boot_id=self._boot_id,
            age_s=store.age_s(),
            watched_s=now_s - self._start_s,
            disk=disk_use(self._board.data_dir),
            services=services,
            recent=self._recent(now_s, store.counts()),
            machines=machines,
            failure=unseen_failure(self._slots.read(), seen_mark(self._board.data_dir)),
            notes=Notes(learn(notes.habits, machines), notes.seen, self._repaired(notes, services.get("care"))),
            told=told,
        )
        return _with_facts(seen, store)

    def _recent(self, now_s: float, counts: dict[str, int]) -> dict[str, int]:
        window = self._window
        if not window or now_s - window[-1][0] >= WINDOW_STEP_S:
            window.append((now_s, counts))
        while now_s - window[0][0] > WINDOW_S and len(window) > 1:
            window.popleft()
        return rise(window[0][1], counts)

    def _repaired(self, notes: Notes, row: ServiceRow | None) -> int:
        """The event of the last repair. Care says it in its row until its next start; the note stays until read."""
        if row is None or row.code != REPAIRED or row.boot_id != self._boot_id:
            return notes.repaired
        events = (event.event_key for event in self._store.events(50) if event.code == REPAIRED)
        return next(events, notes.repaired)


def rise(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """How much each total grew."""
    return {name: total - before.get(name, 0) for name, total in now.items() if total > before.get(name, 0)}


def _with_facts(seen: Seen, store: Store) -> Seen:
    facts = {
        row.name: row.value
        for row in store.facts().values()
        if row.boot_id == seen.boot_id and not (row.name in WRITERS and seen.silent(WRITERS[row.name]))
    }
    return Seen(**{**{name: getattr(seen, name) for name in Seen.__dataclass_fields__}, "facts": facts})
