"""The service `capture`: a live stream, presses, and what becomes of them in the receiver."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pydicom
import pytest

from edge.board import Board, load_board
from edge.errors import ConfigError
from edge.intake import capture
from edge.intake.grabber.duty import Duty
from edge.intake.grabber.shelf import Shelf, Taken
from edge.service import Stop
from edge.store import RequestRow, Store, open_store
from tests.grabber_pictures import write
from tests.mjpeg_server import MjpegServer, live_picture
from tests.receiver_process import ReceiverProcess, wait_for

ROOT = Path(__file__).resolve().parent.parent
PRESET = """
name = "test"
width = 320
height = 240
crop = [20, 0, 300, 240]
masks = [[0, 0, 320, 40]]
writing = []
"""


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    with MjpegServer() as one:
        yield one


def board_for(folder: Path, source: str, *, preset: str = "", **grabber: object) -> Board:
    """A board with a grabber; `preset`: its text."""
    plain = load_board(ROOT / "board_configs" / "sim.toml")
    path = ""
    if preset:
        file = folder / "machine.toml"
        file.write_text(preset)
        path = str(file)
    facts: dict[str, Any] = {"source": source, "preset": path, "fps": 25.0, "stale_s": 0.6, "freeze_s": 1.0, **grabber}
    return dataclasses.replace(plain, data_dir=folder / "data", grabber=dataclasses.replace(plain.grabber, **facts))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "data").mkdir()
    with closing(open_store(tmp_path / "data")) as one:
        yield one


def until(duty: Duty, condition, timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "condition did not become true in time"
        duty.step()
        time.sleep(0.02)


def state(store: Store) -> str:
    fact = store.facts().get("grabber")
    return "" if fact is None else str(fact.value["state"])


def pressed(duty: Duty, store: Store) -> RequestRow:
    """Press, and the answer."""
    key = store.ask("grabber.freeze", {})
    duty.step()
    row = store.request(key)
    assert row is not None
    return row


def handed_in(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted((folder / "data" / "inbox" / "GRABBER").glob("*.dcm"))]


@pytest.mark.requirement("RCV-09")
def test_every_state_of_a_stream_is_said(tmp_path: Path, store: Store, server: MjpegServer) -> None:
    with closing(Duty(board_for(tmp_path, server.url), store)) as duty:
        until(duty, lambda: state(store) == "ok")
        for mode, expected in (("black", "no-signal"), ("bars", "no-signal"), ("frozen", "frozen")):
            server.mode = mode
            until(duty, lambda: state(store) == expected)  # noqa: B023
            answer = pressed(duty, store)
            assert answer.code == ("grabber.frozen" if mode == "frozen" else "grabber.no-signal")
        for mode in ("stalled", "gone"):
            server.mode = mode
            until(duty, lambda: state(store) == "stale")
            row = next(row for row in store.services() if row.name == "capture")
            assert (row.state, row.code) == ("degraded", "grabber.stale")
            assert pressed(duty, store).code == "grabber.stale"
            server.mode = "live"
            until(duty, lambda: state(store) == "ok")
        row = next(row for row in store.services() if row.name == "capture")
        assert (row.state, row.code) == ("ok", "")
        fact = store.facts()["grabber"].value
        assert fact["frames"] > 10
        assert fact["age_s"] < 1.0
    assert len(handed_in(tmp_path)) == 1


@pytest.mark.requirement("RCV-09")
def test_presses_make_a_study(tmp_path: Path, store: Store, server: MjpegServer) -> None:
    with closing(Duty(board_for(tmp_path, server.url, preset=PRESET), store)) as duty:
        until(duty, lambda: state(store) == "ok")
        answers = [pressed(duty, store) for _ in range(2)]
        assert [row.code for row in answers] == ["grabber.frozen"] * 2
        assert "Picture 2" in answers[1].message
    first, second = handed_in(tmp_path)
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert [first.InstanceNumber, second.InstanceNumber] == [1, 2]
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SOPClassUID == pydicom.uid.UltrasoundImageStorage
    assert (first.Modality, first.PatientName, first.PatientID, first.StudyDate) == ("US", "", "", "")
    assert "BurnedInAnnotation" not in first
    pixels = first.pixel_array
    assert pixels.shape == (240, 300, 3)
    assert (pixels[:40] == 0).all()
    assert pixels[40:].mean() > 20
    assert store.counts()["captures"] == 2


def test_a_press_that_is_too_old_takes_nothing(
    tmp_path: Path, store: Store, server: MjpegServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = store.ask("grabber.freeze", {})
    other = store.ask("grabber.dance", {})
    foreign = store.ask("disk.clean", {})
    with closing(Duty(board_for(tmp_path, server.url), store)) as duty:
        monkeypatch.setattr("edge.intake.grabber.duty.TOO_LATE_S", 0.0)
        duty.step()
        monkeypatch.undo()
        rows = {number: store.request(number) for number in (key, other, foreign)}
        codes = {number: row.code for number, row in rows.items() if row is not None}
        assert codes == {key: "grabber.too-late", other: "grabber.too-late", foreign: ""}
        assert pressed(duty, store).code == "grabber.starting"
    assert handed_in(tmp_path) == []


def test_a_machine_of_another_geometry_is_not_captured(tmp_path: Path, store: Store, server: MjpegServer) -> None:
    server.size = (640, 480)
    with closing(Duty(board_for(tmp_path, server.url, preset=PRESET), store)) as duty:
        until(duty, lambda: state(store) == "geometry")
        answer = pressed(duty, store)
        assert answer.code == "grabber.geometry"
        assert "640 x 480" in answer.message
        row = next(row for row in store.services() if row.name == "capture")
        assert (row.state, row.code) == ("degraded", "grabber.geometry")
    assert handed_in(tmp_path) == []


def test_a_full_disk_is_told_and_nothing_half_is_left(
    tmp_path: Path, store: Store, server: MjpegServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Duty(board_for(tmp_path, server.url), store)) as duty:
        until(duty, lambda: state(store) == "ok")
        with monkeypatch.context() as patch:
            patch.setattr("edge.durable.DurableFile.write", _full)
            assert pressed(duty, store).code == "storage.full"
        assert list((tmp_path / "data" / "inbox" / "GRABBER").iterdir()) == []
        assert pressed(duty, store).code == "grabber.frozen"
    assert [one.InstanceNumber for one in handed_in(tmp_path)] == [1]


def _full(*_: object) -> int:
    from edge.errors import StorageFullError

    raise StorageFullError("expected room for a chunk of a file, got: No space left on device")


def test_a_pause_starts_the_next_study(tmp_path: Path) -> None:
    now_s = [100.0]
    (tmp_path / "data").mkdir()
    board = board_for(tmp_path, "none", preset=PRESET)
    from edge.intake.grabber.preset import load_preset

    shelf = Shelf(board.data_dir, load_preset(Path(board.grabber.preset)), "OT", clock=lambda: now_s[0])
    taken: list[Taken] = []
    for step_s in (0.0, 29.0, 29.0, 31.0):
        now_s[0] += step_s
        taken.append(shelf.take(live_picture(len(taken)), "20260102", "030405"))
    assert [one.number for one in taken] == [1, 2, 3, 1]
    assert len({one.study_instance_uid for one in taken}) == 2
    found = handed_in(tmp_path)
    assert {one.SOPClassUID for one in found} == {pydicom.uid.SecondaryCaptureImageStorage}
    assert {(one.ConversionType, one.StudyDate, one.StudyTime) for one in found} == {("DV", "20260102", "030405")}


@pytest.mark.requirement("RCV-10")
def test_writing_is_marked_and_told_of(tmp_path: Path, server: MjpegServer) -> None:
    """With the real receiver: the event belongs to the study."""
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[100:] = live_picture(1)[100:]
    write(picture, "SEEDED ANNA", np.random.default_rng(3), over_image=False)
    server._picture = lambda number: picture  # type: ignore[method-assign]
    with ReceiverProcess(tmp_path) as receiver, closing(receiver.store()) as store:
        with closing(Duty(board_for(tmp_path, server.url), store)) as duty:
            until(duty, lambda: state(store) in ("ok", "frozen"))
            answer = pressed(duty, store)
            assert answer.code == "grabber.frozen"
            assert "writing" in answer.message
            until(duty, lambda: any(event.code == "grabber.writing-seen" for event in store.events()))
        (event,) = [event for event in store.events() if event.code == "grabber.writing-seen"]
        (study,) = store.studies()
        assert event.study_key == study.study_key
        wait_for(lambda: store.studies()[0].state == "queued")
        detail = store.study(study.study_key)
        assert detail is not None
        (row,) = detail.instances
        assert row.calling_ae == "GRABBER"
        ds = pydicom.dcmread(receiver.data_dir / row.path)
        assert ds.BurnedInAnnotation == "YES"


def test_a_board_without_a_grabber_needs_no_service(tmp_path: Path) -> None:
    stop = Stop(signals=False)
    capture.run(board_for(tmp_path, ""), stop)  # ends at once
    assert not (tmp_path / "data").exists()


def test_a_wrong_preset_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigError, match="crop"):
        capture.run(board_for(tmp_path, "none.avi", preset=PRESET.replace("300", "301")), Stop(signals=False))


def test_the_service_as_a_process_ends_in_order_and_leaves_no_child(tmp_path: Path, server: MjpegServer) -> None:
    board = tmp_path / "board.toml"
    head = f'name = "test"\ndata_dir = {json.dumps(str(tmp_path / "data"))}\n[worker]\nbundle = "none"\n'
    board.write_text(head + f"[grabber]\nsource = {json.dumps(server.url)}\nstale_s = 0.6\n")
    (tmp_path / "data").mkdir()
    for number in (signal.SIGTERM, signal.SIGKILL):
        command = [sys.executable, "-m", "edge", "capture", "--board", str(board)]
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=subprocess.PIPE)
        try:
            with closing(open_store(tmp_path / "data")) as store:
                start_s = time.monotonic()
                wait_for(
                    lambda: (
                        (fact := store.facts().get("grabber")) is not None
                        and fact.monotonic_s > start_s  # noqa: B023
                        and fact.value["state"] == "ok"
                    ),
                    20,
                )
            children = psutil.Process(process.pid).children()
            assert len(children) == 1
            process.send_signal(number)
            _, said = process.communicate(timeout=10)
            assert process.returncode == (0 if number == signal.SIGTERM else -9)
            assert b"Traceback" not in said
            assert server.url.encode() not in said
            wait_for(lambda: not children[0].is_running())  # noqa: B023
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
