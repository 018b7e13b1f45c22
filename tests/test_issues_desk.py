"""The issue desk over a real store: what it writes, how little, and what it does when a person asks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge.board import Board
from edge.board_keys import MIB
from edge.care import clock
from edge.care.issues import desk as desk_module
from edge.care.issues import fixes, seen
from edge.care.issues.desk import LOOK_EVERY_S, IssueDesk
from edge.care.issues.fixes import FIXES
from edge.care.issues.habits import DAY_S
from edge.care.issues.notes import Notes
from edge.durable import DiskUse
from edge.service_limits import SILENT_AFTER_S
from edge.slots import FACTORY_STATE, Slots, activate, crashed
from edge.store import Store, boot_id, open_store
from edge.update_seen import seen_mark
from tests.care_box import board_of, put_draft, put_expired

pytestmark = pytest.mark.requirement("KEEP-10")


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return board_of(tmp_path, retention_days=0.0)


@pytest.fixture
def store(board: Board) -> Iterator[Store]:
    with closing(open_store(board.data_dir)) as opened:
        opened.tick_age()
        for name in ("receive", "worker", "care"):
            opened.set_service(name, "ok", "", "")
        yield opened


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how many percent of the disk are used, as care and the fixes see it."""

    def use(percent: float) -> None:
        size = 100_000 * MIB
        used = int(size * percent / 100)
        for module in (seen, fixes):
            monkeypatch.setattr(module, "disk_use", lambda _path: DiskUse(size, used, size - used))

    use(50)
    return use


@pytest.fixture
def calm(disk: Callable[[float], None]) -> None:
    """A disk with room."""


def later(desk: IssueDesk, seconds: float = LOOK_EVERY_S) -> None:
    """The next step is due, and what was told has been so for `seconds` more."""
    desk._looked_s -= LOOK_EVERY_S
    desk._told = {key: dataclasses.replace(one, first_s=one.first_s - seconds) for key, one in desk._told.items()}


def told(store: Store) -> list[str]:
    return [row.code for row in store.issues()]


def events(store: Store) -> list[str]:
    return [event.code for event in store.events()]


def ask(store: Store, desk: IssueDesk, action: str, **values: Any) -> tuple[str, str]:
    """A person presses a button; what care answers."""
    key = store.ask(action, values)
    desk.step()
    row = store.request(key)
    assert row is not None
    return row.code, row.message


# --- looking ---


def test_an_issue_comes_stays_and_goes(board: Board, store: Store, disk: Callable[[float], None]) -> None:
    desk = IssueDesk(board, store)
    desk.step()
    assert told(store) == []
    disk(99.9)
    desk.step()
    assert told(store) == [], "it looks every ten seconds"
    later(desk)
    desk.step()
    (row,) = store.issues()
    assert (row.code, row.severity) == ("issue.disk-full", "critical")
    later(desk)
    desk.step()
    assert store.issues() == [row]
    disk(50)
    later(desk)
    desk.step()
    assert told(store) == []
    assert events(store) == ["issue.disk-full", "issue.disk-full"]
    assert store.events()[0].message.startswith("Over: ")


