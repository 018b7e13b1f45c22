"""`radbox up`: the whole box on one machine. Starts its services as systemd would, sends a study, shows the draft.

A service that dies is told with its last lines, and the others are stopped: restarting is systemd's work on a board.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.board import Board
from edge.doctor import serves_page
from edge.errors import RadboxError
from edge.report.graph import load_graph
from edge.report.render import render_text
from edge.report.serial import from_json
from edge.service import Stop
from edge.simulate.send import Delivery, deliver, echo
from edge.store import Store, StudyDetail, open_store
from edge.store_paths import database_key

SERVICES = ("receive", "worker", "web")
START_TIMEOUT_S = 60.0
READ_TIMEOUT_S = 180.0  # beyond the receiver's quiet time
STOP_TIMEOUT_S = 10.0
LOG_LINES = 15  # of a dead service
POLL_S = 0.2
TELL_EVERY_S = 5.0  # while waiting
DONE = ("draft", "refused", "failed", "signed")


class Stopped(Exception):
    """Ctrl-C or SIGTERM while there was still something to wait for."""


class BoxError(RadboxError):
    """The simulated box cannot start or go on."""

    default_code = "box.failed"


@dataclass(frozen=True)
class Service:
    """A running service and the last lines of its log."""

    name: str
    process: subprocess.Popen[str]
    lines: collections.deque[str]
    reader: threading.Thread


def up(board: Board, options: Sequence[str], paths: Sequence[Path], *, once: bool, verbose: bool) -> int:
    """Run the whole box of `board`; `options` make a service load the same board. Returns 0, or 1 if nothing was read.

    `once`: stop after the report instead of staying up. Raises BoxError (box.port-in-use, box.service-died,
    box.not-answering), ConfigError, StoreError.
    """
    for what, host, port in (("receiver", board.receive.host, board.receive.port), ("page", board.web.host, board.web.port)):
        _refuse_port_in_use(what, host, port)
    stop = Stop()
    page = f"http://{board.web.host}:{board.web.port}/"
    started = time.monotonic()
    _say(f"starting receiver, worker and page (board {board.name}, studies in {board.data_dir})")
    with _services(options, verbose) as services, contextlib.closing(open_store(board.data_dir, key=database_key())) as store:
        box = _Box(board, services, store, stop, page)
        try:
            box.wait_until_ready()
            _say(f"receiver answers C-ECHO on {board.receive.host}:{board.receive.port}, page on {page} ({_since(started)})")
            worked = box.read(paths)
        except Stopped:
            return 0
        print(f"\nPage: {page}", flush=True)
        if not once:
            _say("the box stays up; send it studies, or stop it with Ctrl-C")
            with contextlib.suppress(Stopped):
                box.wait_for("", lambda: False, float("inf"))
            _say("stopping")
        return 0 if worked else 1


@dataclass(frozen=True)
class _Box:
    board: Board
    services: tuple[Service, ...]
    store: Store
    stop: Stop
    page: str

    def wait_for(self, what: str, happened: Callable[[], bool], timeout_s: float) -> bool:
        """True once `happened`; False after `timeout_s`. Raises Stopped, BoxError when a service died."""
        start = told = time.monotonic()
        while not happened():
            for service in self.services:
                _alive(service)
            now = time.monotonic()
            if now - start > timeout_s:
                return False
            if what and now - told > TELL_EVERY_S:
                _say(f"still waiting for {what} ({_since(start)})")
                told = now
            if self.stop.wait(POLL_S):
                raise Stopped
        return True

    def wait_until_ready(self) -> None:
        """Until the receiver answers C-ECHO and the page answers. Raises BoxError (box.not-answering)."""
        receive, web = self.board.receive, self.board.web
        for what, answers in (
            ("the receiver", lambda: echo(receive.host, receive.port, receive.ae_title)),
            ("the page", lambda: serves_page(web.host, web.port)),
        ):
            if not self.wait_for(what, answers, START_TIMEOUT_S):
                message = f"expected {what} to answer within {START_TIMEOUT_S:.0f} s, got nothing"
                raise BoxError(message, code="box.not-answering")

    def read(self, paths: Sequence[Path]) -> bool:
        """Send `paths`, or the sample where there are none, and print what becomes of each study. True if all were read."""
        start = time.monotonic()
        _say("sending " + (", ".join(path.name for path in paths) if paths else "the sample study"))
        delivery = deliver(self.board, paths)
        _say(f"sent {delivery.accepted} of {delivery.total} objects by C-STORE ({_since(start)})")
        for refusal in delivery.refusals:
            print(f"\nNot taken in: {refusal}")
        return all([self._show(uid) for uid in delivery.study_instance_uids]) and not delivery.refusals

    def _show(self, study_instance_uid: str) -> bool:
        study = self._wait_for_reading(study_instance_uid)
        if study is None:
            print(f"\nNot read within {READ_TIMEOUT_S:.0f} s; the page says why: {self.page}")
            return False
        key = study.summary.study_key
        seconds = study.timings_s.get("total", 0.0)
        print(f"\nStudy {key}: {study.state}, read in {seconds:.1f} s, {self.page}study/{key}\n")
        if study.state in ("draft", "signed"):
            print(render_text(from_json(study.report_json), load_graph()), end="", flush=True)
            return True
        print(f"{study.message} [{study.code}]", flush=True)
        return False
