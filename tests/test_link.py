"""What the link tells: topics and payloads are closed; the service with a printer, and one that stands still."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.box_words import STATES
from edge.care.box_state import Moment
from edge.errors import ConfigError
from edge.link import discovery, service, topics
from edge.link.snapshot import Snapshot, take, version
from edge.link.topics import UNLISTED, box_id, slug, word
from edge.service import Stop
from edge.store import IssueRow, ServiceRow, Store, boot_id, open_store
from tests.health_store import AGE_S, HARDWARE, stocked
from tests.mqtt_peer import until
from tests.page_store import page_board
from tests.printer_peer import NEEDS_PRINTER, printing


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A box with all that can be told."""
    _, opened = stocked(tmp_path, 1)
    yield opened
    opened.close()


def seen(store: Store) -> Snapshot:
    return take(store, boot_id(), time.monotonic() - 1000)


# --- words ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("issue.disk-full", "issue.disk-full"),
        ("mqtt.not-allowed", "mqtt.not-allowed"),
        ("0.2.0+abc", "0.2.0+abc"),
        ("images_received", "images_received"),
        ("MUELLER^ANNA", UNLISTED),
        ("Mueller", UNLISTED),
        ("anna mueller", UNLISTED),
        ("issue.\n", UNLISTED),
        ("a" * 65, UNLISTED),
        ("мюллер", UNLISTED),
    ],
)
def test_only_words_of_this_program_pass(text: str, expected: str) -> None:
    assert word(text) == expected


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=100))
def test_every_sensor_name_becomes_a_word(text: str) -> None:
    assert word(slug(text)) == slug(text) != ""


def test_the_box_has_a_short_name_that_tells_nothing(tmp_path: Path) -> None:
    file = tmp_path / "machine-id"
    file.write_text("0123456789abcdef0123456789abcdef\n")
    first = box_id(file)
    assert len(first) == 12
    assert first == box_id(file)
    assert first[:8] not in file.read_text()
    file.write_text("1123456789abcdef0123456789abcdef\n")
    assert box_id(file) != first


@pytest.mark.parametrize("content", [None, b"", b"uninitialized\n", b"\xff" * 32, b"0123456789ABCDEF0123456789ABCDEF"])
def test_a_machine_without_a_name_stops_the_link_with_a_sentence(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "machine-id"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="expected /etc/machine-id") as error:
        box_id(file)
    assert error.value.code == "link.machine-id"


# --- payloads ---


@pytest.mark.requirement("KEEP-12")
def test_health_is_what_the_page_says(store: Store) -> None:
    told = json.loads(topics.payload(topics.health(seen(store), version())))
    assert told["state"] == "attention"
    assert told["box_age_s"] == AGE_S
    assert told["waiting"] == 2
    assert told["issue_count"] == 2
    assert told["issues"][0] == {
        "code": "issue.printer", "severity": "warning", "title": "Printer problem", "since_box_age_s": AGE_S,
    }  # fmt: skip
    assert told["services"] == {
        "receive": {"state": "ok", "code": ""},
        "worker": {"state": "degraded", "code": "backend.absent"},
    }
    assert (told["printer"], told["clock"]) == ("idle", "set")


def test_a_silent_service_is_told_as_silent(store: Store) -> None:
    before = seen(store)
    later = dataclasses.replace(before, moment=dataclasses.replace(before.moment, now_s=before.moment.now_s + 100))
    assert topics.health(later, "1").services["receive"].state == "silent"
    assert topics.health(later, "1").services["worker"].state == "degraded"  # it may be silent while it reads
    other_boot = dataclasses.replace(before, moment=dataclasses.replace(before.moment, boot_id="another"))
    assert topics.health(other_boot, "1").services["worker"].state == "silent"


def test_time_alone_is_no_news(store: Store) -> None:
    health = topics.health(seen(store), "1")
    assert topics.same_health(dataclasses.replace(health, box_age_s=1), health)
    assert not topics.same_health(dataclasses.replace(health, waiting=7), health)
    assert not topics.same_health(health, None)


def test_hardware_is_rounded_and_complete(store: Store) -> None:
    told = json.loads(topics.payload(topics.hardware(seen(store))))
    assert told["hottest_c"] == 61.2
    assert told["temperatures_c"] == {"cpu": 61.2, "package-id-0": 58.0}
    assert told["accelerators"] == {"dev-hailo0": False}
    assert (told["throttled"], told["undervoltage"], told["power"]) == (True, False, "mains")
    assert told["free_bytes"] == HARDWARE["free_bytes"]


def test_what_was_not_measured_is_null(tmp_path: Path) -> None:
    opened = open_store(tmp_path)
    told = json.loads(topics.payload(topics.hardware(seen(opened))))
    counters = json.loads(topics.payload(topics.counters(seen(opened))))
    opened.close()
    assert told["hottest_c"] is None
    assert told["throttled"] is None
    assert counters["totals"] == {}
    assert counters["studies"]["queued"] == 0


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES_OF_FACTS = ("hardware", "clock", "printer", "mqtt")
NAMES_OF_VALUES = (
    "temperatures_c",
    "wear_percent",
    "accelerators",
    "throttled",
    "free_bytes",
    "power",
    "state",
    "clock",
)


@settings(
    derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)  # a busy machine is no failure
