"""`tools/test_package`: the amd64 package in a container with real systemd and no network, from installation to purge.

What only real units can show: every service gets ready under its own user behind its own walls, a study sent by DCMTK
becomes a draft, a hung service is restarted by the watchdog, an upgrade keeps data and board file, purge asks.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tools.deb.container import Booted, base_system, booted, missing_tools, run_in, wait_for
from tools.deb.run import BUILD, make_quickly
from tools.deb.tree import ROOT

ALWAYS: Final = ("receive", "worker", "web", "care", "link")  # the others end where the board names no device
OPTIONAL: Final = ("panel", "capture")
PACKAGE: Final = "/root/radbox.deb"
DPKG: Final = ("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--force-unsafe-io")  # a trial may lose files
DATA: Final = "var/lib/radbox"
PAGE: Final = "http://127.0.0.1:8080"
QUICK_WATCHDOG_S: Final = 10
STEPS: Final = (
    *("ready", "walls", "study", "selftest", "backends", "watchdog", "upgrade", "quiet"),
    *("remove", "purge", "credential"),
)


class Trial:
    """The steps; each prints a line with its time, or stops the program with a sentence."""

    def __init__(self, root: Path, package: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        shutil.copy(package, root / PACKAGE.lstrip("/"))
        self.figures: dict[str, float] = {}

    def step(self, name: str, action: Callable[[], None]) -> None:
        """Do it and say how long it took."""
        began_s = time.monotonic()
        action()
        self.figures[name] = round(time.monotonic() - began_s, 2)
        print(f"{self.figures[name]:7.2f} s  {name}", flush=True)

    # --- not booted ---

    def install(self) -> None:
        """Twice: the second time changes nothing."""
        run_in(self.root, *DPKG, "--install", PACKAGE)
        board = self.root / "etc/radbox/board.toml"
        board.write_text(board.read_text().replace('name = "radbox"', 'name = "kept by upgrades"'))
        before = _listing(self.root)
        run_in(self.root, *DPKG, "--install", PACKAGE)
        _expect("a second installation to change nothing", _listing(self.root) - before, set())

    # --- booted ---

    def ready(self, box: Booted) -> None:
        """Every service ready, and which user it runs as."""
        for name in ALWAYS:
            unit = f"radbox-{name}.service"
            wait_for(partial(_running, box, unit), 60, f"{unit} to run")
        for name in OPTIONAL:
            _expect(f"radbox-{name} to end well", box.show(f"radbox-{name}.service", "Result"), "success")
        began_us = int(box.run("systemctl", "show", "--property", "UserspaceTimestampMonotonic", "--value"))
        for name in ("receive", "worker", "web"):
            ready_us = int(box.show(f"radbox-{name}.service", "ActiveEnterTimestampMonotonic"))
            self.figures.setdefault(f"start of systemd to {name} ready", round((ready_us - began_us) / 1e6, 2))

    def walls(self, box: Booted) -> None:
        """What the kernel says of the running processes."""
        for name in ALWAYS:
            process = box.show(f"radbox-{name}.service", "MainPID")
            status = dict(
                line.split(":\t", 1) for line in box.run("cat", f"/proc/{process}/status").splitlines() if ":\t" in line
            )
            walls = {key: status[key].strip() for key in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
            wanted = {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
            _expect(f"the walls of {name}", walls, wanted)
            user = box.run("stat", "--format=%U:%G", f"/proc/{process}")
            _expect(f"the user of {name}", user, f"radbox-{name}:radbox")
            links = {line.split(":")[0].strip() for line in box.run("cat", f"/proc/{process}/net/dev").splitlines()[2:]}
            own_network = box.run("readlink", f"/proc/{process}/ns/net") != box.run("readlink", "/proc/1/ns/net")
            _expect(f"a network of {name}'s own", own_network, name in ("worker", "care"))
            _expect(f"the links of {name}", "lo" in links, True)
            devices = set(box.run("ls", f"/proc/{process}/root/dev").split())
            _expect(
                f"no disk in {name}'s /dev", {one for one in devices if one.startswith(("sd", "vd", "loop"))}, set()
            )

    def study(self, box: Booted, name: str = "first") -> None:
        """A computed thorax, sent by DCMTK, becomes a draft on the page."""
        image = self.folder / f"{name}.dcm"
        command = [str(ROOT / ".venv/bin/radbox"), "simulate", "--finding", "effusion", "--side", "left"]
        subprocess.run([*command, "--out", str(image)], check=True, capture_output=True)
        box.outside("storescu", "--aetitle", "XRAY", "--call", "RADBOX", "127.0.0.1", "11112", str(image))
        wait_for(lambda: self._report(box), 90, "a draft of the study")

    def _report(self, box: Booted) -> str:
        script = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"
        text = box.outside(sys.executable, "-c", script, f"{PAGE}/study/1/report.json", check=False)
        return str(json.loads(text).get("schema", text)) if text.startswith("{") else ""

    def watchdog(self, box: Booted) -> None:
        """A worker that hangs (SIGSTOP) is restarted. With its own limit shortened, which is the same mechanism."""
        unit = "radbox-worker.service"
        folder = f"/run/systemd/system/{unit}.d"
        box.run("mkdir", "-p", folder)
        box.run("sh", "-c", f"printf '[Service]\\nWatchdogSec={QUICK_WATCHDOG_S}\\n' >{folder}/quick.conf")
        box.run("systemctl", "daemon-reload")
        box.run("systemctl", "restart", unit)
        time.sleep(QUICK_WATCHDOG_S + 2)
        _expect("no restart of a worker that works", box.show(unit, "NRestarts"), "0")
        began_s = time.monotonic()
        box.run("systemctl", "kill", "--signal=STOP", "--kill-whom=main", unit)
        wait_for(lambda: box.show(unit, "NRestarts") == "1", QUICK_WATCHDOG_S + 20, "a restart by the watchdog")
        self.figures["hang of the worker to its restart"] = round(time.monotonic() - began_s, 2)
        _expect("the reason of the restart", "watchdog" in box.run("journalctl", "--unit", unit, "--output=cat"), True)
        wait_for(partial(_running, box, unit), 30, "the worker to run again")

    def backends(self, box: Booted) -> None:
        """The other runtime of the board works behind the worker's walls too."""
        board = self.root / "etc/radbox/board.toml"
        before = board.read_text()
        board.write_text(before.replace('["tflite", "onnxruntime"]', '["onnxruntime"]'))
        box.run("systemctl", "restart", "radbox-worker.service")
        log = ("journalctl", "--unit=radbox-worker.service", "--output=cat")
        wait_for(lambda: "reading with onnxruntime" in box.run(*log), 60, "a worker that reads with onnxruntime")
        board.write_text(before)
        box.run("systemctl", "restart", "radbox-worker.service")

    def selftest(self, box: Booted) -> None:
        """`radbox selftest`, on the board file of the box, beside the running services."""
        told = json.loads(box.run("radbox", "selftest", "--json"))
        _expect("the self-test to pass", [step for step in told["steps"] if not step["passed"]], [])

    def upgrade(self, box: Booted) -> None:
        """The package over itself while everything runs: data and board file stay, and the services come back."""
        box.run(*DPKG, "--install", PACKAGE)
        self.ready(box)
        _expect("the board file to be kept", "kept by upgrades" in box.run("cat", "/etc/radbox/board.toml"), True)
        wait_for(lambda: self._report(box), 20, "the draft after the upgrade")

    def quiet(self, box: Booted) -> None:
        """No service wrote an error or was refused a system call that it needs."""
        lines = box.run("journalctl", "--unit=radbox*", "--output=cat").splitlines()
        bad = [line for line in lines if line.startswith(("ERROR", "CRITICAL", "Traceback")) or "SIGSYS" in line]
        _expect("no errors in the log", bad, [])

    def remove(self, box: Booted) -> None:
        """Removal stops the services and keeps the data; so does purge when nobody answers its question."""
        box.run(*DPKG, "--remove", "radbox")
        _expect("no service after removal", box.run("systemctl", "list-units", "radbox*", "--no-legend"), "")
        _expect("the board file after removal", (self.root / "etc/radbox/board.toml").is_file(), True)
        box.run(*DPKG, "--purge", "radbox")
        _expect("the board file after purge", (self.root / "etc/radbox/board.toml").exists(), False)
        _expect("the database after purge", (self.root / DATA / "radbox.sqlite3").is_file(), True)

    def purge(self, box: Booted) -> None:
        """Installed again it takes the data up; a purge that is told to delete leaves nothing."""
        box.run(*DPKG, "--install", PACKAGE)
        self.ready(box)
        wait_for(lambda: self._report(box), 20, "the draft after the second installation")
        box.run("sh", "-c", "echo radbox radbox/purge-data boolean true | debconf-set-selections")
        box.run(*DPKG, "--purge", "radbox")
        _expect("the data after a purge that was told to delete", (self.root / DATA).exists(), False)
        _expect("/opt/radbox after purge", (self.root / "opt/radbox").exists(), False)
        left = [line for line in _listing(self.root) if "radbox" in line and "/root/" not in line]
        _expect("nothing of the package to be left", left, [])

    def credential(self, box: Booted) -> None:
        """A key in /etc/credstore encrypts the database; where there was none, it was not."""
        key = self.root / "etc/credstore/radbox-db-key"
        key.parent.mkdir(mode=0o700, exist_ok=True)
        key.write_bytes(secrets.token_bytes(32))
        key.chmod(0o600)
        box.run(*DPKG, "--install", PACKAGE)
        self.ready(box)
        first = (self.root / DATA / "radbox.sqlite3").read_bytes()[:15]
        _expect("an encrypted database", first == b"SQLite format 3", False)


