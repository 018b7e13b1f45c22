"""Is the disk honest? A writer that never flushes must lose files in a cut, one that flushes all must lose none.

Both acknowledge each file by a line outside the disk, as a box does by a C-STORE Success. The flushing writer shares no
code with `edge.durable`, which is what the other runs judge.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tools.powercut.processes import spawn, wait_until
from tools.powercut.workplace import Workplace

FILE_BYTES = 60_000
WRITE_S = 0.4
DISK_BYTES = 1 << 29


@dataclass(frozen=True)
class Control:
    """What became of acknowledged files, without and with flushing."""

    unflushed: int
    unflushed_lost: int
    flushed: int
    flushed_lost: int

    @property
    def valid(self) -> bool:
        """True if the disk forgets what was not flushed, and only that."""
        return self.unflushed_lost > 0 and self.flushed > 0 and self.flushed_lost == 0

    def __str__(self) -> str:
        return (
            f"writer without fsync {self.unflushed_lost} of {self.unflushed} lost, "
            f"with fsync of file and folder {self.flushed_lost} of {self.flushed} lost"
        )


def control(place: Workplace, name: str) -> Control:
    """Cut the power of each writer once."""
    unflushed = _one(place, f"{name}-unflushed", "unflushed")
    flushed = _one(place, f"{name}-flushed", "flushed")
    return Control(*unflushed, *flushed)


def _one(place: Workplace, name: str, kind: str) -> tuple[int, int]:
    disk = place.disk(name, DISK_BYTES)
    disk.plug()
    acknowledged = place.folder / f"{name}.txt"
    acknowledged.touch()
    module = [sys.executable, "-m", "tools.powercut.control"]
    spawn([*module, kind, disk.mount, acknowledged], place.folder / f"{name}.log")
    wait_until(lambda: acknowledged.stat().st_size > 0, f"a first file of the {kind} control writer")
    time.sleep(WRITE_S)
    numbers = [int(line) for line in acknowledged.read_text().split("\n")[:-1]]
    place.clear()
    fine = disk.check()
    disk.plug()
    lost = sum(not fine or not _whole(disk.mount, number) for number in numbers)
    place.clear()
    place.discard(disk)
    return len(numbers), lost


def _content(number: int) -> bytes:
    return f"{number:010d}".encode() * (FILE_BYTES // 10)


def _whole(folder: Path, number: int) -> bool:
    path = folder / f"{number}.dat"
    return path.exists() and path.read_bytes() == _content(number)


def _write(kind: str, folder: Path, acknowledged: Path) -> None:
    flush = kind == "flushed"
    told = os.open(acknowledged, os.O_WRONLY | os.O_APPEND)
    names = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(1_000_000):
        temporary = folder / f"{number}.tmp"
        with temporary.open("wb") as file:
            file.write(_content(number))
            file.flush()
            if flush:
                os.fsync(file.fileno())
        temporary.rename(folder / f"{number}.dat")
        if flush:
            os.fsync(names)
        os.write(told, f"{number}\n".encode())
        time.sleep(0.002)  # the disk need not be full for this


if __name__ == "__main__":
    _write(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
