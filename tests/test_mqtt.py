"""The link over MQTT against a real mosquitto: TLS, passwords, last will, and nothing lost when either side dies."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edge.board import Board
from edge.link import mqtt, reporter, service
from edge.link.mqtt import Pauses
from edge.link.topics import box_id
from edge.service import Stop
from edge.store import IssueFacts, Store, open_store
from tests.mqtt_peer import BOX_PASSWORD, NEEDS_BROKER, Listener, Peer, broker, listening, make_authority, until

pytestmark = NEEDS_BROKER

CODES = ("issue.disk-full", "issue.clock-unset", "issue.printer", "issue.wear", "issue.weak-power", "issue.too-hot")


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    """A broker of the test's own."""
    folder = tmp_path / "broker"
    folder.mkdir()
    with broker(folder) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The box's store."""
    opened = open_store(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that looks often and pauses shortly."""
    monkeypatch.setattr(service, "STEP_S", 0.05)
    monkeypatch.setattr(mqtt, "STEP_S", 0.05)
    monkeypatch.setattr(mqtt, "SHORTEST_PAUSE_S", 0.1)
    monkeypatch.setattr(mqtt, "LONGEST_PAUSE_S", 0.3)


@contextmanager
def linked(board: Board) -> Iterator[None]:
    """The service in a thread of this process."""
    stop = Stop(signals=False)
    thread = threading.Thread(target=service.run, args=(board, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


@contextmanager
def link_process(board: Board, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The service in a process of its own, as on a box."""
    code = (
        "import sys, pathlib, dataclasses\n"
        "from edge.board import load_board\n"
        "from edge.link import service, mqtt\n"
        "from edge.service import Stop, setup_logging\n"
        "service.STEP_S = mqtt.STEP_S = 0.05; mqtt.SHORTEST_PAUSE_S = 0.1; mqtt.LONGEST_PAUSE_S = 0.3\n"
        "setup_logging('link')\n"
        "service.run(load_board(pathlib.Path(sys.argv[1])), Stop())\n"
    )
    file = folder / "board.toml"
    sim = (Path(__file__).resolve().parent.parent / "board_configs" / "sim.toml").read_text().partition("[mqtt]")[0]
    values = {name: value for name, value in dataclasses.asdict(board.mqtt).items() if value != ""}
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
    sim = sim.replace('"var/sim"', json.dumps(str(board.data_dir)))
    file.write_text(f"{sim}\n[mqtt]\n{lines}\n")
    process = subprocess.Popen([sys.executable, "-c", code, str(file)])
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def raise_issues(store: Store, *codes: str) -> None:
    store.set_issues([IssueFacts(code, "", "warning") for code in codes])


def issues(heard: Listener) -> list[str]:
    """Codes of the news, each message once (QoS 1 may deliver one twice)."""
    found = [json.loads(text) for text in heard.all("issue")]
    return [one["code"] for one in {one["id"]: one for one in found}.values()]


def waiting(store: Store, number: int) -> bool:
    return len(store.outbox()) == number


def told(store: Store) -> dict[str, Any]:
    """The fact `mqtt`."""
    row = store.facts().get("mqtt")
    return row.value if row else {}


def link_code(store: Store) -> str:
    return next((row.code for row in store.services() if row.name == "link"), "")


def test_the_box_says_how_it_is_and_goodbye(peer: Peer, store: Store) -> None:
    store.add_counts({"images_received": 7})
    store.set_fact("hardware", {"temperatures_c": {"Package id 0": 51.26}, "throttled": False, "free_bytes": 10**9})
    store.set_service("receive", "ok", "", "MUELLER^ANNA sent something")
    raise_issues(store, "issue.printer")
    with listening(peer) as heard:
        with linked(peer.board()):
            until(lambda: issues(heard) and heard.last("hardware") and heard.last("counters"), "messages")
            assert heard.last("status") == "online"
            until(lambda: told(store).get("connected") is True, "fact")
        until(lambda: heard.last("status") == "offline", "goodbye")
    topic = f"radbox/{box_id()}/health"
    health = json.loads(dict(heard.messages)[topic])
    assert health["issues"] == [
        {"code": "issue.printer", "severity": "warning", "title": "Printer problem", "since_box_age_s": 0}
    ]
    assert health["services"]["receive"] == {"state": "ok", "code": ""}
    assert json.loads(heard.last("counters") or "")["totals"]["images_received"] == 7
    assert json.loads(heard.last("hardware") or "")["temperatures_c"] == {"package-id-0": 51.3}
    assert "MUELLER" not in str(heard.messages)
    assert store.outbox() == []
    assert link_code(store) == ""


def _configs(heard: Listener) -> dict[str, Any]:
    """What Home Assistant was told, by topic."""
    return {name: json.loads(text) for name, text in heard.messages if name.startswith("homeassistant/")}


def test_state_is_retained_for_those_who_come_later(peer: Peer, store: Store) -> None:
    with linked(peer.board(home_assistant=True)):
        until(lambda: told(store).get("connected"), "connection")
        with listening(peer) as heard:
            until(lambda: all(heard.last(name) for name in ("status", "health", "counters", "hardware")), "state")
            until(lambda: len(_configs(heard)) >= 10, "announcements")
            configs = _configs(heard)
    assert len(configs) == 10
    state = configs[f"homeassistant/sensor/radbox_{box_id()}/state/config"]
    assert state["state_topic"] == f"radbox/{box_id()}/health"
    assert state["availability_topic"] == f"radbox/{box_id()}/status"
    for config in configs.values():
        assert config["state_topic"] in {name for name, _ in heard.messages}


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("password", "mqtt.password"),
        ("no password file", "mqtt.password-file"),
        ("unknown CA", "mqtt.certificate"),
        ("wrong name", "mqtt.certificate"),
        ("no CA file", "mqtt.ca-file"),
        ("no TLS", "mqtt.lost"),
        ("no broker", "mqtt.unreachable"),
        ("not allowed", "mqtt.not-allowed"),
    ],
)
@pytest.mark.requirement("SEC-08")
def test_what_keeps_the_broker_away_is_told(peer: Peer, store: Store, tmp_path: Path, case: str, code: str) -> None:
    (tmp_path / "wrong").write_text("not the secret")
    changes: dict[str, dict[str, object]] = {
        "password": {"password_file": str(tmp_path / "wrong")},
        "no password file": {"password_file": str(tmp_path / "absent")},
        "unknown CA": {"ca_file": str(make_authority(tmp_path / "stranger", "radbox test CA"))},
        "wrong name": {"host": "localhost"},
        "no CA file": {"ca_file": str(tmp_path / "absent")},
        "no TLS": {"tls": False},
        "no broker": {"port": 1},
        "not allowed": {"topic": "elsewhere"},
    }
    raise_issues(store, "issue.printer")
    with listening(peer) as heard, linked(peer.board(**changes[case])):
        until(lambda: link_code(store) == code, code)
        until(lambda: told(store).get("connected") is False, "fact")
    assert [name for name, _ in heard.messages if name.endswith("/issue")] == []
    assert len(store.outbox()) == 1
    (row,) = [row for row in store.services() if row.name == "link"]
    assert row.state == "degraded"
    assert row.message.startswith(mqtt.TROUBLE[code])


