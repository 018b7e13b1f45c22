"""Service `care`: the disk, the hardware, the box's age, files that may go, what is wrong, and what a person asked for;
a database that was found damaged. No network.

Nothing here reads the wall clock: what is old is what this box has been running for long since.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from edge.board import Board
from edge.care.census import quick_check
from edge.care.disk import Disk, Said
from edge.care.hardware import open_hardware
from edge.care.issues.desk import IssueDesk
from edge.care.retention import finish_removals
from edge.care.watch import Watch
from edge.errors import RadboxError, StoreError
from edge.service import Stop, notify
from edge.store import Store, database_key, open_store
from edge.store_paths import DAMAGED, RESTORING

STEP_S: Final = 1.0
CALM_STEP_S: Final = 5.0
TICK_AGE_S: Final = 60.0
SIGN_OF_LIFE_S: Final = 10.0
WATCH_S: Final = 5.0
_LOG = logging.getLogger("radbox.care")
_Result = TypeVar("_Result")


@dataclass
class _Due:
    """Something that is done every `every_s` seconds, at first at once."""

    every_s: float
    next_s: float = float("-inf")

    def now(self, clock: Callable[[], float] = time.monotonic) -> bool:
        """True if it is time; then the next time is set."""
        if clock() < self.next_s:
            return False
        self.next_s = clock() + self.every_s
        return True


def run(board: Board, stop: Stop) -> None:
    """Serve until `stop`. Raises StoreError when the database cannot be opened for a reason that care cannot mend."""
    notice: Said | None = None
    while not stop.is_set():
        try:
            if (board.data_dir / RESTORING).exists():
                _finish_restore(board)
            if (board.data_dir / DAMAGED).exists():
                notice = _rebuild(board)
            with closing(open_store(board.data_dir, key=database_key())) as store:
                _serve(board, store, stop, notice)
        except StoreError as error:
            if error.code != "store.damaged":
                raise
            _LOG.error("%s: %s", error.code, error.message)
    notify("STOPPING=1")


def _finish_restore(board: Board) -> None:
    _LOG.warning("a restore that was cut off is finished now")
    from edge.care.restore import finish  # late, as below

    finish(board)


def _rebuild(board: Board) -> Said:
    _LOG.error("the database is damaged and is rebuilt from the stored images now")
    from edge.care.fsck import rebuild_damaged  # late: 30 MiB of libraries that a healthy box never needs

    report = rebuild_damaged(board.data_dir, database_key(), _still_starting)
    said = Said("degraded", "storage.repaired", report.in_words())
    with closing(open_store(board.data_dir, key=database_key())) as store:
        store.add_event(said.code, said.message)
    return said


def _serve(board: Board, store: Store, stop: Stop, notice: Said | None) -> None:
    """Step after step. Raises StoreError (store.damaged)."""
    disk, issues = Disk(board, store), IssueDesk(board, store)
    watch = Watch(board, store, open_hardware(board))
    age, life, look = _Due(TICK_AGE_S), _Due(SIGN_OF_LIFE_S), _Due(WATCH_S)
    said = Said("ok", "", "")
    _guarded(partial(_start, board, store))
    notify("READY=1")
    while not stop.is_set():
        if (board.data_dir / DAMAGED).exists():
            raise StoreError("expected a whole database, got one that a service found damaged", code="store.damaged")
        if age.now():
            _guarded(partial(_tick, board, store))
        before, said = said, _guarded(partial(disk.step, _alive)) or said
        if look.now():
            _guarded(watch.step)
        if life.now() or (before.state, before.code) != (said.state, said.code):
            _guarded(partial(_say, store, said, notice))
        _guarded(issues.step)
        _alive()
        stop.wait(CALM_STEP_S if disk.calm else STEP_S)
    _guarded(watch.stop)


def _start(board: Board, store: Store) -> None:
    if finished := finish_removals(board.data_dir, store):
        _LOG.info("after a restart: %d removals finished", finished)
    if found := quick_check(board.data_dir, store):
        _LOG.warning("%s", found)
        store.add_event("storage.check", found)


def _tick(board: Board, store: Store) -> None:
    store.tick_age()
    finish_removals(board.data_dir, store)


def _say(store: Store, said: Said, notice: Said | None) -> None:
    """The disk's trouble comes before the news of a repair, which stays until the next start."""
    row = notice if notice and said.state == "ok" else said
    store.set_service("care", row.state, row.code, row.message)


def _still_starting() -> None:
    """Before READY=1 systemd waits only so long for a start; a repair may take hours (sd_notify(3))."""
    notify("WATCHDOG=1\nEXTEND_TIMEOUT_USEC=120000000")


def _alive() -> None:
    notify("WATCHDOG=1")


def _guarded(step: Callable[[], _Result]) -> _Result | None:
    """A step that failed is tried again by the next round; only damage ends the rounds."""
    try:
        return step()
    except RadboxError as error:
        if error.code == "store.damaged":
            raise
        _LOG.error("%s: %s", error.code, error.message)
        return None
