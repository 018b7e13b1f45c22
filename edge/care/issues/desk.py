"""The step that care takes: look, write down what is wrong, and do what a person asked for.

Little is written: the issues only when they changed, the notes once an hour at most unless something was decided.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from edge.board import Board
from edge.care.issues.checks import opened, tell
from edge.care.issues.fixes import FAILED, FIXES, TOO_LATE, Answer, Bench
from edge.care.issues.notes import FACT, Notes, from_fact, to_fact
from edge.care.issues.seen import Gatherer, Key, Seen, Told
from edge.errors import RadboxError
from edge.issue_titles import title
from edge.service import notify
from edge.store import Store
from edge.store_rows import IssueFacts, RequestRow

LOOK_EVERY_S: Final = 10.0
NOTES_EVERY_S: Final = 3600.0  # for what a later look would find again
TOO_LATE_S: Final = 600.0  # nobody expects any more that the button they pressed does something
_LOG = logging.getLogger("radbox.care")


def _alive() -> None:
    notify("WATCHDOG=1")


class IssueDesk:
    """For one thread. Call `step` in every round of care; it looks every LOOK_EVERY_S."""

    def __init__(self, board: Board, store: Store, alive: Callable[[], None] = _alive) -> None:
        """alive: called now and then while a fix takes long. Raises StoreError."""
        self._board = board
        self._store = store
        self._alive = alive
        self._gatherer = Gatherer(board, store)
        self._told = _told_before(store)
        fact = store.facts().get(FACT)
        self._notes = from_fact(fact.value) if fact else Notes()
        self._noted = self._notes
        self._noted_s = time.monotonic()
        self._looked_s = float("-inf")
        self._open: list[IssueFacts] | None = None
        self._waiting: dict[int, float] = {}

    def step(self) -> None:
        """Raises StorageError, StoreError."""
        asked = [request for request in self._store.asked() if request.action in FIXES]
        if not asked and time.monotonic() - self._looked_s < LOOK_EVERY_S:
            return
        seen = self._look()
        for request in asked:
            self._do(seen, request)
            seen = self._look()

    # --- looking ---

    def _look(self) -> Seen:
        self._looked_s = time.monotonic()
        seen = self._gatherer.look(self._notes, self._told)
        self._told = tell(seen)
        self._keep_notes(seen.notes)
        found = opened(self._told)
        if found != self._open:
            self._write(found)
        return seen

    def _write(self, found: list[IssueFacts]) -> None:
        before = {(row.code, row.subject) for row in self._store.issues()}
        self._store.set_issues(found)
        self._open = found
        now = {(one.code, one.subject) for one in found}
        for code, subject in sorted(now - before):
            self._store.add_event(code, _named(code, subject))
            _LOG.warning("%s: %s", code, title(code).long)
        for code, subject in sorted(before - now):
            self._store.add_event(code, f"Over: {_named(code, subject)}")

    def _keep_notes(self, notes: Notes, *, decided: bool = False) -> None:
        """Write them if a person decided something, or now and then if they changed."""
        self._notes = notes
        due = decided or notes.repaired != self._noted.repaired or time.monotonic() - self._noted_s >= NOTES_EVERY_S
        if due and notes != self._noted:
            self._store.set_fact(FACT, to_fact(notes))
            self._noted, self._noted_s = notes, time.monotonic()

    # --- fixing ---

    def _do(self, seen: Seen, request: RequestRow) -> None:
        answer = self._try(seen, request)
        if answer is None:
            return
        self._waiting.pop(request.request_key, None)
        if answer.notes is not None:
            self._keep_notes(answer.notes, decided=True)
        self._store.answer(request.request_key, answer.code, answer.message)
        self._store.add_event(answer.code, f"{request.action}: {answer.message}")
        _LOG.info("%s: %s", request.action, answer.code)

    def _try(self, seen: Seen, request: RequestRow) -> Answer | None:
        """The answer, None while another is still at work for it."""
        if request.boot_id != seen.boot_id or seen.now_s - request.monotonic_s > TOO_LATE_S:
            return Answer(TOO_LATE, "The box was busy or off in between. Press the button again.")
        bench = Bench(self._board, self._store, seen, request, self._waiting, self._alive)
        try:
            return FIXES[request.action](bench, request.values)
        except RadboxError as error:
            if error.code == "store.damaged":
                raise
            _LOG.error("%s: %s", request.action, error.code)
            return Answer(FAILED, f"{error.message} [{error.code}]")


def _told_before(store: Store) -> dict[Key, Told]:
    """What was open when care ended is open still, for a look: issues keep their time over a restart of care."""
    now_s = time.monotonic()
    rows = [IssueFacts(row.code, row.subject, row.severity, row.values) for row in store.issues()]
    return {(one.code, one.subject): Told(now_s, now_s, one, raised=True) for one in rows}


def _named(code: str, subject: str) -> str:
    words = title(code).long
    return f"{words} ({subject})" if subject else words
