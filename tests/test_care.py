"""Service care: the marks, what it says and does at each, the reserve, and a database that is damaged under it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from edge.board import Board
from edge.board_keys import GIB, MIB
from edge.care import service
from edge.care.disk import CLEAN_AGAIN_S, Disk, words
from edge.care.reserve import keep_reserve
from edge.disk_marks import (
    CLEAN_TIMES,
    DiskWatch,
    Mark,
    in_words,
    mark,
    refuses_everything,
    refuses_second_versions,
    wants_reserve,
)
from edge.durable import DiskUse
from edge.errors import StoreError
from edge.service import Stop
from edge.store import Removable, Store, open_store
from edge.store_paths import DAMAGED, DATABASE, KEPT_ASIDE, RESERVE
from tests.care_box import ROOT, board_of, put_draft, put_expired, put_object, sign
from tests.receiver_process import wait_for


def use(size_gib: float, free_gib: float) -> DiskUse:
    size, free = int(size_gib * GIB), int(free_gib * GIB)
    return DiskUse(size, size - free, free)


@pytest.mark.parametrize(
    ("size_gib", "free_gib", "expected"),
    [
        (120, 90, "calm"),
        (120, 30.1, "calm"),
        (120, 29.9, "clean"),
        (120, 12.1, "clean"),
        (120, 11.9, "warn"),
        (120, 0.51, "warn"),
        (120, 0.49, "refuse"),
        (8, 4, "calm"),  # a small card
        (8, 2.1, "calm"),
        (8, 1.9, "clean"),
        (8, 0.99, "warn"),
        (2, 1.2, "clean"),  # half of it is free, but that is less than four times what must stay free
        (2, 0.9, "warn"),
        (0.4, 0.4, "refuse"),  # smaller than what must stay free
        (4000, 900, "clean"),  # a large disk
        (4000, 300, "clean"),  # 93 % in use, and room for 30,000 images: not nearly full
        (4000, 49, "warn"),
        (4000, 0.4, "refuse"),
    ],
)
def test_marks_make_sense_on_small_and_large_disks(
    tmp_path: Path, size_gib: float, free_gib: float, expected: Mark
) -> None:
    storage = board_of(tmp_path).storage
    assert (storage.clean_percent, storage.warn_percent) == (75, 90)
    assert mark(use(size_gib, free_gib), storage, 512 * MIB) == expected


def test_what_each_mark_refuses() -> None:
    marks: tuple[Mark, ...] = ("calm", "clean", "warn", "refuse")
    assert [refuses_second_versions(one) for one in marks] == [False, False, True, True]
    assert [refuses_everything(one) for one in marks] == [False, False, False, True]


def test_the_disk_is_looked_at_once_a_second(tmp_path: Path) -> None:
    looks: list[float] = []
    now = {"s": 10.0, "free": 90.0}

    def look(_: Path) -> DiskUse:
        looks.append(now["s"])
        return use(120, now["free"])

    watch = DiskWatch(board_of(tmp_path), look, lambda: now["s"])
    assert [watch.reached(), watch.reached()] == ["calm", "calm"]
    now.update(s=11.5, free=5.0)
    assert [watch.reached(), watch.reached()] == ["warn", "warn"]
    assert looks == [10.0, 11.5]


def test_root_only_blocks_do_not_count() -> None:
    """ext4 keeps 5 % for root: df shows 100 % when nobody else may write, and so do we."""
    assert DiskUse(100, 95, 0).percent == 100
    assert in_words(DiskUse(100 * GIB, 60 * GIB, 20 * GIB)) == "75 % of 80.0 GiB are used, 20.0 GiB are free"


def test_the_reserve_is_made_when_nobody_is_turned_away_for_it() -> None:
    assert wants_reserve(1000 * MIB, 64 * MIB, 512 * MIB)
    assert wants_reserve(576 * MIB, 64 * MIB, 512 * MIB)
    assert not wants_reserve(575 * MIB, 64 * MIB, 512 * MIB)
    assert wants_reserve(300 * MIB, 64 * MIB, 512 * MIB), "everything is refused anyway"
    assert not wants_reserve(100 * MIB, 64 * MIB, 512 * MIB)
    assert not wants_reserve(100 * MIB, 64 * MIB, MIB)


def test_the_reserve_comes_and_goes(tmp_path: Path) -> None:
    def step(free_mib: int, size: int = MIB) -> str:
        return keep_reserve(tmp_path, DiskUse(GIB, GIB - free_mib * MIB, free_mib * MIB), size, 8 * MIB)

    assert [step(2), step(100), step(100)] == ["", "made", ""]
    assert (tmp_path / RESERVE).stat().st_size == MIB
    assert step(100, 2 * MIB) == "made"
    assert (tmp_path / RESERVE).stat().st_size == 2 * MIB
    assert [step(1, 2 * MIB), step(1, 2 * MIB)] == ["given back", ""]
    assert not (tmp_path / RESERVE).exists()


# --- the disk over time ---


class World:
    """A disk of 100 GiB that a test fills, and a clock that it moves. `per_study_gib`: what each study is taken for."""

    def __init__(self, tmp_path: Path, **storage: object) -> None:
        self.board = board_of(tmp_path, **{"retention_days": 0, **storage})
        self.store = open_store(tmp_path)
        self.others_gib = 10.0
        self.per_study_gib = 1.0
        self.now_s = 1000.0
        self.disk = Disk(self.board, self.store, lambda _: self.use(), lambda: self.now_s)

    def use(self) -> DiskUse:
        used = self.others_gib + self.per_study_gib * len(self.store.studies(1000))
        return use(100, max(0.0, 100 - used))

    def step(self, seconds: float = 1.0) -> tuple[str, str]:
        self.now_s += seconds
        said = self.disk.step(lambda: None)
        return said.state, said.code

    def events(self) -> list[str]:
        return [event.code for event in reversed(self.store.events())]


def test_cleaning_goes_on_until_the_disk_is_below_the_mark(tmp_path: Path) -> None:
    world = World(tmp_path)
    for seed in range(5):
        put_expired(tmp_path, world.store, seed)
    assert world.step() == ("ok", "")
    assert len(world.store.studies()) == 5, "nothing goes while there is room, however old"
    world.others_gib = 72
    assert world.step() == ("ok", "")
    assert len(world.store.studies()) == 2
    assert world.events() == ["storage.cleaned"]


def test_when_nothing_may_go_it_says_so_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    put_draft(tmp_path, world.store, 1)
    signed, _ = put_draft(tmp_path, world.store, 2)
    sign(world.store, signed)
    world.others_gib = 80
    for _ in range(200):
        assert world.step() == ("ok", "storage.nothing-to-remove")
    assert world.events() == ["storage.nothing-to-remove"]
    assert len(world.store.studies()) == 2
    world.store.mark_exported(signed)
    assert world.step(CLEAN_AGAIN_S) == ("ok", "storage.nothing-to-remove")
    assert [row.study_key for row in world.store.studies()] == [1], "an unread draft is never removed"
    world.others_gib = 20
    assert world.step() == ("ok", "")


def test_a_disk_that_nothing_may_leave_is_not_searched_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    asked: list[float] = []

    def removable(*_: object) -> list[Removable]:
        asked.append(world.now_s)
        return []

    monkeypatch.setattr(Store, "removable", removable)
    world.others_gib = 80
    for _ in range(3 * int(CLEAN_AGAIN_S)):
        world.step()
    assert len(asked) == 3


def test_warning_and_refusing_are_told_in_plain_words_with_numbers(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.others_gib = 92
    assert world.step() == ("degraded", "storage.nearly-full")
    closely = [not world.disk.calm]
    world.others_gib = 99.7
    assert world.step() == ("degraded", "storage.full")
    message = words("warn", use(100, 8), world.board.storage, stuck=True).message
    assert "92 % of 100.0 GiB are used, 8.0 GiB are free" in message
    assert "second version" in message
    assert "Nothing more may be removed" in message
    assert world.events() == ["storage.nothing-to-remove", "storage.nearly-full", "storage.full"]
    world.others_gib = 10
    assert world.step() == ("ok", "")
    closely.append(not world.disk.calm)
    assert closely == [True, False], "watched more closely while it is nearly full"
    world.others_gib = 92
    world.step()
    assert len(world.events()) == 3, "a disk that goes up and down is told once an hour"
    world.others_gib = 10
    world.step(3600)
    world.others_gib = 92
    world.step()
    assert world.events()[3:] == ["storage.nothing-to-remove", "storage.nearly-full"]


def test_a_tiny_disk_is_cleaned_by_room_not_by_share(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.board = dataclasses.replace(
        world.board, receive=dataclasses.replace(world.board.receive, min_free_bytes=20 * GIB)
    )
    world.disk = Disk(world.board, world.store, lambda _: world.use(), lambda: world.now_s)
    put_expired(tmp_path, world.store, 1)
    world.others_gib = 100 - 20 * CLEAN_TIMES - 0.5
    assert world.step() == ("ok", "")
    assert world.store.studies() == []


# --- the service ---


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's rounds, faster."""
    monkeypatch.setattr(service, "CALM_STEP_S", 0.05)


