"""The box's disk over time: how full it is, cleaning when that helps, the reserve, and plain words about it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.board import Board, Storage
from edge.care.reserve import keep_reserve
from edge.care.retention import clean, trim_quarantine
from edge.disk_marks import Mark, in_words, mark
from edge.durable import DiskUse, disk_use
from edge.store import ServiceState, Store

CLEAN_AGAIN_S: Final = 60.0  # after cleaning did not help
TRIM_EVERY_S: Final = 60.0
TELL_AGAIN_S: Final = 3600.0  # a disk that goes up and down around a mark
_LEVEL: Final[dict[Mark, int]] = {"calm": 0, "clean": 1, "warn": 2, "refuse": 3}
_LOG = logging.getLogger("radbox.care")


@dataclass(frozen=True)
class Said:
    """A service row."""

    state: ServiceState
    code: str
    message: str


def words(reached: Mark, use: DiskUse, storage: Storage, stuck: bool) -> Said:
    """How the disk is. stuck: cleaning was tried, and there was nothing more that may go."""
    room = f"{in_words(use)}."
    nothing = (
        f" Nothing more may be removed: no other study is exported and older than {storage.retention_days:g} days "
        "of running time."
        if stuck
        else ""
    )
    if reached == "refuse":
        advice = " New images are refused and stay on the X-ray machine; the images already here are safe."
        return Said("degraded", "storage.full", f"The disk is full: {room}{advice}{nothing}")
    if reached == "warn":
        advice = " New images are still taken in, but no second version of an image that is here already."
        return Said("degraded", "storage.nearly-full", f"The disk is nearly full: {room}{advice}{nothing}")
    return Said("ok", "storage.nothing-to-remove" if stuck else "", f"Disk: {room}{nothing}")


class Disk:
    """Looked after step by step; each step is short unless there is something to remove."""

    def __init__(
        self,
        board: Board,
        store: Store,
        look: Callable[[Path], DiskUse] = disk_use,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """look, clock: for tests."""
        self._board = board
        self._store = store
        self._look = look
        self._clock = clock
        self._reached: Mark = "calm"
        self._stuck = False
        self._cleaned_s = self._trimmed_s = float("-inf")
        self._told_s: dict[str, float] = {}

    @property
    def calm(self) -> bool:
        """True while there is nothing to watch closely."""
        return self._reached in ("calm", "clean")

    def step(self, alive: Callable[[], None]) -> Said:
        """Look, act and say how it is. Raises StorageError, StoreError."""
        storage, now_s = self._board.storage, self._clock()
        self._keep_reserve()
        if now_s - self._trimmed_s >= TRIM_EVERY_S:
            self._trimmed_s = now_s
            if dropped := trim_quarantine(self._board.data_dir, self._store, storage.quarantine_bytes):
                self._store.add_event("storage.quarantine-trimmed", f"the {dropped} oldest quarantined objects went")
        use, reached = self._now()
        if reached == "calm":
            self._stuck = False
        elif now_s - self._cleaned_s >= CLEAN_AGAIN_S or _LEVEL[reached] > _LEVEL[self._reached]:
            self._cleaned_s = now_s
            self._clean(alive)
            use, reached = self._now()
        said = words(reached, use, storage, self._stuck)
        if _LEVEL[reached] > max(_LEVEL["clean"], _LEVEL[self._reached]):
            self._tell(said)
        self._reached = reached
        return said

    def _now(self) -> tuple[DiskUse, Mark]:
        use = self._look(self._board.data_dir)
        return use, mark(use, self._board.storage, self._board.receive.min_free_bytes)

    def _clean(self, alive: Callable[[], None]) -> None:
        cleaned = clean(self._board.data_dir, self._store, self._board.storage, lambda: self._now()[1] == "calm", alive)
        if cleaned.anything:
            _LOG.info("%s", cleaned.in_words())
            self._store.add_event("storage.cleaned", cleaned.in_words())
        use, reached = self._now()
        stuck = reached != "calm"
        if stuck and not self._stuck:
            said = words("clean", use, self._board.storage, stuck=True)
            _LOG.warning("%s", said.message)
            self._tell(said)
        self._stuck = stuck

    def _tell(self, said: Said) -> None:
        if self._clock() - self._told_s.get(said.code, float("-inf")) >= TELL_AGAIN_S:
            self._told_s[said.code] = self._clock()
            self._store.add_event(said.code, said.message)

    def _keep_reserve(self) -> None:
        board = self._board
        done = keep_reserve(
            board.data_dir, self._look(board.data_dir), board.storage.reserve_bytes, board.receive.min_free_bytes
        )
        if done:
            _LOG.info("the reserve was %s", done)
        if done == "given back":
            self._store.add_event("storage.reserve-used", "the disk is full: the reserve was given back")
