"""The checks: what is told when, and what is not told. Pure."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from edge.care.issues import checks_box, checks_links, habits
from edge.care.issues.checks import CHECKS, find, opened, tell
from edge.care.issues.fixes import FIXES
from edge.care.issues.habits import DAY_S, Habit, learn, silences
from edge.care.issues.notes import Notes, from_fact, to_fact
from edge.care.issues.seen import Seen, rise
from edge.issue_titles import LCD_COLUMNS, TITLES, title
from edge.store_rows import ModalityRow
from tests.issue_box import (
    AGE_S,
    BOOT,
    NOW_S,
    TROUBLES,
    equipped_board,
    fact,
    healthy,
    lasting,
    machine,
    row,
    service,
    use,
)

pytestmark = pytest.mark.requirement("KEEP-10")


def codes(seen: Seen) -> list[str]:
    return [one.code for one in lasting(seen)]


def passing(seen: Seen, seconds: float, **changed: Any) -> Seen:
    """The box `seconds` later, with what was told up to now; every service has said the same again."""
    rows = seen.services.items()
    services = {name: dataclasses.replace(one, monotonic_s=one.monotonic_s + seconds) for name, one in rows}
    return dataclasses.replace(
        seen, **{"told": tell(seen), "now_s": seen.now_s + seconds, "services": services, **changed}
    )


# --- the table ---


def test_a_healthy_box_has_no_issues() -> None:
    assert lasting(healthy()) == []


@pytest.mark.parametrize("code", TROUBLES)
def test_every_trouble_is_told_and_nothing_else_is(code: str) -> None:
    changed, subject = TROUBLES[code]
    (found,) = lasting(healthy(**changed))
    assert (found.code, found.subject) == (code, subject)


def test_the_table_has_every_code_once_and_a_title_for_each() -> None:
    listed = [check.code for check in CHECKS]
    assert len(set(listed)) == len(listed)
    assert set(listed) == set(TITLES) == set(TROUBLES)


def test_the_document_has_every_code_its_title_and_every_fix(root: Path) -> None:
    document = (root / "docs" / "issues.md").read_text()
    rows = {line.split("|")[1].strip(): line for line in document.splitlines() if line.startswith("| `")}
    assert {f"`{code}`" for code in TITLES} <= set(rows)
    for code, one in TITLES.items():
        assert one.long.split(":")[0].split(";")[0].split(",")[0] in rows[f"`{code}`"]
    assert all(f"`{action}`" in document for action in FIXES)


def test_short_titles_fit_on_a_line_of_the_panel() -> None:
    for one in (*TITLES.values(), title("issue.of-a-later-version")):
        assert one.short.isascii()
        assert 0 < len(one.short) <= LCD_COLUMNS


def test_checks_look_at_nothing_but_what_was_seen() -> None:
    for module in (checks_box, checks_links, habits):
        source = inspect.getsource(module)
        assert not re.search(r"import (time|os|random|datetime)\b|\bopen\(|\bPath\(", source)


# --- lasting and fluttering ---


def test_an_issue_waits_for_its_time_and_is_told_once() -> None:
    seen = healthy(**fact(mqtt={"connected": False}))
    assert find(seen) == []
    seen = passing(seen, 299)
    assert find(seen) == []
    assert [one.code for one in find(passing(seen, 2))] == ["issue.mqtt-lost"]


def test_an_interruption_starts_the_wait_again() -> None:
    away, there = fact(mqtt={"connected": False}), fact(mqtt={"connected": True})
    seen = passing(passing(healthy(**away), 200, **there), 10, **away)
    assert find(passing(seen, 200)) == []
    assert find(passing(passing(seen, 200), 101)) != []


def test_what_flutters_stays_for_its_hold() -> None:
    away, there = fact(mqtt={"connected": False}), fact(mqtt={"connected": True})
    seen = passing(passing(healthy(**away), 301), 1, **there)
    assert find(seen) != []
    assert find(passing(seen, 58)) != []
    assert find(passing(passing(seen, 58), 3)) == []


def test_a_disk_that_goes_up_and_down_by_a_little_is_told_once() -> None:
    seen = passing(passing(healthy(disk=use(90.1)), 61), 1, disk=use(89.95))
    assert [one.code for one in find(seen)] == ["issue.disk-nearly-full"]
    assert find(passing(seen, 1, disk=use(88))) == []


def test_numbers_that_move_a_little_do_not_change_an_issue() -> None:
    one, other = (lasting(healthy(disk=use(95, 100 * 10**9 + more))) for more in (0, 10**7))
    assert one == other


# --- machines ---


def test_a_silence_is_measured_by_the_machines_own_habit() -> None:
    assert codes(healthy(**machine(2.9 * DAY_S, gaps_s=()))) == []
    assert codes(healthy(**machine(3.1 * DAY_S, gaps_s=()))) == ["issue.modality-silent"]
    assert codes(healthy(**machine(3.1 * DAY_S, gaps_s=(2 * DAY_S,)))) == []
    assert codes(healthy(**machine(3.9 * DAY_S, gaps_s=(2 * DAY_S,)))) == []
    (found,) = lasting(healthy(**machine(4.1 * DAY_S, gaps_s=(2 * DAY_S,))))
    assert found.values == {"silent_days": 4}


@pytest.mark.parametrize(
    "changed",
    [
        {"images": 19},
        {"first_age_s": AGE_S - 10 * DAY_S},  # sent for a single day
        {"retired_at": 500},
    ],
)
def test_a_machine_without_a_habit_is_not_missed(changed: dict[str, Any]) -> None:
    assert codes(healthy(**machine(9 * DAY_S))) == ["issue.modality-silent"]
    assert codes(healthy(**machine(9 * DAY_S, **changed))) == []


@pytest.mark.parametrize("name", ["USB-STICK", "GRABBER"])
def test_the_boxs_own_sources_are_no_machines(name: str) -> None:
    rows = [ModalityRow(name, 500, 0.0, 10 * DAY_S, 0.0, BOOT)]
    assert silences({name: Habit(10 * DAY_S)}, rows, AGE_S) == []


def test_habits_are_learnt_from_long_pauses_and_keep_the_last_ones() -> None:
    known: dict[str, Habit] = {}
    at_s = 0.0
    for number in range(60):
        at_s += 600.0 if number % 2 else 5_000.0 + number
        known = learn(known, [ModalityRow("CR1", number, 0.0, at_s, 0.0, BOOT)])
    assert known["CR1"].gaps_s == tuple(5_000.0 + number for number in range(20, 60, 2))
    assert known["CR1"].last_age_s == at_s
    assert learn(known, []) == {}, "forgotten with the store's own row"


def test_a_retired_machine_that_sends_again_is_missed_again() -> None:
    known = {"CR1": Habit(100.0, (), retired_at=7)}
    assert learn(known, [ModalityRow("CR1", 7, 0.0, 100.0, 0.0, BOOT)])["CR1"].retired_at == 7
    assert learn(known, [ModalityRow("CR1", 8, 0.0, 200.0, 0.0, BOOT)])["CR1"].retired_at == -1


@pytest.mark.parametrize(
    ("every", "aborted", "open_before", "told"),
    [
        (10, 2, False, False),  # too few to tell
        (10, 3, False, True),
        (100, 10, False, False),
        (100, 16, True, True),  # leaving needs more than not coming
        (100, 14, True, False),
        (0, 0, True, False),
        (0, 5, False, True),  # aborted ones that were counted first
    ],
)
def test_sending_that_breaks_off(every: int, aborted: int, open_before: bool, told: bool) -> None:
    seen = healthy(recent={"associations": 10, "associations_aborted": 10})
    before = tell(seen) if open_before else {}
    recent = {"associations": every, "associations_aborted": aborted}
    assert bool(find(healthy(recent=recent, told=before))) == told


def test_the_rise_of_totals() -> None:
    assert rise({"a": 5, "b": 2}, {"a": 5, "b": 3, "c": 4}) == {"b": 1, "c": 4}


# --- services ---


def test_a_service_is_silent_after_its_time_and_not_before_care_could_know() -> None:
    gone = service(row("receive", ago_s=61.0))
    assert codes(healthy(**gone)) == ["issue.service-silent"]
    assert codes(healthy(**gone, watched_s=59.0)) == []
    assert codes(healthy(**service(row("receive", ago_s=59.0)))) == []
    assert codes(healthy(**service(row("receive", boot="an earlier one")))) == ["issue.service-silent"]
    missing = {name: one for name, one in healthy().services.items() if name != "worker"}
    assert codes(healthy(services=missing)) == ["issue.service-silent"], "one that never started"


def test_a_silent_service_stays_told_when_care_starts_again() -> None:
    gone = healthy(**service(row("worker", ago_s=900.0)))
    again = dataclasses.replace(gone, watched_s=1.0, told=tell(gone))
    assert [one.code for one in find(again)] == ["issue.service-silent"]
    assert find(dataclasses.replace(again, services=healthy().services)) == []


def test_services_that_the_board_does_not_need_are_not_missed() -> None:
    board = equipped_board()
    bare = dataclasses.replace(
        board,
        panel=dataclasses.replace(board.panel, device=""),
        grabber=dataclasses.replace(board.grabber, source=""),
        mqtt=dataclasses.replace(board.mqtt, host=""),
        printer=dataclasses.replace(board.printer, uri=""),
    )
    only = {name: row(name) for name in ("receive", "worker")}
    assert codes(healthy(board=bare, services=only)) == []
    assert codes(healthy(services=only)) == ["issue.service-silent"] * 3
    for code in (
        "issue.printer",
        "issue.mqtt-lost",
        "issue.outbox-full",
        "issue.grabber-no-signal",
        "issue.panel-lost",
    ):
        assert codes(healthy(**{**TROUBLES[code][0], "board": bare})) == []


def test_vital_services_are_critical() -> None:
    severities = {
        name: lasting(healthy(**service(row(name, ago_s=9_000.0))))[0].severity
        for name in ("receive", "worker", "link", "panel", "capture")
    }
    assert severities == {
        "receive": "critical", "worker": "critical", "link": "warning", "panel": "warning", "capture": "warning",
    }  # fmt: skip


# --- reading, heat, power, restarts ---


def test_a_lost_backend_counts_only_if_the_board_prefers_it() -> None:
    def escalation(at_work: str, **lost: bool) -> dict[str, Any]:
        backend = {name: {"lost": gone} for name, gone in lost.items()}
        return fact(escalation={"at_work": at_work, "order": ["a", "b", "c"], "backend": backend})

    assert [one.subject for one in lasting(healthy(**escalation("b", a=True, c=True)))] == ["a"]
    building = {"a": {"lost": True, "code": "backend.not-built"}}
    facts = fact(escalation={"at_work": "b", "order": ["a", "b"], "backend": building})
    assert lasting(healthy(**facts)) == [], "an engine that is being built is not lost"
    assert lasting(healthy(**escalation("a", a=False, b=True))) == []
    assert lasting(healthy(**escalation("", a=True))) == [], "the worker says that the AI is paused"
    degraded = service(row("worker", "degraded", "backend.absent"))
    assert [one.subject for one in lasting(healthy(**degraded))] == [""]
    assert lasting(healthy(**service(row("worker", "degraded", "worker.earlier-model")))) == []


def test_heat_is_told_once() -> None:
    hot = {**TROUBLES["issue.too-hot"][0], **service(row("worker", "paused", "worker.too-hot"))}
    assert codes(healthy(**hot)) == ["issue.too-hot"]
    throttled = fact(hardware={"throttled": True, "temperatures_c": {"cpu": 82.4, "board": 60.0}})
    (found,) = lasting(healthy(**throttled))
    assert (found.code, found.values) == ("issue.throttling", {"hottest_c": 80})


def test_weak_power_now_is_a_warning_and_earlier_is_news() -> None:
    for flags, severity in (
        ({"undervoltage": True}, "warning"),
        ({"overcurrent": True}, "warning"),
        ({"undervoltage_since_boot": True}, "info"),
    ):
        assert [one.severity for one in lasting(healthy(**fact(hardware=flags)))] == [severity]


def test_storage_that_is_worn_out_is_critical() -> None:
    worn = fact(hardware={"wear_percent": {"a": 79.0, "b": 80.0, "c": 100.0}})
    assert [(one.subject, one.severity) for one in lasting(healthy(**worn))] == [("b", "warning"), ("c", "critical")]


@pytest.mark.parametrize(
    ("reason", "told"), [("watchdog", True), ("panic", True), ("crash", True), ("power-on", False), ("reboot", False)]
)
def test_a_restart_is_told_if_it_was_the_boxs_own_until_a_person_took_note(reason: str, told: bool) -> None:
    start = fact(boot={"reason": reason})
    assert bool(lasting(healthy(**start))) == told
    assert lasting(healthy(**start, notes=Notes(seen={"issue.watchdog-reset": BOOT}))) == []
    assert bool(lasting(healthy(**start, notes=Notes(seen={"issue.watchdog-reset": "earlier"})))) == told


def test_another_repair_is_told_again() -> None:
    noted = {"issue.database-repaired": "17"}
    assert lasting(healthy(notes=Notes(repaired=17, seen=noted))) == []
    assert len(lasting(healthy(notes=Notes(repaired=18, seen=noted)))) == 1


def test_a_printer_that_will_soon_need_something_can_wait() -> None:
    def printing(state: str, *reasons: str) -> dict[str, Any]:
        return fact(printer={"state": state, "reasons": list(reasons), "message": "x"})

    assert lasting(healthy(**printing("idle", "toner-low", "media-low"))) == []
    assert len(lasting(healthy(**printing("idle", "toner-low", "door-open")))) == 1
    assert len(lasting(healthy(**printing("offline")))) == 1


def test_a_picture_that_a_person_froze_is_no_trouble() -> None:
    told = {
        state
        for state in ("ok", "frozen", "starting", "stale", "no-signal", "geometry")
        if codes(healthy(**fact(grabber={"state": state})))
    }
    assert told == {"starting", "stale", "no-signal", "geometry"}


def test_a_panel_that_answers_with_errors_is_there() -> None:
    assert codes(healthy(**service(row("panel", "degraded", "panel.noise")))) == []


def test_facts_that_say_nothing_are_no_trouble() -> None:
    assert lasting(healthy(facts={})) == []


# --- notes ---


def test_notes_come_back_as_they_were() -> None:
    notes = Notes({"CR1": Habit(5.0, (4_000.0, 7_200.0), 3)}, {"issue.watchdog-reset": "x"}, 12)
    assert from_fact(to_fact(notes)) == notes
    assert from_fact({"habits": {}, "seen": {}, "repaired": 0}) == Notes({}, {}, 0)
    for strange in ({}, {"habits": [], "seen": {}, "repaired": 1}, {"habits": {"a": {}}, "seen": {}, "repaired": 1}):
        assert from_fact(strange) == Notes()


def test_told_is_carried_from_look_to_look() -> None:
    seen = healthy(**TROUBLES["issue.too-hot"][0])
    later = passing(seen, 500)
    ((_, one),) = tell(later).items()
    assert (one.first_s, one.last_s, one.raised) == (NOW_S, NOW_S + 500, True)
    assert opened(tell(later)) == find(later)
