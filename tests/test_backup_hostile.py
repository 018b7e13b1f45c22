"""Archives by someone who knows the passphrase and means harm: nothing lands outside, nothing stays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edge.board import Board
from edge.care import archive_parts
from edge.care.archive import Kdf, new_header
from edge.care.archive_records import About, RecordWriter
from edge.care.archive_stream import Sealer
from edge.errors import BackupError, StoreError
from edge.store_backup import VERSION, take_snapshot
from edge.store_connection import Connection
from tests.backup_box import PASSPHRASE, board_of, carried, files_of, fill, load, refusal

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


def sealed(path: Path, content: Callable[[RecordWriter], object], about: About | None = None) -> Path:
    """An archive by someone who knows the passphrase and means harm."""
    header, key = new_header(PASSPHRASE, Kdf(4, 8))
    with path.open("wb") as stream:
        sealer = Sealer(header, key, lambda _: stream.write)
        writer = RecordWriter(sealer.write, about or About("test", "9.9", VERSION))
        content(writer)
        writer.end(1)
        sealer.close()
    return path


def test_hostile_archives(stick: Path, fresh: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    database = "radbox.sqlite3"
    evil = fresh.data_dir.parent / "evil"

    def outside(writer: RecordWriter) -> None:
        writer.file("../evil", [b"x"])
        writer.file(database, [], KEY.hex())

    def no_database(writer: RecordWriter) -> None:
        writer.file(database, [b"no database"], KEY.hex())

    def no_key(writer: RecordWriter) -> None:
        writer.file(database, [b""], "zz")

    def several(writer: RecordWriter) -> None:
        for _ in range(2):
            writer.file(database, [b"x"], KEY.hex())

    assert refusal(lambda: load(fresh, sealed(stick / "a", outside))) == "backup.damaged"
    assert not evil.exists()
    for number, content in enumerate((no_database, no_key, several)):
        assert refusal(lambda: load(fresh, sealed(stick / f"b{number}", content))) == "backup.damaged"  # noqa: B023
    newer = About("test", "9.9", VERSION + 1)
    assert refusal(lambda: load(fresh, sealed(stick / "c", no_database, newer))) == "backup.newer"
    assert files_of(fresh.data_dir) == {}
    # An archive larger than the disk is refused before a byte is written, and one that lies about itself on the way.
    tight = dataclasses.replace(fresh, receive=dataclasses.replace(fresh.receive, min_free_bytes=2**60))
    assert refusal(lambda: load(tight, stick / "b0")) == "backup.no-room"
    monkeypatch.setattr(archive_parts.PartsReader, "_size_bytes", lambda _: -(2**62))
    bomb = sealed(stick / "d", lambda writer: writer.file(f"quarantine/{'0' * 64}.bin", [bytes(2**20)] * 17))
    assert refusal(lambda: load(tight, bomb)) == "backup.no-room"
    assert files_of(fresh.data_dir) == {}


@pytest.mark.parametrize(
    ("sql", "with_files"),
    [
        ("UPDATE instance SET path = '../../../etc/passwd'", True),
        ("UPDATE reading SET rendered = '../..'", True),
        ("CREATE TRIGGER t AFTER INSERT ON event BEGIN DELETE FROM study; END", True),
        ("CREATE VIEW v AS SELECT 1", True),
        ("SELECT 1", False),
    ],
)
def test_a_database_that_is_not_ours(box: Board, stick: Path, fresh: Board, sql: str, with_files: bool) -> None:
    """Rows that name files elsewhere or files that are not there, triggers, views: refused, and nothing stays."""
    copy = take_snapshot(box.data_dir, None, stick / "copy")
    copy.close()
    with closing(Connection(copy.path, copy.key)) as connection:
        connection.all(sql)
        connection.all("PRAGMA journal_mode = DELETE")

    def content(writer: RecordWriter) -> None:
        for name in carried(files_of(box.data_dir)) if with_files else ():
            writer.file(name, [(box.data_dir / name).read_bytes()])
        writer.file("radbox.sqlite3", [copy.path.read_bytes()], copy.key.hex())

    with pytest.raises((BackupError, StoreError)) as caught:
        load(fresh, sealed(stick / "a.rbk", content))
    assert caught.value.code in ("backup.damaged", "store.damaged")
    assert files_of(fresh.data_dir) == {}
