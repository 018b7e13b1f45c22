"""Files are whole or absent, and durable before anyone is told."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import durable
from edge.durable import (
    DiskUse,
    DurableFile,
    Lock,
    allocate,
    disk_use,
    free_bytes,
    fsync_directory,
    is_temporary,
    locked,
    make_directory,
    remove,
    sweep,
    write_file,
)
from edge.errors import StorageError, StorageFullError


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("needs root to mount a tmpfs")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_write_file_replaces_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_file(path, b"first")
    write_file(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_file_then_rename_then_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(handle: int) -> None:
        target = Path(f"/proc/self/fd/{handle}").readlink()
        steps.append("fsync folder" if target.is_dir() else "fsync file")
        fsync(handle)

    def spy_replace(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    write_file(tmp_path / "a", b"x")
    assert steps == ["fsync file", "rename", "fsync folder"]


def test_durable_file_counts_and_hashes(tmp_path: Path) -> None:
    file = DurableFile(tmp_path)
    file.write(b"abc")
    file.write(bytes(100_000))
    file.commit(tmp_path / "final")
    content = b"abc" + bytes(100_000)
    assert (tmp_path / "final").read_bytes() == content
    assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    file.discard()
    assert (tmp_path / "final").exists()


def test_discard_and_sweep_leave_nothing(tmp_path: Path) -> None:
    file = DurableFile(tmp_path)
    file.write(b"abc")
    file.discard()
    file.discard()
    assert list(tmp_path.iterdir()) == []
    left = [DurableFile(tmp_path), DurableFile(tmp_path)]
    (tmp_path / "kept.dcm").write_bytes(b"x")
    assert sweep(tmp_path) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kept.dcm"]
    for file in left:
        file.discard()


def test_folders_and_removal(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    make_directory(deep)
    make_directory(deep)
    assert deep.is_dir()
    write_file(deep / "x", b"1")
    remove(deep / "x")
    remove(deep / "x")
    assert list(deep.iterdir()) == []
    assert free_bytes(tmp_path) > 0


def test_errors_are_ours_and_name_no_path(tmp_path: Path) -> None:
    absent = tmp_path / "Doe^Jane"
    for doing in (lambda: DurableFile(absent), lambda: fsync_directory(absent), lambda: free_bytes(absent)):
        with pytest.raises(StorageError) as caught:
            doing()
        assert "Doe" not in caught.value.message
        assert caught.value.code == "storage.failed"


def test_full_disk(small_disk: Path) -> None:
    write_file(small_disk / "kept", b"1" * 1000)
    with pytest.raises(StorageFullError) as caught:
        write_file(small_disk / "big", b"1" * 500_000)
    assert caught.value.code == "storage.full"
    assert [path.name for path in small_disk.iterdir()] == ["kept"]
    assert (small_disk / "kept").read_bytes() == b"1" * 1000


def test_allocated_room_is_really_taken(tmp_path: Path, small_disk: Path) -> None:
    allocate(tmp_path / "reserve", 2**20)
    found = (tmp_path / "reserve").stat()
    assert (found.st_size, found.st_blocks * 512 >= 2**20) == (2**20, True)
    with pytest.raises(StorageFullError):
        allocate(small_disk / "reserve", 2**20)
    assert list(small_disk.iterdir()) == []


def test_disk_use_counts_as_df_does(tmp_path: Path) -> None:
    said = subprocess.run(["df", "-B1", "--output=size,used,avail,pcent", tmp_path], capture_output=True, check=True)
    size, used, avail, percent = said.stdout.split()[-4:]
    use = disk_use(tmp_path)
    assert use.size == int(size)
    assert use.used == pytest.approx(int(used), rel=0.05, abs=2**28)
    assert use.free == pytest.approx(int(avail), rel=0.05, abs=2**28)
    assert use.percent == pytest.approx(float(percent.strip(b"%")), abs=2)
    assert DiskUse(0, 0, 0).percent == 100.0


def test_names_of_unfinished_files(tmp_path: Path) -> None:
    file = DurableFile(tmp_path)
    assert is_temporary(file.path)
    assert not is_temporary(tmp_path / "a.dcm")
    file.discard()


def test_a_locked_folder_keeps_out_threads_and_processes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    entered = threading.Event()

    def enter() -> None:
        with locked(*reversed(folders)):
            entered.set()

    thread = threading.Thread(target=enter)
    with locked(*folders, folders[0]):
        thread.start()
        assert not entered.wait(0.1)
        attempt = "import sys; from pathlib import Path; from edge.durable import Lock\n"
        attempt += "sys.exit(Lock(Path(sys.argv[1])).acquire(wait_s=0.05))"
        assert subprocess.run([sys.executable, "-c", attempt, str(folders[0])], check=False).returncode == 0
    assert entered.wait(5)
    thread.join()
    assert subprocess.run([sys.executable, "-c", attempt, str(folders[0])], check=False).returncode == 1


def test_shared_locks_go_together_and_one_alone_does_not(tmp_path: Path) -> None:
    one, two, alone = (Lock(tmp_path / "lock", create=True) for _ in range(3))
    assert one.acquire(shared=True, wait_s=0)
    assert two.acquire(shared=True)
    assert not alone.acquire(wait_s=0.02)
    one.release()
    two.close()
    assert alone.acquire()
    assert not one.acquire(shared=True, wait_s=0)
    for lock in (one, two, alone):
        lock.close()
        lock.close()
    with pytest.raises(StorageError):
        Lock(tmp_path / "absent")


def test_siblings_become_durable_with_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    real = durable.fsync_directory

    def noted(path: Path) -> None:
        synced.append(path)
        real(path)

    monkeypatch.setattr(durable, "fsync_directory", noted)
    folders = [tmp_path / "parent" / name for name in "abc"]
    (tmp_path / "parent" / "b").mkdir(parents=True)
    durable.make_siblings(folders)
    assert all(folder.is_dir() for folder in folders)
    assert synced == [tmp_path, tmp_path / "parent"]
    durable.make_directory(folders[2])
    assert len(synced) == 2, "its name is known to be durable"


@pytest.mark.parametrize(("folder_mode", "expected"), [(0o700, 0o600), (0o2770, 0o660)])
def test_a_file_is_private_unless_its_folder_is_shared(tmp_path: Path, folder_mode: int, expected: int) -> None:
    """The services of a packaged box are different users of one group: set-group-ID on the data folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(folder_mode)
    before = os.umask(0o007)
    try:
        durable.write_file(folder / "shared", b"x")
        durable.write_file(folder / "private", b"x", private=True)
        durable.claim_name(folder / "claimed")
        durable.allocate(folder / "reserve", 4096)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {"shared": expected, "private": 0o600, "claimed": expected, "reserve": expected}
