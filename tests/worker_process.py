"""The real worker as a process of its own, on a real store, with a reader that needs no model and obeys the image.

The first pixel row of a study says what reading it does: `QUIET` images are read at once, others kill or hang the
process. Started by tests as `python -m tests.worker_process DATA_DIR [NAME=VALUE ...]`.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edge import durable, trust
from edge.board import Board, load_board
from edge.errors import BackendError
from edge.reading import worker
from edge.reading.load import Loaded
from edge.reading.patience import Patience
from edge.reading.pipeline import STAGES, Reading
from edge.reading.radiograph import Radiograph, Study
from edge.report.graph import load_graph
from edge.report.schema import ModelVersion, Report, Technique
from edge.service import Stop, setup_logging
from edge.slots import Slots
from edge.store import InstanceFacts, Store, StudyFacts, object_path

ROOT = Path(__file__).resolve().parent.parent
WAIT_S = 60.0
QUIET, KILLS, HANGS, BREAKS, LASTS = 40, 41, 42, 43, 44  # rows of the image
PAUSE = "no-model"  # while a file of this name lies in the data folder, no model can be opened


def worker_board(data_dir: Path, **worker_keys: Any) -> Board:
    """The simulated board on a data folder of its own, quick to notice things."""
    plain = load_board(ROOT / "board_configs" / "sim.toml")
    keys = {"bundle": ROOT / "models" / "bundles" / "chest", "poll_s": 0.02, "threads": 1, **worker_keys}
    return dataclasses.replace(plain, data_dir=data_dir, worker=dataclasses.replace(plain.worker, **keys))


# --- studies ---


def picture(number: int, rows: int = QUIET) -> bytes:
    """A DICOM file of a few KB; `number` makes it different from others."""
    from edge.simulate.objects import encode_file
    from tests.receiver_process import radiograph

    return encode_file(radiograph(number, rows=rows, study=f"2.25.{1000 + number}"))


def put(
    board: Board, store: Store, content: bytes, study_uid: str, sop_uid: str, urgency: int = 0, *, whole: bool = True
) -> int:
    """What the receiver does: file durable, row, study complete (if `whole`). Returns the study's key."""
    digest = hashlib.sha256(content).hexdigest()
    path = object_path(digest)
    durable.make_directory((board.data_dir / path).parent)
    durable.write_file(board.data_dir / path, content)
    study = StudyFacts(study_uid, "P1", "SEEDED^NAME", "", "", "DX", "", urgency)
    facts = InstanceFacts(
        sop_uid, "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.1.2.1", digest, len(content), str(path), "TEST",
        time.monotonic(), 0.01,
    )  # fmt: skip
    assert store.add_instance(study, facts) == "stored"
    key = store.study_key(study_uid)
    assert key is not None
    if whole:
        store.complete_study(key)
    return key


def put_picture(board: Board, store: Store, number: int, rows: int = QUIET, urgency: int = 0) -> int:
    """A study of one small picture; returns its key."""
    return put(board, store, picture(number, rows), f"2.25.{1000 + number}", f"2.25.{9000 + number}", urgency)


def state(store: Store, key: int) -> str:
    """The state of a study."""
    detail = store.study(key)
    assert detail is not None
    return detail.state


