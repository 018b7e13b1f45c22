"""`radbox bench`: seconds for each stage and peak memory of each process, on this machine, with the real services.

A box of its own is started on free ports and an empty data folder; full-size phantoms (2500 x 2048, 16 bit, 10 MB)
are sent one after another by C-STORE. The quiet time after an association is a setting, not work: it is taken out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.board import Board
from edge.box import Box, running, wait_until_ready
from edge.errors import RadboxError
from edge.report.graph import load_graph
from edge.report.render import render_text
from edge.report.serial import from_json
from edge.simulate.objects import phantom_dataset
from edge.simulate.phantom import Lesion, Phantom, PhantomOptions, make_phantom
from edge.simulate.send import send
from edge.store_rows import StudyDetail

STUDIES, WARM_UP = 20, 2
HEIGHT, WIDTH = 2500, 2048
STAGES = ("receive", "decode", "prepare", "encode", "generate", "evidence", "check", "render")
WAIT_S, POLL_S = 60.0, 0.02


def main(board: Board, as_json: bool, studies: int = STUDIES) -> int:
    """Measure and print; 0 when every study became a draft."""
    result = measure(board, studies)
    print(json.dumps(result, indent=1) if as_json else _table(result))
    return 0


def measure(board: Board, studies: int) -> dict[str, Any]:
    """Median and 95th percentile of every stage over `studies` studies after a warm-up, and peak memory."""
    phantoms = [make_phantom(_options(seed)) for seed in range(3)]
    with tempfile.TemporaryDirectory(prefix="radbox-bench-") as folder:
        receive, web = dataclasses.replace(board.receive, port=0), dataclasses.replace(board.web, port=0)
        trial = dataclasses.replace(board, data_dir=Path(folder), receive=receive, web=web)
        with running(trial, _board_options()) as box:
            wait_until_ready(box)
            details = [_one(box, phantoms, number) for number in range(WARM_UP + studies)][WARM_UP:]
            memory = {name: _peak_bytes(pid) for name, pid in _processes(box).items()}
    rows = [_seconds(detail, board.receive.quiet_time_s) for detail in details]
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "board": board.name,
        "backend": from_json(details[0].report_json).model.backend,
        "threads": board.worker.threads,
        "studies": len(rows),
        "image": f"{WIDTH} x {HEIGHT}, 16 bit, uncompressed",
        "seconds": {name: _summary([row[name] for row in rows]) for name in rows[0]},
        "peak_bytes": memory,
    }


def _options(seed: int) -> PhantomOptions:
    lesion = Lesion("effusion", "left", "lower", 0.8) if seed % 2 else None
    return PhantomOptions(seed=seed, size=(HEIGHT, WIDTH), lesion=lesion)


def _board_options() -> tuple[str, ...]:
    named = os.environ.get("RADBOX_BOARD")
    return ("--board", named) if named else ()


def _one(box: Box, phantoms: Sequence[Phantom], number: int) -> StudyDetail:
    """Send one study and wait until it is read."""
    print(f"radbox: study {number + 1}", file=sys.stderr)
    dataset = phantom_dataset(phantoms[number % len(phantoms)], patient_id=f"BENCH-{time.time_ns()}")
    receive = box.board.receive
    send([dataset], receive.host, receive.port, receive.ae_title)
    key = box.store.study_key(str(dataset.StudyInstanceUID))
    deadline = time.monotonic() + WAIT_S + receive.quiet_time_s
    while key is not None and time.monotonic() < deadline:
        detail = box.store.study(key)
        if detail is not None and detail.state == "draft":
            return detail
        if detail is not None and detail.state in ("refused", "failed"):
            raise RadboxError(f"expected a draft, got {detail.state}: {detail.message}", code="bench.not-read")
        time.sleep(POLL_S)
    raise RadboxError(f"expected a draft within {WAIT_S:.0f} s, got none", code="bench.not-read")


def _seconds(detail: StudyDetail, quiet_time_s: float) -> dict[str, float]:
    """Stages as the worker timed them; report text, rendered here; last byte received to draft stored."""
    timings = detail.timings_s
    start = time.monotonic()
    render_text(from_json(detail.report_json), load_graph())
    text_s = time.monotonic() - start
    waiting = timings["waiting"] - quiet_time_s
    stages = {name: timings[name] for name in STAGES}
    return {
        **stages,
        "text": text_s,
        "waiting": waiting,
        "reading": timings["total"],
        "total": waiting + timings["total"],
    }


def _summary(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {"p50": round(statistics.median(ordered), 5), "p95": round(p95, 5)}


def _processes(box: Box) -> dict[str, int]:
    """Process ids by name; the decoding child is the worker's only child."""
    pids = {service.name: service.process.pid for service in box.services}
    children = Path(f"/proc/{pids['worker']}/task/{pids['worker']}/children").read_text().split()
    return {**pids, **{f"decode child {i + 1}": int(pid) for i, pid in enumerate(children)}}


def _peak_bytes(pid: int) -> int:
    """Largest resident set so far: VmHWM of proc(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RadboxError("expected the peak memory of a service, got none", code="bench.memory")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _table(result: dict[str, Any]) -> str:
    work = f"{result['studies']} studies of {result['image']}"
    head = f"{result['machine']}; {result['backend']}, {result['threads']} threads; {work}"
    rows = [f"  {name:10s} {v['p50']:8.3f} {v['p95']:8.3f}" for name, v in result["seconds"].items()]
    memory = [f"  {name:16s} {size / 2**20:6.0f} MiB" for name, size in result["peak_bytes"].items()]
    return "\n".join([head, "seconds          p50      p95", *rows, "peak memory", *memory])
