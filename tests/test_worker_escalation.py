"""The worker obeys: backends that fail, restarts that are slowed, heat, a person's wish, and a box that sleeps."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from edge.board import Board
from edge.errors import BackendError
from edge.reading import worker
from edge.reading.accelerators import FACT, Accelerators
from edge.reading.backends import Probe, load_backend, open_encoder, probe_in_child
from edge.reading.backends.setup import Setup, board_setup
from edge.reading.heat import COOL, Heat, heat_of
from edge.reading.patience import Patience
from edge.reading.voice import Voice
from edge.reading.wishes import Wishes
from edge.service import Stop
from edge.slots import Slots
from edge.store import ServiceRow, Store, boot_id, open_store
from edge.store_rows import FactRow
from tests.scenario_box import scenario_box
from tests.worker_process import (
    WAIT_S,
    load_obedient,
    picture,
    put,
    put_picture,
    state,
    wait,
    worker_board,
    worker_process,
)

QUICK = Patience(wishes_every_s=0.05, sign_of_life_s=0.2)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """A box whose preferred accelerator is a simulated one."""
    plain = worker_board(tmp_path / "data", backends=("simulated-npu", "tflite"))
    state_file = str(tmp_path / "hardware.toml")
    return dataclasses.replace(plain, hardware=dataclasses.replace(plain.hardware, state_file=state_file))


@pytest.fixture
def store(board: Board) -> Iterator[Store]:
    with closing(open_store(board.data_dir)) as opened:
        yield opened


@contextmanager
def working(board: Board, patience: Patience = QUICK) -> Iterator[None]:
    """The worker in a thread of this process."""
    stop = Stop(signals=False)
    thread = threading.Thread(target=worker.run, args=(board, stop, patience))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(WAIT_S)
    assert not thread.is_alive()


def row_of(store: Store) -> ServiceRow | None:
    return next((row for row in store.services() if row.name == "worker"), None)


def says(store: Store, code: str) -> bool:
    row = row_of(store)
    return row is not None and row.code == code


def accelerator(board: Board, told: str, after_runs: int = 0) -> None:
    Path(board.hardware.state_file).write_text(f'[accelerator]\nstate = "{told}"\nafter_runs = {after_runs}\n')


# --- the simulated accelerator ---


def test_the_simulated_accelerator_does_as_its_file_says(board: Board) -> None:
    bundle = Slots(board.data_dir, board.worker.bundle).open("factory")
    names, file = board.worker.backends, board.hardware.state_file
    assert open_encoder(bundle, names, Setup(state_file=file), probe=False).encoder.name == "simulated-npu"
    for told, code in (("lost", "backend.lost"), ("wrong", "backend.golden"), ("odd", "backend.load")):
        accelerator(board, told)
        opened = open_encoder(bundle, names, Setup(state_file=file), probe=False)
        assert opened.encoder.name == "tflite"
        assert [(name, error.code) for name, error in opened.passed_over] == [("simulated-npu", code)]
    Path(file).write_text("accelerator = 1")
    with pytest.raises(BackendError):
        load_backend("simulated-npu", bundle, Setup(state_file=file))


@pytest.mark.requirement("KEEP-01")
def test_a_hanging_accelerator_is_found_out_in_a_child(board: Board) -> None:
    bundle = Slots(board.data_dir, board.worker.bundle).open("factory")
    accelerator(board, "hang")
    with pytest.raises(BackendError) as caught:
        probe_in_child("simulated-npu", bundle, board_setup(board), 0.5)
    assert caught.value.code == "backend.hung"
    probe = Probe("simulated-npu", bundle, board_setup(board), 0.5)
    assert not probe.passed()
    time.sleep(0.6)
    with pytest.raises(BackendError) as caught:
        probe.passed()
    assert caught.value.code == "backend.hung"
    accelerator(board, "ok")
    probe = Probe("simulated-npu", bundle, board_setup(board), 60)
    wait(probe.passed)


# --- the ladder, with real processes ---


@pytest.mark.requirement("KEEP-03")
def test_errors_lead_to_a_fresh_process_then_to_the_next_backend(tmp_path: Path, free_port: int) -> None:
    with scenario_box(
        tmp_path, ["simulated-npu", "tflite"], free_port, {"probe_first_s": 60.0, "probe_most_s": 900.0}
    ) as box:
        box.accelerator("lost", after_runs=5)  # the golden case passes each time
        box.arrive()
        box.tend()
        wait(lambda: box.reads_with() == "tflite")
        assert box.new_events() == [
            *("backend.lost", "backend.lost", "backend.set-aside", "backend.lost", "backend.changed"),
        ]
        assert "starts afresh" in box.log()
        assert "worker_deaths" not in box.store.counts(), "nobody took the fresh process for a death"
        detail = box.store.study(box.arrived[0])
        assert detail is not None
        assert detail.attempt == 4


def test_deaths_in_a_row_slow_the_start_and_the_page_says_so(board: Board, store: Store) -> None:
    with worker_process(board.data_dir, START_FIRST_S=0.4) as process:
        for _ in range(2):
            process.start()
            wait(lambda: says(store, "worker.ready"))
            store.set_service("worker", "ok", "test.cleared", "")
            process.kill()
        process.start()
        wait(lambda: says(store, "worker.starts-slowly"))
        row = row_of(store)
        assert row is not None
        assert row.state == "paused"
        assert row.message == "AI paused, images safe. The reader stopped 2 times in a row; it starts again in 1 s."
        key = put_picture(board, store, 1)
        wait(lambda: state(store, key) == "draft")
        process.stop()
    assert store.counts()["worker_deaths"] == 2
    told = [(event.code, event.message) for event in store.events()]
    said = "The reader died while it waited for work, ended from outside or for lack of memory."
    assert told == [("worker.died", said)] * 2


def test_a_waiting_worker_is_ready_and_alive_for_systemd(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        with worker_process(board.data_dir, START_FIRST_S=60.0) as process:
            process.start()
            wait(
                lambda: (
                    (board.data_dir / "worker.now").exists() and b"idle" in (board.data_dir / "worker.now").read_bytes()
                )
            )
            process.kill()
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
            process.start()
            assert [systemd.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            assert process.process is not None
            os.kill(process.process.pid, signal.SIGTERM)
            assert process.process.wait(10) == 0
            process.process = None


def test_health_of_another_boot_is_forgotten_and_that_of_this_one_is_not(board: Board, store: Store) -> None:
    voice = Voice(store, 10)
    first = Accelerators(board, store, voice, Patience())
    first.opened("tflite", [("simulated-npu", BackendError("It is gone.", code="backend.lost"))])
    again = Accelerators(board, store, voice, Patience())
    assert again.may_open() == ("tflite",)
    assert again.fault() == ("simulated-npu", "It is gone.")
    store._boot_id = "another"
    store.set_fact(FACT, store.facts()[FACT].value)
    assert Accelerators(board, store, voice, Patience()).may_open() == board.worker.backends


# --- heat and wishes ---


def fact(value: dict[str, object], at_s: float = 100.0, boot: str = "b") -> FactRow:
    return FactRow("thermal", value, at_s, boot)


@pytest.mark.parametrize(
    ("row", "heat"),
    [
        (None, COOL),
        (fact({"state": "ok"}), COOL),
        (fact({"state": "slow", "pause_s": 5, "message": "Hot."}), Heat("slow", 5.0, "Hot.")),
        (fact({"state": "slow", "pause_s": 1e9}), Heat("slow", 600.0)),
        (fact({"state": "pause", "message": "Too hot."}), Heat("pause", 0.0, "Too hot.")),
        (fact({"state": "pause"}, at_s=39.0), COOL),
        (fact({"state": "pause"}, boot="a"), COOL),
        (fact({"state": "slow", "pause_s": "long"}), COOL),
        (fact({"state": "slow", "pause_s": float("nan")}), COOL),
        (fact({"state": "boiling"}), COOL),
    ],
)
def test_heat_of_a_fact(row: FactRow | None, heat: Heat) -> None:
    assert heat_of(row, "b", 100.0, 60.0) == heat


def test_a_wish_is_heard_once(store: Store) -> None:
    store.set_fact("wanted", {"probe": 3})
    now = [0.0]
    wishes = Wishes(store, 2.0, 60.0, clock=lambda: now[0])
    assert not wishes.try_now()
    store.set_fact("wanted", {"probe": 4})
    assert not wishes.try_now(), "it looks every two seconds"
    now[0] = 3.0
    assert wishes.heat() == COOL
    assert wishes.try_now()
    assert not wishes.try_now()


def test_heat_slows_pauses_and_lets_go(board: Board, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "load_reader", load_obedient({}))
    store.set_fact("thermal", {"state": "pause", "pause_s": 0.0, "message": "The box is too hot (92 °C)."})
    key = put_picture(board, store, 1)
    with working(board):
        wait(lambda: says(store, "worker.too-hot"))
        row = row_of(store)
        assert row is not None
        assert (row.state, row.message) == ("paused", "AI paused, images safe. The box is too hot (92 °C).")
        assert state(store, key) == "queued"
        store.set_fact("thermal", {"state": "slow", "pause_s": 0.6, "message": "Warm."})
        wait(lambda: state(store, key) == "draft")
        read_s = time.monotonic()
        other = put_picture(board, store, 2)
        wait(lambda: says(store, "worker.slowed"))
        wait(lambda: state(store, other) == "draft")
        assert time.monotonic() - read_s > 0.3
        store.set_fact("thermal", {"state": "ok", "pause_s": 0.0, "message": ""})
        wait(lambda: says(store, "worker.ready"))


def test_a_person_s_wish_tries_a_lost_backend_at_once(board: Board, store: Store) -> None:
    alone = dataclasses.replace(board, worker=dataclasses.replace(board.worker, backends=("simulated-npu",)))
    accelerator(board, "lost")
    assert boot_id() == store._boot_id
    with working(alone):
        wait(lambda: says(store, "backend.none"))
        accelerator(board, "ok")
        store.set_fact("wanted", {"probe": 1})
        wait(lambda: says(store, "worker.ready"), 20)


# --- idle ---


def test_the_decoding_child_goes_home_and_comes_back(
    board: Board, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "load_reader", load_obedient({}))

    def children() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends while we look
            return any("edge.reading.decode_loop" in one.cmdline() for one in psutil.Process().children())
        return False

    arriving = picture(1), "2.25.1001", "2.25.9001"
    with working(board, dataclasses.replace(QUICK, decoder_idle_s=0.3)):
        wait(lambda: says(store, "worker.ready"))
        assert not children(), "nothing arrives"
        key = put(board, store, *arriving, whole=False)
        wait(children)
        store.complete_study(key)
        wait(lambda: state(store, key) == "draft")
        wait(lambda: not children())
        other = put_picture(board, store, 2)
        wait(lambda: state(store, other) == "draft")
