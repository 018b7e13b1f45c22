"""`radbox doctor`: what works on this box, and what to do about the rest, in plain words.

Every check is one function that returns a `Check` or raises RadboxError, which counts as failed. Nothing is repaired
and nothing is left behind.
"""

from __future__ import annotations

import dataclasses
import datetime
import http.client
import importlib
import importlib.metadata
import json
import platform
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge.board import Board
from edge.board_keys import MIB
from edge.bundle import Bundle, load_bundle
from edge.disk_marks import in_words, mark
from edge.durable import disk_use, remove, write_file
from edge.errors import RadboxError
from edge.reading.backends import probe_in_child
from edge.reading.backends.delegates import worth
from edge.reading.backends.setup import board_setup
from edge.reading.decoding import board_decoding, runs_in
from edge.reading.ops import Guarded, load_kernels
from edge.reading.ops.native import NativeKernels
from edge.report.graph import load_graph
from edge.store import open_store
from edge.store_paths import DATABASE, database_key

Verdict = Literal["ok", "warn", "fail"]

# Every run-time dependency of pyproject.toml: distribution -> module to import. The model runtimes are probed with
# the bundle in a child process instead, because a broken one may abort.
LIBRARIES = {
    "numpy": "numpy",
    "pydicom": "pydicom",
    "pynetdicom": "pynetdicom",
    "pylibjpeg": "pylibjpeg",
    "pylibjpeg-libjpeg": "libjpeg",
    "pylibjpeg-openjpeg": "openjpeg",
    "pylibjpeg-rle": "rle",
    "pyjpegls": "jpeg_ls",
    "opencv-python-headless": "cv2",
    "cryptography": "cryptography",
    "tuf": "tuf.api.metadata",
    "securesystemslib": "securesystemslib",
    "apsw-sqlite3mc": "apsw",
    "starlette": "starlette",
    "uvicorn": "uvicorn",
    "jinja2": "jinja2",
    "safetensors": "safetensors",
    "paho-mqtt": "paho.mqtt.client",
    "pyserial": "serial",
    "ai-edge-litert": None,
    "onnxruntime": None,
}
SQLITE_NEEDED = (3, 51, 3)  # the first release without the WAL-reset bug (two writers could damage the database)
EARLIEST_DATE = datetime.date(2026, 11, 1)  # this release is not older
CONNECT_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Check:
    """One thing looked at. `message`: what was found and, unless ok, what to do. `code`: stable, "" when ok."""

    name: str
    verdict: Verdict
    message: str
    code: str = ""


def main(read_board: Callable[[], Board], as_json: bool) -> int:
    """Print every check as it is done; 1 if any failed, else 0."""
    checks = []
    for check in examine(read_board):
        checks.append(check)
        if not as_json:
            print(f"{check.verdict:4s}  {check.name:10s} {check.message}", flush=True)
    if as_json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=1))
    return int(any(check.verdict == "fail" for check in checks))


def examine(read_board: Callable[[], Board]) -> Iterator[Check]:
    """Every check, in the order in which one thing needs the other. Without a valid board the rest cannot be asked."""
    yield _guarded("python", _python)
    yield _guarded("libraries", _libraries)
    yield _guarded("sqlite", _sqlite)
    yield _guarded("clock", _clock)
    try:
        board = read_board()
    except RadboxError as error:
        yield Check("board", "fail", error.message, error.code)
        return
    yield Check("board", "ok", f"{board.name!r} is valid")
    yield _guarded("data", lambda: _data_dir(board))
    yield _guarded("database", lambda: _database(board.data_dir))
    yield _guarded("kernels", lambda: _kernels(board))
    yield from _model(board)
    yield _guarded("receiver", lambda: _port(board.receive.host, board.receive.port, _listens))
    yield _guarded("page", lambda: _port(board.web.host, board.web.port, serves_page))


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except RadboxError as error:
        return Check(name, "fail", error.message, error.code)


def _python() -> Check:
    found = f"Python {platform.python_version()} on {platform.machine()}"
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        return Check("python", "ok", found)
    return Check("python", "fail", f"expected Python 3.10 to 3.13, got {found}", "doctor.python")


def _libraries() -> Check:
    versions, broken = [], []
    for distribution, module in LIBRARIES.items():
        try:
            versions.append(f"{distribution} {importlib.metadata.version(distribution)}")
            if module:
                importlib.import_module(module)
        except (importlib.metadata.PackageNotFoundError, ImportError, OSError) as error:
            broken.append(f"{distribution} ({type(error).__name__})")
    if broken:
        return Check("libraries", "fail", f"not usable: {', '.join(broken)}; run tools/setup", "doctor.libraries")
    return Check("libraries", "ok", ", ".join(versions))


def _sqlite() -> Check:
    version = str(importlib.import_module("apsw").sqlite_lib_version())
    if tuple(int(part) for part in version.split(".")[:3]) < SQLITE_NEEDED:
        needed = ".".join(map(str, SQLITE_NEEDED))
        return Check(
            "sqlite", "fail", f"expected SQLite {needed} or newer, got {version}; run tools/setup", "doctor.sqlite"
        )
    return Check("sqlite", "ok", f"SQLite {version}")


def _clock() -> Check:
    today = datetime.date.today()
    if EARLIEST_DATE <= today < EARLIEST_DATE.replace(year=EARLIEST_DATE.year + 20):
        return Check("clock", "ok", today.isoformat())
    message = f"the date {today.isoformat()} is wrong; studies are read all the same, but set the clock"
    return Check("clock", "warn", message, "doctor.clock")


