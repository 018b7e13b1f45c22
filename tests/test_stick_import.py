"""Images from a mounted stick into the inbox: real DICOMDIRs, old formats, pictures, and cuts at any moment."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.board import Board
from edge.disk_marks import DiskWatch
from edge.durable import DiskUse, Lock, make_directory
from edge.errors import DicomError
from edge.intake import dicomdir
from edge.intake import wrap as wrap_module
from edge.intake.stick import session as session_module
from edge.intake.stick import take as take_module
from edge.intake.stick.session import Import, tell
from edge.intake.stick.take import INBOX
from edge.intake.stick.tree import read_rest
from edge.intake.stick.words import Tally
from edge.simulate.objects import encode_file, sample_dataset
from edge.simulate.phantom import PhantomOptions
from edge.store import InstanceFacts, Store, StudyFacts, object_path, open_store
from tests.stick_folder import NAME, bare_file, make_dicomdir, object_file, picture_file
from tests.update_box import ROOT, sim_board


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
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


def roomy(board: Board) -> DiskWatch:
    """A disk with plenty of room, whatever this machine's has."""
    return DiskWatch(board, lambda _path: DiskUse(2**40, 0, 2**40))


def run(board: Board, store: Store, stick: Path) -> Tally:
    return Import(board, store, roomy(board)).run(stick)


def inbox(board: Board) -> list[str]:
    return sorted(path.name for path in (board.data_dir / INBOX).iterdir())


def counts(tally: Tally) -> tuple[int, int, int, int]:
    return tally.found, tally.taken, tally.known, tally.refused


@pytest.mark.requirement("RCV-08")
def test_a_phantom_is_taken_as_it_would_be_from_the_network(board: Board, store: Store, stick: Path) -> None:
    (stick / "chest.dcm").write_bytes(encode_file(sample_dataset(PhantomOptions(size=256, detail="fast"))))
    tally = run(board, store, stick)
    assert counts(tally) == (1, 1, 0, 0)
    (name,) = inbox(board)
    content = (board.data_dir / INBOX / name).read_bytes()
    assert content[128:132] == b"DICM"
    assert name == hashlib.sha256(content).hexdigest() + ".dcm"


