"""The worker's row in the store, which the page shows: what it does, said again now and then."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from edge.errors import StorageError
from edge.store import ServiceState, Store

PAUSED = "AI paused, images safe."
_RANK = {"ok": 0, "degraded": 1, "paused": 2}
_log = logging.getLogger("worker")


@dataclass(frozen=True)
class Said:
    """One row."""

    state: ServiceState
    code: str
    message: str


class Voice:
    """What is said is the worse of two: how the model is, and what holds it up at the moment, such as heat."""

    def __init__(self, store: Store, every_s: float) -> None:
        """every_s: a page that hears nothing for long assumes the worst."""
        self._store = store
        self._every_s = every_s
        self._model = Said("ok", "worker.starting", "Starting.")
        self._held_up: Said | None = None
        self._last: Said | None = None
        self._last_s = float("-inf")

    def say(self, state: ServiceState, code: str, message: str) -> None:
        """How the model is."""
        self._model = Said(state, code, message)
        self._tell()

    def hold_up(self, held_up: Said | None) -> None:
        """What holds the reading up now; None if nothing does."""
        self._held_up = held_up
        if self._now() != self._last:
            self._tell()

    def alive(self) -> None:
        """Say the same again if it is time."""
        if time.monotonic() - self._last_s >= self._every_s:
            self._tell()

    def event(self, code: str, message: str, study_key: int | None = None) -> None:
        """Something that people may want to know later; a full disk is no reason to stop."""
        _log.warning("%s: %s", code, message)
        try:
            self._store.add_event(code, message, study_key)
        except StorageError as error:
            _log.error("%s: an event could not be kept", error.code)

    def count(self, name: str) -> None:
        """One more of a total."""
        try:
            self._store.add_counts({name: 1})
        except StorageError as error:
            _log.error("%s: a total could not be kept", error.code)

    def _now(self) -> Said:
        held_up = self._held_up
        return held_up if held_up and _RANK[held_up.state] >= _RANK[self._model.state] else self._model

    def _tell(self) -> None:
        said = self._now()
        self._last, self._last_s = said, time.monotonic()
        try:
            self._store.set_service("worker", said.state, said.code, said.message)
        except StorageError as error:
            _log.error("%s: the worker's state could not be told", error.code)
