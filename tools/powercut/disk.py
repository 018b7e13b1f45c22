"""A disk with a volatile write cache: what was not flushed when the power went is gone.

ext4 -> loop device -> nbdfuse -> nbdkit, whose cache filter keeps writes to itself until a flush (`cache=writeback`).
SIGKILL of nbdkit is the power cut: the kernel's page cache cannot help, it lies above. A cut within a flush leaves some
of its blocks written and others not. Not modelled: blocks torn inside 4 KiB, disks that lie about a flush.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tools.powercut.processes import Stuck, kill, run, spawn, wait_until

MIB = 2**20
PROGRAMS = {
    "nbdkit": "nbdkit",
    "nbdfuse": "nbdfuse",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
}
PLUG_ATTEMPTS, PLUG_TIMEOUT_S = 3, 10.0
FSCK_FINE = (0, 1, 2)  # e2fsck(8): clean, repaired, repaired and to be rebooted


def missing() -> str:
    """What keeps this machine from cutting power, as one sentence; empty if nothing does."""
    if os.geteuid() != 0:
        return "cutting power needs root, to mount"
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not os.access(device, os.R_OK | os.W_OK):
            return f"cutting power needs {device}"
    lacking = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    return f"cutting power needs the Debian packages {' '.join(lacking)}" if lacking else ""


class Disk:
    """One disk: `format`, then any number of `plug`, `cut`, `check`. Its file system is at `mount` while plugged."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        """`folder` must be empty and ours; the image takes only the room that is written."""
        self.folder = folder
        self.mount = folder / "mnt"
        self._size_bytes = size_bytes
        self._image = folder / "disk.img"
        self._template = folder / "template.img"
        self._fuse = folder / "fuse"
        self._cache = folder / "cache"
        self._socket = folder / "nbd.sock"
        self._log = folder / "disk.log"
        self._nbdkit: subprocess.Popen[bytes] | None = None
        self._nbdfuse: subprocess.Popen[bytes] | None = None
        self._mounted = False
        for made in (self.mount, self._fuse, self._cache):
            made.mkdir(parents=True)

    def format(self) -> None:
        """An empty ext4 with Debian's defaults."""
        if not self._template.exists():
            with self._template.open("wb") as image:
                image.truncate(self._size_bytes)
            run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self._template)
        run("cp", "--sparse=always", self._template, self._image)

    def plug(self) -> None:
        """Power on and mount. Raises Stuck if that fails several times: no fault of what is on the disk."""
        for _ in range(PLUG_ATTEMPTS - 1):
            try:
                return self._plug()
            except Stuck:
                self.unplug()
        return self._plug()

    def _plug(self) -> None:
        self._socket.unlink(missing_ok=True)
        nbdkit: list[str | Path] = [
            "nbdkit",
            "--foreground",
            "--exit-with-parent",
            "--unix",
            self._socket,
            "--filter=cache",
        ]
        cache = ["cache=writeback", "cache-min-block-size=4K"]
        self._nbdkit = spawn([*nbdkit, "file", self._image, *cache], self._log, {"TMPDIR": str(self._cache)})
        self._await(self._socket)
        self._nbdfuse = spawn(["nbdfuse", self._fuse, f"nbd+unix:///?socket={self._socket}"], self._log)
        self._await(self._fuse / "nbd")
        run("mount", "-t", "ext4", "-o", "loop", self._fuse / "nbd", self.mount)
        self._mounted = True

    def _await(self, path: Path) -> None:
        try:
            wait_until(path.exists, f"{path.name} of the disk", PLUG_TIMEOUT_S)
        except Stuck as error:
            ended = [one.poll() for one in (self._nbdkit, self._nbdfuse) if one is not None]
            words = f"{error}; nbdkit and nbdfuse: {ended}; {self._log.read_text()[-300:]}"
            raise Stuck(words) from error

    def cut(self) -> None:
        """The power goes: nothing that was not flushed reaches the disk from here on."""
        if self._nbdkit is not None:
            kill(self._nbdkit)
            self._nbdkit = None

    def unplug(self) -> None:
        """Take down what hangs above the disk, after `cut` and once no process uses it any more."""
        self.cut()
        if self._mounted:
            run("umount", "--lazy", self.mount, accepted=(0, 1, 32))
            self._mounted = False
        if self._nbdfuse is not None:
            run("umount", "--lazy", self._fuse, accepted=(0, 1, 32))
            kill(self._nbdfuse)
            self._nbdfuse = None

    def check(self) -> bool:
        """What a boot does before it mounts: replay the journal, repair; False if a person would have to."""
        done = subprocess.run(["e2fsck", "-p", str(self._image)], capture_output=True, timeout=120)
        return done.returncode in FSCK_FINE

    def used_share(self) -> float:
        """Part of the file system that is taken, 0 to 1."""
        usage = shutil.disk_usage(self.mount)
        return usage.used / usage.total

    def processes(self) -> list[int]:
        """Process ids of the disk itself."""
        return [one.pid for one in (self._nbdkit, self._nbdfuse) if one is not None]
