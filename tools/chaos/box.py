"""A box whose services are started again when they die, as systemd does, and what a clinic does with it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from edge.errors import RadboxError
from edge.simulate.objects import phantom_dataset
from edge.simulate.phantom import Phantom, PhantomOptions, make_phantom
from edge.simulate.send import send
from edge.store import Store, open_store
from tools.powercut.processes import Stuck, free_port, listens, spawn, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = ("receive", "worker", "web", "care")
SETTLED = ("draft", "refused", "failed", "signed")
RESTART_S = 0.5
_BOARD = """\
name = "chaos"
data_dir = "unused"
[receive]
port = {port}
quiet_time_s = 0.3
network_timeout_s = {network_timeout_s}
max_associations = 10
min_free_bytes = {min_free_bytes}
[worker]
bundle = "{bundle}"
backends = {backends}
[web]
port = {web_port}
[storage]
reserve_bytes = 4194304
keep_studies = 0
retention_days = 1
clean_percent = 1
"""


@dataclass(frozen=True)
class Sent:
    """An object that was acknowledged."""

    sop_instance_uid: str
    study_instance_uid: str


class Box:
    """The four services on `data_dir`; logs and settings in `folder`, which must be on a disk that works."""

    def __init__(
        self,
        folder: Path,
        data_dir: Path,
        *,
        bundle: Path = ROOT / "models" / "bundles" / "chest",
        backends: tuple[str, ...] = ("tflite", "onnxruntime"),
        environment: Mapping[str, str] | None = None,
        min_free_bytes: int = 16 * 2**20,
        network_timeout_s: int = 30,
    ) -> None:
        self.folder, self.data_dir = folder, data_dir
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.web_port = free_port(), free_port()
        self.acknowledged: list[Sent] = []
        self.statuses: list[int | None] = []
        self._environment = dict(environment or {})
        self._board = folder / "board.toml"
        self._board.write_text(
            _BOARD.format(
                port=self.port,
                web_port=self.web_port,
                bundle=bundle,
                backends=json.dumps(list(backends)),
                min_free_bytes=min_free_bytes,
                network_timeout_s=network_timeout_s,
            )
        )
        self.services: dict[str, subprocess.Popen[bytes]] = {}
        self.restarts = dict.fromkeys(SERVICES, 0)
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Box:
        for name in SERVICES:
            self._start(name)
        self._keeper.start()
        wait_until(lambda: listens(self.port), "the receiver", 30)
        wait_until(lambda: self.page("healthz") is not None, "the page", 30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._keeper.join()
        for process in self.services.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, name: str) -> None:
        options: list[str | Path] = ["--board", self._board, "--data-dir", self.data_dir]
        environment = {**self._environment, "PYTHONPATH": str(ROOT)}
        log = self.folder / f"{name}.log"
        self.services[name] = spawn([sys.executable, "-m", "edge", name, *options], log, environment)

    def _keep(self) -> None:
        while not self._stopping.wait(RESTART_S):
            for name, process in list(self.services.items()):
                if process.poll() is not None:
                    self.restarts[name] += 1
                    self._start(name)

    def send(self, dataset: Dataset) -> int | None:
        """C-STORE; the status, or None if there was no answer. What was acknowledged is noted."""
        try:
            (result,) = send([dataset], "127.0.0.1", self.port, "RADBOX")
        except RadboxError:
            status = None
        else:
            status = result.status
        self.statuses.append(status)
        if status == 0:
            self.acknowledged.append(Sent(str(dataset.SOPInstanceUID), str(dataset.StudyInstanceUID)))
        return status

    def send_many(self, count: int, gap_s: float = 0.0) -> list[int | None]:
        """So many studies of different patients, one after another."""
        statuses = []
        for _ in range(count):
            statuses.append(self.send(study()))
            time.sleep(gap_s)
        return statuses

    def page(self, path: str) -> str | None:
        """What a phone gets, or None."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}/{path}", timeout=10) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return None

    def codes(self) -> set[str]:
        """Codes that the services say on the page."""
        text = self.page("healthz")
        return {one["code"] for one in json.loads(text)["services"] if one["code"]} if text else set()

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        """The box's records."""
        store = open_store(self.data_dir)
        try:
            yield store
        finally:
            store.close()

    def lost(self) -> list[str]:
        """Acknowledged objects without a row or a whole file."""
        missing = []
        with self.store() as store:
            for one in self.acknowledged:
                key = store.study_key(one.study_instance_uid)
                detail = store.study(key) if key is not None else None
                rows = (
                    [row for row in detail.instances if row.sop_instance_uid == one.sop_instance_uid] if detail else []
                )
                path = self.data_dir / rows[0].path if rows else None
                if path is None or not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != rows[0].sha256:
                    missing.append(one.sop_instance_uid)
        return missing

    def unsettled(self) -> int:
        """Studies that are neither read nor refused nor failed."""
        with self.store() as store:
            return sum(one.state not in SETTLED for one in store.studies(limit=10_000))

    def states(self) -> list[str]:
        """The state of every study."""
        with self.store() as store:
            return [one.state for one in store.studies(limit=10_000)]

    def temporary_files(self) -> int:
        """Unfinished files in the spool."""
        return len(list((self.data_dir / "spool" / "incoming").glob(".*.part")))

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """True as soon as the condition holds, False after so long."""
        try:
            wait_until(condition, "", seconds)
        except Stuck:
            return False
        return True


_PHANTOM: list[Phantom] = []


def study() -> Dataset:
    """A new patient's chest X-ray, 2.5 MB."""
    if not _PHANTOM:
        _PHANTOM.append(make_phantom(PhantomOptions(seed=1, size=(1250, 1024))))
    return phantom_dataset(_PHANTOM[0], patient_id=f"CHAOS-{time.time_ns()}")
