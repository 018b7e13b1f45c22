"""Backup and restore of real data folders: nothing is lost, nothing comes along that must not, nothing is half."""

from __future__ import annotations

import random
import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge.__main__ import main as command
from edge.board import Board
from edge.care import backup, restore
from edge.care.archive_records import RecordWriter
from edge.care.archive_stream import CHUNK_BYTES
from edge.care.backup_source import Source
from edge.durable import Lock
from edge.errors import StoreError
from edge.slots import STATE
from edge.store import IssueFacts, object_path, open_store
from edge.store_connection import Connection
from edge.store_paths import DATABASE
from tests.backup_box import (
    PASSPHRASE,
    SECRET_NAME,
    SLOT,
    board_of,
    carried,
    draft,
    files_of,
    fill,
    is_empty,
    load,
    put,
    quick,
    refusal,
    rows_of,
    save,
)
from tests.receiver_process import ReceiverProcess, wait_for

KEY = b"k" * 32


@pytest.fixture
def box(tmp_path: Path) -> Board:
    board = board_of(tmp_path / "box")
    fill(board)
    return board


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


@pytest.fixture
def fresh(tmp_path: Path) -> Board:
    return board_of(tmp_path / "fresh")


# --- there and back ---


@pytest.mark.requirement("KEEP-09")
def test_all_comes_back(box: Board, stick: Path, fresh: Board) -> None:
    before = files_of(box.data_dir)
    assert save(box, stick / "a.rbk")
    assert [path.name for path in stick.iterdir()] == ["a.rbk"]
    assert not (box.data_dir / ".backup").exists()
    assert load(fresh, stick / "a.rbk") == 0
    assert rows_of(fresh.data_dir) == rows_of(box.data_dir)
    assert files_of(fresh.data_dir) == carried(before)
    assert sorted(path.name for path in fresh.data_dir.iterdir() if path.is_dir()) == sorted(
        {"spool", "quarantine", "rendered", "slots", "update"}
    )


@pytest.mark.requirement("KEEP-09")
def test_nothing_readable_lies_on_the_stick(box: Board, stick: Path) -> None:
    save(box, stick / "a.rbk")
    content = (stick / "a.rbk").read_bytes()
    for secret in (SECRET_NAME.encode(), b"SQLite", b"spool/objects", b"image.png", PASSPHRASE):
        assert secret not in content


