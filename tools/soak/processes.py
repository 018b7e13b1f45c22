"""What the kernel says of a service and its children: memory, descriptors, threads, bytes written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Sums over a service and its children. `pss_bytes`: shared pages counted once (proc(5) smaps_rollup)."""

    rss_bytes: int
    pss_bytes: int
    descriptors: int
    threads: int
    processes: int
    written_bytes: int


def usage(pid: int) -> Usage:
    """Of the service `pid` and everything below it; a process that ends meanwhile counts as nothing."""
    sums = [0] * 6
    for one in family(pid):
        try:
            values = _one(one)
        except (FileNotFoundError, ProcessLookupError):
            continue
        sums = [total + value for total, value in zip(sums, values, strict=True)]
    return Usage(*sums)


def family(pid: int) -> Iterator[int]:
    """The process and its descendants."""
    yield pid
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield from family(child)


def _one(pid: int) -> tuple[int, ...]:
    here = Path(f"/proc/{pid}")
    status = _fields(here / "status")
    rollup = _fields(here / "smaps_rollup")
    written = _fields(here / "io")["write_bytes"]
    return (
        status["VmRSS"] * 1024,
        rollup["Pss"] * 1024,
        len(os.listdir(here / "fd")),  # noqa: PTH208
        status["Threads"],
        1,
        written,
    )


def _fields(path: Path) -> dict[str, int]:
    found = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        value = rest.split()[:1]
        if value and value[0].isdigit():
            found[name] = int(value[0])
    return found
