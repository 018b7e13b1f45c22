"""Runs inside the machine: memory and context switches of services over some seconds, as one line of JSON.

RSS and PSS: /proc/PID/smaps_rollup (proc(5)); switches: both kinds, of every thread, in /proc/PID/task/TID/status.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Print the line."""
    seconds, names = float(sys.argv[1]), sys.argv[2:]
    before = {name: _switches_and_cpu(name) for name in names}
    time.sleep(seconds)
    found = {}
    for name in names:
        switches, cpu_s = (late - early for late, early in zip(_switches_and_cpu(name), before[name], strict=True))
        memory = [_memory(pid) for pid in _pids(name)]
        found[name] = {
            "rss": sum(one[0] for one in memory),
            "pss": sum(one[1] for one in memory),
            "current": int(_show(name, "MemoryCurrent")),
            "wakes": switches / seconds,
            "cpu_percent": 100 * cpu_s / seconds,
        }
    sys.stdout.write(json.dumps(found) + "\n")


def _show(name: str, key: str) -> str:
    command = ["systemctl", "show", f"radbox-{name}", f"--property={key}", "--value"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _pids(name: str) -> list[int]:
    group = Path("/sys/fs/cgroup" + _show(name, "ControlGroup"), "cgroup.procs")
    return [int(line) for line in group.read_text().split()]


def _switches_and_cpu(name: str) -> tuple[float, float]:
    switches = 0
    ticks = 0
    for pid in _pids(name):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            lines = [line.split() for line in status.read_text().splitlines() if "ctxt_switches" in line]
            switches += sum(int(words[1]) for words in lines)
    return switches, ticks / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> tuple[int, int]:
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        words = line.split()
        found[words[0].rstrip(":")] = int(words[1]) * 1024
    return found["Rss"], found["Pss"]


if __name__ == "__main__":
    main()