class Running:
    """The service in a thread."""

    def __init__(self, board: Board) -> None:
        self.stop = Stop(signals=False)
        self.errors: list[BaseException] = []
        self.thread = threading.Thread(target=self._run, args=(board,))

    def _run(self, board: Board) -> None:
        try:
            service.run(board, self.stop)
        except BaseException as error:
            self.errors.append(error)

    def __enter__(self) -> Running:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


def row(store: Store) -> tuple[str, str]:
    """What care last said; nothing while the database is under repair."""
    with contextlib.suppress(StoreError):
        return next(((one.state, one.code) for one in store.services() if one.name == "care"), ("", ""))
    return "", ""


def test_a_real_process_says_that_it_lives_and_stops_at_once(tmp_path: Path) -> None:
    text = (ROOT / "board_configs" / "sim.toml").read_text()
    (tmp_path / "board.toml").write_text(text.replace('"var/sim"', f'"{tmp_path / "data"}"'))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        command = [sys.executable, "-m", "edge", "care", "--board", str(tmp_path / "board.toml")]
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert systemd.recv(100) == b"READY=1"
            while systemd.recv(100) != b"WATCHDOG=1":
                assert process.poll() is None
            with closing(open_store(tmp_path / "data")) as store:
                wait_for(lambda: row(store) == ("ok", ""))
                assert store.age_s() >= 0
                assert re.search(r"Disk: \d+ % of", store.services()[0].message)
            process.send_signal(signal.SIGTERM)
            began_s = time.monotonic()
            assert process.wait(10) == 0
            assert time.monotonic() - began_s < 5, "a calm service sleeps, but hears"
    assert (tmp_path / "data" / RESERVE).stat().st_size == 64 * MIB


