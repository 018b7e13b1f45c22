"""`radbox up`: the whole box on one machine. Starts its services as systemd would, sends a study, prints the draft.

A service that dies is told with its last lines and ends the box: starting it again is systemd's work, on a board.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
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
from edge.errors import ConfigError, RadboxError
from edge.report.graph import load_graph
from edge.report.render import render_text
from edge.report.serial import from_json
from edge.service import Stop
from edge.simulate.command import SAMPLE, to_send
from edge.simulate.echo import echo
from edge.simulate.send import send
from edge.store import Store, database_key, open_store
from edge.store_paths import boot_id

START_TIMEOUT_S = 60.0
READ_TIMEOUT_S = 120.0  # beyond the receiver's quiet time
STOP_TIMEOUT_S = 10.0
POLL_S = 0.1
TELL_EVERY_S = 5.0  # while waiting
LOG_LINES = 15  # of a dead service
REPORTED = ("draft", "signed")
ANSWERED = (*REPORTED, "refused")
ENDED = (*ANSWERED, "failed")


class BoxError(RadboxError):
    """The box cannot start or go on: box.service-died, box.not-answering."""

    default_code = "box.failed"


class _StoppedError(Exception):
    """Ctrl-C or SIGTERM came while there was something to wait for."""


@dataclass(frozen=True)
class Service:
    """A running service and the last lines of its log."""

    name: str
    process: subprocess.Popen[str]
    log: collections.deque[str]
    reader: threading.Thread


@dataclass(frozen=True)
class Box:
    board: Board
    services: tuple[Service, ...]
    store: Store
    stop: Stop
    start_monotonic_s: float

    @property
    def page(self) -> str:
        """Address of the page."""
        return f"http://{self.board.web.host}:{self.board.web.port}/"


def up(board: Board, options: Sequence[str], path: Path | None, *, once: bool, verbose: bool) -> int:
    """Run the whole box; returns 0, or 1 if something that was sent got neither a draft nor a refusal.

    options: what makes a service load the same board. path: what to send, None for the sample. once: stop after the
    report instead of staying up. Port 0 means a free one. Raises ConfigError (config.port), BoxError, and what
    sending and the store raise.
    """
    all_read = True
    with running(board, options, verbose=verbose) as box:
        try:
            wait_until_ready(box)
            place = f"port {box.board.receive.port}, the page on {box.page}"
            _say(f"the receiver answers C-ECHO on {place} {_since(box.start_monotonic_s)}")
            all_read = _read(box, path)
            print(f"\nPage: {box.page}", flush=True)
            if not once:
                _say("the box stays up for more studies; Ctrl-C stops it")
                _wait_for(box, "", lambda: False, float("inf"))
        except _StoppedError:
            _say("stopping")
            return 0
    return int(not all_read)


@contextlib.contextmanager
def running(
    board: Board, options: Sequence[str] = (), *, verbose: bool = False, stop: Stop | None = None
) -> Iterator[Box]:
    """The started services of `board`, stopped on leaving; port 0 means a free one. They may not answer yet.

    options: what makes a service load the same board. stop: by default one that listens to signals.
    Raises ConfigError (config.port), StoreError.
    """
    board = _with_ports(board)
    stop = stop or Stop()
    start = time.monotonic()
    names = service_names(board)
    _say(
        f"starting the services {', '.join(names)} of board {board.name!r}; studies are kept in {_near(board.data_dir)}"
    )
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(open_store(board.data_dir, key=database_key())))
        services = stack.enter_context(_services(board, options, verbose))
        yield Box(board, services, store, stop, start)


def service_names(board: Board) -> tuple[str, ...]:
    """The services that this board needs, in the order in which they start."""
    wanted = {
        "link": board.mqtt.host or board.printer.uri,
        "panel": board.panel.device,
        "capture": board.grabber.source,
    }
    return ("receive", "worker", "web", "care", *(name for name, configured in wanted.items() if configured))


def _with_ports(board: Board) -> Board:
    """The board with free ports in the place of 0. Raises ConfigError (config.port) if a port is in use."""
    receive, web = board.receive, board.web
    receive_port = _free_port("DICOM port", receive.host, receive.port, "--port")
    web_port = _free_port("page's port", web.host, web.port, "--web-port")
    return dataclasses.replace(
        board,
        receive=dataclasses.replace(receive, port=receive_port),
        web=dataclasses.replace(web, port=web_port),
    )


def _free_port(what: str, host: str, port: int, option: str) -> int:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        found = f"expected the {what} {port} to be free, got: {os.strerror(error.errno or 0)}"
        advice = f"stop what uses it (another radbox?) or choose another port with {option}"
        raise ConfigError(f"{found}; {advice}", code="config.port") from None


@contextlib.contextmanager
def _services(board: Board, options: Sequence[str], verbose: bool) -> Iterator[tuple[Service, ...]]:
    """The services, stopped on leaving: SIGTERM, and SIGKILL for one that does not end."""
    common = (*options, "--data-dir", str(board.data_dir), "--parent", str(os.getpid()))
    ports = {"receive": board.receive.port, "web": board.web.port}
    services: list[Service] = []
    try:
        for name in service_names(board):
            own = ("--port", str(ports[name])) if name in ports else ()
            services.append(_start(name, (*common, *own), verbose))
        yield tuple(services)
    finally:
        for service in services:
            service.process.terminate()
        for service in services:
            try:
                service.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()
            service.reader.join()


def _start(name: str, options: Sequence[str], verbose: bool) -> Service:
    # A session of its own: Ctrl-C reaches only this process, which then stops the services in order.
    process = subprocess.Popen(
        (sys.executable, "-m", "edge", name, *options),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    log: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
    reader = threading.Thread(target=_follow, args=(name, process, log, verbose), name=f"log of {name}", daemon=True)
    reader.start()
    return Service(name, process, log, reader)


def _follow(name: str, process: subprocess.Popen[str], log: collections.deque[str], verbose: bool) -> None:
    if process.stdout is None:
        raise AssertionError("the service's output is a pipe")
    with process.stdout as lines:
        for line in lines:
            log.append(line.rstrip())
            if verbose:
                print(f"{name:8s}| {line}", end="", file=sys.stderr, flush=True)


def _wait_for(box: Box, what: str, find: Callable[[], bool], timeout_s: float) -> bool:
    """True once `find` finds something, False after `timeout_s`. Raises _StoppedError, BoxError (box.service-died)."""
    start = told = time.monotonic()
    while not find():
        for service in box.services:
            code = service.process.poll()
            if code is not None:
                service.reader.join()
                _say("\n  ".join((f"the last lines of service {service.name}:", *service.log)))
                message = f"expected service {service.name} to keep running, got its end with exit code {code}"
                raise BoxError(message, code="box.service-died")
        now = time.monotonic()
        if now - start > timeout_s:
            return False
        if what and now - told > TELL_EVERY_S:
            _say(f"waiting for {what} {_since(start)}")
            told = now
        if box.stop.wait(POLL_S):
            raise _StoppedError
    return True


def wait_until_ready(box: Box) -> None:
    """Until the receiver answers C-ECHO and the page answers. Raises BoxError (box.not-answering)."""
    receive, web = box.board.receive, box.board.web
    for what, answers in (
        ("the receiver", lambda: echo(receive.host, receive.port, receive.ae_title)),
        ("the page", lambda: serves_page(web.host, web.port)),
    ):
        if not _wait_for(box, what, answers, START_TIMEOUT_S):
            raise BoxError(f"expected {what} to answer within {START_TIMEOUT_S:.0f} s", code="box.not-answering")


def _read(box: Box, path: Path | None) -> bool:
    """Send, wait and print what becomes of every study; True if every object was taken in and every study answered."""
    receive = box.board.receive
    start = time.monotonic()
    items = to_send(path, SAMPLE)
    results = send(items, receive.host, receive.port, receive.ae_title, progress=_Progress())
    taken = {result.sop_instance_uid for result in results if result.accepted}
    name = "the sample study" if path is None else str(path)
    _say(f"sent {name}: {len(taken)} of {len(results)} objects taken in {_since(start)}")
    refused = [result for result in results if not result.accepted]
    for result in refused:
        print(f"\nNot taken in: {result.message}; see {box.page}quarantine")
    keys = _study_keys(box.store, taken)
    answered = [_show(box, key) for key in keys]
    return all(answered) and not refused


def _study_keys(store: Store, sop_instance_uids: set[str]) -> list[int]:
    """The studies that hold these objects, in order of arrival."""
    keys, offset, page = [], 0, 100
    missing = set(sop_instance_uids)
    while missing and (rows := store.studies(limit=page, offset=offset)):
        for row in rows:
            detail = store.study(row.study_key)
            held = {one.sop_instance_uid for one in detail.instances} if detail else set()
            if held & missing:
                keys.append(row.study_key)
                missing -= held
        offset += page
    return sorted(keys)


def _show(box: Box, key: int) -> bool:
    """Wait for the reading of one study and print it; True if there is a draft or a refusal with its reason."""

    def ended() -> bool:
        return _state(box, key) in ENDED or bool(_worker_trouble(box))

    ended_in_time = _wait_for(box, f"study {key} to be read", ended, box.board.receive.quiet_time_s + READ_TIMEOUT_S)
    detail = box.store.study(key)
    place = f"{box.page}study/{key}"
    if detail is None or detail.state not in ENDED:
        late = f"It was not read within {READ_TIMEOUT_S:.0f} s. [box.not-read]"
        print(f"\nStudy {key}: not read, {place}\n\n{_worker_trouble(box) if ended_in_time else late}", flush=True)
        return False
    seconds = detail.timings_s.get("total")
    print(f"\nStudy {key}: {detail.state}" + (f", read in {seconds:.2f} s" if seconds else "") + f", {place}\n")
    if detail.state in REPORTED:
        print(render_text(from_json(detail.report_json), load_graph()), end="", flush=True)
    else:
        print(f"{detail.message} [{detail.code}]", flush=True)
    return detail.state in ANSWERED


def _state(box: Box, key: int) -> str:
    detail = box.store.study(key)
    return detail.state if detail else ""


def _worker_trouble(box: Box) -> str:
    """What keeps this box's worker, not an earlier one, from reading; "" if nothing."""
    for row in box.store.services():
        current = row.boot_id == boot_id() and row.monotonic_s >= box.start_monotonic_s
        if row.name == "worker" and row.state == "paused" and current:
            return f"{row.message} [{row.code}]"
    return ""


class _Progress:
    """Counts sent objects on stderr, at most once in two seconds."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._told > 2.0 and done < total:
            _say(f"sent {done} of {total} objects")
            self._told = time.monotonic()


def _near(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _say(text: str) -> None:
    print(f"radbox: {text}", file=sys.stderr, flush=True)


def _since(start: float) -> str:
    return f"({time.monotonic() - start:.1f} s)"