def test_keys_stay_on_their_boxes(tmp_path: Path, stick: Path, fresh: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encrypted box, restored onto one with another key and onto one without."""
    box = board_of(tmp_path / "box")
    fill(box, key=KEY)
    for module in (backup, restore):
        monkeypatch.setattr(module, "database_key", lambda: KEY)
    save(box, stick / "a.rbk")
    monkeypatch.setattr(restore, "database_key", lambda: b"o" * 32)
    load(fresh, stick / "a.rbk")
    assert rows_of(fresh.data_dir, b"o" * 32) == rows_of(box.data_dir, KEY)
    assert SECRET_NAME.encode() not in (fresh.data_dir / DATABASE).read_bytes()
    monkeypatch.setattr(restore, "database_key", lambda: None)
    plain = board_of(tmp_path / "plain")
    load(plain, stick / "a.rbk")
    assert rows_of(plain.data_dir) == rows_of(box.data_dir, KEY)


def test_life_goes_on_after_a_restore(box: Board, stick: Path, fresh: Board) -> None:
    """What was being read waits again without a death counted; age goes on; another boot's times harm nothing."""
    with closing(open_store(box.data_dir)) as store:
        age_s = store.tick_age()
        waiting = store.waiting()
    save(box, stick / "a.rbk")
    load(fresh, stick / "a.rbk")
    with closing(Connection(fresh.data_dir / DATABASE, None)) as connection:
        connection.all("UPDATE box SET boot_id = 'other', ticked_monotonic_s = 1e9")
        connection.all("UPDATE instance SET boot_id = 'other', received_monotonic_s = 1e9")
    with closing(open_store(fresh.data_dir)) as store:
        assert store.waiting() == waiting + 1
        assert store.requeue_stale() == []
        assert store.services() == []
        assert [event.code for event in store.events(1)] == ["backup.restored"]
        assert age_s <= store.tick_age() <= age_s + time.monotonic()
        for _ in range(waiting + 1):
            draft(fresh, store)
        assert store.claim_next("w") is None
        (receiving,) = store.receiving_studies()
        store.complete_study(receiving)
        draft(fresh, store)
        store.sign(receiving, 1, "B. Doctor", "{}")
        store.mark_exported(receiving)
        assert [one.idle_s >= 0 for one in store.removable(0.0, 0)]
    with closing(open_store(box.data_dir)) as store:
        assert [event.code for event in store.events(1)] == ["backup.written"]


def test_parts_for_fat32(box: Board, stick: Path, fresh: Board) -> None:
    with closing(open_store(box.data_dir)) as store:
        put(box, store, 77, random.Random(1).randbytes(5 * CHUNK_BYTES))
    save(box, stick / "a.rbk", chunks_per_part=2)
    assert sorted(path.name for path in stick.iterdir()) == ["a.rbk", "a.rbk.2", "a.rbk.3"]
    assert all(path.stat().st_size <= 2 * (CHUNK_BYTES + 16) + 64 for path in stick.iterdir())
    load(fresh, stick / "a.rbk")
    assert rows_of(fresh.data_dir) == rows_of(box.data_dir)
    (stick / "a.rbk.3").unlink()
    assert refusal(lambda: load(board_of(fresh.data_dir.parent / "other"), stick / "a.rbk")) == "backup.cut"


def test_through_the_real_receiver(tmp_path: Path, stick: Path) -> None:
    """Phantom DX over DICOM, backed up while more arrive, restored, and a real receiver goes on with the result."""
    from edge.simulate.objects import phantom_dataset
    from edge.simulate.phantom import PhantomOptions, make_phantom

    phantom = make_phantom(PhantomOptions())
    images = [phantom_dataset(phantom, patient_name=SECRET_NAME, patient_id=f"P{number}") for number in range(4)]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with ReceiverProcess(tmp_path / "one") as receiver:
        association = receiver.associate([(images[0].SOPClassUID, images[0].file_meta.TransferSyntaxUID)])
        for image in images[:2]:
            assert association.send_c_store(image).Status == 0
        told: list[str] = []

        def tell(line: str) -> None:
            told.append(line)
            assert association.send_c_store(images[2]).Status == 0

        box = board_of(receiver.data_dir)
        save(box, stick / "a.rbk", tell=tell)
        assert told
        assert association.send_c_store(images[3]).Status == 0
        association.release()
        wait_for(lambda: receiver.store().waiting() == 4)
    second = ReceiverProcess(tmp_path / "two")
    load(board_of(second.data_dir), stick / "a.rbk")
    restored, original = rows_of(second.data_dir), rows_of(receiver.data_dir)
    assert restored["instance"] == original["instance"][:2]
    with second:
        association = second.associate([(images[0].SOPClassUID, images[0].file_meta.TransferSyntaxUID)])
        assert all(association.send_c_store(image).Status == 0 for image in images)
        association.release()
        wait_for(lambda: second.store().waiting() == 4)
        assert [row["sha256"] for row in rows_of(second.data_dir)["instance"]] == [
            row["sha256"] for row in original["instance"]
        ]
        assert [event.code for event in second.store().events(50) if "conflict" in event.code] == []


# --- while the box changes ---


def test_studies_that_are_forgotten_meanwhile(box: Board, stick: Path, fresh: Board) -> None:
    """Files that vanish while they are read: the archive holds a later moment, whole, and nothing of what is gone."""
    with closing(open_store(box.data_dir)) as store:
        keep = put(box, store, 78, b"comes late")
        gone = store.removable(0.0, 0)[0].study_key
        original = Source._write_file

        def write_file(self: Source, records: RecordWriter, wanted: Any) -> bool:
            if wanted.name.startswith("quarantine/"):  # the objects were taken already, one of them is forgotten now
                assert store.forget_study(gone)
                for path in map(box.data_dir.joinpath, store.removals()):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                for name in store.removals():
                    store.removed(name)
                for row in store.quarantine():
                    (box.data_dir / row.path).unlink(missing_ok=True)
                store.drop_quarantine(0)
                put(box, store, 80, b"arrives meanwhile")
            return original(self, records, wanted)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Source, "_write_file", write_file)
            end = save(box, stick / "a.rbk")
    assert (end.snapshots, end.broken) == (2, 0)
    load(fresh, stick / "a.rbk")
    assert rows_of(fresh.data_dir) == rows_of(box.data_dir)
    assert files_of(fresh.data_dir) == carried(files_of(box.data_dir))
    with closing(open_store(fresh.data_dir)) as store:
        assert store.study(keep) is not None
        assert store.study(gone) is None


