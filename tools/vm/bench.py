"""Where the scenarios run: the test image, the state after its first start as a snapshot, and what they find."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from tools.image.disk import ENTRY, INITRD, KERNEL
from tools.image.gpt import ALIGN_BYTES
from tools.image.rootfs import ImageError, run
from tools.vm.machine import Boot, Machine
from tools.vm.wire import VmError

DISK_BYTES: Final = 12 << 30  # larger than the image: its data partition grows
SNAPSHOT: Final = "booted"
SERVICES: Final = ("receive", "worker", "web", "care", "link")  # that run on a box with neither panel nor grabber
PYTHON: Final = "/opt/radbox/bin/python3"
LOOK: Final = Path(__file__).with_name("look.py")


@dataclass
class Findings:
    """What a scenario found. checks: (sentence, held, detail); figures: what was measured, in words."""

    name: str
    log: TextIO
    checks: list[tuple[str, bool, str]] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)
    start_s: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """True if something was checked, and all of it held."""
        return bool(self.checks) and all(held for _, held, _ in self.checks)

    def check(self, sentence: str, held: bool, detail: str = "") -> bool:
        """Note whether `sentence` is true; `detail` says what was found instead."""
        self.checks.append((sentence, held, "" if held else detail))
        self.say(f"{'ok  ' if held else 'FAIL'} {sentence}" + (f": {detail}" if detail and not held else ""))
        return held

    def figure(self, name: str, value: str) -> None:
        """Note a measurement."""
        self.figures[name] = value
        self.say(f"     {name}: {value}")

    def say(self, sentence: str) -> None:
        """Progress, on stderr and in the log."""
        line = f"[{time.monotonic() - self.start_s:6.1f} s] {self.name}: {sentence}"
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
        self.note(line)

    def note(self, text: str) -> None:
        """Into the log alone."""
        self.log.write(text + "\n")
        self.log.flush()


class Bench:
    """One test image and one folder to work in, which keeps the snapshot from run to run."""

    def __init__(self, image: Path, folder: Path) -> None:
        """Read kernel, initial disk and command line from the image. Raises VmError."""
        self.image, self.folder = image, folder
        self.disk = folder / "disk.qcow2"
        self._key = folder / "snapshot.json"
        folder.mkdir(parents=True, exist_ok=True)
        esp = f"{image}@@{ALIGN_BYTES}"
        try:
            entry = run("mtype", "-i", esp, f"::{ENTRY}")
            for name in (KERNEL, INITRD):
                run("mcopy", "-n", "-o", "-i", esp, f"::{name}", folder / name)
        except ImageError as error:
            raise VmError(f"expected an image of tools/make_image, got: {error}") from error
        self.test_image = "TEST IMAGE" in entry
        found = re.search(r"^options (.*)$", entry, re.MULTILINE)
        self.options = found[1] if found else ""

    # --- starting ---

    def cold(self, name: str, disk: Path | str, *, firmware: bool = False) -> Machine:
        """A machine that starts from nothing."""
        place = self._place(name)
        if firmware:
            return Machine(Boot(disk), place)
        return Machine(Boot(disk, self.folder / KERNEL, self.folder / INITRD, self.options), place)

    @contextmanager
    def resumed(self, name: str) -> Iterator[Machine]:
        """The machine as it was when everything had started, in a second."""
        boot = Boot(self.disk, self.folder / KERNEL, self.folder / INITRD, self.options, SNAPSHOT)
        with Machine(boot, self._place(name)) as machine:
            try:
                machine.must("true", 300)
                yield machine
            except BaseException:
                with suppress(VmError, OSError):  # it may be what failed
                    journal = machine.sh("journalctl --boot --no-pager | tail -n 400", 30).out
                    (machine.folder / "journal.txt").write_text(journal)
                raise
            machine.end()

    def keep(self, machine: Machine) -> None:
        """Make the snapshot that `resumed` starts from."""
        machine.qmp.monitor(f"savevm {SNAPSHOT}")
        self._key.write_text(self._state())

    def has_snapshot(self) -> bool:
        """True if the snapshot is of this image."""
        return self.disk.exists() and self._key.exists() and self._key.read_text() == self._state()

    def _state(self) -> str:
        status = self.image.stat()
        return json.dumps([str(self.image), status.st_size, status.st_mtime_ns])

    def _place(self, name: str) -> Path:
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        return place

    def new_disk(self, name: str = "disk") -> Path:
        """A disk that holds the image and nothing else yet. `disk` is the one with the snapshot."""
        disk = self.folder / f"{name}.qcow2"
        if disk == self.disk:
            self._key.unlink(missing_ok=True)
        disk.unlink(missing_ok=True)
        base = ("-b", str(self.image.absolute()), "-F", "raw")
        run("qemu-img", "create", "-q", "-f", "qcow2", *base, disk, str(DISK_BYTES))
        return disk


# --- asking a machine ---


def look(machine: Machine) -> dict[str, Any]:
    """What the box's own records say: services, studies with their objects, facts, events, counts, quarantine."""
    machine.shell.put("/run/radbox-look.py", LOOK.read_bytes())
    out = machine.must(f"runuser -u radbox-care -- {PYTHON} /run/radbox-look.py /etc/radbox/board.toml", 300)
    return dict(json.loads(out.splitlines()[-1]))


def page(machine: Machine, path: str, timeout_s: float = 60.0) -> tuple[int, str]:
    """Status and text of a page of the box, as a phone gets it; (0, why) where there is no answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{machine.web_port}{path}", timeout=timeout_s) as answer:
            return int(answer.status), answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return 0, str(error)


def show(machine: Machine, unit: str, name: str) -> str:
    """One property of a unit."""
    return machine.must(f"systemctl show {unit} --property={name} --value")


def until(what: str, test: Callable[[], Any], timeout_s: float, every_s: float = 1.0) -> Any:
    """What `test` returns as soon as that is true. Raises VmError after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while True:
        if found := test():
            return found
        if time.monotonic() > end:
            raise VmError(f"expected {what} within {timeout_s:.0f} s")
        time.sleep(every_s)


def settle(machine: Machine, timeout_s: float = 900.0) -> str:
    """Wait until everything that starts has started; systemd's word for the whole."""
    said = machine.sh("systemctl is-system-running --wait", timeout_s)
    units = " ".join(f"radbox-{name}" for name in SERVICES)
    until("the services to be active", lambda: machine.sh(f"systemctl is-active {units}").code == 0, timeout_s)
    return said.out


def send(machine: Machine, *files: Path, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
    """DCMTK's storescu from this side; Nagle's algorithm off, which Debian's build leaves on."""
    command = ["storescu", "-v", "-aet", "XRAY1", "-aec", "RADBOX", "-to", "120", "-ta", "120", "-td", "120"]
    command += ["127.0.0.1", str(machine.dicom_port), *map(str, files)]
    environment = {"PATH": "/usr/bin:/bin", "TCP_NODELAY": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=timeout_s)
