"""A real IPP printer for tests: CUPS's `ippeveprinter`, with a bus of its own in the place of the system's."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PRINTER = shutil.which("ippeveprinter", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
BUS = shutil.which("dbus-daemon")
NEEDS_PRINTER = pytest.mark.skipif(
    (PRINTER is None or BUS is None) and "CI" not in os.environ,
    reason="no ippeveprinter (cups-ipp-utils) or no dbus-daemon",
)


@dataclass(frozen=True)
class Peer:
    """A running printer."""

    port: int

    @property
    def uri(self) -> str:
        """Its address."""
        return f"ipp://localhost:{self.port}/ipp/print"

    def form(self, path: str) -> None:
        """Fill in a form of its own web page: what lies in the tray, how much toner is left."""
        with urllib.request.urlopen(f"http://localhost:{self.port}/{path}", timeout=5) as answer:
            assert answer.status == 200

    def print(self, file: Path) -> None:
        """Print a file of PWG raster."""
        test = ["ipptool", "-q", "-d", "filetype=image/pwg-raster", "-f", str(file), self.uri, "print-job.test"]
        subprocess.run(test, check=True, timeout=20, capture_output=True)


@contextmanager
def printing(folder: Path, command: str = "/bin/true") -> Iterator[Peer]:
    """A printer in `folder` that runs `command` for each job."""
    assert PRINTER is not None
    assert BUS is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    bus = f"unix:path={folder / 'bus'}"
    daemon = subprocess.Popen(
        [BUS, "--session", "--nofork", "--nopidfile", f"--address={bus}"], stderr=subprocess.DEVNULL
    )
    _until(lambda: (folder / "bus").exists())
    log = (folder / "log").open("wb")
    printer = subprocess.Popen(
        [PRINTER, "-n", "localhost", "-p", str(port), "-d", str(folder), "-r", "off", "-c", command, "radbox test"],
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus, "HOME": str(folder)},
        stdout=log,
        stderr=log,
    )
    try:
        _until(lambda: _listens(port))
        yield Peer(port)
    finally:
        for process in (printer, daemon):
            process.terminate()
            process.wait(10)
        log.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(found: object, timeout_s: float = 10.0) -> None:
    assert callable(found)
    deadline = time.monotonic() + timeout_s
    while not found():
        assert time.monotonic() < deadline, "the printer did not start"
        time.sleep(0.05)