def test_files_that_the_box_had_lost(box: Board, stick: Path, fresh: Board, capsys: pytest.CaptureFixture[str]) -> None:
    """A box with holes can still be backed up, and says so at both ends."""
    rows = rows_of(box.data_dir)
    lost, damaged = (box.data_dir / row["path"] for row in rows["instance"][:2])
    lost.unlink()
    (box.data_dir / rows["reading"][0]["rendered"] / "image.png").unlink()
    end = save(box, stick / "a.rbk")
    assert end.broken == 2
    assert load(fresh, stick / "a.rbk") == 2
    assert rows_of(fresh.data_dir) == rows
    assert files_of(fresh.data_dir) == carried(files_of(box.data_dir))
    assert damaged.exists()


def test_a_damaged_object_comes_along(box: Board, stick: Path, fresh: Board) -> None:
    row = rows_of(box.data_dir)["instance"][0]
    (box.data_dir / row["path"]).write_bytes(b"other bytes")
    assert save(box, stick / "a.rbk").broken == 1
    assert load(fresh, stick / "a.rbk") == 1
    assert (fresh.data_dir / row["path"]).read_bytes() == b"other bytes"


def test_a_model_stays_with_its_board(box: Board, stick: Path, fresh: Board) -> None:
    save(box, stick / "a.rbk")
    other = board_of(fresh.data_dir, name="another")
    load(other, stick / "a.rbk")
    assert not any(name.startswith(("slots/", "update/")) for name in files_of(other.data_dir))
    own = board_of(fresh.data_dir.parent / "own")
    (own.data_dir / "update").mkdir(parents=True)
    (own.data_dir / STATE).write_text("the box's own")
    (own.data_dir / "update" / "device.key").write_text("own key")
    load(own, stick / "a.rbk")
    assert (own.data_dir / STATE).read_text() == "the box's own"
    assert (own.data_dir / "update" / "device.key").read_text() == "own key"
    assert not (own.data_dir / "slots" / SLOT).exists()


# --- refusals ---


def test_wrong_passphrase(box: Board, stick: Path, fresh: Board) -> None:
    save(box, stick / "a.rbk")
    code = refusal(lambda: restore.restore(fresh, stick / "a.rbk", b"another passphrase", quick()))
    assert code == "backup.wrong-passphrase"
    assert is_empty(fresh.data_dir)


def test_an_older_backup_is_never_replaced(box: Board, stick: Path) -> None:
    save(box, stick / "a.rbk")
    assert refusal(lambda: backup._target(stick / "a.rbk")) == "backup.exists"
    assert backup._target(stick).name == "radbox-0001.rbk"
    (stick / "radbox-0001.rbk").touch()
    (stick / "radbox-0002.rbk.part").touch()
    assert backup._target(stick).name == "radbox-0003.rbk"
    assert refusal(lambda: backup._target(stick / "no" / "a.rbk")) == "backup.stick-removed"


@pytest.mark.parametrize("content", [b"", b"short", b"\n\n a passphrase on line three", b"\xff" * 20, b"x" * 5000])
def test_passphrases_that_will_not_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p").write_bytes(content)
    assert refusal(lambda: backup.read_passphrase(tmp_path / "p")) == "backup.passphrase"
    assert refusal(lambda: backup.read_passphrase(tmp_path / "none")) == "backup.passphrase"


