"""Reference for A/B system images: bundles by Debian's RAUC, and the boot loader backends against a simulated firmware.

RAUC's D-Bus service (`rauc install`, `rauc status`) needs real slots and is not started here; its calls to the backend
are made as it makes them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parent.parent / "tools"
RAUC = TOOLS / "rauc"
POWER_ON, WATCHDOG = 0x1000, 0x20  # PM_RSTS
LIBFAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)

needs_rauc = pytest.mark.skipif(
    not all(map(shutil.which, ("rauc", "mksquashfs", "openssl"))), reason="needs rauc, squashfs-tools and openssl"
)


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


# --- bundles ---


@dataclass(frozen=True)
class Release:
    """A bundle with the keys that signed it."""

    folder: Path
    keys: Path
    bundle: Path

    def make(self, out: str, board: str = "pi", version: str = "1.4.0") -> subprocess.CompletedProcess[str]:
        keys = ("--cert", self.keys / "signer.pem", "--key", self.keys / "signer.key.pem")
        images = ("--rootfs", self.folder / "rootfs.img", *(("--boot", self.folder / "boot.img") * (board == "pi")))
        what = ("--board", board, "--version", version, *images, *keys, "--keyring", self.keys / "ca.pem")
        return run(TOOLS / "make_os_bundle", *what, "--out", self.folder / out, check=False)

    def info(
        self, bundle: Path, keys: Path | None = None, board: str = "pi", environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`rauc info` under the board's own system.conf, with the keyring of `keys`."""
        return self.rauc("info", bundle, keys=keys, board=board, environment=environment)

    def rauc(
        self, *words: object, keys: Path | None = None, board: str = "pi", environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Any command of it."""
        config = self.folder / f"{board}.conf"
        text = (RAUC / board / "system.conf").read_text()
        text = text.replace("/usr/share/radbox/os/ca.pem", str((keys or self.keys) / "ca.pem"))
        config.write_text(text.replace("/data/os/rauc", str(self.folder / "data")))
        return run("rauc", "--conf", config, *words, check=False, environment=environment)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("rauc")
    chance = random.Random(1)
    (folder / "rootfs.img").write_bytes(chance.randbytes(400_000))
    (folder / "boot.img").write_bytes(chance.randbytes(100_000))
    run(TOOLS / "make_os_bundle", "--test-keys", folder / "keys")
    made = Release(folder, folder / "keys", folder / "a.raucb")
    done = made.make("a.raucb")
    assert done.returncode == 0, done.stderr
    return made


@needs_rauc
def test_bundle_verifies(release: Release) -> None:
    done = release.info(release.bundle)
    assert done.returncode == 0, done.stderr
    for words in ("'radbox-pi'", "'1.4.0'", "verity", "rootfs.img", "boot.vfat", "install-check"):
        assert words in done.stdout
    assert release.make("jetson.raucb", board="jetson").returncode == 0
    assert "'radbox-jetson'" in release.info(release.folder / "jetson.raucb", board="jetson").stdout


@needs_rauc
def test_another_organisation_is_refused(release: Release) -> None:
    run(TOOLS / "make_os_bundle", "--test-keys", release.folder / "others")
    done = release.info(release.bundle, release.folder / "others")
    assert done.returncode != 0
    assert "Verify error" in done.stderr


@needs_rauc
def test_plain_bundles_are_refused(release: Release, tmp_path: Path) -> None:
    """Only verity: each block is checked when it is read, also on a stick that lies the second time."""
    (tmp_path / "content").mkdir()
    shutil.copy(release.folder / "rootfs.img", tmp_path / "content")
    manifest = "[update]\ncompatible=radbox-pi\nversion=1\n[image.rootfs]\nfilename=rootfs.img\n"
    (tmp_path / "content" / "manifest.raucm").write_text(manifest)
    keys = ("--cert", release.keys / "signer.pem", "--key", release.keys / "signer.key.pem")
    run("rauc", *keys, "bundle", tmp_path / "content", tmp_path / "plain.raucb")
    done = release.info(tmp_path / "plain.raucb")
    assert done.returncode != 0
    assert "not allowed" in done.stderr


@needs_rauc
def test_the_ca_itself_may_not_sign(release: Release) -> None:
    keys = (
        "--cert",
        release.keys / "ca.pem",
        "--key",
        release.keys / "ca.key.pem",
        "--keyring",
        release.keys / "ca.pem",
    )
    images = ("--rootfs", release.folder / "rootfs.img", "--boot", release.folder / "boot.img")
    out = release.folder / "ca.raucb"
    done = run(TOOLS / "make_os_bundle", "--board", "pi", "--version", "1.0", *images, *keys, "--out", out, check=False)
    assert done.returncode != 0
    assert not out.exists()


@needs_rauc
def test_flipped_bytes_are_refused(release: Release, tmp_path: Path) -> None:
    """In the signature and the signed manifest by `rauc info`; in the images by the hash tree, as the kernel does."""
    content = bytearray(release.bundle.read_bytes())
    (signature_bytes,) = struct.unpack(">Q", content[-8:])
    start = len(content) - 8 - signature_bytes
    manifest = content.find(b"verity-hash=", start)
    chance = random.Random(3)
    places = [manifest + 15, len(content) - 1, *(chance.randrange(start, start + signature_bytes) for _ in range(12))]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1
        (tmp_path / "changed.raucb").write_bytes(changed)
        done = release.info(tmp_path / "changed.raucb")
        # A certificate in the signature may carry bits that nobody signs; the manifest is what it was then.
        if done.returncode == 0:
            assert release.info(release.bundle).stdout == done.stdout
    (tmp_path / "changed.raucb").write_bytes(content[:manifest] + b"verity-hash=0" + content[manifest + 13 :])
    assert release.info(tmp_path / "changed.raucb").returncode != 0
    (tmp_path / "changed.raucb").write_bytes(content[:-4096])
    assert release.info(tmp_path / "changed.raucb").returncode != 0
    for number, place in enumerate((0, 5000, start // 2, start - 10_000)):
        changed = bytearray(content)
        changed[place] ^= 1
        (tmp_path / "changed.raucb").write_bytes(changed)
        done = release.rauc("extract", tmp_path / "changed.raucb", tmp_path / f"out{number}")
        assert done.returncode != 0
        assert "corrupt" in done.stderr
    done = release.rauc("extract", release.bundle, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "rootfs.img").read_bytes() == (release.folder / "rootfs.img").read_bytes()


@needs_rauc
@pytest.mark.skipif(LIBFAKETIME is None, reason="needs Debian's libfaketime")
@pytest.mark.parametrize("clock", ["1970-01-02 00:00:00", "2020-01-01 00:00:00", "2090-06-01 00:00:00"])
def test_no_clock_makes_an_honest_update_impossible(release: Release, clock: str) -> None:
    faked = {"LD_PRELOAD": str(LIBFAKETIME), "FAKETIME": f"@{clock}"}
    assert run("date", "+%Y", environment=faked).stdout.strip() == clock[:4]
    done = release.info(release.bundle, environment=faked)
    assert done.returncode == 0, done.stderr


@needs_rauc
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--board", "amiga"),
        ("--board", "pi", "--version", "new"),
        ("--board", "pi", "--version", "1.0", "--rootfs", "none"),
        ("--board",),
    ],
)
def test_make_os_bundle_says_what_it_wants(arguments: Sequence[str]) -> None:
    done = run(TOOLS / "make_os_bundle", *arguments, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("make_os_bundle: expected")


def test_newer_settings_are_kept_apart(release: Release) -> None:
    """Debian 12's RAUC refuses unknown keys: what only later versions know must stay out of system.conf."""
    for board in ("pi", "jetson"):
        text = (RAUC / board / "system.conf").read_text()
        for line in ("bundle-formats=-plain", "use-bundle-signing-time=true", "bootloader=custom"):
            assert line in text
        assert "min-bundle-version" not in text
        assert "[log." not in text


# --- the boot loader's side ---


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