def _running(box: Booted, unit: str) -> bool:
    return box.show(unit, "SubState") == "running"


def _listing(root: Path) -> set[str]:
    """Names and sizes of what the package and its scripts may touch."""
    tops = ("opt", "etc/radbox", "etc/systemd", "usr/lib/systemd", "usr/lib/udev", "var/lib/radbox", "usr/share/radbox")
    found = [path for top in tops for path in (root / top).rglob("*") if not path.is_dir() or path.is_symlink()]
    return {f"/{path.relative_to(root)} {path.lstat().st_size}" for path in found}


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise SystemExit(f"expected {what}: {wanted!r:.2000}, got {found!r:.2000}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Everything, in order; 0 if all is as it should be."""
    parser = argparse.ArgumentParser("test_package", description=__doc__)
    parser.add_argument("--deb", type=Path, metavar="FILE", help="this package; by default one is made")
    parsed = parser.parse_args(arguments)
    if lacking := missing_tools():
        raise SystemExit(f"test_package: {lacking}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("test_package: stopped"))  # nothing is left behind then either
    base = base_system(BUILD, "amd64")
    with tempfile.TemporaryDirectory(dir=BUILD, prefix=".trial-") as name:
        folder = Path(name)
        package = parsed.deb or make_quickly(folder)
        root = folder / "root"
        subprocess.run(["cp", "--archive", str(base), str(root)], check=True)
        trial = Trial(root, package, folder)
        trial.step("install, twice, without network", trial.install)
        log = BUILD / "test_package.log"
        with booted(root, log) as box:
            try:
                for name in STEPS:
                    trial.step(name, partial(getattr(trial, name), box))
            finally:
                (BUILD / "test_package.journal").write_text(box.run("journalctl", "--no-pager", check=False))
    print(json.dumps(trial.figures, indent=1))
    print("test_package: all passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
