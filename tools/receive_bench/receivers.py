"""How each receiver is started: a fresh data folder, a free port of the loopback address, 128 KiB PDUs, no Nagle."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
PDU_BYTES = 131072  # the largest that DCMTK takes
START_TIMEOUT_S, STOP_TIMEOUT_S, POLL_S = 60.0, 30.0, 0.05


@dataclass(frozen=True)
class Receiver:
    """A program under test. `command` makes its command line from its folder and port; `stored` counts its objects."""

    name: str
    durable: str
    version: tuple[str, ...]
    command: Callable[[Path, int], list[str]]
    stored: Callable[[Path], int]


def _radbox(folder: Path, port: int) -> list[str]:
    lines = [
        'name = "bench"',
        f"data_dir = {json.dumps(str(folder / 'data'))}",
        "[receive]",
        f"port = {port}",
        f"pdu_bytes = {PDU_BYTES}",
        "quiet_time_s = 600",
        "[worker]",
        'bundle = "none"',
        "[storage]",
        "reserve_bytes = 1048576",
    ]
    board = folder / "board.toml"
    board.write_text("\n".join(lines) + "\n")
    return [sys.executable, "-m", "edge", "receive", "--board", str(board)]


def _orthanc(folder: Path, port: int) -> list[str]:
    configuration = {
        "Name": "bench",
        "StorageDirectory": str(folder / "data"),
        "IndexDirectory": str(folder / "data"),
        "DicomAet": "RADBOX",
        "DicomPort": port,
        "HttpServerEnabled": False,
        "SyncStorageArea": True,
        "MaximumPduLength": PDU_BYTES,
        "Plugins": [],
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration))
    return ["Orthanc", str(path)]


def _storescp(folder: Path, port: int) -> list[str]:
    (folder / "data").mkdir()
    return ["storescp", "--fork", "+B", "-pdu", str(PDU_BYTES), "-od", str(folder / "data"), str(port)]


def _objects(pattern: str) -> Callable[[Path], int]:
    def count(folder: Path) -> int:
        return sum(path.stat().st_size > OBJECT_BYTES for path in (folder / "data").glob(pattern))

    return count


OBJECT_BYTES = 400_000  # every object sent is larger; Orthanc keeps a small JSON file beside each
RECEIVERS = (
    Receiver(
        "radbox",
        "file, folder and database before the answer",
        (sys.executable, "-m", "edge", "--version"),
        _radbox,
        _objects("spool/objects/??/*.dcm"),
    ),
    Receiver(
        "Orthanc",
        "file before the answer, index later (SyncStorageArea true)",
        ("Orthanc", "--version"),
        _orthanc,
        _objects("??/??/*"),
    ),
    Receiver("storescp", "nothing", ("storescp", "--version"), _storescp, _objects("*")),
)


def version(receiver: Receiver) -> str:
    """First line of what the program says of itself."""
    done = subprocess.run(receiver.version, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[0].strip("$ ")


@contextlib.contextmanager
def running(receiver: Receiver, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The started receiver in `folder`, which is made here, and its port; it answers connections."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(receiver.command(folder, port), env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        _wait_until_it_answers(receiver, process, port, folder / "log")
        yield process, port
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_answers(receiver: Receiver, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    echo = ["echoscu", "-aec", "RADBOX", "127.0.0.1", str(port)]
    while subprocess.run(echo, env=ENVIRONMENT, capture_output=True, check=False).returncode:
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"expected {receiver.name} to answer C-ECHO, got:\n{log.read_text()[-2000:]}")
        time.sleep(POLL_S)
