"""The helper that mounts, with images on the stick: beside an update, without one, and when the import goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edge.care.update import mount
from edge.care.update.mount import serve
from edge.intake.stick.take import INBOX
from edge.slots import Slots
from edge.store import open_store
from tests.stick_folder import NAME, make_dicomdir, object_file
from tests.test_update_units import loop_device, needs_devices, recording_mount, usb_sysfs
from tests.update_box import BUNDLE
from tests.update_stick import make_organisation, small_bundle

OPTIONS = "nodev,nosuid,noexec"


class Stick:
    """A loop device that counts as a stick, and the folder that is shown in its place."""

    def __init__(self, folder: Path, loops: ExitStack) -> None:
        self.folder = folder
        self.content = folder / "content"
        self.content.mkdir()
        self.point = folder / "run" / "stick"
        self.device = loop_device(loops, folder / "image", "vfat")
        self.sys = usb_sysfs(folder / "sys", self.device)
        self.board = self.write_board("")

    def write_board(self, more: str) -> Path:
        """A board file with room for everything on this machine's disk."""
        path = self.folder / "board.toml"
        room = "[receive]\nmin_free_bytes = 1048576\n[storage]\nwarn_percent = 99\nreserve_bytes = 1048576\n"
        top = f'name = "test"\ndata_dir = "{self.data}"\n'
        path.write_text(f'{top}[worker]\nbundle = "{BUNDLE}"\n{room}{more}')
        return path

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    def put_in(self, patch: pytest.MonkeyPatch) -> list[str]:
        """What the unit runs; returns the mounts."""
        with recording_mount(self.folder / "bin", self.content, patch) as record:
            assert serve(self.board, self.device, self.point, self.sys) == 0
            assert not self.point.is_mount()
            return record.read_text().splitlines()

    def fact(self) -> dict[str, Any] | None:
        """What is known of the last import."""
        store = open_store(self.data)
        try:
            facts = store.facts()
        finally:
            store.close()
        return facts["stick"].value if "stick" in facts else None

    def outcome(self) -> str:
        """Code of the last update, "" if there was none."""
        last = Slots(self.data, BUNDLE).read().last
        return last.code if last else ""


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Stick]:
    """An empty one."""
    with ExitStack() as loops:
        yield Stick(tmp_path, loops)


def images(stick: Stick) -> None:
    for number in (1, 2):
        object_file(stick.content / "IMAGES" / f"I{number}", number)
    make_dicomdir(stick.content, "IMAGES/I1", "IMAGES/I2")


@needs_devices
def test_a_stick_with_images_alone_is_imported_and_is_no_failed_update(
    stick: Stick, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    images(stick)
    mounts = stick.put_in(monkeypatch)
    assert mounts == [f"-t vfat -o ro,{OPTIONS} {stick.device} {stick.point}"]  # never writable
    fact = stick.fact()
    assert fact is not None
    assert (fact["code"], fact["taken"]) == ("stick.imported", 2)
    assert stick.outcome() == ""
    assert len(list((stick.data / INBOX).glob("*.dcm"))) == 2
    assert NAME not in "".join(capfd.readouterr())


@needs_devices
def test_a_stick_with_both_is_an_update_first_and_gets_its_receipt_last(
    stick: Stick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(stick)
    top = make_organisation(tmp_path).stick(stick.content, small_bundle(tmp_path / "bundle"))
    mounts = stick.put_in(monkeypatch)
    assert [words.split()[1 if "remount" in words else 3] for words in mounts] == [
        f"ro,{OPTIONS}",
        f"remount,rw,{OPTIONS}",
    ]
    assert stick.outcome() == "update.root-chain"
    assert len(list((top / "outbox").iterdir())) == 1
    fact = stick.fact()
    assert fact is not None
    assert (fact["code"], fact["taken"]) == ("stick.imported", 2)


@needs_devices
def test_a_stick_with_neither_is_told_as_a_stick_without_update(stick: Stick, monkeypatch: pytest.MonkeyPatch) -> None:
    (stick.content / "holiday.txt").write_text("x")
    stick.put_in(monkeypatch)
    assert stick.outcome() == "update.no-update"
    fact = stick.fact()
    assert fact is not None
    assert fact["code"] == "stick.no-images"


@needs_devices
def test_a_board_that_wants_no_images_takes_none(stick: Stick, monkeypatch: pytest.MonkeyPatch) -> None:
    stick.write_board("[stick]\nimport_images = false\n")
    images(stick)
    stick.put_in(monkeypatch)
    assert stick.outcome() == "update.no-update"
    assert stick.fact() is None
    assert not (stick.data / INBOX).exists()


@needs_devices
def test_an_import_that_dies_leaves_the_update_and_its_receipt(
    stick: Stick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session gets no time at all: it is killed as soon as it has begun."""
    monkeypatch.setattr(mount, "IMPORT_TIMEOUT_S", 0.05)
    images(stick)
    top = make_organisation(tmp_path).stick(stick.content, small_bundle(tmp_path / "bundle"))
    stick.put_in(monkeypatch)
    assert stick.outcome() == "update.root-chain"
    assert len(list((top / "outbox").iterdir())) == 1
    fact = stick.fact()
    assert fact is not None
    assert (fact["state"], fact["code"]) == ("stopped", "stick.failed")
