"""Sticks that somebody wrote to do harm: links, pipes, depth, size, names, and a DICOMDIR that points elsewhere."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.board import Board
from edge.disk_marks import DiskWatch
from edge.durable import DiskUse
from edge.errors import DicomError
from edge.intake import dicomdir
from edge.intake.stick import take as take_module
from edge.intake.stick.kinds import kind_of, place, uids
from edge.intake.stick.session import Import
from edge.intake.stick.take import INBOX
from edge.intake.stick.tree import Limits, open_tree
from edge.intake.stick.words import Tally
from edge.store import Store, open_store
from tests.stick_folder import make_dicomdir, object_file
from tests.update_box import sim_board


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return sim_board(tmp_path / "data")


@pytest.fixture
def store(board: Board) -> Iterator[Store]:
    store = open_store(board.data_dir)
    yield store
    store.close()


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    """A stick with one good object."""
    object_file(tmp_path / "stick" / "good", 1)
    return tmp_path / "stick"


def run(board: Board, store: Store, stick: Path) -> Tally:
    tally = Import(board, store, DiskWatch(board, lambda _path: DiskUse(2**40, 0, 2**40))).run(stick)
    inbox = list((board.data_dir / INBOX).iterdir())
    assert len(inbox) == tally.taken
    assert all(path.stat().st_size for path in inbox)
    return tally


def names(stick: Path, most_files: int = 1000) -> tuple[list[str], str]:
    with open_tree(stick) as tree:
        found = tree.files(Limits(most_files, time.monotonic() + 60))
    return ["/".join(one) for one in found.files], found.code


def test_links_pipes_and_sockets_are_passed_over(board: Board, store: Store, stick: Path, tmp_path: Path) -> None:
    secret = object_file(tmp_path / "secret", 5)
    (stick / "link").symlink_to(secret)
    (stick / "folder").symlink_to(tmp_path)
    (stick / "loop").symlink_to(".")
    os.mkfifo(stick / "pipe")
    handle = os.open(stick, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{handle}/socket")
    os.close(handle)
    assert names(stick) == (["good"], "")
    tally = run(board, store, stick)
    assert (tally.found, tally.taken) == (1, 1)


def test_a_file_that_becomes_a_link_or_a_pipe_is_not_followed(stick: Path, tmp_path: Path) -> None:
    (stick / "folder").mkdir()
    (stick / "link").symlink_to(object_file(tmp_path / "secret", 5))
    (stick / "elsewhere").symlink_to(tmp_path)
    os.mkfifo(stick / "pipe")
    with open_tree(stick) as tree:
        for path in (("link",), ("elsewhere", "secret")):
            with pytest.raises(OSError), tree.open(path):  # noqa: PT011
                pass
        for path in (("pipe",), ("folder",)):
            with pytest.raises(DicomError) as raised, tree.open(path):
                pass
            assert raised.value.code == "stick.not-a-file"


@pytest.mark.parametrize(
    "file_id", ["..\\..\\..\\etc\\passwd", "/etc/passwd", "..\\secret", "I1\\..\\..\\secret", ".", "\\", "good\\x"]
)
def test_a_dicomdir_cannot_name_what_is_not_on_the_stick(
    board: Board, store: Store, stick: Path, tmp_path: Path, file_id: str
) -> None:
    object_file(tmp_path / "secret", 5)
    object_file(stick / "IMAGES" / "AAAAAAAA" / "BBBBBBBB", 2)
    make_dicomdir(stick, "IMAGES/AAAAAAAA/BBBBBBBB")
    content = (stick / "DICOMDIR").read_bytes()
    honest = b"IMAGES\\AAAAAAAA\\BBBBBBBB"
    assert honest in content
    (stick / "DICOMDIR").write_bytes(content.replace(honest, file_id.encode().ljust(len(honest))))
    tally = run(board, store, stick)
    assert tally.reasons == {"stick.missing": 1}
    assert tally.taken == 2  # what the walk found


def test_a_dicomdir_whose_records_point_in_circles_ends(stick: Path) -> None:
    for number in (1, 2):
        object_file(stick / f"I{number}", number)
    make_dicomdir(stick, "I1", "I2")
    content = (stick / "DICOMDIR").read_bytes()
    first = content.index(struct.pack("<HH2sH", 4, 0x1200, b"UL", 4)) + 8
    offset = content[first : first + 4]
    for element in (0x1400, 0x1420):  # the next record, the lower level: all to the first
        head = struct.pack("<HH2sH", 4, element, b"UL", 4)
        pieces = content.split(head)
        content = head.join([pieces[0], *(offset + piece[4:] for piece in pieces[1:])])
    assert dicomdir.file_ids(content) == [("I1",), ("I2",)]


def test_depth_is_limited_and_hidden_things_are_left_out(board: Board, store: Store, stick: Path) -> None:
    deep = stick.joinpath(*["d"] * 40)
    object_file(deep / "x", 3)
    for folder in (".Trashes", "System Volume Information", "$RECYCLE.BIN", "EDGE-UPDATE", "edge-update"):
        object_file(stick / folder / "x", 4)
    (stick / "._good").write_bytes((stick / "good").read_bytes())
    tally = run(board, store, stick)
    assert (tally.taken, tally.not_all) == (1, "stick.too-deep")
    assert "too deep" in tally.sentence("done")


def test_a_stick_of_very_many_files_ends(stick: Path) -> None:
    for number in range(300):
        (stick / f"f{number:03}").touch()
    found, code = names(stick, most_files=100)
    assert (len(found), code) == (100, "stick.too-many-files")


def test_a_stick_of_very_many_folders_ends(stick: Path) -> None:
    for number in range(1500):
        (stick / f"f{number:04}").mkdir()
    found, code = names(stick, most_files=100)
    assert code == "stick.too-many-files"
    assert found in ([], ["good"])


def test_a_walk_that_takes_too_long_ends(stick: Path) -> None:
    with open_tree(stick) as tree:
        assert tree.files(Limits(1000, time.monotonic() - 1)).code == "stick.too-long"


def test_a_huge_sparse_file_is_not_read(board: Board, store: Store, stick: Path) -> None:
    (stick / "huge").write_bytes((stick / "good").read_bytes())
    os.truncate(stick / "huge", 2**40)
    (stick / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    os.truncate(stick / "huge.png", 2**30)
    tally = run(board, store, stick)
    assert (tally.taken, tally.reasons) == (1, {"stick.too-large": 2})


def test_names_of_any_bytes_are_taken_and_never_used(board: Board, store: Store, stick: Path) -> None:
    for number, name in enumerate((b"new\nline", b"\xff\xfe", b"a" * 255, b"; rm -rf *", "\u202egnp".encode())):
        object_file(stick / "x", 10 + number).rename(Path(os.fsdecode(bytes(stick) + b"/" + name)))
    (stick / "again").write_bytes((stick / "good").read_bytes())
    tally = run(board, store, stick)
    assert (tally.found, tally.taken, tally.known) == (7, 6, 1)


def test_a_stick_that_has_vanished_is_told(board: Board, store: Store, stick: Path) -> None:
    assert run(board, store, stick / "nothing").stopped == "stick.removed"


def test_a_data_set_with_two_instance_uids_is_refused(
    board: Board, store: Store, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its beginning says is what its head would be made of; the walk over all of it must say the same."""
    monkeypatch.setattr(take_module, "HEAD_BYTES", 1024)
    content = (stick / "good").read_bytes()
    at = content.rindex(struct.pack("<HH", 8, 0x18) + b"UI")
    size = 8 + int.from_bytes(content[at + 6 : at + 8], "little")
    again = content[at : at + size].replace(b"2.25.", b"9.99.")
    (stick / "good").write_bytes(content + again)
    assert run(board, store, stick).reasons == {"dicom.malformed": 1}


