"""A Debian 12 with real systemd in a container (systemd-nspawn) that has no network but its loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

Answer = TypeVar("Answer")
TOOLS: Final = ("mmdebstrap", "systemd-nspawn", "nsenter")
PACKAGES: Final = "systemd,systemd-sysv,dbus,udev,python3,debconf,init-system-helpers,mount,libstdc++6,zlib1g"
UP: Final = ("starting", "running", "degraded")
NSPAWN: Final = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--pipe")


def missing_tools() -> str:
    """What this machine lacks, in words; "" if containers can be run."""
    if os.geteuid() != 0:
        return "needs root"
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"needs {', '.join(lacking)} (apt-get install mmdebstrap systemd-container)" if lacking else ""


def base_system(cache: Path, debian_architecture: str) -> Path:
    """A minimal Debian 12 of the packages that radbox depends on; made once."""
    folder = cache / f"rootfs-{debian_architecture}"
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--architectures={debian_architecture}"]
        command += [f"--include={PACKAGES}", '--aptopt=APT::Install-Recommends "false"', "bookworm", str(part)]
        subprocess.run(command, check=True)
        part.rename(folder)
    return folder


def run_in(root: Path, *command: str, check: bool = True, bind: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """A command in the system at `root`, not booted and without network."""
    options = [f"--bind-ro={one}" for one in bind]
    environment = "--setenv=DEBIAN_FRONTEND=noninteractive"
    done = subprocess.run(
        [*NSPAWN, environment, *options, "--directory", str(root), "--", *command],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if check and done.returncode:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Booted:
    """A running container; `leader` is its PID 1 as seen from outside."""

    def __init__(self, process: subprocess.Popen[bytes], leader: int) -> None:
        self._process, self._leader = process, leader

    def outside(self, *command: str, check: bool = True) -> str:
        """Run a program of this machine in the container's network."""
        return self._enter(("--net",), command, check)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program of the container in it; returns what it printed."""
        return self._enter(("--all",), command, check)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", unit, "--property", name, "--value")

    def _enter(self, spaces: Sequence[str], command: Sequence[str], check: bool) -> str:
        done = subprocess.run(
            ["nsenter", "--target", str(self._leader), *spaces, "--", *command],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            raise SystemExit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def stop(self) -> None:
        """Power off: the signal works without a bus (systemd(1), SIGRTMIN+4)."""
        os.kill(self._leader, signal.SIGRTMIN + 4)
        try:
            self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def booted(root: Path, log: Path, name: str = "radbox-test") -> Iterator[Booted]:
    """Boot the system at `root`; powered off at the end. PID 1 is there when this yields, services may not be."""
    command = [*NSPAWN[:-1], f"--machine={name}", "--directory", str(root), "--boot", "--", "3"]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
    leader = wait_for(lambda: _leader(process.pid), 20, "PID 1 of the container")
    box = Booted(process, leader)
    try:
        wait_for(lambda: box.run("systemctl", "is-system-running", check=False) in UP, 30, "systemd in the container")
        yield box
    finally:
        box.stop()


def wait_for(read: Callable[[], Answer], limit_s: float, what: str, step_s: float = 0.1) -> Answer:
    """The first answer that counts as true; stops with a sentence after `limit_s`."""
    deadline_s = time.monotonic() + limit_s
    while not (answer := read()):
        if time.monotonic() > deadline_s:
            raise SystemExit(f"expected {what} within {limit_s:.0f} s, got nothing")
        time.sleep(step_s)
    return answer


def _leader(nspawn: int) -> int:
    """The child of nspawn that is PID 1 in a namespace of its own; 0 while there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
        except OSError:
            continue
        if words.get("PPid") == str(nspawn) and words.get("NSpid", "").split()[-1:] == ["1"]:
            return int(folder.name)
    return 0
