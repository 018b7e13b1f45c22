"""The unit, the udev rule, and the helper that mounts: real loop devices and file systems, a real mount where possible.

This kernel may have no vfat: for that file system alone `mount` is a recorder that shows a folder in its place.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from edge.care.update import mount
from edge.care.update.mount import check_device, serve
from edge.care.update.words import sentence
from edge.errors import UpdateError
from edge.slots import Slots
from edge.store import open_store
from tests.update_box import BUNDLE, ROOT
from tests.update_stick import make_organisation, small_bundle
from tools.update.receipts import read_receipt

UNIT = ROOT / "systemd" / "radbox-update@.service"
RULE = ROOT / "systemd" / "99-radbox-update.rules"
NEEDED = ("losetup", "blkid", "mkfs.ext4", "mkfs.vfat", "mkfs.exfat", "mount", "umount")
MIB = 1 << 20

needs_devices = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists() or not all(map(shutil.which, NEEDED)),
    reason="needs root, loop devices and file system tools",
)
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")


@pytest.fixture
def loops() -> Iterator[ExitStack]:
    """Detaches every loop device of the test."""
    with ExitStack() as stack:
        yield stack


def loop_device(loops: ExitStack, image: Path, kind: str) -> Path:
    """A loop device with an empty file system."""
    image.write_bytes(b"")
    os.truncate(image, 16 * MIB)
    if kind:
        subprocess.run([f"mkfs.{kind}", str(image)], check=True, capture_output=True)
    found = subprocess.run(["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True)
    device = found.stdout.strip()
    loops.callback(subprocess.run, ["losetup", "--detach", device], check=True)
    return Path(device)


def usb_sysfs(folder: Path, device: Path) -> Path:
    """A /sys in which `device` hangs on a USB port."""
    place = folder / "devices" / "pci0000:00" / "usb2" / "2-1" / "block" / device.name
    place.mkdir(parents=True)
    number = device.stat().st_rdev
    (folder / "dev" / "block").mkdir(parents=True)
    (folder / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}").symlink_to(place)
    return folder


@pytest.fixture
def board_file(tmp_path: Path) -> Path:
    """A board with its data under the test's folder."""
    path = tmp_path / "board.toml"
    worker = f'[worker]\nbundle = "{BUNDLE}"\n'
    path.write_text(f'name = "test"\ndata_dir = "{tmp_path / "data"}"\n{worker}')
    return path