def test_a_dicomdir_gives_the_order(board: Board, store: Store, stick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = ["IMAGES\\I3", "IMAGES\\I1", "IMAGES\\I2"]
    for number in (1, 2, 3):
        object_file(stick / "IMAGES" / f"I{number}", number)
    make_dicomdir(stick, *(name.replace("\\", "/") for name in order))
    object_file(stick / "AAA", 9)  # not in the directory: last, but not left behind
    picture_file(stick / "logo.png")  # a viewer's
    taken: list[str] = []
    real = take_module.Taking.take

    def spy(self, tree, names, room):
        taken.append("/".join(names))
        return real(self, tree, names, room)

    monkeypatch.setattr(take_module.Taking, "take", spy)
    tally = run(board, store, stick)
    listed = dicomdir.file_ids((stick / "DICOMDIR").read_bytes())
    assert sorted(listed) == [("IMAGES", "I1"), ("IMAGES", "I2"), ("IMAGES", "I3")]
    assert taken == ["/".join(names) for names in listed] + ["AAA", "logo.png"]
    assert counts(tally) == (4, 4, 0, 0)
    assert tally.other == 2
    assert len(inbox(board)) == 4


def test_a_dicomdir_in_other_case_and_with_versions_finds_its_files(board: Board, store: Store, stick: Path) -> None:
    object_file(stick / "IMAGES" / "I1", 1)
    make_dicomdir(stick, "IMAGES/I1")
    (stick / "IMAGES" / "I1").rename(stick / "IMAGES" / "i1.;1")
    (stick / "IMAGES").rename(stick / "images")
    (stick / "DICOMDIR").rename(stick / "dicomdir")
    assert counts(run(board, store, stick)) == (1, 1, 0, 0)


def test_files_that_a_dicomdir_names_and_are_not_there_are_counted(board: Board, store: Store, stick: Path) -> None:
    for number in (1, 2):
        object_file(stick / f"I{number}", number)
    make_dicomdir(stick, "I1", "I2")
    (stick / "I2").unlink()
    tally = run(board, store, stick)
    assert counts(tally) == (2, 1, 0, 1)
    assert tally.reasons == {"stick.missing": 1}


def test_files_without_preamble_are_taken(board: Board, store: Store, stick: Path) -> None:
    object_file(stick / "usual", 1)
    bare_file(stick / "implicit", 2, implicit=True)
    bare_file(stick / "explicit", 3, implicit=False)
    assert (stick / "implicit").read_bytes()[:2] == b"\x08\0"
    (stick / "meta-only").write_bytes(object_file(stick / "x", 4).read_bytes()[132:])
    (stick / "x").unlink()
    assert counts(run(board, store, stick)) == (4, 4, 0, 0)


def test_other_files_are_passed_over_and_broken_ones_counted(board: Board, store: Store, stick: Path) -> None:
    whole = object_file(stick / "whole", 1).read_bytes()
    (stick / "cut").write_bytes(whole[:-500])
    (stick / "readme.txt").write_text("Open with a viewer\n")
    (stick / "empty").touch()
    (stick / "viewer.exe").write_bytes(b"MZ" + bytes(4000))
    (stick / "preamble").write_bytes(bytes(128) + b"DICM")
    (stick / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    tally = run(board, store, stick)
    assert counts(tally) == (4, 1, 0, 3)
    assert tally.reasons == {"dicom.cut": 1, "dicom.malformed": 1, "intake.picture-unreadable": 1}
    assert tally.other == 3


def test_pictures_are_wrapped_and_known_again(board: Board, store: Store, stick: Path) -> None:
    picture_file(stick / "film.png")
    picture_file(stick / "photos" / "film.jpg", 1)
    assert counts(run(board, store, stick)) == (2, 2, 0, 0)
    assert counts(run(board, store, stick)) == (2, 0, 2, 0)


def test_a_picture_that_kills_its_reader_costs_one_picture(
    board: Board, store: Store, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture_file(stick / "a.png")
    picture_file(stick / "b.png", 1)
    real = wrap_module.wrap_picture
    poison = (stick / "a.png").read_bytes()

    def wrapped(content: bytes, facts: wrap_module.PictureFacts) -> bytes:
        if content == poison:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(content, facts)

    monkeypatch.setattr(wrap_module, "wrap_picture", wrapped)
    tally = run(board, store, stick)
    assert counts(tally) == (2, 1, 0, 1)
    assert tally.reasons == {"intake.picture-unreadable": 1}


def test_what_the_box_holds_already_is_known(board: Board, store: Store, stick: Path) -> None:
    object_file(stick / "one", 1)
    run(board, store, stick)
    (name,) = inbox(board)
    sha256 = name.removesuffix(".dcm")
    path = str(object_path(sha256))
    store.add_instance(StudyFacts("1"), InstanceFacts("1.1", "1.2", "1.2.1", sha256, 1, path, "UNIT", 0.0))
    (board.data_dir / INBOX / name).unlink()  # the receiver has taken it
    assert counts(run(board, store, stick)) == (1, 0, 1, 0)
    assert inbox(board) == []


def test_what_differs_only_in_its_head_is_the_same_image(board: Board, store: Store, stick: Path) -> None:
    content = object_file(stick / "one", 1).read_bytes()
    (stick / "two").write_bytes(b"another maker's preamble".ljust(128) + content[128:])
    assert counts(run(board, store, stick)) == (2, 1, 1, 0)


@pytest.mark.requirement("RCV-08")
def test_a_stick_pulled_out_leaves_whole_files_and_goes_on_later(
    board: Board, store: Store, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        object_file(stick / f"I{number}", number)
    reads = 0
    real = os.pread

    def pulled(handle: int, size: int, at: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads > 5:  # two reads for each object: in the middle of the third
            raise OSError(5, "Input/output error")
        return real(handle, size, at)

    with monkeypatch.context() as patch:
        patch.setattr("edge.intake.stick.tree.os.pread", pulled)
        tally = run(board, store, stick)
    assert (tally.stopped, tally.taken) == ("stick.removed", 2)
    assert len(inbox(board)) == 2
    assert all(name.endswith(".dcm") for name in inbox(board))
    assert counts(run(board, store, stick)) == (6, 4, 2, 0)


def test_one_bad_sector_costs_one_file(
    board: Board, store: Store, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        object_file(stick / f"I{number}", number)
    real = read_rest

    def bad_sector(handle: int, *rest: Any) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().name == "I1":
            raise OSError(5, "Input/output error")
        real(handle, *rest)

    monkeypatch.setattr(take_module, "read_rest", bad_sector)
    tally = run(board, store, stick)
    assert counts(tally) == (3, 2, 0, 1)
    assert (tally.stopped, tally.reasons) == ("", {"stick.unreadable": 1})


def test_what_an_import_that_was_killed_has_left_is_cleared(board: Board, store: Store, stick: Path) -> None:
    object_file(stick / "I1", 1)
    (board.data_dir / INBOX).mkdir(parents=True)
    (board.data_dir / INBOX / ".abc.part").write_bytes(b"half")
    run(board, store, stick)
    assert len(inbox(board)) == 1


@pytest.mark.parametrize("free", [2**20, 600 * 2**20])
def test_a_disk_nearly_full_stops_it(board: Board, store: Store, stick: Path, free: int) -> None:
    object_file(stick / "I1", 1)
    watch = DiskWatch(board, lambda _path: DiskUse(2**40, 2**40 - free, free))
    tally = Import(board, store, watch).run(stick)
    assert (tally.stopped, inbox(board)) == ("stick.disk-full", [])
    assert str(tell(store, tally)["message"]).startswith("The box has too little free space for more images.")


def test_a_disk_that_fills_up_meanwhile_stops_it(
    board: Board, store: Store, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_file(stick / "I1", 1)
    monkeypatch.setattr(session_module, "free_bytes", lambda _path: board.receive.min_free_bytes)
    assert run(board, store, stick).stopped == "stick.disk-full"


def test_a_file_beyond_the_board_s_limit_is_refused(board: Board, store: Store, stick: Path) -> None:
    object_file(stick / "I1", 1)
    board = dataclasses.replace(board, stick=dataclasses.replace(board.stick, largest_bytes=1000))
    assert run(board, store, stick).reasons == {"stick.too-large": 1}


def test_only_one_import_at_a_time(board: Board, store: Store, stick: Path) -> None:
    make_directory(board.data_dir / INBOX)
    lock = Lock(board.data_dir / INBOX)
    assert lock.acquire(wait_s=0)
    assert run(board, store, stick).stopped == "stick.busy"
    lock.close()


def test_an_import_that_takes_too_long_ends(
    board: Board, store: Store, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_file(stick / "I1", 1)
    monkeypatch.setattr(session_module, "TIME_LIMIT_S", -1.0)
    assert run(board, store, stick).stopped == "stick.too-long"


def test_everyone_is_told_and_nobody_is_named(
    board: Board, store: Store, stick: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    object_file(stick / f"{NAME}.dcm", 1)
    (stick / f"{NAME} cut").write_bytes(object_file(stick / "x", 2).read_bytes()[:-9])
    fact = tell(store, run(board, store, stick))
    assert store.facts()["stick"].value == fact
    assert (fact["state"], fact["found"], fact["taken"], fact["refused"]) == ("done", 3, 2, 1)
    assert fact["message"] == "2 images were taken from the stick, 1 cannot be used."
    assert store.counts()["imports"] == 2
    (event,) = store.events()
    assert (event.code, event.message) == ("stick.imported", fact["message"])
    told = caplog.text + json.dumps(fact) + "".join(inbox(board))
    assert "2 taken" in told
    assert "HIDDEN" not in told


def test_the_session_answers_in_one_line(board: Board, stick: Path, tmp_path: Path) -> None:
    object_file(stick / f"{NAME}.dcm", 1)
    command = [sys.executable, "-W", "error", "-m", "edge.intake.stick.session"]
    environment = {**os.environ, "RADBOX_DATA_DIR": str(board.data_dir)}
    done = subprocess.run(
        [*command, "board_configs/sim.toml", str(stick)], input=b"", capture_output=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["code"] in ("stick.imported", "stick.disk-full")
    assert b"HIDDEN" not in done.stdout + done.stderr
    done = subprocess.run(
        [*command, "board_configs/sim.toml", "--failed"], input=b"", capture_output=True, env=environment, cwd=ROOT
    )
    assert json.loads(done.stdout)["code"] == "stick.failed"


def test_a_stick_without_images_is_no_event(board: Board, store: Store, stick: Path) -> None:
    fact = tell(store, run(board, store, stick))
    assert (fact["state"], fact["code"]) == ("done", "stick.no-images")
    assert fact["message"] == "No images were found on the stick."
    assert store.events() == []


def test_a_dicomdir_that_is_none_is_an_error_and_every_file_is_looked_at(
    board: Board, store: Store, stick: Path
) -> None:
    object_file(stick / "I1", 1)
    (stick / "DICOMDIR").write_bytes(b"\xff" * 5000)
    with pytest.raises(DicomError) as raised:
        dicomdir.file_ids((stick / "DICOMDIR").read_bytes())
    assert raised.value.code == "dicom.dicomdir"
    tally = run(board, store, stick)
    assert (tally.taken, tally.reasons) == (1, {"dicom.dicomdir": 1})
