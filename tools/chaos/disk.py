"""A disk that can fail on command: ext4 -> loop device -> nbdfuse -> nbdkit with its error and delay filters."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools.powercut.processes import kill, run, spawn, wait_until


class FaultyDisk:
    """Mounted at `mount` from `plug` to `unplug`. `fail` makes every write an I/O error until `heal`."""

    def __init__(self, folder: Path, size_bytes: int, *, delay_ms: int = 0, options: str = "errors=continue") -> None:
        """folder: ours and empty. delay_ms: of every write and flush. options: of the ext4 mount."""
        self.folder, self.mount = folder, folder / "mnt"
        self._image, self._socket, self._fuse = folder / "disk.img", folder / "nbd.sock", folder / "fuse"
        self._flag, self._log = folder / "fail", folder / "disk.log"
        self._delay_ms, self._options = delay_ms, options
        self._running: list[subprocess.Popen[bytes]] = []
        for made in (self.mount, self._fuse):
            made.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(size_bytes)
        run("mkfs.ext4", "-q", "-F", "-m", "0", self._image)

    def plug(self) -> None:
        """Mount."""
        self._socket.unlink(missing_ok=True)
        delays = [f"wdelay={self._delay_ms}ms"] if self._delay_ms else []
        errors = ["error-pwrite=EIO", "error-pwrite-rate=100%", f"error-pwrite-file={self._flag}"]
        filters = ["--filter=delay"] if self._delay_ms else []
        command: list[str | Path] = [
            "nbdkit",
            "--foreground",
            "--exit-with-parent",
            "--unix",
            self._socket,
            *filters,
            "--filter=error",
        ]
        self._running.append(spawn([*command, "file", self._image, *errors, *delays], self._log))
        wait_until(self._socket.exists, "the disk's socket")
        self._running.append(spawn(["nbdfuse", self._fuse, f"nbd+unix:///?socket={self._socket}"], self._log))
        wait_until((self._fuse / "nbd").exists, "the disk's device")
        run("mount", "-t", "ext4", "-o", f"loop,{self._options}", self._fuse / "nbd", self.mount)

    def fail(self) -> None:
        """From now on every write is an I/O error."""
        self._flag.touch()

    def heal(self) -> None:
        """Writes work again; a file system that gave up stays so until it is mounted anew."""
        self._flag.unlink(missing_ok=True)

    def unplug(self) -> None:
        """Unmount; whatever uses it must have ended."""
        run("umount", self.mount, accepted=(0, 1, 32))
        run("umount", "--lazy", self._fuse, accepted=(0, 1, 32))
        for process in reversed(self._running):
            kill(process)
        self._running.clear()

    def repair(self) -> None:
        """What the boot after a fault does."""
        run("e2fsck", "-p", self._image, accepted=(0, 1, 2))