def wait(found: Callable[[], bool], seconds: float = WAIT_S) -> None:
    """Return once `found`; the test fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


# --- the process ---


class WorkerProcess:
    """`start` it, `kill` it; systemd's part (start again after a death) is `keep`."""

    def __init__(self, data_dir: Path, **names: float | str) -> None:
        self._command = [sys.executable, "-m", "tests.worker_process", str(data_dir)]
        self._command += [f"{name}={json.dumps(value)}" for name, value in names.items()]
        self._log = data_dir.parent / "worker.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.deaths: list[int] = []

    def start(self) -> None:
        """Start a new worker."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, cwd=ROOT, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        assert self.process is not None
        self.process.kill()
        self.deaths.append(self.process.wait())
        self.process = None

    def keep(self, until: Callable[[], bool], seconds: float = WAIT_S) -> None:
        """Start a worker again whenever it died, until `until`."""
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, self._log.read_text()[-4000:]
            if self.process is None:
                self.start()
            elif self.process.poll() is not None:
                self.deaths.append(self.process.returncode)
                self.process = None
            time.sleep(0.02)

    def stop(self) -> None:
        """SIGTERM; it ends in order."""
        if self.process is not None:
            self.process.terminate()
            assert self.process.wait(WAIT_S) == 0, self._log.read_text()[-4000:]
            self.process = None


@contextlib.contextmanager
def worker_process(data_dir: Path, **names: float | str) -> Iterator[WorkerProcess]:
    """A worker process, not started yet; killed on leaving if it still runs. names: as `main` takes them."""
    one = WorkerProcess(data_dir, **names)
    try:
        yield one
    finally:
        if one.process is not None:
            one.kill()


# --- the reader inside it ---


class ObedientReader:
    """In the place of `edge.reading.pipeline.Reader`: says the same of every picture, and does what it is told to."""

    def __init__(self, slot: str, rules: dict[str, Any]) -> None:
        manifest = type("Manifest", (), {"id": "obedient", "version": slot[:12]})
        self.bundle = type("Bundle", (), {"manifest": manifest})
        self.encoder = type("Encoder", (), {"name": "obedient"})
        self.decoder_fault: str = rules.get("decoder_fault", "")
        self._slot = slot
        self._stage_s = rules.get("stage_s", 0.0) if slot[0] == rules.get("slow", slot[0]) else 0.0
        self._harmless = slot[0] == rules.get("harmless", "")  # a model that no picture can harm

    def read(self, study: Study, on_stage: Callable[[str], None]) -> Reading:
        """Every stage once, then an empty draft."""
        for stage in STAGES:
            on_stage(stage)
            if stage == "encode":
                time.sleep(self._stage_s)
                if not self._harmless:
                    self._obey(study.radiographs[0])
        return Reading(self._report(), 0)

    def _obey(self, radiograph: Radiograph) -> None:
        rows = radiograph.pixels.shape[0]
        if rows == KILLS:
            os.kill(os.getpid(), signal.SIGKILL)
        elif rows == HANGS:
            ctypes.PyDLL(None).sleep(1000)  # with Python's lock held, as a bad native library would
        elif rows == LASTS:
            time.sleep(1000)
        elif rows == BREAKS:
            raise BackendError("The runtime failed while running the model.", code="backend.run")

    def _report(self) -> Report:
        return Report(
            technique=Technique("DX", "PA", "adult", "header", 1),
            statements=(),
            absent=(),
            not_validated=(),
            disagreements=(),
            scores={},
            rules=(),
            limits=(),
            model=ModelVersion("obedient", self._slot[:12], "ab" * 32, "obedient", load_graph().sha256),
        )


def load_obedient(rules: dict[str, Any]) -> Callable[..., Loaded]:
    """In the place of `load_reader`: the active slot, whatever lies in it."""

    def load(board: Board, on_slot: Callable[[str], None] = lambda _slot: None, **_watching: object) -> Loaded:
        if (board.data_dir / PAUSE).exists():
            raise BackendError("No backend can run the model.", code="backend.none")
        slot = Slots(board.data_dir, board.worker.bundle).read().active
        on_slot(slot)
        if slot[0] == rules.get("dies_loading", ""):
            os.kill(os.getpid(), signal.SIGKILL)
        reader: Any = ObedientReader(slot, rules)
        return Loaded(reader, (), slot)

    return load


def main(data_dir: str, *pairs: str) -> None:
    """The process. pairs: STAGE_LIMIT_S=1.0 and the like are its `Patience`, board_X=... keys of its board,
    root="..." a file with the root of trust; others are rules of the reader: stage_s, and by the first letter of a slot
    slow (only that one takes stage_s), harmless, dies_loading."""
    setup_logging("worker")
    rules = {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in pairs)}
    keys = {name.removeprefix("board_"): rules.pop(name) for name in [*rules] if name.startswith("board_")}
    waits = {"start_first_s": 0.0, **{name.lower(): rules.pop(name) for name in [*rules] if name.isupper()}}
    if "root" in rules:
        root = Path(rules.pop("root")).read_bytes()
        trust.factory_root = lambda: root
    setattr(worker, "load_reader", load_obedient(rules))  # noqa: B010  # mypy: it is not the worker's own name
    worker.run(worker_board(Path(data_dir), **keys), Stop(), Patience(**waits))


if __name__ == "__main__":
    main(*sys.argv[1:])
