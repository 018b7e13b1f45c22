"""The folder, the lock and the stop signals of one run. Nothing stays behind: no mount, no process, no folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.powercut.disk import Disk
from tools.powercut.processes import Stuck, adopt_orphans, ignore_stop_signals, kill_descendants, stoppable

PREFIX = "radbox-powercut-"
MEMORY = Path("/dev/shm")
LOCKS = Path("/run/lock")
MEMORY_NEEDED_BYTES = 4 * 2**30


class Workplace:
    """Where one run keeps its disks and logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._disks: list[Disk] = []

    def disk(self, name: str, size_bytes: int) -> Disk:
        """A new disk, formatted, not plugged."""
        disk = Disk(self.folder / name, size_bytes)
        self._disks.append(disk)
        disk.format()
        return disk

    def cut_power(self) -> None:
        """The power of the whole box goes, for every disk. `clear` follows."""
        for disk in self._disks:
            disk.cut()

    def clear(self) -> None:
        """Kill what runs and take the disks down; without `cut_power` before, that is a cut too."""
        self.cut_power()
        kill_descendants()
        for disk in self._disks:
            disk.unplug()

    def discard(self, disk: Disk) -> None:
        """Throw an unplugged disk away."""
        self._disks.remove(disk)
        shutil.rmtree(disk.folder)


@contextlib.contextmanager
def workplace() -> Iterator[Workplace]:
    """One run's place, in memory where there is enough. Raises Stuck where another run goes on."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_NEEDED_BYTES
    base = MEMORY if roomy else Path(tempfile.gettempdir())
    with _only_run(), stoppable():
        for stale in base.glob(f"{PREFIX}*"):
            if stale.is_dir():
                shutil.rmtree(stale, ignore_errors=True)
        adopt_orphans()
        place = Workplace(Path(tempfile.mkdtemp(prefix=PREFIX, dir=base)))
        try:
            yield place
        finally:
            ignore_stop_signals()
            place.clear()
            shutil.rmtree(place.folder, ignore_errors=True)


@contextlib.contextmanager
def _only_run() -> Iterator[None]:
    folder = LOCKS if LOCKS.is_dir() else Path(tempfile.gettempdir())
    handle = os.open(folder / f"{PREFIX.rstrip('-')}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Stuck("expected no other run of powercut_test, got one that goes on") from None
        yield
    finally:
        os.close(handle)