@given(
    st.dictionaries(st.sampled_from(NAMES_OF_FACTS), st.dictionaries(st.sampled_from(NAMES_OF_VALUES), JUNK)),
    st.text(max_size=20),
)
def test_nothing_but_numbers_and_words_can_be_told(facts: dict[str, dict[str, object]], text: str) -> None:
    """Whatever stands in the store, every leaf of every payload is a number, a flag, a word or a title."""
    moment = Moment(100.0, "boot", 50.0, 50.0)
    row = IssueRow(text, text, "info", {"name": text}, 1.0, "boot", 1.0, 1.0, 0.0)
    snapshot = Snapshot(
        moment, "ready", (ServiceRow(text, "ok", text, text, 1.0, "boot"),), (row,), {"queued": 1}, {text: 1}, facts
    )
    health, counters = topics.health(snapshot, text), topics.counters(snapshot)
    for told in (health, counters, topics.hardware(snapshot), topics.issue(row, snapshot)):
        for leaf in leaves(json.loads(topics.payload(told))):
            assert leaf is None or isinstance(leaf, bool | int | float) or leaf in ALLOWED or word(str(leaf)) == leaf


ALLOWED = ("Box needs a look",)


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one)
    else:
        yield value


def test_an_issue_has_one_name_as_long_as_it_stays(store: Store) -> None:
    first, second = store.issues()
    assert topics.issue_key(first) == topics.issue_key(store.issues()[0])
    assert topics.issue_key(first) != topics.issue_key(second)
    assert topics.issue_key(dataclasses.replace(first, since_monotonic_s=0.5)) != topics.issue_key(first)


def test_home_assistant_is_told_where_everything_is(store: Store) -> None:
    told = discovery.messages("radbox", "abc", "0.2.0")
    snapshot = seen(store)
    payloads = {
        topics.HEALTH: topics.payload(topics.health(snapshot, "1")),
        topics.COUNTERS: topics.payload(topics.counters(snapshot)),
        topics.HARDWARE: topics.payload(topics.hardware(snapshot)),
    }
    assert len(told) == len(discovery.ENTITIES)
    for topic, text in told.items():
        config = json.loads(text)
        assert topic.startswith("homeassistant/")
        assert topic.endswith(f"/{config['unique_id'].removeprefix('radbox_abc_')}/config")
        key = config["value_template"].split("value_json.")[1].split()[0].split("|")[0]
        value = json.loads(payloads[config["state_topic"].rpartition("/")[2]])
        for part in key.split("."):
            value = value[part]
    states = json.loads(told["homeassistant/sensor/radbox_abc/state/config"])
    assert tuple(states["options"]) == STATES


# --- the service ---


def run_until(board: object, found: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the service until `found()`."""
    monkeypatch.setattr(service, "STEP_S", 0.05)
    stop = Stop(signals=False)
    thread = threading.Thread(target=service.run, args=(board, stop))
    thread.start()
    try:
        until(found)  # type: ignore[arg-type]
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


@NEEDS_PRINTER
def test_the_printer_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PRINTER_EVERY_S", 0.05)
    (tmp_path / "printer").mkdir()
    board = page_board(tmp_path / "data", 1)
    opened = open_store(board.data_dir)

    def fact() -> dict[str, object]:
        row = opened.facts().get("printer")
        return row.value if row else {}

    with printing(tmp_path / "printer") as peer:
        board = dataclasses.replace(board, printer=dataclasses.replace(board.printer, uri=peer.uri))
        run_until(board, lambda: fact().get("state") == "idle", monkeypatch)
        assert fact() == {"state": "idle", "reasons": [], "message": "", "code": ""}
        peer.form("supplies?supply0=25&supply1=0")
        run_until(board, lambda: fact().get("reasons") == ["toner-empty"], monkeypatch)
        assert fact()["message"] == "Toner or ink is empty."
    run_until(board, lambda: fact().get("state") == "offline", monkeypatch)
    (row,) = opened.services()
    opened.close()
    assert (row.name, row.state, row.code) == ("link", "ok", "")


@pytest.mark.requirement("KEEP-02")
def test_a_part_that_stands_still_keeps_the_watchdog_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    told: list[str] = []
    monkeypatch.setattr(service, "notify", told.append)
    board = page_board(tmp_path, 1)
    board = dataclasses.replace(board, printer=dataclasses.replace(board.printer, uri=f"ipp://127.0.0.1:{free_port}/"))
    run_until(board, lambda: "WATCHDOG=1" in told, monkeypatch)
    assert (told[0], told[-1]) == ("READY=1", "STOPPING=1")
    told.clear()
    monkeypatch.setattr(service, "STUCK_S", -1.0)
    opened = open_store(tmp_path)
    start_s = time.monotonic()

    def said_again() -> bool:
        return any(row.monotonic_s > start_s for row in opened.services())

    run_until(board, said_again, monkeypatch)
    opened.close()
    assert "WATCHDOG=1" not in told


def test_a_part_that_breaks_ends_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(service, "_watch_printer", broken)
    board = page_board(tmp_path, 1)
    board = dataclasses.replace(board, printer=dataclasses.replace(board.printer, uri="ipp://127.0.0.1/"))
    monkeypatch.setattr(service, "STEP_S", 0.05)
    with pytest.raises(ValueError, match="broken"):
        service.run(board, Stop(signals=False))