def test_nothing_is_written_while_nothing_changes(
    board: Board, store: Store, disk: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(99.9)
    desk = IssueDesk(board, store)
    desk.step()

    def forbidden(*_: object) -> None:
        raise AssertionError("expected no write")

    for name in ("set_issues", "set_fact", "add_event"):
        monkeypatch.setattr(Store, name, forbidden)
    for _ in range(5):
        later(desk)
        desk.step()


def test_a_restart_of_care_keeps_an_issue_and_its_time(
    board: Board, store: Store, disk: Callable[[float], None]
) -> None:
    disk(95)
    desk = IssueDesk(board, store)
    desk.step()
    later(desk, 61)
    desk.step()
    (before,) = store.issues()
    assert before.code == "issue.disk-nearly-full"
    IssueDesk(board, store).step()
    assert store.issues() == [before]
    assert events(store).count("issue.disk-nearly-full") == 1


def test_facts_of_an_earlier_boot_and_of_a_silent_service_count_for_nothing(
    board: Board, store: Store, calm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gatherer = seen.Gatherer(board, store)
    store.set_fact("thermal", {"state": "pause"})
    store.set_fact("mqtt", {"connected": False})
    store.set_service("link", "ok", "", "")
    look = gatherer.look(Notes(), {})
    assert set(look.facts) == {"thermal", "mqtt"}
    monkeypatch.setattr(seen, "SILENT_AFTER_S", {**SILENT_AFTER_S, "link": -1.0})
    assert set(gatherer.look(Notes(), {}).facts) == {"thermal"}
    gatherer._boot_id = "another boot"
    assert gatherer.look(Notes(), {}).facts == {}


def test_totals_rise_within_the_window_only(
    board: Board, store: Store, calm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_counts({"associations": 100})
    gatherer, now_s = seen.Gatherer(board, store), 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)

    def rise() -> int:
        return gatherer.look(Notes(), {}).recent.get("associations", 0)

    assert rise() == 0, "what was before this start is no news"
    store.add_counts({"associations": 5})
    assert rise() == 5
    for _ in range(70):
        now_s += 61
        last = rise()
    assert last == 0
    assert len(gatherer._window) <= 61


def test_a_repair_is_told_until_a_person_took_note_also_after_a_restart(board: Board, store: Store, calm: None) -> None:
    store.add_event("storage.repaired", "Rebuilt.")
    store.set_service("care", "degraded", "storage.repaired", "Rebuilt.")
    desk = IssueDesk(board, store)
    desk.step()
    store.set_service("care", "ok", "", "")
    again = IssueDesk(board, store)
    again.step()
    assert told(store) == ["issue.database-repaired"]
    assert ask(store, again, "issue.seen", code="issue.database-repaired", subject="") == ("fix.done", "Noted.")
    assert told(store) == []
    IssueDesk(board, store).step()
    assert told(store) == []


def test_the_habits_of_machines_outlive_a_restart(board: Board, store: Store, calm: None) -> None:
    put_draft(board.data_dir, store, 1)
    desk = IssueDesk(board, store)
    desk.step()
    later(desk)
    desk._noted_s -= 4_000.0
    desk.step()
    again = IssueDesk(board, store)
    assert set(again._notes.habits) == {"CR1"}


# --- fixing ---


def test_making_room_runs_retention(board: Board, store: Store, disk: Callable[[float], None]) -> None:
    disk(95)
    gone, _ = put_expired(board.data_dir, store, 1)
    kept, _ = put_draft(board.data_dir, store, 2)
    desk = IssueDesk(board, store)
    code, message = ask(store, desk, "storage.clean", code="issue.disk-nearly-full", subject="")
    assert code == "fix.done"
    assert "studies that another machine keeps: 1" in message
    assert store.study(gone) is None
    assert store.study(kept) is not None
    assert ask(store, desk, "storage.clean")[0] == "fix.nothing"
    assert events(store)[:2] == ["fix.nothing", "fix.done"]


def test_the_older_half_of_the_quarantine_goes(board: Board, store: Store, calm: None) -> None:
    folder = board.data_dir / "quarantine"
    folder.mkdir(parents=True)
    for number in range(4):
        name = f"{number:064x}"
        (folder / f"{name}.bin").write_bytes(b"x" * 1000)
        store.add_quarantine(name, 1000, f"quarantine/{name}.bin", "dicom.malformed", "Bad.", "CR1")
    desk = IssueDesk(board, store)
    assert ask(store, desk, "storage.quarantine-clear")[0] == "fix.done"
    assert len(store.quarantine()) == len(list(folder.iterdir())) == 2
    assert store.quarantine()[0].sha256 == f"{3:064x}", "the newest stay"
    ask(store, desk, "storage.quarantine-clear")
    assert ask(store, desk, "storage.quarantine-clear")[0] == "fix.done"
    assert ask(store, desk, "storage.quarantine-clear") == ("fix.nothing", "There are no unreadable files on this box.")


class Clocks:
    """A clock that may be set, in the place of the machine's."""

    def __init__(self) -> None:
        self.set_to: list[float] = []

    def set_time(self, unix_s: float) -> None:
        self.set_to.append(unix_s)

    def set_rtc(self, unix_s: float) -> bool:
        return True


def test_the_clock_follows_the_phone_by_what_passed_since_the_tap(board: Board, store: Store, calm: None) -> None:
    desk, clocks, unix_s = IssueDesk(board, store), Clocks(), 1_900_000_000.0
    key = store.ask("clock.use-phone", {"code": "issue.clock-unset", "subject": "", "unix_s": unix_s})
    tapped_s = time.monotonic()
    time.sleep(0.2)
    desk.step()
    desk.step()
    row = store.request(key)
    assert row is not None
    assert row.code == "", "care itself may not set a clock: it waits for the unit that may"
    clock.serve_request(board.data_dir, clocks, wall=lambda: 0.0, synchronised=lambda: False)
    (set_to,) = clocks.set_to
    assert set_to == pytest.approx(unix_s + time.monotonic() - tapped_s, abs=0.1)
    desk.step()
    row = store.request(key)
    assert row is not None
    assert (row.code, row.message) == ("fix.done", "The clock was set.")
    assert not desk._waiting


def test_a_clock_that_nobody_sets_is_told(
    board: Board, store: Store, calm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = IssueDesk(board, store)
    key = store.ask("clock.use-phone", {"unix_s": 1_900_000_000.0})
    desk.step()
    monkeypatch.setattr(fixes, "CLOCK_WAIT_S", 0.0)
    desk.step()
    row = store.request(key)
    assert row is not None
    assert row.code == "fix.failed"


@pytest.mark.parametrize(
    "values", [{}, {"unix_s": "now"}, {"unix_s": True}, {"unix_s": 0.0}, {"unix_s": 1e18}, {"unix_s": None}]
)
def test_a_time_that_is_none_is_refused(board: Board, store: Store, calm: None, values: dict[str, Any]) -> None:
    assert ask(store, IssueDesk(board, store), "clock.use-phone", **values)[0] == "fix.refused"


def test_a_right_clock_is_left_alone(board: Board, store: Store, calm: None) -> None:
    desk = IssueDesk(board, store)
    key = store.ask("clock.use-phone", {"unix_s": 1_900_000_000.0})
    desk.step()
    clock.serve_request(board.data_dir, Clocks(), wall=lambda: 1_900_000_000.0, synchronised=lambda: True)
    desk.step()
    row = store.request(key)
    assert row is not None
    assert row.code == "fix.nothing"


def test_the_worker_is_asked_to_try_each_time(board: Board, store: Store, calm: None) -> None:
    desk = IssueDesk(board, store)
    for number in (1, 2):
        assert ask(store, desk, "worker.try-accelerator")[0] == "fix.done"
        assert store.facts()["wanted"].value == {"probe": number}


def test_a_failure_of_a_model_is_noted_for_the_model_page_too(board: Board, store: Store, calm: None) -> None:
    slots = Slots(board.data_dir, board.worker.bundle)
    slots.change(lambda _state: crashed(activate(FACTORY_STATE, "a" * 64), 1))
    desk = IssueDesk(board, store)
    desk.step()
    assert told(store) == ["issue.update-rolled-back"]
    assert ask(store, desk, "update.seen")[0] == "fix.done"
    assert told(store) == []
    assert seen_mark(board.data_dir)
    assert ask(store, desk, "update.seen")[0] == "fix.nothing"


def test_not_now_lasts_a_day_of_running_time_and_never_for_what_is_critical(
    board: Board, store: Store, disk: Callable[[float], None]
) -> None:
    store.set_fact("boot", {"reason": "panic"})
    disk(99.9)
    desk = IssueDesk(board, store)
    desk.step()
    assert set(told(store)) == {"issue.disk-full", "issue.watchdog-reset"}
    assert ask(store, desk, "issue.put-off", code="issue.disk-full", subject="")[0] == "fix.refused"
    assert ask(store, desk, "issue.put-off", code="issue.watchdog-reset", subject="")[0] == "fix.done"
    assert ask(store, desk, "issue.put-off", code="issue.wear", subject="")[0] == "fix.nothing"
    until = {row.code: row.put_off_until_age_s for row in store.issues()}
    assert until["issue.watchdog-reset"] == pytest.approx(store.age_s() + DAY_S)
    assert until["issue.disk-full"] == 0


def test_a_machine_that_is_not_used_any_more_is_not_missed(board: Board, store: Store, calm: None) -> None:
    put_draft(board.data_dir, store, 1)
    desk = IssueDesk(board, store)
    assert ask(store, desk, "modality.retire", code="issue.modality-silent", subject="CR1")[0] == "fix.done"
    assert ask(store, desk, "modality.retire", code="issue.modality-silent", subject="CR9")[0] == "fix.nothing"
    assert IssueDesk(board, store)._notes.habits["CR1"].retired_at == 1


def test_news_that_cannot_be_noted_is_refused(board: Board, store: Store, calm: None) -> None:
    for code in ("issue.disk-full", "", None, ["issue.watchdog-reset"]):
        assert ask(store, IssueDesk(board, store), "issue.seen", code=code)[0] == "fix.refused"


@pytest.mark.parametrize("action", ["box.restart-service", "storage.clean ", "", "__class__", "issue.delete"])
def test_what_is_not_in_the_table_is_never_done(board: Board, store: Store, calm: None, action: str) -> None:
    assert action not in FIXES
    assert ask(store, IssueDesk(board, store), action) == ("", "")
    assert events(store) == []


def test_an_old_wish_is_not_done_any_more(
    board: Board, store: Store, calm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "TOO_LATE_S", -1.0)
    assert ask(store, IssueDesk(board, store), "worker.try-accelerator")[0] == "fix.too-late"
    assert "wanted" not in store.facts()


def test_a_wish_of_an_earlier_boot_is_not_done_any_more(board: Board, store: Store, calm: None) -> None:
    store._boot_id = "an earlier boot"
    key = store.ask("worker.try-accelerator", {})
    store._boot_id = boot_id()
    IssueDesk(board, store).step()
    row = store.request(key)
    assert row is not None
    assert row.code == "fix.too-late"


def test_a_fix_that_breaks_is_answered(board: Board, store: Store, calm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise clock.Refused("expected a working disk, got none", code="storage.failed")

    monkeypatch.setattr(fixes, "trim_quarantine", broken)
    code, message = ask(store, IssueDesk(board, store), "storage.quarantine-clear")
    assert code == "fix.failed"
    assert message.endswith("[storage.failed]")
