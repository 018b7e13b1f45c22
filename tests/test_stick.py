"""Opening a stick that anybody may have written, and copying from it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.care.update import stick as stick_module
from edge.care.update.receipt import Receipt, deliver
from edge.care.update.stage import collect, stage, sweep
from edge.care.update.stick import Stick, open_stick
from edge.errors import UpdateError
from edge.trust import Offer, verify_targets
from tests.update_stick import Organisation, make_organisation, small_bundle

BUNDLE = "tiny-1"


@pytest.fixture
def organisation(tmp_path: Path) -> Organisation:
    """Keys of this test."""
    return make_organisation(tmp_path)


@pytest.fixture
def top(tmp_path: Path, organisation: Organisation) -> Path:
    """EDGE-UPDATE of a good stick with a bundle of three small files."""
    return organisation.stick(tmp_path / "stick", small_bundle(tmp_path / "bundle"))


def offer_of(top: Path, organisation: Organisation) -> Offer:
    """What the stick's only bundle says, verified."""
    return verify_targets(organisation.root, (top / "bundles" / BUNDLE / "targets.json").read_bytes())


def names(folder: Path) -> list[str]:
    """Names in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def read_all(stick: Stick, organisation: Organisation) -> None:
    """Everything an installation reads."""
    stick.roots(), stick.snapshot()
    for bundle in stick.bundles():
        offer = verify_targets(organisation.root, stick.targets(bundle))
        stick.check_files(bundle, offer)
        stick.check_hashes(bundle, offer)


def test_a_good_stick_gives_its_bytes(top: Path, organisation: Organisation) -> None:
    with open_stick(top.parent) as stick:
        assert stick.roots() == tuple(organisation.roots)
        assert stick.snapshot() == (top / "snapshot.json").read_bytes()
        assert stick.bundles() == (BUNDLE,)
        offer = offer_of(top, organisation)
        stick.check_files(BUNDLE, offer)
        for entry in offer.files:
            assert hashlib.sha256(b"".join(stick.chunks(BUNDLE, entry))).hexdigest() == entry.sha256


def test_other_things_on_a_stick_do_not_matter(top: Path, organisation: Organisation) -> None:
    (top.parent / "holiday.jpg").write_bytes(b"x")
    (top.parent / "link").symlink_to("/")
    (top / "System Volume Information").mkdir()
    (top / "outbox" / "link").symlink_to("/etc/passwd")
    for number in range(2100):
        (top / "outbox" / f"{number}.json").touch()
    with open_stick(top.parent) as stick:
        read_all(stick, organisation)


def fifo(top: Path) -> None:
    os.mkfifo(top / "snapshot2.json")


def unix_socket(top: Path) -> None:
    handle = os.open(top, os.O_RDONLY)  # a socket's name may have 107 bytes only
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{handle}/s")
    os.close(handle)


def folder_for_file(top: Path) -> None:
    (top / "snapshot.json").unlink()
    (top / "snapshot.json").mkdir()


def linked_top(top: Path) -> None:
    top.rename(top.with_name("x"))
    top.symlink_to("x")


def nest(top: Path) -> None:
    (top / "bundles" / BUNDLE / "files" / "a" / "b" / "c").mkdir(parents=True)


def fill(top: Path) -> None:
    for number in range(10_000):
        (top / "bundles" / BUNDLE / "files" / f"{number}").touch()


def fill_slowly(top: Path) -> None:
    for folder in range(30):
        (top / "root" / str(folder)).mkdir()
        for number in range(100):
            (top / "root" / str(folder) / str(number)).touch()


def many_folders(top: Path) -> None:
    for number in range(1500):  # more than a process may have open at a time
        (top / "root" / str(number)).mkdir()
    (top / "root" / "1499" / "link").symlink_to("x")


def seventy_files(top: Path) -> None:
    for number in range(70):
        (top / "bundles" / BUNDLE / "files" / str(number)).touch()


def move_and_link(name: str) -> Callable[[Path], None]:
    def attack(top: Path) -> None:
        elsewhere = top.parent.parent / "elsewhere"
        (top / name).rename(elsewhere)
        (top / name).symlink_to(elsewhere)

    return attack


def sparse(name: str) -> Callable[[Path], None]:
    return lambda top: os.truncate(top / name, 1 << 40)


FILES = f"bundles/{BUNDLE}/files"
ATTACKS: list[tuple[str, Callable[[Path], object]]] = [
    ("update.no-update", lambda top: top.rename(top.with_name("OTHER"))),
    ("update.no-update", lambda top: (top / "snapshot.json").unlink()),
    ("update.no-update", lambda top: (top / "bundles").rename(top / "packages")),
    ("update.no-update", lambda top: (top / "bundles" / BUNDLE).rename(top / "elsewhere")),
    ("update.no-update", lambda top: (top / f"bundles/{BUNDLE}/targets.json").unlink()),
    ("update.path", lambda top: (top.rename(top.with_name("x")), top.write_bytes(b""))),
    ("update.path", fifo),
    ("update.path", unix_socket),
    ("update.path", folder_for_file),
    ("update.symlink", lambda top: (top / "note").symlink_to("/etc/passwd")),
    ("update.symlink", move_and_link("snapshot.json")),
    ("update.symlink", move_and_link("bundles")),
    ("update.symlink", move_and_link(f"bundles/{BUNDLE}")),
    ("update.symlink", move_and_link(FILES)),
    ("update.symlink", move_and_link(f"{FILES}/encoder.onnx")),
    ("update.symlink", linked_top),
    ("update.symlink", many_folders),
    ("update.too-deep", nest),
    ("update.too-many-files", fill_slowly),
    ("update.too-many-files", seventy_files),
    ("update.too-large", sparse("snapshot.json")),
    ("update.too-large", sparse("root/1.root.json")),
    ("update.too-large", sparse(f"bundles/{BUNDLE}/targets.json")),
    ("update.too-large", sparse(f"{FILES}/encoder.onnx")),
    ("update.extra-file", lambda top: (top / FILES / "._encoder.onnx").touch()),
    ("update.truncated", lambda top: (top / FILES / "card.md").unlink()),
    ("update.truncated", lambda top: os.truncate(top / FILES / "card.md", 3)),
    ("update.truncated", lambda top: (top / FILES).rename(top / "files")),
    ("update.file-changed", lambda top: (top / FILES / "encoder.onnx").write_bytes(b"WEIGHTS")),
    ("update.file-changed", lambda top: (top / FILES / "encoder.onnx").write_bytes(b"weights and more")),
]


@pytest.mark.parametrize(("code", "attack"), ATTACKS, ids=[f"{i}-{code}" for i, (code, _) in enumerate(ATTACKS)])
@pytest.mark.requirement("UPD-06")
def test_a_hostile_stick_is_refused(
    top: Path, organisation: Organisation, code: str, attack: Callable[[Path], object]
) -> None:
    attack(top)
    before = len(names(Path("/proc/self/fd")))
    with pytest.raises(UpdateError) as raised, open_stick(top.parent) as stick:
        read_all(stick, organisation)
    assert raised.value.code == code
    assert len(names(Path("/proc/self/fd"))) == before


def test_ten_thousand_files_are_not_even_listed(top: Path) -> None:
    fill(top)
    tracemalloc.start()
    with pytest.raises(UpdateError) as raised, open_stick(top.parent):
        pass
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert raised.value.code == "update.too-many-files"
    assert peak_bytes < 256 << 10


@pytest.mark.parametrize("name", ["../1.root.json", "/etc/passwd", "..", ".", "", "a\0b", "a/b"])
def test_no_name_leads_out_of_a_folder(top: Path, name: str) -> None:
    with open_stick(top.parent) as stick, pytest.raises(UpdateError) as raised:
        stick.targets(name)
    assert raised.value.code == "update.path"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESHUTDOWN, errno.EUCLEAN])
def test_a_stick_that_stops_answering(
    top: Path, organisation: Organisation, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    offer = offer_of(top, organisation)
    with open_stick(top.parent) as stick:
        monkeypatch.setattr(os, "read", fails)
        with pytest.raises(UpdateError) as raised:
            stick.check_hashes(BUNDLE, offer)
    assert raised.value.code == "update.stick-removed"


def test_a_file_that_shrinks_while_it_is_read(
    tmp_path: Path, organisation: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stick_module, "CHUNK_BYTES", 100)
    top = organisation.stick(tmp_path / "stick", small_bundle(tmp_path / "bundle", b"x" * 1000))
    entry = next(entry for entry in offer_of(top, organisation).files if entry.name == "encoder.onnx")
    with open_stick(top.parent) as stick:
        chunks = stick.chunks(BUNDLE, entry)
        assert next(chunks) == b"x" * 100
        os.truncate(top / FILES / "encoder.onnx", 150)
        with pytest.raises(UpdateError) as raised:
            list(chunks)
    assert raised.value.code == "update.stick-removed"


# --- staging ---


@pytest.fixture
def staged(top: Path, tmp_path: Path, organisation: Organisation) -> Callable[..., Path]:
    """Stages the bundle of `top`; reserve_bytes may be given."""
    targets = (top / "bundles" / BUNDLE / "targets.json").read_bytes()
    offer = offer_of(top, organisation)

    def run(reserve_bytes: int = 0) -> Path:
        with open_stick(top.parent) as stick:
            return stage(stick, BUNDLE, targets, offer, tmp_path / "data", reserve_bytes)

    return run


def test_staging_makes_a_whole_slot(staged: Callable[..., Path], top: Path, organisation: Organisation) -> None:
    slot = staged()
    offer = offer_of(top, organisation)
    assert slot.name == offer.slot
    assert names(slot) == sorted([*(entry.name for entry in offer.files), "targets.json"])
    assert names(slot.parent) == [slot.name]


def test_staging_again_changes_nothing(staged: Callable[..., Path], top: Path) -> None:
    slot = staged()
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in slot.iterdir()}
    (top / FILES / "encoder.onnx").write_bytes(b"garbage")  # not even looked at
    assert staged(1 << 60) == slot
    assert {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in slot.iterdir()} == before


def test_a_damaged_slot_is_staged_anew(staged: Callable[..., Path]) -> None:
    slot = staged()
    (slot / "encoder.onnx").write_bytes(b"garbage")
    assert (staged() / "encoder.onnx").read_bytes() == b"weights"
    (slot / "targets.json").unlink()
    assert (staged() / "targets.json").is_file()
    assert names(slot.parent) == [slot.name]


def test_without_room_nothing_is_written(staged: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UpdateError) as raised:
        staged(1 << 60)
    assert raised.value.code == "update.no-room"
    assert names(tmp_path / "data" / "slots") == []


def test_a_refused_file_leaves_nothing(staged: Callable[..., Path], top: Path, tmp_path: Path) -> None:
    (top / FILES / "manifest.json").write_bytes((top / FILES / "manifest.json").read_bytes().replace(b"tiny", b"TINY"))
    with pytest.raises(UpdateError) as raised:
        staged()
    assert raised.value.code == "update.file-changed"
    assert names(tmp_path / "data" / "slots") == []


def test_left_overs_are_swept_and_old_slots_collected(staged: Callable[..., Path]) -> None:
    slot = staged()
    (slot.parent / ".stage-cut" / "x").mkdir(parents=True)
    (slot.parent / "old").mkdir()
    assert sweep(slot.parent) == 1
    assert collect(slot.parent.parent, frozenset({slot.name})) == 1
    assert names(slot.parent) == [slot.name]
    assert collect(slot.parent.parent, frozenset()) == 1
    assert names(slot.parent) == []


# --- the outbox ---


@pytest.fixture
def receipt() -> Receipt:
    """Any receipt."""
    return Receipt("0123456789abcdef-1.json", json.dumps({"receipt": {}}).encode())


def test_a_receipt_reaches_the_outbox(top: Path, receipt: Receipt) -> None:
    (top / "outbox").rmdir()
    deliver(top.parent, receipt)
    assert names(top / "outbox") == [receipt.name]
    assert (top / "outbox" / receipt.name).read_bytes() == receipt.content


def test_a_receipt_is_never_written_through_a_link(top: Path, tmp_path: Path, receipt: Receipt) -> None:
    (top / "outbox").rmdir()
    (tmp_path / "victim").mkdir()
    (top / "outbox").symlink_to(tmp_path / "victim")
    with pytest.raises(UpdateError) as raised:
        deliver(top.parent, receipt)
    assert raised.value.code == "update.symlink"
    assert names(tmp_path / "victim") == []
