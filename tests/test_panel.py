"""Service `panel` over a real pty, with a simulated panel that speaks the same protocol at its other end."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edge.board import Board
from edge.box_words import WORDS
from edge.care.panel import protocol, show
from edge.care.panel import service as service_module
from edge.care.panel.link import Link, SerialPort
from edge.care.panel.protocol import Frame, Key, Kind
from edge.care.panel.replay import read_capture, replay
from edge.care.panel.service import run
from edge.service import Stop
from edge.store import IssueFacts, ServiceRow, Store, StudyFacts, open_store
from edge.store_rows import InstanceFacts
from tests.panel_line import PanelLine, wait_until
from tests.update_box import sim_board

NAME = "HIDDEN^PATIENT"


@dataclasses.dataclass
class Box:
    """A board with a panel, its store, and the line."""

    board: Board
    store: Store
    line: PanelLine

    @property
    def row(self) -> ServiceRow | None:
        """What the service says of itself."""
        return next((row for row in self.store.services() if row.name == "panel"), None)

    def says(self, code: str) -> bool:
        """Whether that is its code now."""
        return self.row is not None and self.row.code == code

    def shows(self, text: str) -> bool:
        """Whether `text` is on the screen."""
        return any(text in line for line in self.line.panel.screen)


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    """Services that say they are well, nothing waits; the panel is not plugged in yet."""
    monkeypatch.setattr(show, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(service_module, "SIGN_OF_LIFE_S", 0.1)
    monkeypatch.setattr(service_module, "LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr(service_module, "FIRST_PAUSE_S", 0.05)
    board = sim_board(tmp_path / "data")
    line = PanelLine(tmp_path / "panel")
    panel = dataclasses.replace(board.panel, device=str(line.path))
    board = dataclasses.replace(board, panel=panel, web=dataclasses.replace(board.web, host="192.0.2.7", port=8080))
    store = open_store(board.data_dir)
    for name in ("receive", "worker", "web", "care"):
        store.set_service(name, "ok", "", "")
    yield Box(board, store, line)
    line.unplug()
    store.close()


@contextmanager
def serving(board: Board, capture: Path | None = None) -> Iterator[None]:
    """The service in a thread."""
    stop = Stop(signals=False)
    thread = threading.Thread(target=run, args=(board, stop, capture), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def queue_study(store: Store, uid: str = "1.2.3") -> None:
    """A study of a patient with a name that waits to be read."""
    study = StudyFacts(uid, patient_id="ID-4711", patient_name=NAME)
    store.add_instance(study, InstanceFacts(f"{uid}.1", "1.2", "1.2.1", uid, 1, f"spool/{uid}", "UNIT", 0.0))
    key = store.study_key(uid)
    assert key is not None
    store.complete_study(key)


@pytest.mark.requirement("KEEP-12")
def test_the_panel_shows_state_queue_issue_and_address(box: Box) -> None:
    box.line.plug()
    with serving(box.board):
        wait_until(lambda: box.shows(WORDS["ready"].short))
        assert box.line.panel.screen == tuple(
            line.ljust(20) for line in ("Ready", "Nothing is waiting", "", "192.0.2.7:8080")
        )
        queue_study(box.store)
        box.store.set_issues([IssueFacts("issue.clock-unset", "", "warning"), IssueFacts("issue.wear", "mmc", "info")])
        wait_until(lambda: box.shows(WORDS["attention"].short) and box.shows("1 waiting") and box.shows("Clock"))
        assert box.line.panel.screen[2].rstrip() == "Clock is not set +1"
        wait_until(lambda: box.line.panel.light is not None and box.line.panel.light.period_s == 0.3)
        wait_until(lambda: box.says("") and box.row is not None and box.row.state == "ok")
    assert box.line.panel.screen[0].rstrip() == show.FAREWELL[0]
    assert box.line.panel.light is not None
    assert box.line.panel.light.green == 0


def test_an_issue_that_was_put_off_is_not_shown(box: Box) -> None:
    box.store.set_issues([IssueFacts("issue.clock-unset", "", "warning")])
    box.store.put_off_issue("issue.clock-unset", "", 3600)
    box.line.plug()
    with serving(box.board):
        wait_until(lambda: box.shows("Ready"))
        assert not box.shows("Clock")


def test_the_foot_switch_turns_the_pages_and_ends_the_alarm(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "PAGE_BACK_S", 0.5)
    monkeypatch.setattr(show, "ALARM_EVERY_S", 0.05)
    box.store.set_issues([IssueFacts("issue.disk-full", "", "critical")])
    box.line.plug()
    with serving(box.board):
        wait_until(lambda: box.line.panel.beeps >= 2)
        box.line.press()
        wait_until(lambda: box.shows("Issue 1 of 1"))
        beeps = box.line.panel.beeps
        box.line.press()
        wait_until(lambda: box.shows("Page of this box:"))
        wait_until(lambda: box.shows("Please look here"))  # by itself
        assert box.line.panel.beeps == beeps
        assert box.store.asked() == []


def test_the_foot_switch_takes_a_picture_where_there_is_a_grabber(box: Box) -> None:
    board = dataclasses.replace(box.board, grabber=dataclasses.replace(box.board.grabber, source="/dev/video0"))
    box.line.plug()
    with serving(board):
        wait_until(lambda: box.shows("Ready"))
        box.line.press()
        wait_until(lambda: len(box.store.asked()) == 1 and box.shows(show.TAKING))
        (request,) = box.store.asked()
        assert (request.action, request.values) == ("grabber.freeze", {})
        box.line.press()  # impatient: one picture at a time
        box.store.answer(request.request_key, show.TAKEN_CODE, "")
        wait_until(lambda: box.shows(show.TAKEN) and box.line.panel.beeps == 1)
        assert box.store.asked() == []
        box.line.press()
        wait_until(lambda: len(box.store.asked()) == 1)
        box.store.answer(box.store.asked()[0].request_key, "grabber.no-signal", "")
        wait_until(lambda: box.shows(show.NOT_TAKEN))


def test_a_board_without_foot_switch_ignores_it(box: Box) -> None:
    board = dataclasses.replace(box.board, panel=dataclasses.replace(box.board.panel, footswitch=False))
    box.line.plug()
    with serving(board):
        wait_until(lambda: box.shows("Ready"))
        box.line.press()
        box.line.press(key=1)
        wait_until(lambda: box.shows("Page of this box:"))  # one page on: the key's


def test_a_panel_that_is_unplugged_is_told_and_found_again(box: Box) -> None:
    with serving(box.board):
        wait_until(lambda: box.says("panel.lost"))
        for _ in range(3):
            box.line.plug()
            wait_until(lambda: box.says("") and box.shows("Ready"))
            box.line.unplug()
            wait_until(lambda: box.says("panel.lost"))
        assert box.row is not None
        assert box.row.state == "degraded"


def test_a_panel_that_restarts_gets_everything_again(box: Box) -> None:
    box.line.plug()
    with serving(box.board):
        wait_until(lambda: box.shows("Ready") and box.line.panel.light is not None)
        box.line.panel.screen, box.line.panel.light = ("",) * 4, None
        box.line.write(box.line.panel.start())
        wait_until(lambda: box.shows("Ready") and box.line.panel.light is not None)


def test_a_dirty_line_loses_nothing_and_doubles_nothing(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes flip, vanish and come from nowhere: each press still counts once."""
    monkeypatch.setattr("edge.care.panel.link.RESEND_S", 0.05)
    monkeypatch.setattr("edge.care.panel.link.TRIES", 100)
    monkeypatch.setattr("edge.care.panel.simulated.RESEND_S", 0.05)
    monkeypatch.setattr("edge.care.panel.simulated.FORGET_S", 60.0)
    dice = random.Random(7)

    def spoil(content: bytes) -> bytes:
        if not content or dice.random() < 0.6:
            return content
        at = dice.randrange(len(content))
        noise = dice.randbytes(dice.randrange(6))
        return dice.choice(
            (content[:at], content[:at] + noise + content[at:], content[:at] + noise + content[at + 1 :])
        )

    board = dataclasses.replace(box.board, grabber=dataclasses.replace(box.board.grabber, source="/dev/video0"))
    box.line.plug()
    with serving(board):
        wait_until(lambda: box.shows("Ready"))
        box.line.spoil = spoil
        for number in range(5):
            box.line.press()
            wait_until(lambda: len(box.store.asked()) == 1)
            request = box.store.asked()[0]
            assert request.request_key == number + 1
            wait_until(lambda: not box.line.panel._waiting)  # the panel knows that it was heard, up and down
            box.store.answer(request.request_key, show.TAKEN_CODE, "")
            wait_until(lambda: box.shows(show.TAKEN))


