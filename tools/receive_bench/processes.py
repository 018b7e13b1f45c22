"""CPU seconds and memory of a process with its children, from /proc (proc(5))."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE_EVERY_S = 0.1


def tree(pid: int) -> list[int]:
    """The process and its descendants that live now."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        with contextlib.suppress(OSError):  # it has ended
            for task in list(Path(f"/proc/{one}/task").glob("*/children")):
                waiting += [int(child) for child in task.read_text().split()]
    return found


def threads(pid: int) -> int:
    """Threads of the whole tree."""
    count = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            count += len(os.listdir(f"/proc/{one}/task"))  # noqa: PTH208
    return count


def cpu_s(pid: int) -> float:
    """User and system time of the tree so far, children that ended and were waited for included."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / _TICKS


def memory_bytes(pid: int) -> tuple[int, int]:
    """Resident set (shared pages counted in every process) and proportional set of the tree."""
    resident = proportional = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:"):
                    resident += int(line.split()[1]) * 1024
                elif line.startswith("Pss:"):
                    proportional += int(line.split()[1]) * 1024
    return resident, proportional


class PeakMemory(threading.Thread):
    """Looks ten times a second; `resident_bytes` and `proportional_bytes` are the largest sums seen."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._done = threading.Event()
        self.resident_bytes = self.proportional_bytes = 0

    def run(self) -> None:
        while True:
            resident, proportional = memory_bytes(self._pid)
            self.resident_bytes = max(self.resident_bytes, resident)
            self.proportional_bytes = max(self.proportional_bytes, proportional)
            if self._done.wait(_SAMPLE_EVERY_S):
                return

    def stop(self) -> None:
        """Look once more and end."""
        self._done.set()
        self.join()