def test_one_passphrase_however_it_was_typed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("fenêtre à côté\r\nnote", encoding="utf-8")
    (tmp_path / "b").write_text("fene\u0302tre a\u0300 co\u0302te\u0301  \n", encoding="utf-8")
    assert backup.read_passphrase(tmp_path / "a") == backup.read_passphrase(tmp_path / "b")


def test_a_box_with_studies_is_not_overwritten(box: Board, stick: Path, fresh: Board) -> None:
    save(box, stick / "a.rbk")
    before = files_of(box.data_dir)
    assert refusal(lambda: load(box, stick / "a.rbk")) == "backup.not-empty"
    assert files_of(box.data_dir) == before
    lone = fresh.data_dir / object_path("ab" * 32)
    lone.parent.mkdir(parents=True)
    lone.write_bytes(b"a file that no row names")
    assert refusal(lambda: load(fresh, stick / "a.rbk")) == "backup.not-empty"


def test_a_running_box_is_not_replaced(box: Board, stick: Path, fresh: Board) -> None:
    save(box, stick / "a.rbk")
    with closing(open_store(fresh.data_dir)) as store:
        store.set_service("web", "ok", "", "here")
        with pytest.raises(StoreError, match="no service"):
            load(fresh, stick / "a.rbk")
        assert store.studies() == []
    load(fresh, stick / "a.rbk")
    assert rows_of(fresh.data_dir) == rows_of(box.data_dir)


def test_one_at_a_time(box: Board, stick: Path) -> None:
    lock = Lock(box.data_dir / backup.LOCK, create=True)
    assert lock.acquire()
    assert refusal(lambda: save(box, stick / "a.rbk")) == "backup.busy"
    lock.close()
    assert save(box, stick / "a.rbk")


def test_no_box_no_backup(fresh: Board, stick: Path) -> None:
    assert refusal(lambda: save(fresh, stick / "a.rbk")) == "backup.no-box"
    assert not fresh.data_dir.exists()


# --- the command ---


def test_commands(box: Board, stick: Path, fresh: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As an operator types it, with the passphrase hashed at its full cost."""
    (tmp_path / "words").write_bytes(PASSPHRASE + b"\n")
    words = ["--passphrase-file", str(tmp_path / "words")]
    assert command(["backup", "--data-dir", str(box.data_dir), str(stick), *words]) == 0
    assert "read back" in capsys.readouterr().out
    archive = str(stick / "radbox-0001.rbk")
    assert command(["backup", "--data-dir", str(box.data_dir), archive, *words]) == 1
    assert "[backup.exists]" in capsys.readouterr().err
    assert command(["restore", "--data-dir", str(fresh.data_dir), archive, *words]) == 0
    assert "restored" in capsys.readouterr().out
    assert rows_of(fresh.data_dir) == rows_of(box.data_dir)
    assert command(["restore", "--data-dir", str(fresh.data_dir), archive, *words]) == 1
    assert "[backup.not-empty]" in capsys.readouterr().err
    (tmp_path / "words").write_text("another passphrase")
    assert command(["restore", "--data-dir", str(tmp_path / "third"), archive, *words]) == 1
    said = capsys.readouterr()
    assert "[backup.wrong-passphrase]" in said.err
    assert SECRET_NAME not in said.out + said.err


def test_what_the_other_box_measured_and_was_asked_stays_there(box: Board, stick: Path, fresh: Board) -> None:
    with closing(open_store(box.data_dir)) as store:
        store.set_fact("hardware", {"free_bytes": 1})
        store.set_issues([IssueFacts("issue.disk-full", "", "critical")])
        store.ask("storage.clean", {})
        store.put_out("issue", "{}", 10)
        store.add_counts({"images_received": 5})
    assert save(box, stick / "a.rbk")
    assert load(fresh, stick / "a.rbk") == 0
    with closing(open_store(fresh.data_dir)) as store:
        assert (store.facts(), store.issues(), store.asked(), store.outbox()) == ({}, [], [], [])
        assert store.counts()["images_received"] == 5