@given(st.binary(max_size=400), st.sampled_from([b"", bytes(128) + b"DICM", b"\x08\0", b"\x02\0\x00\0UL"]))
@settings(max_examples=300)
def test_any_head_is_read_or_refused(content: bytes, start: bytes) -> None:
    head = start + content
    if kind_of(head) != "object":
        return
    try:
        found = uids(head, place(head))
    except DicomError:
        return
    assert all(0 < len(uid) <= 64 for uid in found)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("directory")
    for number in (1, 2, 3):
        object_file(folder / f"I{number}", number)
    make_dicomdir(folder, "I1", "I2", "I3")
    return (folder / "DICOMDIR").read_bytes()


@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=20), keep=st.floats(0, 1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_dicomdir_is_read_or_refused(directory: bytes, changes: list[tuple[int, int]], keep: float) -> None:
    content = bytearray(directory[: int(keep * len(directory))])
    for at, value in changes:
        if content:
            content[at % len(content)] = value
    try:
        found = dicomdir.file_ids(bytes(content))
    except DicomError:
        return
    assert all(isinstance(part, str) for file_id in found for part in file_id)


def test_the_walk_never_holds_many_folders_open(stick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (stick / "a" / f"{number}" / "b" / "c").mkdir(parents=True)

    def open_files() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    counts: list[int] = []
    real = os.scandir

    def counting(folder: int) -> object:
        counts.append(open_files())
        return real(folder)

    before = open_files()
    monkeypatch.setattr("edge.intake.stick.tree.os.scandir", counting)
    names(stick)
    assert len(counts) == 152
    assert max(counts) - before <= 4