@contextmanager
def recording_mount(folder: Path, stick: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A `mount` that writes down its arguments and shows `stick` in place of the device; yields the record."""
    folder.mkdir()
    record = folder / "record"
    record.write_text("")
    real = shutil.which("mount")
    (folder / "mount").write_text(
        f'#!/bin/sh\necho "$@" >>{record}\ncase "$*" in *remount*) exit 0;; esac\n'
        f'for last; do :; done\nexec {real} --bind {stick} "$last"\n'
    )
    (folder / "mount").chmod(0o755)
    patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    yield record


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_unit() -> None:
    done = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_the_unit_gives_away_little(tmp_path: Path) -> None:
    instance = tmp_path / "radbox-update@sda1.service"
    shutil.copy(UNIT, instance)
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(instance)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert exposure
    assert float(exposure[1]) <= 1.8  # what is left is being root, its three capabilities, and mounting


def test_the_rule_starts_the_unit_for_usb_alone() -> None:
    (line,) = (line for line in RULE.read_text().splitlines() if not line.startswith("#"))
    assert 'SUBSYSTEM=="block", ENV{ID_BUS}=="usb"' in line
    assert 'ENV{SYSTEMD_WANTS}+="radbox-update@%k.service"' in line


@needs_devices
def test_a_stick_of_another_file_system_is_refused_and_told(tmp_path: Path, board_file: Path, loops: ExitStack) -> None:
    device = loop_device(loops, tmp_path / "image", "ext4")
    assert serve(board_file, device, tmp_path / "stick", usb_sysfs(tmp_path / "sys", device)) == 0
    last = Slots(tmp_path / "data", BUNDLE).read().last
    assert last is not None
    assert (last.code, last.message) == ("update.file-system", sentence("update.file-system"))
    store = open_store(tmp_path / "data")
    (event,) = store.events()
    store.close()
    assert event.code == "update.file-system"
    assert "ext4" in event.message
    assert not (tmp_path / "stick").exists()


@needs_devices
@pytest.mark.parametrize("kind", ["vfat", "exfat"])
def test_vfat_and_exfat_on_usb_are_taken(tmp_path: Path, loops: ExitStack, kind: str) -> None:
    device = loop_device(loops, tmp_path / "image", kind)
    assert check_device(device, usb_sysfs(tmp_path / "sys", device)) == kind


@needs_devices
@pytest.mark.parametrize("kind", ["", "ext4"])
def test_other_devices_are_refused(tmp_path: Path, loops: ExitStack, kind: str) -> None:
    device = loop_device(loops, tmp_path / "image", kind)
    with pytest.raises(UpdateError) as raised:
        check_device(device, usb_sysfs(tmp_path / "sys", device))
    assert raised.value.code == "update.file-system"


@needs_devices
def test_a_disk_inside_the_box_is_refused(tmp_path: Path, loops: ExitStack) -> None:
    device = loop_device(loops, tmp_path / "image", "vfat")
    with pytest.raises(UpdateError) as raised:
        check_device(device, Path("/sys"))
    assert (raised.value.code, "USB" in raised.value.message) == ("update.file-system", True)


@needs_devices
@pytest.mark.requirement("UPD-06")
def test_a_stick_is_mounted_safely_and_written_for_the_receipt_alone(
    tmp_path: Path, board_file: Path, loops: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = loop_device(loops, tmp_path / "image", "vfat")
    organisation = make_organisation(tmp_path)
    top = organisation.stick(tmp_path / "content", small_bundle(tmp_path / "bundle"))
    point = tmp_path / "run" / "stick"
    with recording_mount(tmp_path / "bin", top.parent, monkeypatch) as record:
        assert serve(board_file, device, point, usb_sysfs(tmp_path / "sys", device)) == 0
        mounts = record.read_text().splitlines()
    assert mounts == [
        f"-t vfat -o ro,nodev,nosuid,noexec {device} {point}",
        f"-o remount,rw,nodev,nosuid,noexec {point}",
    ]
    assert not point.is_mount()
    (receipt,) = (top / "outbox").iterdir()
    assert read_receipt(receipt.read_bytes()).code == "update.root-chain"  # signed by people this box does not know


@needs_devices
def test_a_damaged_file_system_is_refused(tmp_path: Path, board_file: Path, loops: ExitStack) -> None:
    device = loop_device(loops, tmp_path / "image", "exfat")
    with device.open("r+b") as stream:
        stream.seek(512)
        stream.write(bytes(8 * MIB))  # the name is left, nothing else: mount must fail
    assert serve(board_file, device, tmp_path / "stick", usb_sysfs(tmp_path / "sys", device)) == 0
    last = Slots(tmp_path / "data", BUNDLE).read().last
    assert last is not None
    assert last.code == "update.file-system"


def test_the_stick_is_read_by_the_owner_of_the_data_not_by_root(tmp_path: Path, board_file: Path) -> None:
    (tmp_path / "data").mkdir()
    assert mount._owner(board_file) == {}
    if os.geteuid() == 0:
        os.chown(tmp_path / "data", 65534, 65534)
        owner = mount._owner(board_file)
        assert (owner["user"], owner["group"], owner["extra_groups"]) == (65534, 65534, [65534])


@pytest.mark.parametrize("arguments", [["sda1/../sdb1"], ["sda1"], []])
def test_the_helper_wants_a_partition_and_what_systemd_gives(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    with pytest.raises(SystemExit) as raised:
        mount.main(arguments)
    assert raised.value.code == 2


def test_a_session_that_ends_without_an_answer_is_an_error(board_file: Path) -> None:
    (board_file.parent / "data").write_text("a file where the data folder should be")
    with pytest.raises(UpdateError) as raised:
        mount._session(board_file, "refuse", "update.file-system", "x")
    assert raised.value.code == "update.failed"


def test_a_stick_that_was_pulled_out_meanwhile_is_no_bad_stick(tmp_path: Path) -> None:
    with pytest.raises(UpdateError) as raised:
        mount.check_device(tmp_path / "sda1", tmp_path)
    assert raised.value.code == "update.stick-removed"
