"""Sticks that are pulled or full and processes that are killed, at every step of a backup and of a restore."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from edge.board import Board
from edge.care import archive_parts, backup, restore
from edge.care import service as care
from edge.care.backup_source import WORKSPACE
from edge.durable_names import NamedFile, merge
from edge.errors import RadboxError, StoreError
from edge.service import Stop
from edge.store import open_store
from tests.backup_box import PASSPHRASE, board_of, carried, files_of, fill, is_empty, put, quick, refusal, rows_of, save
from tools.powercut.disk import Disk, missing

MIB = 2**20


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """A box whose archive is a few MiB. Tests leave it as it is, events aside."""
    board = board_of(tmp_path_factory.mktemp("cuts") / "box")
    fill(board)
    with closing(open_store(board.data_dir)) as store:
        put(board, store, 90, random.Random(9).randbytes(3 * MIB))
    return board


@pytest.fixture(scope="module")
def archive(box: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stick") / "a.rbk"
    backup.write_backup(box, path, PASSPHRASE, quick())
    return path


# --- the stick goes away or is full while the backup is written ---


class FailingFile(NamedFile):
    """A stick that fails once so many bytes were written to it, or at the so-many-th flush."""

    left_bytes = 0
    left_syncs = 10**9
    error = errno.EIO

    def write(self, content: bytes) -> None:
        if len(content) > FailingFile.left_bytes:
            super().write(content[: FailingFile.left_bytes])
            raise OSError(FailingFile.error, os.strerror(FailingFile.error))
        FailingFile.left_bytes -= len(content)
        super().write(content)

    def sync(self) -> None:
        FailingFile.left_syncs -= 1
        if FailingFile.left_syncs < 0:
            raise OSError(FailingFile.error, os.strerror(FailingFile.error))
        super().sync()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errno.EIO, "backup.stick-removed"),
        (errno.ENODEV, "backup.stick-removed"),
        (errno.EROFS, "backup.stick-removed"),  # vfat after an error
        (errno.ENOSPC, "backup.no-room"),
        (errno.EFBIG, "backup.no-room"),
        (errno.EPERM, "backup.not-allowed"),
        (errno.ENOMEM, "backup.failed"),
    ],
)
def test_the_stick_fails_at_every_place(
    box: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, code: str
) -> None:
    before = rows_of(box.data_dir)
    monkeypatch.setattr(archive_parts, "NamedFile", FailingFile)
    monkeypatch.setattr(FailingFile, "error", error)
    chance = random.Random(error)
    for left_bytes in (0, 63, 64, MIB, *(chance.randrange(4 * MIB) for _ in range(4))):
        monkeypatch.setattr(FailingFile, "left_bytes", left_bytes)
        assert refusal(lambda: save(box, tmp_path / "a.rbk", chunks_per_part=2)) == code
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(FailingFile, "left_bytes", 10**9)
    for left_syncs in (0, 1, 2):
        monkeypatch.setattr(FailingFile, "left_syncs", left_syncs)
        assert refusal(lambda: save(box, tmp_path / "a.rbk", chunks_per_part=2)) == code
        assert list(tmp_path.iterdir()) == []
    assert not (box.data_dir / WORKSPACE).exists()
    assert rows_of(box.data_dir) == before


def test_a_stick_that_gives_back_other_bytes(box: Board, tmp_path: Path) -> None:
    """Success is said only after reading back: a stick that lies is found out, whatever it lies about."""
    part = tmp_path / "a.rbk.part"

    def flip() -> None:
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 4
        part.write_bytes(content)

    for lie, code in (
        (flip, "backup.damaged"),
        (lambda: os.truncate(part, MIB), "backup.cut"),
        (part.unlink, "backup.not-a-backup"),
        (lambda: shutil.rmtree(tmp_path), "backup.stick-removed"),
    ):
        assert refusal(lambda: save(box, tmp_path / "a.rbk", tell=lambda _: lie())) == code  # noqa: B023
        assert not (tmp_path / "a.rbk").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_stick(box: Board, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen before a byte is written, and once more by the system where the room went meanwhile."""
    assert refusal(lambda: save(box, small_disk / "a.rbk")) == "backup.no-room"
    monkeypatch.setattr(backup, "_check_room", lambda *_: None)
    assert refusal(lambda: save(box, small_disk / "a.rbk")) == "backup.no-room"
    assert list(small_disk.iterdir()) == []