@pytest.mark.requirement("SEC-08")
def test_a_credential_of_systemd_comes_before_the_file(
    peer: Peer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / mqtt.CREDENTIAL).write_text(BOX_PASSWORD + "\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "wrong").write_text("not the secret")
    with linked(peer.board(password_file=str(tmp_path / "wrong"))):
        until(lambda: told(store).get("connected"), "connection")


def test_the_last_will_speaks_for_a_service_that_was_killed(peer: Peer, store: Store, tmp_path: Path) -> None:
    board = peer.board()
    with listening(peer) as heard, link_process(board, tmp_path) as process:
        until(lambda: heard.last("status") == "online", "online")
        process.send_signal(signal.SIGKILL)
        until(lambda: heard.last("status") == "offline", "last will")


def test_nothing_is_lost_when_the_broker_dies(peer: Peer, store: Store) -> None:
    with listening(peer) as heard, linked(peer.board()):
        raise_issues(store, CODES[0])
        until(lambda: len(issues(heard)) == 1, "news")
        raise_issues(store, *CODES[:2])
        until(lambda: len(issues(heard)) == 2, "news")
        until(lambda: not store.outbox(), "acknowledgement")
        peer.kill()
        until(lambda: link_code(store) in ("mqtt.lost", "mqtt.unreachable"), "loss")
        for number in range(2, len(CODES)):
            raise_issues(store, *CODES[: number + 1])
            until(partial(waiting, store, number - 1), "waiting message")
        peer.start()
        until(lambda: len(issues(heard)) == len(CODES), "delivery")
        until(lambda: not store.outbox(), "acknowledgement")
        until(lambda: link_code(store) == "", "recovery")
    assert issues(heard) == list(CODES)
    assert len(heard.all("issue")) == len(CODES)


def test_the_outbox_outlives_the_service(peer: Peer, store: Store, tmp_path: Path) -> None:
    board = peer.board()
    peer.kill()
    with link_process(board, tmp_path) as process:
        for number in range(len(CODES)):
            raise_issues(store, *CODES[: number + 1])
            until(partial(waiting, store, number + 1), "waiting message")
        until(lambda: len(told(store).get("told", ())) == len(CODES), "note")
        process.send_signal(signal.SIGKILL)
        process.wait()
    peer.start()
    with listening(peer) as heard, linked(board):
        until(lambda: len(issues(heard)) == len(CODES), "delivery")
        until(lambda: not store.outbox(), "acknowledgement")
    assert issues(heard) == list(CODES)
    assert len(heard.all("issue")) == len(CODES)


def test_many_messages_leave_in_order(peer: Peer, store: Store) -> None:
    board = peer.board()
    topic = f"radbox/{box_id()}/issue"
    for number in range(150):
        store.put_out(topic, str(number), 1000)
    with listening(peer) as heard, linked(board):
        until(lambda: len(heard.all("issue")) >= 150, "delivery")
        until(lambda: not store.outbox(), "acknowledgement")
    assert heard.all("issue") == [str(number) for number in range(150)]


def test_an_outbox_that_is_full_drops_the_oldest_and_counts(store: Store, free_port: int, tmp_path: Path) -> None:
    board = Peer(tmp_path / "broker", free_port, tmp_path / "ca.pem").board(tls=False, password_file="", outbox=4)
    with linked(board):
        raise_issues(store, *CODES)
        until(lambda: store.counts().get("mqtt_dropped") == 2, "count")
        until(lambda: told(store).get("waiting") == 4, "fact")
    rows = [json.loads(row.payload) for row in store.outbox()]
    assert [one["code"] for one in rows] == sorted(CODES)[2:]


def test_an_issue_is_told_once_and_again_when_it_comes_again(peer: Peer, store: Store) -> None:
    board = peer.board()
    with listening(peer) as heard:
        with linked(board):
            raise_issues(store, "issue.printer")
            until(lambda: len(issues(heard)) == 1, "news")
        with linked(board):
            until(lambda: heard.all("status")[-1] == "online", "connection")
            raise_issues(store)
            until(lambda: told(store).get("told") == [], "end")
            raise_issues(store, "issue.printer")
            until(lambda: len(issues(heard)) == 2, "news")
    assert issues(heard) == ["issue.printer", "issue.printer"]


def test_pauses_grow_and_end_growing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pauses = Pauses()
    steps = [pauses.next_s() for _ in range(12)]
    for number, pause_s in enumerate(steps):
        assert 0.5 * min(2**number, 60) <= pause_s <= min(2**number, 60)
    pauses.reset()
    assert pauses.next_s() <= mqtt.SHORTEST_PAUSE_S


def test_a_box_that_is_killed_between_outbox_and_note_tells_twice(peer: Peer, store: Store) -> None:
    """The order of the two writes: at least once, the same id."""
    board = peer.board()
    raise_issues(store, "issue.printer")
    link = mqtt.Broker(board.mqtt, reporter.address(board.mqtt, box_id()), store, lambda: None)
    first = reporter.Reporter(board.mqtt, store, "boot", box_id(), link)
    first._write_down = lambda: None  # type: ignore[method-assign]
    first._tell_issues()
    reporter.Reporter(board.mqtt, store, "boot", box_id(), link)._tell_issues()
    ids = [json.loads(row.payload)["id"] for row in store.outbox()]
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_a_board_without_broker_and_printer_loads_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from edge.board import load_board\n"
        "from edge.link import service\n"
        "from edge.service import Stop\n"
        "stop = Stop(signals=False); stop.wait = lambda seconds: stop.set()\n"
        "service.run(load_board(pathlib.Path(sys.argv[1])), stop)\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('paho', 'ssl', 'http')])\n"
    )
    root = Path(__file__).resolve().parent.parent
    said = subprocess.run(
        [sys.executable, "-c", code, str(root / "board_configs" / "sim.toml")],
        env={**os.environ, "RADBOX_DATA_DIR": str(tmp_path)},
        cwd=root, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert said.stdout.strip() == "[]"
    with_store = open_store(tmp_path)
    (row,) = with_store.services()
    with_store.close()
    assert (row.name, row.state, row.code) == ("link", "ok", "link.not-configured")
