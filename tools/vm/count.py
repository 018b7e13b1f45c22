"""Runs inside the machine: memory and context switches of services over some seconds, as one line of JSON.

RSS and PSS: /proc/PID/smaps_rollup (proc(5)); switches: both kinds, of every thread, in /proc/PID/task/TID/status.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Print the line."""
    seconds, names = float(sys.argv[1]), sys.argv[2:]
    before = {name: (_switches(name), _cpu_s(name)) for name in names}
    time.sleep(seconds)
    found = {}
    for name in names:
        switches, cpu_s = before[name]
        # A thread that began meanwhile counts from its start; what a thread that ended did is not seen.
        woken = sum(count - switches.get(thread, 0) for thread, count in _switches(name).items())
        memory = [_memory(pid) for pid in _pids(name)]
        found[name] = {
            "rss": sum(one[0] for one in memory),
            "pss": sum(one[1] for one in memory),
            "current": int(_show(name, "MemoryCurrent")),
            "wakes": woken / seconds,
            "cpu_percent": 100 * (_cpu_s(name) - cpu_s) / seconds,
        }
    sys.stdout.write(json.dumps(found) + "\n")


def _show(name: str, key: str) -> str:
    command = ["systemctl", "show", f"radbox-{name}", f"--property={key}", "--value"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _group(name: str) -> Path:
    return Path("/sys/fs/cgroup" + _show(name, "ControlGroup"))


def _pids(name: str) -> list[int]:
    return [int(line) for line in (_group(name) / "cgroup.procs").read_text().split()]


def _cpu_s(name: str) -> float:
    return (
        float(dict(line.split() for line in (_group(name) / "cpu.stat").read_text().splitlines())["usage_usec"]) / 1e6
    )


def _switches(name: str) -> dict[str, int]:
    found = {}
    for pid in _pids(name):
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            lines = [line.split() for line in status.read_text().splitlines() if "ctxt_switches" in line]
            found[status.parent.name] = sum(int(words[1]) for words in lines)
    return found


def _memory(pid: int) -> tuple[int, int]:
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        words = line.split()
        found[words[0].rstrip(":")] = int(words[1]) * 1024
    return found["Rss"], found["Pss"]


if __name__ == "__main__":
    main()
