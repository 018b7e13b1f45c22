"""A real ext4 filled to its last byte: nothing acknowledged is lost, and the box goes on when there is room.

Root only (loop mount); skipped elsewhere.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge.board import Board
from edge.board_keys import MIB
from edge.care.disk import Disk
from edge.care.fsck import check
from edge.durable import make_directory, write_file
from edge.errors import StorageFullError
from edge.store import Store, open_store
from edge.store_paths import RESERVE, rendered_path
from tests.care_box import board_of, put_object
from tests.receiver_process import ReceiverProcess, encoded, radiograph, send_bytes, wait_for

CR, EXPLICIT = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.1.2.1"
RESERVE_BYTES, MIN_FREE_BYTES = 2 * MIB, 4 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 48 MiB."""
    image, mount = tmp_path / "disk.img", tmp_path / "disk"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(48 * MIB)
    made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], capture_output=True, check=False)
    done = made.returncode or subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=False).returncode
    if done:
        pytest.skip("needs root, mkfs.ext4 and a loop device")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def fill(path: Path) -> None:
    """A file that takes every block that is left."""
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 512):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                os.fsync(file.fileno())


def small_board(data_dir: Path) -> Board:
    board = board_of(data_dir, reserve_bytes=RESERVE_BYTES)
    return dataclasses.replace(board, receive=dataclasses.replace(board.receive, min_free_bytes=MIN_FREE_BYTES))


def add_events(store: Store, count: int) -> None:
    for number in range(count):
        store.add_event("a.b", f"{number}" + "x" * 500)


def nothing() -> None:
    return None


def test_the_database_writes_on_when_the_last_byte_is_taken(disk: Path) -> None:
    data_dir = disk / "data"
    board = small_board(data_dir)
    with closing(open_store(data_dir)) as store:
        care = Disk(board, store)
        for seed in range(3):
            store.complete_study(put_object(data_dir, store, seed)[0])
        assert care.step(nothing).code == ""
        assert (data_dir / RESERVE).stat().st_blocks * 512 >= RESERVE_BYTES
        claimed = store.claim_next("worker")
        assert claimed is not None

        fill(disk / "others")
        with pytest.raises(StorageFullError):
            write_file(disk / "one more", b"x" * 4096)
        events = 0
        while (data_dir / RESERVE).exists():
            store.add_event("a.b", f"event {events} " + "x" * 500)
            events += 1
            assert events < 1000
        assert len(store.events(2000)) == events, "the one that found no room was written too"
        assert care.step(nothing).code == "storage.full"

        rendered = rendered_path(claimed.study_key, claimed.attempt)
        make_directory(data_dir / rendered)
        write_file(data_dir / rendered / "image.png", b"p" * (MIB // 2))
        store.finish_draft(claimed.study_key, '{"a": 1}', str(rendered), {})
        assert store.claim_next("worker") is not None
        with closing(open_store(data_dir)) as another:
            another.set_service("web", "ok", "", "")
            assert len(another.studies()) == 3

        fill(disk / "and more")
        with pytest.raises(StorageFullError):
            add_events(store, 2000)
        assert len(store.events(5000)) >= events
        (disk / "others").unlink()
        (disk / "and more").unlink()
        assert care.step(nothing).code == ""
        assert (data_dir / RESERVE).exists()
        store.add_event("a.b", "room again")
        detail = store.study(claimed.study_key)
        assert detail is not None
        assert (detail.state, detail.report_json) == ("draft", '{"a": 1}')
    assert check(data_dir, None, True).clean


@pytest.mark.requirement("RCV-04")
def test_a_full_disk_refuses_images_and_loses_none(disk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RADBOX_DATA_DIR", str(disk / "data"))
    receiver = ReceiverProcess(tmp_path, min_free_bytes=MIN_FREE_BYTES)
    receiver.data_dir = disk / "data"
    board = small_board(disk / "data")
    answers: dict[str, int | None] = {}

    def send(seed: int) -> int | None:
        dataset = radiograph(seed)
        association = receiver.associate([(CR, EXPLICIT)])
        answers[dataset.SOPInstanceUID] = send_bytes(association, encoded(dataset), CR, dataset.SOPInstanceUID)
        association.release()
        return answers[dataset.SOPInstanceUID]

    with receiver, closing(receiver.store()) as store:
        care = Disk(board, store)
        care.step(nothing)
        assert [send(1), send(2)] == [0x0000, 0x0000]
        fill(disk / "others")
        assert send(3) == 0xA700
        wait_for(lambda: "storage.full" in {event.code for event in store.events()})
        assert care.step(nothing).code == "storage.full"
        assert not (disk / "data" / RESERVE).exists()
        assert send(4) == 0xA700
        (disk / "others").unlink()
        assert care.step(nothing).code == ""
        assert [send(3), send(4)] == [0x0000, 0x0000]
        wait_for(lambda: not store.receiving_studies())
        receiver.stop()
        held = {row.sop_instance_uid for one in store.studies() for row in store.study(one.study_key).instances}  # type: ignore[union-attr]
    assert held == set(answers)
    assert check(disk / "data", None, True).clean
