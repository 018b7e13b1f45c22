"""A box of its own for the measurement: the same board and model, free ports, an empty data folder on the same disk.

Services that would speak to the world in the box's name (broker, printer, panel, grabber) are left out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from edge import durable
from edge.bench_kept import FOLDER
from edge.board import Board
from edge.box import Box, running, wait_until_ready
from edge.bundle import Bundle
from edge.errors import RadboxError
from edge.reading.backends.setup import CACHE_FOLDER
from edge.reading.load import candidates
from edge.simulate.objects import phantom_dataset
from edge.simulate.phantom import Phantom
from edge.simulate.send import send
from edge.slots import FACTORY, SLOTS, UPDATE, Slots
from edge.store_rows import StudyDetail

PREFIX: Final = "trial-"
START_WAIT_S: Final = 120.0  # beyond the building of an engine
READ_WAIT_S: Final = 60.0  # of one study, beyond the quiet time
POLL_S: Final = 0.01
LOCK_WAIT_S: Final = 0.0


@contextlib.contextmanager
def place(data_dir: Path) -> Iterator[Path]:
    """The folder for the data of trial boxes, no other run beside this one; what a killed run left is deleted.

    Raises StorageError, RadboxError (bench.busy).
    """
    folder = data_dir / FOLDER
    durable.make_directory(folder)
    lock = durable.Lock(folder)
    try:
        if not lock.acquire(wait_s=LOCK_WAIT_S):
            raise RadboxError("Expected no other measurement at work on this box, got one.", code="bench.busy")
        for left in folder.glob(f"{PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield folder
    finally:
        lock.close()


@contextlib.contextmanager
def trial_box(board: Board, options: Sequence[str], folder: Path) -> Iterator[Box]:
    """The started services; they may not answer yet. Raises ConfigError, StoreError, OSError (no room)."""
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder) as inside:
        data_dir = Path(inside, "box")
        durable.make_directory(data_dir)
        _take_model(board, data_dir)
        trial = dataclasses.replace(
            board,
            data_dir=data_dir,
            receive=dataclasses.replace(board.receive, port=0),
            web=dataclasses.replace(board.web, port=0),
            mqtt=dataclasses.replace(board.mqtt, host=""),
            printer=dataclasses.replace(board.printer, uri=""),
            panel=dataclasses.replace(board.panel, device=""),
            grabber=dataclasses.replace(board.grabber, source=""),
        )
        with running(trial, options) as box:
            yield box


def _take_model(board: Board, data_dir: Path) -> None:
    """A copy of the model that the box runs; engines that were built on this box are used where they lie.

    Nothing here has to survive a power cut: the next run deletes what it finds.
    """
    state = Slots(board.data_dir, board.worker.bundle).read()
    if state.active != FACTORY:
        shutil.copytree(board.data_dir / UPDATE, data_dir / UPDATE)
        for slot in {state.active, state.previous} - {FACTORY}:
            shutil.copytree(board.data_dir / SLOTS / slot, data_dir / SLOTS / slot)
    built = board.data_dir / CACHE_FOLDER
    if built.is_dir():
        (data_dir / CACHE_FOLDER).symlink_to(built, target_is_directory=True)


def model_of(board: Board, sha256: str) -> Bundle:
    """The box's bundle of that identity. Raises RadboxError (bench.model): the box has changed its model meanwhile."""
    slots = Slots(board.data_dir, board.worker.bundle)
    for slot in candidates(slots.read()):
        bundle = slots.open(slot)
        if bundle.sha256 == sha256:
            return bundle
    raise RadboxError("Expected the model that was measured, got another: the box has changed it.", code="bench.model")


def wait_for_worker(box: Box) -> float:
    """Seconds from the start of the services until the worker can read. Raises RadboxError (bench.not-ready)."""
    end_s = time.monotonic() + START_WAIT_S + box.board.accelerator.build_timeout_s
    said = "nothing"
    while time.monotonic() < end_s:
        for row in box.store.services():
            if row.name == "worker":
                said = row.message or said
                if row.state != "paused" and row.code != "worker.starting":
                    ready_s = time.monotonic() - box.start_monotonic_s
                    wait_until_ready(box)
                    return ready_s
        _check_alive(box)
        time.sleep(POLL_S)
    raise RadboxError(f"Expected a worker that can read, got: {said}", code="bench.not-ready")


def send_phantoms(box: Box, phantoms: Sequence[Phantom]) -> list[int]:
    """One study for each, over one association; their keys."""
    datasets = [phantom_dataset(one, patient_id=f"BENCH-{time.time_ns()}") for one in phantoms]
    receive = box.board.receive
    send(datasets, receive.host, receive.port, receive.ae_title)
    keys = [box.store.study_key(str(one.StudyInstanceUID)) for one in datasets]
    found = [key for key in keys if key is not None]
    if len(found) != len(phantoms):
        raise RadboxError(
            f"Expected the receiver to take {len(phantoms)} studies, got {len(found)}.", code="bench.not-taken"
        )
    return found


def wait_for_drafts(
    box: Box, keys: Sequence[int], seen: Callable[[int], None] = lambda _key: None
) -> list[StudyDetail]:
    """The studies once all are drafts. seen: told each key at once. Raises RadboxError (bench.not-read)."""
    end_s = time.monotonic() + READ_WAIT_S * len(keys) + box.board.receive.quiet_time_s
    drafts: dict[int, StudyDetail] = {}
    while len(drafts) < len(keys):
        if time.monotonic() > end_s:
            raise RadboxError(f"Expected {len(keys)} drafts in time, got {len(drafts)}.", code="bench.not-read")
        _check_alive(box)
        for key in keys:
            detail = box.store.study(key) if key not in drafts else None
            if detail is None:
                continue
            if detail.state in ("refused", "failed"):
                raise RadboxError(f"Expected a draft, got {detail.state}: {detail.message}", code="bench.not-read")
            if detail.state == "draft":
                drafts[key] = detail
                seen(key)
        time.sleep(POLL_S)
    return [drafts[key] for key in keys]


def _check_alive(box: Box) -> None:
    for service in box.services:
        code = service.process.poll()
        if code is not None:
            words = f"Expected service {service.name} to keep running, got its end with exit code {code}."
            raise RadboxError(words, code="bench.service-died")


def peak_bytes(box: Box) -> dict[str, int]:
    """Largest resident set of each process so far: VmHWM of proc(5); the decoding child is the worker's only child."""
    pids = {service.name: service.process.pid for service in box.services}
    worker = pids["worker"]
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    pids |= {f"decode child {number + 1}": int(pid) for number, pid in enumerate(children)}
    return {name: _peak(pid) for name, pid in pids.items()}


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RadboxError("Expected the peak memory of a service, got none.", code="bench.memory")
