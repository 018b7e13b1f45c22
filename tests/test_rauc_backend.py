"""The RAUC backends of both boards against a simulated firmware, and the handlers around them.

RAUC's calls to a backend are made here as it makes them; its D-Bus service needs real slots and is not started.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

RAUC = Path(__file__).resolve().parent.parent / "tools" / "rauc"
POWER_ON, WATCHDOG = 0x1000, 0x20  # PM_RSTS


def run(
    *command: object, environment: dict[str, str] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


FAKE_NVBOOTCTRL = """\
#!/usr/bin/env bash
# Two slots, the one that runs and the one that starts next; ARMED=0 accepts a switch and ignores it.
set -eu
cd "$(dirname "$0")"
read -r running <running; read -r active <active; armed=$(cat armed)
shift 2
case "$1" in
  get-current-slot) echo "$running" ;;
  set-active-boot-slot) if [ "$armed" = 1 ]; then echo "$2" >active.new; mv active.new active; fi ;;
  verify) echo "$running" >>verified ;;
  dump-slots-info)
    letters=AB
    echo "Current rootfs slot: ${letters:$running:1}"
    echo "Active rootfs slot: ${letters:$active:1}"
    echo "num_slots: $((armed + 1))" ;;
  *) exit 2 ;;
esac
"""


class Box:
    """A board with two systems: firmware simulated from its documentation, the backend real."""

    def __init__(self, folder: Path, board: str) -> None:
        self.folder, self.board = folder, board
        self.running = "A"
        self.asked_reboot = folder / "asked"
        self.state = folder / "data"
        for path in (self.state, folder / "boot"):
            path.mkdir(parents=True)
        self.autoboot = folder / "boot" / "autoboot.txt"
        self.autoboot.write_text("[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n")
        for name, content in (
            ("reboot", f'#!/bin/sh\necho "$*" >"{self.asked_reboot}"\n'),
            ("nvbootctrl", FAKE_NVBOOTCTRL),
        ):
            (folder / name).write_text(content)
            (folder / name).chmod(0o755)
        for name, content in (("active", "0"), ("running", "0"), ("armed", "1")):
            (folder / name).write_text(f"{content}\n")
        self.environment = {
            "RADBOX_OS_STATE": str(self.state),
            "RADBOX_CMDLINE": str(folder / "cmdline"),
            "RADBOX_AUTOBOOT": str(self.autoboot),
            "RADBOX_RESET_STATUS": str(folder / "rsts"),
            "RADBOX_RESET_REASON": str(folder / "reason"),
            "RADBOX_REBOOT": str(folder / "reboot"),
            "RADBOX_NVBOOTCTRL": str(folder / "nvbootctrl"),
        }
        self.reset(POWER_ON)
        self._start("A")

    def call(self, *words: str, check: bool = True) -> str:
        done = run(RAUC / self.board / "backend", *words, environment=self.environment, check=check)
        return done.stdout.strip() if check else str(done.returncode) + done.stderr

    def reset(self, status: int) -> None:
        (self.folder / "rsts").write_bytes(struct.pack(">I", status))
        (self.folder / "reason").write_text("SYS_RESET_N\n" if status == POWER_ON else "BCCPLEXWDT\n")

    def _start(self, slot: str) -> None:
        self.running = slot
        (self.folder / "cmdline").write_text(f"quiet rauc.slot={slot} ro\n")
        (self.folder / "running").write_text(f"{'AB'.index(slot)}\n")
        self.asked_reboot.unlink(missing_ok=True)

    def firmware(self, tryboot: bool = False) -> str:
        """Which slot the firmware starts."""
        if self.board == "jetson":
            return "AB"[int((self.folder / "active").read_text())]
        section, found = "", {}
        for line in self.autoboot.read_text().splitlines():
            section = line if line.startswith("[") else section
            if line.startswith("boot_partition="):
                found[section] = {"2": "A", "3": "B"}[line[-1]]
        return found["[tryboot]" if tryboot else "[all]"]

    def boot(self, status: int, broken: str = "") -> None:
        """Reset for a reason and start until a system stays up; a slot in `broken` hangs and is reset by watchdog."""
        tryboot = False
        for _ in range(12):
            self.reset(status)
            slot = self.firmware(tryboot)
            tryboot = False
            if slot in broken:
                status = WATCHDOG
                if self.board == "jetson":  # the firmware's counter has run down
                    (self.folder / "active").write_text(f"{1 - 'AB'.index(slot)}\n")
                continue
            self._start(slot)
            self.call("boot-check")
            if not self.asked_reboot.exists():
                return
            tryboot = "tryboot" in self.asked_reboot.read_text()
            status = WATCHDOG
            self.asked_reboot.unlink()
        raise AssertionError("the box never came up")

    def install(self, slot: str) -> None:
        """The calls that RAUC makes around writing a slot."""
        self.call("set-state", slot, "bad")
        self.call("set-state", slot, "good")
        self.call("set-primary", slot)


BOARDS = pytest.mark.parametrize("board", ["pi", "jetson"])


@BOARDS
def test_a_good_system_is_committed(tmp_path: Path, board: str) -> None:
    box = Box(tmp_path, board)
    box.boot(POWER_ON)
    assert (box.running, box.call("get-primary"), box.call("get-current")) == ("A", "A", "A")
    box.install("B")
    assert (box.firmware(), box.call("get-primary"), box.call("get-state", "B")) == ("A", "B", "good")
    box.boot(WATCHDOG)
    assert box.running == "B"
    assert run(RAUC / board / "backend", "on-trial", environment=box.environment).returncode == 0
    box.call("set-state", "B", "good")  # rauc status mark-good
    assert (box.firmware(), box.call("get-primary")) == ("B", "B")
    box.boot(POWER_ON)
    assert box.running == "B"
    assert box.call("get-state", "A") == "good"


@BOARDS
def test_a_broken_system_is_tried_three_times_and_given_up(tmp_path: Path, board: str) -> None:
    box = Box(tmp_path, board)
    box.boot(POWER_ON)
    box.install("B")
    box.boot(WATCHDOG, broken="B")
    assert (box.running, box.call("get-primary"), box.call("get-state", "B")) == ("A", "A", "bad")
    log = (box.state / "events.log").read_text()
    assert log.count("trying B") == 3
    assert "gave B up, A stays" in log
    box.boot(POWER_ON)
    assert box.running == "A"


@BOARDS
def test_power_cuts_eat_no_tries(tmp_path: Path, board: str) -> None:
    """Five cuts in the middle of a trial, before it was marked good: it still gets its chance."""
    box = Box(tmp_path, board)
    box.boot(POWER_ON)
    box.install("B")
    for _ in range(5):
        box.boot(POWER_ON)
        assert box.running == "B"
    box.call("set-state", "B", "good")
    box.boot(POWER_ON)
    assert box.running == "B"


def test_a_board_that_calls_every_reset_a_power_cut(tmp_path: Path) -> None:
    """Then a broken system is given up too, only later; the old one runs."""
    box = Box(tmp_path, "pi")
    box.boot(POWER_ON)
    box.install("B")
    for _ in range(25):
        box.reset(POWER_ON)
        box._start("A")
        box.call("boot-check")
    assert box.call("get-primary") == "A"
    assert not box.asked_reboot.exists()


@BOARDS
def test_the_system_that_works_cannot_be_lost(tmp_path: Path, board: str) -> None:
    box = Box(tmp_path, board)
    box.boot(POWER_ON)
    assert box.call("set-state", "A", "bad", check=False).startswith("1")
    box.call("set-state", "B", "bad")
    assert (box.call("get-primary"), box.call("get-state", "A"), box.call("get-state", "B")) == ("A", "good", "bad")
    for _ in range(4):  # all that is left is retried for ever
        box.boot(WATCHDOG)
        assert box.running == "A"
    for words in (("set-primary", "C"), ("set-state", "A", "odd"), ("get-state", ""), ("format",), ()):
        assert box.call(*words, check=False).startswith("1")


def test_a_damaged_autoboot_file_is_mended(tmp_path: Path) -> None:
    for number, content in enumerate((b"", b"\0" * 512, b"[all]\nboot_partition=9\n", None)):
        box = Box(tmp_path / str(number), "pi")
        box.boot(POWER_ON)
        box.install("B")
        box.boot(WATCHDOG)
        box.call("set-state", "B", "good")
        if content is None:
            box.autoboot.unlink()
        else:
            box.autoboot.write_bytes(content)
        box._start("A")  # the first bootable partition
        box.call("boot-check")
        assert box.firmware() == "B"


def test_a_firmware_that_falls_back_by_itself(tmp_path: Path) -> None:
    """Jetson: the committed system stopped starting without any update; what runs is kept."""
    box = Box(tmp_path, "jetson")
    box.boot(POWER_ON)
    box.boot(WATCHDOG, broken="A")
    assert (box.running, box.call("get-primary"), box.firmware()) == ("B", "B", "B")


@BOARDS
def test_preflight(tmp_path: Path, board: str) -> None:
    box = Box(tmp_path, board)
    box.boot(POWER_ON)
    assert "only 'A'" in box.call("preflight", check=False)  # B never ran on this box
    box.install("B")
    box.boot(WATCHDOG)
    assert "on trial" in box.call("preflight", check=False)
    box.call("set-state", "B", "good")
    box.call("preflight")
    assert box.firmware() == "B"
    if board == "jetson":
        (tmp_path / "armed").write_text("0\n")
        assert "redundancy is off" in box.call("preflight", check=False)
    else:
        box.autoboot.write_text("[all]\nboot_partition=3\n")
        assert "tryboot_a_b" in box.call("preflight", check=False)


def test_an_ignored_switch_is_no_trial(tmp_path: Path) -> None:
    """Jetson with redundancy off: the switch is accepted and ignored; the box must not restart for ever."""
    box = Box(tmp_path, "jetson")
    box.boot(POWER_ON)
    box.install("B")
    (tmp_path / "armed").write_text("0\n")
    assert "ignores the switch" in box.call("boot-check", check=False)
    assert not box.asked_reboot.exists()


def test_pre_install_handler(tmp_path: Path) -> None:
    box = Box(tmp_path, "pi")
    for slot in ("A", "B"):
        box._start(slot)
        box.call("boot-check")
    box._start("A")
    (tmp_path / "mount").mkdir()
    (tmp_path / "min-version").write_text("1.4.0\n")
    environment = {
        **box.environment,
        "RADBOX_OS_BACKEND": str(RAUC / "pi" / "backend"),
        "RADBOX_OS_MIN_VERSION": str(tmp_path / "min-version"),
        "RAUC_BUNDLE_MOUNT_POINT": str(tmp_path / "mount"),
    }

    def offered(version: str) -> str:
        (tmp_path / "mount" / "os-version").write_text(version)
        done = run(RAUC / "os" / "pre-install", environment=environment, check=False)
        return "" if done.returncode == 0 else done.stderr

    assert offered("1.4.0\n") == ""
    assert offered("1.10.0\n") == ""
    assert "1.4.0 or later, got 1.3.9" in offered("1.3.9\n")
    assert "something else" in offered("; reboot\n")
    (tmp_path / "mount" / "os-version").unlink()
    assert run(RAUC / "os" / "pre-install", environment=environment, check=False).returncode == 1
    box.install("B")
    assert "on trial, got B" in offered("1.5.0\n")


def test_bundle_hook(tmp_path: Path) -> None:
    """One boot image serves both slots: the hook writes which root file system belongs to it."""
    hook = RAUC / "bundle" / "hook"
    same = {"RAUC_MF_COMPATIBLE": "radbox-pi", "RAUC_SYSTEM_COMPATIBLE": "radbox-pi"}
    assert run(hook, "install-check", environment=same).returncode == 0
    assert run(hook, "install-check", environment={**same, "RAUC_MF_COMPATIBLE": "x"}, check=False).returncode == 10
    (tmp_path / "cmdline.txt").write_text("console=tty1 root=PARTLABEL=old rauc.slot=A quiet\n")
    slot = {"RAUC_SLOT_CLASS": "boot", "RAUC_SLOT_NAME": "boot.1", "RAUC_SLOT_MOUNT_POINT": str(tmp_path)}
    run(hook, "slot-post-install", environment=slot)
    assert (tmp_path / "cmdline.txt").read_text() == "console=tty1 quiet root=PARTLABEL=root-b rauc.slot=B\n"


def test_mark_good(tmp_path: Path) -> None:
    """Health decides: a healthy system on trial is kept, one that is not healthy in time is restarted."""
    box = Box(tmp_path, "pi")
    box.boot(POWER_ON)
    box.install("B")
    backend = RAUC / "pi" / "backend"
    (tmp_path / "rauc").write_text(f'#!/bin/sh\n[ "$*" = "status mark-good" ] && exec "{backend}" set-state B good\n')
    (tmp_path / "rauc").chmod(0o755)
    environment = {
        **box.environment,
        "RADBOX_OS_BACKEND": str(backend),
        "RADBOX_RAUC": str(tmp_path / "rauc"),
        "RADBOX_OS_HEALTHY": "/bin/false",
        "RADBOX_OS_PAUSE_S": "0.1",
        "RADBOX_OS_LIMIT_S": "1",
    }
    assert run(RAUC / "os" / "mark-good", environment=environment).returncode == 0  # B waits for its first start
    assert not box.asked_reboot.exists()
    box.boot(WATCHDOG)
    assert run(RAUC / "os" / "mark-good", environment=environment, check=False).returncode == 1
    assert box.asked_reboot.read_text() == "reboot\n"
    box.asked_reboot.unlink()
    assert box.firmware() == "A"
    run(RAUC / "os" / "mark-good", environment={**environment, "RADBOX_OS_HEALTHY": "/bin/true"})
    assert box.firmware() == "B"


# --- killed ---


@BOARDS
def test_killed_at_random_moments(tmp_path: Path, board: str) -> None:
    """Each file is whole after a kill at any moment, and the next start goes on: committed or trial, never neither."""
    chance = random.Random(8)
    box = Box(tmp_path, board)
    for slot in ("A", "B"):
        box._start(slot)
        (box.folder / "active").write_text(f"{'AB'.index(slot)}\n")
        box.call("boot-check")
    committed = box.call("get-primary")
    kills = 0
    for _ in range(15):
        target = "B" if committed == "A" else "A"
        words = chance.choice(
            [("set-state", target, "bad"), ("set-primary", target), ("boot-check",), ("set-state", box.running, "good")]
        )
        process = subprocess.Popen(
            [str(RAUC / board / "backend"), *words],
            env={**os.environ, **box.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(chance.uniform(0, 0.05))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait(20)
        if board == "pi":
            assert box.firmware() in "AB"
            assert box.firmware(tryboot=True) != box.firmware()
        assert box.call("get-primary") in ("A", "B")
        box.boot(chance.choice([POWER_ON, WATCHDOG]), broken=target if chance.random() < 0.3 else "")
        if box.call("get-primary") == box.running and chance.random() < 0.5:
            box.call("set-state", box.running, "good")
        committed = committed_of(box)
        assert box.call("get-state", committed) == "good"
    assert kills > 3


def committed_of(box: Box) -> str:
    """The system that would start if no trial were on."""
    if box.board == "pi":
        return box.firmware()
    lines = dict(line.split("=") for line in (box.state / "state").read_text().splitlines())
    return lines["kept"]
