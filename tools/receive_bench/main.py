"""Images per second that three receivers take in, sent by the same dcmsend in the same run, in turns.

Every measurement starts its receiver afresh on an empty folder of the same file system, sends two files for warming
up, then all files over 1 or 4 associations at once (one dcmsend each), and checks that every object was stored.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tools.receive_bench.objects import CT, DX, Kind, write_objects
from tools.receive_bench.processes import PeakMemory, cpu_s, threads, tree
from tools.receive_bench.receivers import ENVIRONMENT, RECEIVERS, Receiver, running, version

ROUNDS, ASSOCIATIONS = 5, (1, 4)
IDLE_S = 5.0
WARM_UP = 2
_FORGET_S = 6.0


@dataclass(frozen=True)
class Measured:
    """One measurement of one receiver. Memory is the peak of the process tree, CPU of the receiver alone."""

    images_per_s: float
    cpu_ms_per_image: float
    resident_bytes: int
    proportional_bytes: int
    processes: int
    threads: int


def main() -> int:
    parser = argparse.ArgumentParser("bench_receive", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument("--quick", action="store_true", help="one round of fewer files")
    parser.add_argument("--rounds", metavar="N", type=int, help=f"default: {ROUNDS}, with --quick 1")
    parser.add_argument("--only", metavar="NAME", help="measure this receiver alone")
    parser.add_argument("--folder", metavar="DIR", type=Path, help="work below this folder (default: the system's)")
    parsed = parser.parse_args()
    rounds = parsed.rounds or (1 if parsed.quick else ROUNDS)
    receivers = [one for one in RECEIVERS if parsed.only in (None, one.name)]
    with tempfile.TemporaryDirectory(prefix="bench-receive-", dir=parsed.folder) as folder:
        result = measure(Path(folder), receivers, rounds, parsed.quick)
    print(json.dumps(result, indent=1) if parsed.json else table(result))
    return 0


def measure(folder: Path, receivers: list[Receiver], rounds: int, quick: bool) -> dict[str, Any]:
    """All measurements, below `folder`, and each receiver's CPU while 10 associations are open and silent."""
    rows = []
    for kind in (CT, DX):
        kind = replace(kind, count=kind.count // 5) if quick else kind
        files = folder / kind.modality
        per_folder = kind.count // max(ASSOCIATIONS)
        senders = [files / str(number) for number in range(max(ASSOCIATIONS))]
        write_objects(kind, senders, per_folder)
        write_objects(kind, [files / "warm-up"], WARM_UP)
        for associations in ASSOCIATIONS:
            taken: dict[str, list[Measured]] = {one.name: [] for one in receivers}
            for number in range(rounds):
                for receiver in receivers:
                    _say(f"{kind.name}, {associations} associations, round {number + 1} of {rounds}: {receiver.name}")
                    taken[receiver.name].append(_one(folder, receiver, kind, files, senders, associations))
            rows.append(_row(kind, associations, taken))
            _clear(folder)
        shutil.rmtree(files)
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "rounds": rounds,
        "sender": subprocess.run(["dcmsend", "--version"], capture_output=True, text=True, check=True)
        .stdout.splitlines()[0]
        .strip("$ "),
        "receivers": {one.name: {"version": version(one), "durable": one.durable} for one in receivers},
        "rows": rows,
        "idle_cpu_percent": {one.name: _idle_percent(folder, one) for one in receivers},
    }


def _clear(folder: Path) -> None:
    """Delete what was received; for 5 s ext4 steps over the inodes of deleted files, one by one, so wait."""
    for used in folder.glob("receiver-*"):
        shutil.rmtree(used)
    os.sync()
    time.sleep(_FORGET_S)


def _give_back_memory(fresh: Path) -> None:
    """Drop the received files from the page cache: the next one then gets memory that is in use already."""
    os.sync()
    for path in fresh.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _fresh(folder: Path) -> Path:
    return folder / f"receiver-{time.monotonic_ns()}"