def _data_dir(board: Board) -> Check:
    folder = data_dir = board.data_dir
    while not folder.is_dir():
        folder = folder.parent
    probe = folder / ".radbox-doctor"
    write_file(probe, b"doctor")
    remove(probe)
    use = disk_use(folder)
    room = in_words(use)
    reached = mark(use, board.storage, board.receive.min_free_bytes)
    if reached == "refuse":
        needed = board.receive.min_free_bytes // MIB
        message = f"{data_dir}: {room}, the receiver refuses images below {needed} MiB free; make room"
        return Check("data", "fail", message, "doctor.disk-full")
    if reached == "warn":
        return Check("data", "warn", f"{data_dir}: {room}; make room soon", "doctor.disk-low")
    return Check("data", "ok", f"{data_dir}: {'writable' if folder == data_dir else 'will be made'}, {room}")


def _database(data_dir: Path) -> Check:
    if not (data_dir / DATABASE).exists():
        return Check("database", "ok", "none yet; the first service makes it")
    store = open_store(data_dir, key=database_key())
    try:
        unwell = [f"{row.name} is {row.state}: {row.message}" for row in store.services() if row.state != "ok"]
        studies = len(store.studies(limit=1000))
    finally:
        store.close()
    if unwell:
        return Check("database", "warn", "; ".join(unwell), "doctor.service")
    return Check("database", "ok", f"opens, {studies if studies < 1000 else 'at least 1000'} studies")


def _kernels(board: Board) -> Check:
    """The set in use, and a warning where a faster one exists: forced aside, for another CPU, or not for this one."""
    kernels = load_kernels(board.worker.kernels)
    if isinstance(kernels, Guarded):
        return _accelerated(board.worker.kernels, kernels)
    loaded = f"{kernels.name} operators loaded"
    if not isinstance(kernels, NativeKernels):
        return Check("kernels", "warn", f'{loaded}; set worker.kernels to "auto" for faster ones', "doctor.kernels")
    best = kernels.runnable()[0]
    if kernels.refused:
        message = (
            f"{loaded} in place of {kernels.refused}, which this CPU ({platform.machine()}) lacks: it runs {best}; "
            f'unset RADBOX_KERNELS and set worker.kernels to "auto"'
        )
        return Check("kernels", "warn", message, "doctor.kernels")
    if kernels.name != best:
        message = f"{loaded} as asked for, but this CPU runs {best}: unset RADBOX_KERNELS and worker.kernels"
        return Check("kernels", "warn", message, "doctor.kernels")
    if best == "reference":
        message = f"{loaded}: this CPU ({platform.machine()}) lacks what the faster ones need"
        return Check("kernels", "warn", message, "doctor.kernels")
    return Check("kernels", "ok", loaded)


def _accelerated(asked: str, kernels: Guarded) -> Check:
    """An accelerator's set; where the CPU stands in for it, a warning with the reason: studies are read anyway."""
    if kernels.fault:
        message = f"the decoder does not run on {asked}: {kernels.fault}; meanwhile {kernels.described()}"
        return Check("kernels", "warn", message, kernels.fault_code)
    return Check("kernels", "ok", f"the decoder runs on {asked}: {kernels.described()}")


def _model(board: Board) -> Iterator[Check]:
    """The bundle, its graph, and every backend of the board with the bundle's golden case."""
    try:
        bundle = load_bundle(board.worker.bundle)
    except RadboxError as error:
        yield Check("bundle", "fail", error.message, error.code)
        return
    yield _guarded("bundle", lambda: _bundle(bundle))
    yield from _precision(board, bundle)
    failed = 0
    for name in board.worker.backends:
        setup = dataclasses.replace(board_setup(board), backend=name)
        try:
            probe_in_child(name, bundle, setup)
            found = worth(bundle, setup)
        except RadboxError as error:
            failed += 1
            verdict: Verdict = "fail" if failed == len(board.worker.backends) else "warn"
            yield Check("backend", verdict, f"{name}: {error.message}", error.code)
        else:
            yield Check("backend", "ok", f"{name}: passes the golden case{found and ', '}{found}")


def _precision(board: Board, bundle: Bundle) -> Iterator[Check]:
    """A warning where the decoder does not run in what the board asks for."""
    asked, runs = board.worker.precision, runs_in(bundle, board_decoding(board))
    if asked != runs:
        message = f"the board asks for {asked}, but this model has no {asked} weights that passed their quality gate: "
        yield Check("precision", "warn", f"{message}it decodes in {runs}", "doctor.precision")


def _bundle(bundle: Bundle) -> Check:
    manifest = bundle.manifest
    if load_graph().sha256 != manifest.graph_sha256:
        message = "the bundle was made for another edition of report/graph.toml; install the bundle of this release"
        return Check("bundle", "fail", message, "bundle.graph")
    offered = sum(any(spec.offered for spec in populations.values()) for populations in manifest.findings.values())
    name = f"{manifest.id} {manifest.version} ({bundle.sha256[:12]})"
    return Check("bundle", "ok", f"{name}: offers {offered} of {len(manifest.findings)} findings")


def _port(host: str, port: int, answers: Callable[[str, int], bool]) -> Check:
    name = "receiver" if answers is _listens else "page"
    place = f"{host}:{port}"
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if answers("localhost" if host in ("0.0.0.0", "::") else host, port):
            return Check(name, "ok", f"{place} is answering")
        message = (
            f"{place} cannot be used ({error.strerror}) and does not answer as radbox; stop the program that holds it"
        )
        return Check(name, "fail", message, "doctor.port")
    return Check(name, "ok", f"{place} is free; the service is not running")


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def serves_page(host: str, port: int) -> bool:
    link = http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT_S)
    try:
        link.request("GET", "/")
        return link.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()
