"""What care does when a person taps a button: a closed table, action -> function. Anything else is never done.

Each function checks the values it was given, does its work, and answers with a code and one plain sentence. Doing one
twice does no harm: a wish that care could not answer before it ended is done again after its next start.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edge.board import Board
from edge.care.clock import Refused, read_result, use_phone_time
from edge.care.issues.habits import DAY_S
from edge.care.issues.notes import Notes
from edge.care.issues.seen import Seen
from edge.care.retention import clean, trim_quarantine
from edge.disk_marks import mark
from edge.durable import disk_use
from edge.slots import Slots
from edge.store import Store
from edge.store_rows import RequestRow
from edge.update_seen import note_seen

DONE, NOTHING, REFUSED, FAILED, TOO_LATE = "fix.done", "fix.nothing", "fix.refused", "fix.failed", "fix.too-late"
PUT_OFF_S: Final = DAY_S  # of running time
CLOCK_WAIT_S: Final = 30.0  # for the unit that may set the clock
CLOCK_SET: Final = ("clock.set", "clock.set-without-rtc")
CLOCK_RIGHT: Final = "clock.right-already"
WANTED: Final = "wanted"  # fact, written by care, read by the worker: {"probe": how often a person asked}
NOTED: Final = ("issue.database-repaired", "issue.watchdog-reset")  # news that goes when a person took note


@dataclass(frozen=True)
class Bench:
    """What a fix may use. request: who asked, and when.

    waiting: when a fix that needs another's work began, by the request's key; kept from step to step.
    """

    board: Board
    store: Store
    seen: Seen
    request: RequestRow
    waiting: dict[int, float]
    alive: Callable[[], None]


@dataclass(frozen=True)
class Answer:
    """What became of it. notes: what the desk remembers from now on, None for the same as before."""

    code: str
    message: str
    notes: Notes | None = None


Fix = Callable[[Bench, Mapping[str, Any]], Answer | None]  # None: not yet, call again at the next step


def _clean(bench: Bench, _values: Mapping[str, Any]) -> Answer:
    """Run retention now: only what another machine keeps and what is old goes, as always."""
    board = bench.board

    def enough() -> bool:
        return mark(disk_use(board.data_dir), board.storage, board.receive.min_free_bytes) == "calm"

    cleaned = clean(board.data_dir, bench.store, board.storage, enough, bench.alive)
    if cleaned.anything:
        return Answer(DONE, cleaned.in_words())
    days = f"{board.storage.retention_days:g} days of running time"
    return Answer(NOTHING, f"No study is kept by another machine and older than {days}, so nothing may be removed.")


def _clear_quarantine(bench: Bench, _values: Mapping[str, Any]) -> Answer:
    """The older half of what never became an image goes."""
    kept = bench.store.quarantine_bytes() // 2
    dropped = trim_quarantine(bench.board.data_dir, bench.store, kept)
    if not dropped:
        return Answer(NOTHING, "There are no unreadable files on this box.")
    return Answer(DONE, f"Unreadable files removed: {dropped}.")


def _use_phone_clock(bench: Bench, values: Mapping[str, Any]) -> Answer | None:
    """The phone's time, and what has passed since the tap. Care may not set a clock: it asks the unit that may."""
    began_s = bench.waiting.get(bench.request.request_key)
    if began_s is not None:
        return _clock_answer(bench, began_s)
    unix_s = values.get("unix_s")
    if isinstance(unix_s, bool) or not isinstance(unix_s, int | float):
        return Answer(REFUSED, "Expected a date and a time, got something else.")
    bench.waiting[bench.request.request_key] = time.monotonic()
    try:
        use_phone_time(bench.board.data_dir, unix_s + time.monotonic() - bench.request.monotonic_s)
    except Refused as refusal:
        return Answer(REFUSED, refusal.message)
    return None


def _clock_answer(bench: Bench, began_s: float) -> Answer | None:
    result = read_result(bench.board.data_dir)
    if result is None or result.monotonic_s < began_s:
        late = time.monotonic() - began_s > CLOCK_WAIT_S
        return Answer(FAILED, "Nothing on this box answered that may set the clock.") if late else None
    if result.code in CLOCK_SET:
        return Answer(DONE, result.message)
    return Answer(NOTHING if result.code == CLOCK_RIGHT else REFUSED, result.message)


def _try_accelerator(bench: Bench, _values: Mapping[str, Any]) -> Answer:
    """The worker looks for the number to change."""
    before = bench.store.facts().get(WANTED)
    number = int(before.value.get("probe", 0)) + 1 if before else 1
    bench.store.set_fact(WANTED, {"probe": number})
    return Answer(DONE, "The reader was asked to try it now.")


def _see_update(bench: Bench, _values: Mapping[str, Any]) -> Answer:
    if bench.seen.failure is None:
        return Answer(NOTHING, "Somebody has taken note already.")
    state = Slots(bench.board.data_dir, bench.board.worker.bundle).read()
    note_seen(bench.board.data_dir, state)
    return Answer(DONE, "Noted.")


def _see(bench: Bench, values: Mapping[str, Any]) -> Answer:
    code, notes = values.get("code"), bench.seen.notes
    if code not in NOTED:
        return Answer(REFUSED, "Expected news that one can take note of, got something else.")
    mark_of = str(notes.repaired) if code == "issue.database-repaired" else bench.seen.boot_id
    return Answer(DONE, "Noted.", dataclasses.replace(notes, seen={**notes.seen, code: mark_of}))


def _put_off(bench: Bench, values: Mapping[str, Any]) -> Answer:
    code, subject = values.get("code"), values.get("subject", "")
    row = next((row for row in bench.store.issues() if (row.code, row.subject) == (code, subject)), None)
    if row is None:
        return Answer(NOTHING, "It is over already.")
    if row.severity == "critical":
        return Answer(REFUSED, "This one cannot wait.")
    bench.store.put_off_issue(row.code, row.subject, PUT_OFF_S)
    return Answer(DONE, "It is shown again after a day of running time, if it is still so.")


def _retire(bench: Bench, values: Mapping[str, Any]) -> Answer:
    """A machine that is no longer used is not missed, until it sends again."""
    notes, name = bench.seen.notes, values.get("subject")
    row = next((row for row in bench.seen.machines if row.calling_ae == name), None)
    habit = notes.habits.get(row.calling_ae) if row else None
    if row is None or habit is None:
        return Answer(NOTHING, "The box does not know this machine any more.")
    retired = dataclasses.replace(habit, retired_at=row.images)
    return Answer(DONE, "Noted.", dataclasses.replace(notes, habits={**notes.habits, row.calling_ae: retired}))


FIXES: Final[Mapping[str, Fix]] = {
    "storage.clean": _clean,
    "storage.quarantine-clear": _clear_quarantine,
    "clock.use-phone": _use_phone_clock,
    "worker.try-accelerator": _try_accelerator,
    "update.seen": _see_update,
    "issue.seen": _see,
    "issue.put-off": _put_off,
    "modality.retire": _retire,
}