def _one(folder: Path, receiver: Receiver, kind: Kind, files: Path, senders: list[Path], associations: int) -> Measured:
    os.sync()
    fresh = _fresh(folder)
    with running(receiver, fresh) as (process, port):
        _send(port, [[files / "warm-up"]])
        groups = [senders[number::associations] for number in range(associations)]
        memory = PeakMemory(process.pid)
        memory.start()
        cpu_before_s, start_s = cpu_s(process.pid), time.monotonic()
        sending = _start_sending(port, groups)
        time.sleep(0.1)
        counts = len(tree(process.pid)), threads(process.pid)
        for one in sending:
            _end(one)
        seconds = time.monotonic() - start_s
        used_s = cpu_s(process.pid) - cpu_before_s
        memory.stop()
        stored = receiver.stored(fresh)
    _give_back_memory(fresh)
    if stored != kind.count + WARM_UP:
        raise RuntimeError(f"expected {receiver.name} to store {kind.count + WARM_UP} objects, got {stored}")
    return Measured(
        kind.count / seconds,
        1000 * used_s / kind.count,
        memory.resident_bytes,
        memory.proportional_bytes,
        *counts,
    )


def _start_sending(port: int, groups: list[list[Path]]) -> list[subprocess.Popen[str]]:
    command = ["dcmsend", "-aec", "RADBOX", "--max-pdu", "131072", "-nuc", "+sd", "127.0.0.1", str(port)]
    return [
        subprocess.Popen(
            [*command, *map(str, group)], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for group in groups
    ]


def _send(port: int, groups: list[list[Path]]) -> None:
    for one in _start_sending(port, groups):
        _end(one)


def _end(sending: subprocess.Popen[str]) -> None:
    said, _ = sending.communicate()
    if sending.returncode:
        raise RuntimeError(f"expected dcmsend to send everything, got:\n{said[-2000:]}")


def _idle_percent(folder: Path, receiver: Receiver) -> float:
    """CPU of a core, in percent, while 10 associations are open and say nothing."""
    from pynetdicom import AE
    from pynetdicom.sop_class import Verification

    ae = AE("IDLE")
    ae.add_requested_context(Verification)
    with running(receiver, _fresh(folder)) as (process, port):
        open_ones = [ae.associate("127.0.0.1", port, ae_title="RADBOX") for _ in range(10)]
        time.sleep(1.0)
        before_s = cpu_s(process.pid)
        time.sleep(IDLE_S)
        used_s = cpu_s(process.pid) - before_s
        for one in open_ones:
            one.abort()
    return round(100 * used_s / IDLE_S, 1)


def _row(kind: Kind, associations: int, taken: dict[str, list[Measured]]) -> dict[str, Any]:
    def median(name: str, key: str) -> float:
        return statistics.median(asdict(one)[key] for one in taken[name])

    receivers = {
        name: {
            "images_per_s": round(median(name, "images_per_s"), 1),
            "slowest_and_fastest": [round(f(m.images_per_s for m in taken[name]), 1) for f in (min, max)],
            "cpu_ms_per_image": round(median(name, "cpu_ms_per_image"), 2),
            "peak_resident_bytes": max(one.resident_bytes for one in taken[name]),
            "peak_proportional_bytes": max(one.proportional_bytes for one in taken[name]),
            "processes": max(one.processes for one in taken[name]),
            "threads": max(one.threads for one in taken[name]),
        }
        for name in taken
    }
    ratios = {}
    if "radbox" in taken:
        ours = median("radbox", "images_per_s")
        ratios = {name: round(ours / median(name, "images_per_s"), 2) for name in taken if name != "radbox"}
    return {
        "kind": kind.name,
        "count": kind.count,
        "associations": associations,
        "receivers": receivers,
        "radbox_is_faster_by": ratios,
    }


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    lines = [f"{result['machine']}; {result['rounds']} rounds in turns, medians; sender {result['sender']}"]
    lines += [f"{name}: {one['version']}; durable: {one['durable']}" for name, one in result["receivers"].items()]
    lines += [
        "",
        "| objects | associations | receiver | images/s (slowest, fastest) | CPU ms/image | peak RSS, PSS MiB "
        "| processes, threads | radbox is faster by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        for name, one in row["receivers"].items():
            slow, fast = one["slowest_and_fastest"]
            memory = f"{one['peak_resident_bytes'] / 2**20:.0f}, {one['peak_proportional_bytes'] / 2**20:.0f}"
            lines.append(
                f"| {row['count']} {row['kind']} | {row['associations']} | {name} "
                f"| {one['images_per_s']:.0f} ({slow:.0f}, {fast:.0f}) | {one['cpu_ms_per_image']:.1f} | {memory} "
                f"| {one['processes']}, {one['threads']} | {row['radbox_is_faster_by'].get(name, '')} |"
            )
    idle = ", ".join(f"{name} {percent:.1f} %" for name, percent in result["idle_cpu_percent"].items())
    return "\n".join([*lines, "", f"CPU of a core with 10 silent associations open: {idle}"])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