@pytest.fixture
def pulled_stick(tmp_path: Path) -> Iterator[Disk]:
    """A real ext4 file system on a block device that can vanish."""
    if reason := missing():
        pytest.skip(reason)
    disk = Disk(tmp_path / "disk", 32 * MIB)
    disk.format()
    disk.plug()
    yield disk
    disk.unplug()


@pytest.mark.parametrize("moment", ["writing", "reading back"])
def test_a_stick_that_is_pulled(box: Board, pulled_stick: Disk, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    original = NamedFile.sync

    def sync(self: NamedFile) -> None:
        if moment == "writing":
            pulled_stick.cut()
        original(self)

    monkeypatch.setattr(NamedFile, "sync", sync)
    code = refusal(lambda: save(box, pulled_stick.mount / "a.rbk", tell=lambda _: pulled_stick.cut()))
    assert code == "backup.stick-removed"
    assert not (pulled_stick.mount / "a.rbk").exists()
    assert not (box.data_dir / WORKSPACE).exists()


# --- the stick goes away while it is restored ---


@pytest.mark.parametrize("error", [errno.EIO, errno.ENODEV])
def test_the_stick_fails_while_it_is_restored(
    box: Board, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    fresh = board_of(tmp_path / "fresh")
    original = archive_parts._Part.read
    for fails_at in range(6):
        reads = 0

        def read(self: archive_parts._Part, size: int, /) -> bytes:
            nonlocal reads
            reads += 1
            if reads > fails_at:  # noqa: B023
                with archive_parts.stick():
                    raise OSError(error, "gone")
            return original(self, size)

        monkeypatch.setattr(archive_parts._Part, "read", read)
        assert refusal(lambda: restore.restore(fresh, archive, PASSPHRASE, quick())) == "backup.stick-removed"
        assert files_of(fresh.data_dir) == {}
    monkeypatch.undo()
    restore.restore(fresh, archive, PASSPHRASE, quick())
    assert rows_of(fresh.data_dir) == rows_of(box.data_dir)


def test_every_cut_archive_leaves_an_empty_box(archive: Path, tmp_path: Path) -> None:
    fresh = board_of(tmp_path / "fresh")
    content = archive.read_bytes()
    chance = random.Random(2)
    for end in sorted({0, 1, 64, MIB, len(content) - 1, *(chance.randrange(len(content)) for _ in range(10))}):
        (tmp_path / "cut.rbk").write_bytes(content[:end])
        code = refusal(lambda: restore.restore(fresh, tmp_path / "cut.rbk", PASSPHRASE, quick()))
        assert code == ("backup.cut" if end else "backup.not-a-backup")
        assert files_of(fresh.data_dir) == {}


# --- killed ---


def in_child(work: Callable[[], object], kill_after_s: float | None = None) -> int:
    """Run `work` in a forked child, SIGKILLed after a time; 0 if it ended well, 1 after an error of ours, else -9."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            work()
            code = 0
        except RadboxError:
            code = 1
        finally:
            os._exit(code)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _dies_at(step: int, work: Callable[[], object]) -> Callable[[], None]:
    """`work`, SIGKILLed at its `step`-th fsync or rename."""

    def run() -> None:
        left = step

        def counted(call: Callable[..., object]) -> Callable[..., object]:
            def step_or_die(*arguments: object, **options: object) -> object:
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return call(*arguments, **options)

            return step_or_die

        for name in ("fsync", "replace", "rename", "rmdir", "unlink"):
            setattr(os, name, counted(getattr(os, name)))
        work()

    return run


def check_whole(fresh: Board, box: Board) -> None:
    assert rows_of(fresh.data_dir) == rows_of(box.data_dir)
    assert files_of(fresh.data_dir) == carried(files_of(box.data_dir))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_restore_killed_at_every_step(archive: Path, box: Board, tmp_path: Path) -> None:
    """At fsyncs, renames, deletions: the box is empty or whole, and the same command again makes it whole."""
    step = 0
    placing = False
    seen = set()
    while True:
        fresh = board_of(tmp_path / str(step))
        status = in_child(_dies_at(step, lambda: restore.restore(fresh, archive, PASSPHRASE, quick())))  # noqa: B023
        if status == 0:
            break
        assert status == -signal.SIGKILL, step
        empty = is_empty(fresh.data_dir)
        seen.add(empty)
        placed = (fresh.data_dir / ".restore" / "whole").exists()
        if not empty:
            check_whole_so_far(fresh, box)
        if placed:
            with pytest.raises(StoreError) as refused:
                open_store(fresh.data_dir)
            assert refused.value.code == "store.restore-unfinished"
        if placed and step % 2:
            restore.finish(fresh)
        elif empty or any(fresh.data_dir.glob(".restore*")):
            assert restore.restore(fresh, archive, PASSPHRASE, quick()) == 0
        check_whole(fresh, box)
        shutil.rmtree(fresh.data_dir)
        placing = placing or placed
        step += 1 if placing else 5  # before anything is put in place all steps are alike
    check_whole(fresh, box)
    assert step > 60
    assert seen == {True, False}


def check_whole_so_far(fresh: Board, box: Board) -> None:
    """All is in place; only the emptied staging folder may be left."""
    assert rows_of(fresh.data_dir) == rows_of(box.data_dir)
    lying = files_of(fresh.data_dir)
    assert carried(lying) == carried(files_of(box.data_dir))


def test_a_restore_killed_at_random(archive: Path, box: Board, tmp_path: Path) -> None:
    fresh = board_of(tmp_path / "fresh")
    chance = random.Random(6)
    for _ in range(15):
        in_child(lambda: restore.restore(fresh, archive, PASSPHRASE, quick()), chance.uniform(0, 0.5))
        if not is_empty(fresh.data_dir):
            check_whole_so_far(fresh, box)
            if any(fresh.data_dir.glob(".restore*")):
                restore.restore(fresh, archive, PASSPHRASE, quick())
            check_whole(fresh, box)
            shutil.rmtree(fresh.data_dir)


def test_a_backup_killed_at_random(box: Board, tmp_path: Path) -> None:
    """What is under the archive's name is whole; the box itself does not change."""
    before = rows_of(box.data_dir), carried(files_of(box.data_dir))
    chance = random.Random(7)
    ends = set()
    for number in range(15):
        path = tmp_path / f"{number}.rbk"
        in_child(lambda: save(box, path), chance.uniform(0, 0.25))  # noqa: B023
        ends.add(path.exists())
        if path.exists():
            fresh = board_of(tmp_path / f"fresh{number}")
            restore.restore(fresh, path, PASSPHRASE, quick())
            shutil.rmtree(fresh.data_dir)
        assert (rows_of(box.data_dir), carried(files_of(box.data_dir))) == before
    assert False in ends
    save(box, tmp_path / "last.rbk")
    assert not (box.data_dir / WORKSPACE).exists()


def test_no_service_starts_on_half_a_restore(archive: Path, box: Board, tmp_path: Path) -> None:
    """A cut while files move to their places: no study is taken in before it is finished, and `care` finishes it."""
    fresh = board_of(tmp_path / "fresh")

    def stop(source: Path, final: Path) -> None:
        if final.name == "radbox.sqlite3":
            raise KeyboardInterrupt
        merge(source, final)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore, "merge", stop)
        with pytest.raises(KeyboardInterrupt):
            restore.restore(fresh, archive, PASSPHRASE, quick())
    assert refusal(lambda: open_store(fresh.data_dir)) == "store.restore-unfinished"
    asked = Stop(signals=False)
    asked.set()
    care.run(fresh, asked)
    assert refusal(lambda: open_store(fresh.data_dir)) == "store.restore-unfinished", "stopped before it began"
    threading.Timer(1.0, (running := Stop(signals=False)).set).start()
    care.run(fresh, running)
    found, archived = rows_of(fresh.data_dir), rows_of(box.data_dir)
    del found["box"], archived["box"]  # care counts the box's age, and measures
    found["sqlite_sequence"] = [row for row in found["sqlite_sequence"] if row["name"] != "sample"]
    assert found == archived