def test_keys_come_in_order_and_once_over_a_dirty_line(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.care.panel.simulated.RESEND_S", 0.02)
    monkeypatch.setattr("edge.care.panel.simulated.FORGET_S", 60.0)
    dice = random.Random(11)
    box.line.plug()
    with closing(SerialPort(str(box.line.path), 115_200)) as port:
        link = Link(port)
        wait_until(lambda: link.step(0.01) == [] and link.hello is not None)
        box.line.spoil = lambda content: content if dice.random() < 0.5 else content[: len(content) // 2]
        real = port.write
        monkeypatch.setattr(port, "write", lambda content: real(content if dice.random() < 0.7 else content[1:]))
        keys: list[Key] = []
        for _ in range(8):
            box.line.press()

        def heard() -> bool:
            keys.extend(link.step(0.01))
            return not box.line.panel._waiting

        wait_until(heard)
    assert keys == [Key(0, True), Key(0, False)] * 8


def test_a_panel_of_another_version_is_told(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.line.plug()
    box.line.panel._hello = dataclasses.replace(box.line.panel._hello, version=2)
    with serving(box.board):
        wait_until(lambda: box.says("panel.version"))


def test_what_is_no_panel_is_told(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.care.panel.link.HELLO_WITHIN_S", 0.2)
    master, slave = os.openpty()
    box.line.path.symlink_to(os.ttyname(slave))
    with serving(box.board):
        wait_until(lambda: box.says("panel.silent"))
    os.close(master)
    os.close(slave)


def test_a_board_without_panel_ends_at_once(box: Box) -> None:
    board = dataclasses.replace(box.board, panel=dataclasses.replace(box.board.panel, device=""))
    run(board, Stop(signals=False))
    assert box.row is None


@pytest.mark.requirement("SEC-01")
def test_a_capture_can_be_played_again_and_names_no_patient(box: Box, tmp_path: Path) -> None:
    queue_study(box.store)
    box.line.plug()
    capture = tmp_path / "captures" / "panel.capture"
    with serving(box.board, capture):
        wait_until(lambda: box.shows("1 waiting"))
        box.line.press()
        wait_until(lambda: box.shows("Page of this box:"))
        box.line.write(b"\x55garbage\0")
        wait_until(lambda: box.says(""))
    said = [words for _at_s, words in replay(read_capture(capture))]
    assert "line opened" in said
    assert any("Reading | 1 waiting" in words for words in said)
    assert any("foot switch pressed" in words for words in said)
    assert "< 1 bad frame(s)" in said
    sent = b"".join(chunk.content for chunk in read_capture(capture))
    for secret in (NAME, "ID-4711", "HIDDEN"):
        assert secret.encode() not in sent
        assert secret not in capture.read_text()


def test_the_service_ends_on_sigterm_within_a_second_or_so(box: Box) -> None:
    """The whole service in a process of its own, as systemd runs it."""
    box.line.plug()
    code = (
        "import sys, dataclasses, pathlib; from edge.board import load_board; from edge.care.panel.service import run; "
        "from edge.service import Stop; b = load_board(pathlib.Path(sys.argv[1])); "
        "b = dataclasses.replace(b, data_dir=pathlib.Path(sys.argv[2]), "
        "panel=dataclasses.replace(b.panel, device=sys.argv[3])); run(b, Stop())"
    )
    arguments = ["board_configs/sim.toml", str(box.board.data_dir), str(box.line.path)]
    root = Path(__file__).parent.parent
    process = subprocess.Popen([sys.executable, "-W", "error", "-c", code, *arguments], cwd=root)
    wait_until(lambda: box.shows("Ready"), 20)
    process.terminate()
    assert process.wait(5) == 0
    assert box.line.panel.screen[0].rstrip() == show.FAREWELL[0]


def test_an_unknown_frame_is_answered_and_changes_nothing() -> None:
    line = PanelLine(Path("unused"))
    answer = line.panel.feed(protocol.encode(Frame(0x55, 3)))
    assert protocol.decode(answer[:-1]) == Frame(Kind.ACK, 3, b"\1")
    assert line.panel.screens == 0
