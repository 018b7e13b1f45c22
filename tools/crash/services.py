"""The services of a box as processes, each started again at once when it dies; and the hand that kills them."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from edge.board import Board
from edge.doctor import serves_page
from edge.simulate.echo import echo

NAMES = ("receive", "worker", "web", "care")
WATCH_S = 0.02
AGAIN_AFTER_S = 0.2  # a service that ended by itself; a killed one is started again at once
READY_WITHIN_S = 90.0


@dataclass
class _Service:
    name: str
    process: subprocess.Popen[bytes] | None = None
    due_s: float = 0.0


@dataclass
class Tally:
    """What happened to the processes. own_ends: ends that were no kill of ours, by service and exit code."""

    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    own_ends: collections.Counter[str] = field(default_factory=collections.Counter)
    starts: int = 0


class Services:
    """Start, watch, kill, stop. `kill` and the watching thread may run at once."""

    def __init__(self, board: Board, board_file: Path, log_dir: Path) -> None:
        self.tally = Tally()
        self._board = board
        self._board_file = board_file
        self._log_dir = log_dir
        self._services = [_Service(name) for name in NAMES]
        self._killed: set[int] = set()
        self._lock = threading.Lock()
        self._watching = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """Start all, and keep them up until `stop`."""
        self._watching.set()
        self._watcher = threading.Thread(target=self._watch, name="supervisor")
        self._watcher.start()

    def wait_until_ready(self) -> None:
        """Until the receiver answers C-ECHO and the page answers. Raises TimeoutError."""
        receive, web = self._board.receive, self._board.web
        deadline_s = time.monotonic() + READY_WITHIN_S
        while not (echo(receive.host, receive.port, receive.ae_title) and serves_page(web.host, web.port)):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"expected the box to answer within {READY_WITHIN_S:.0f} s")
            time.sleep(0.1)

    def stop(self) -> dict[str, int]:
        """SIGTERM for all; exit codes by name. One that does not end in 30 s is killed (-9)."""
        self._watching.clear()
        if self._watcher is not None:
            self._watcher.join()
        codes = {}
        running = [(one.name, one.process) for one in self._services if one.process is not None]
        for _, process in running:
            process.terminate()
        for name, process in running:
            try:
                codes[name] = process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait()
        for service in self._services:
            service.process = None
        return codes

    def kill(self, moment: random.Random) -> str | None:
        """SIGKILL for one process, each kind equally often; returns its kind, None if nothing runs."""
        with self._lock:
            kinds: dict[str, list[psutil.Process]] = {}
            for service in self._services:
                if service.process is not None and service.process.poll() is None:
                    for kind, process in _family(service.name, service.process.pid):
                        kinds.setdefault(kind, []).append(process)
            if not kinds:
                return None
            kind = moment.choice(sorted(kinds))
            victim = moment.choice(kinds[kind])
            try:
                victim.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                return None
            self._killed.add(victim.pid)
            self.tally.kills[kind] += 1
            return kind

    def _watch(self) -> None:
        while self._watching.is_set():
            with self._lock:
                for service in self._services:
                    self._look_after(service)
            time.sleep(WATCH_S)

    def _look_after(self, service: _Service) -> None:
        process = service.process
        if process is not None and process.poll() is not None:
            ours = process.pid in self._killed and process.returncode == -signal.SIGKILL
            if not ours:
                self.tally.own_ends[f"{service.name} {process.returncode}"] += 1
            service.process = None
            service.due_s = time.monotonic() + (0.0 if ours else AGAIN_AFTER_S)
        if service.process is None and time.monotonic() >= service.due_s:
            service.process = self._begin(service.name)

    def _begin(self, name: str) -> subprocess.Popen[bytes]:
        self.tally.starts += 1
        command = [sys.executable, "-m", "edge", name, "--board", str(self._board_file), "--parent", str(os.getpid())]
        with (self._log_dir / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=dict(os.environ)
            )


def _family(name: str, pid: int) -> list[tuple[str, psutil.Process]]:
    """A service and what it started, told apart by their command lines."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        found.append((name, parent))
        for child in parent.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found.append((_kind(name, child.cmdline()), child))
    return found


def _kind(name: str, command: list[str]) -> str:
    if "edge.reading.decode_loop" in command:
        return "decoder"
    return f"{name} child"