def test_removals_of_an_earlier_life_are_finished_at_the_start(tmp_path: Path, quick: None) -> None:
    with closing(open_store(tmp_path)) as store:
        study_key, path = put_expired(tmp_path, store, 1)
        assert store.forget_study(study_key)
        with Running(board_of(tmp_path)) as care:
            wait_for(lambda: not store.removals())
        assert care.errors == []
        assert not (tmp_path / path).exists()


def test_files_that_are_gone_are_noticed_at_the_start(tmp_path: Path, quick: None) -> None:
    with closing(open_store(tmp_path)) as store:
        put_object(tmp_path, store, 1)
        _, path = put_object(tmp_path, store, 2)
        (tmp_path / path).unlink()
        with Running(board_of(tmp_path)):
            wait_for(lambda: [event.code for event in store.events()] == ["storage.check"])
        assert "names 2 images" in store.events()[0].message


@pytest.mark.requirement("KEEP-08")
def test_a_database_found_damaged_is_rebuilt_under_the_other_services(tmp_path: Path, quick: None) -> None:
    with closing(open_store(tmp_path)) as store:
        paths = [put_object(tmp_path, store, seed)[1] for seed in range(6)]
        signed = put_draft(tmp_path, store, 9)[0]
        sign(store, signed)
    content = bytearray((tmp_path / DATABASE).read_bytes())
    with closing(open_store(tmp_path)) as idle:
        root = idle._db.one("SELECT rootpage FROM sqlite_master WHERE name = 'instance'")[0]
    content[4096 * (root - 1) : 4096 * root] = b"\xa5" * 4096
    (tmp_path / DATABASE).write_bytes(content)
    with (
        closing(open_store(tmp_path)) as store,
        closing(open_store(tmp_path)) as idle,
        Running(board_of(tmp_path)) as care,
    ):
        with pytest.raises(StoreError):
            store.study(signed)
        wait_for(lambda: not (tmp_path / DAMAGED).exists() and (tmp_path / KEPT_ASIDE).exists())
        wait_for(lambda: row(store) == ("degraded", "storage.repaired"))
        assert {one.state for one in idle.studies()} == {"queued", "signed"}
        assert len(idle.studies()) == 7
        assert idle.signed_report(signed) == f'{{"signed": {signed}}}'
        assert all(store.holds_object(path) for path in paths)
        assert "storage.repaired" in [event.code for event in store.events()]
        store.add_event("a.b", "life goes on")
        assert care.errors == []
    assert (tmp_path / KEPT_ASIDE / "1" / DATABASE).read_bytes() == bytes(content)


def test_a_key_that_is_not_at_hand_is_no_damage(tmp_path: Path, quick: None) -> None:
    open_store(tmp_path, key=b"k" * 32).close()
    before = (tmp_path / DATABASE).read_bytes()
    (tmp_path / DAMAGED).touch()
    with Running(board_of(tmp_path)) as care:
        care.thread.join(20)
    assert [getattr(error, "code", "") for error in care.errors] == ["store.key"]
    assert (tmp_path / DATABASE).read_bytes() == before
    assert not (tmp_path / KEPT_ASIDE).exists()


@pytest.mark.requirement("KEEP-06")
def test_no_wall_clock_in_care() -> None:
    """What is old is decided by running time alone."""
    sources = [*(ROOT / "edge" / "care").glob("*.py"), ROOT / "edge" / "disk_marks.py"]
    mine = [path for path in sources if not path.name.startswith(("archive", "backup", "restore"))]
    assert len(mine) >= 8
    for path in mine:
        assert not re.search(r"time\.time\(|datetime|st_[acm]time\b", path.read_text()), path.name
