"""Decoding in a child process that may die, hang or run out of memory without taking the worker with it.

Codecs are native code fed with bytes from the network. One child is kept warm (its imports cost about half a second)
and replaced when it dies.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

import edge
from edge.errors import DecodeError
from edge.reading.decode_wire import WireError, receive_images, receive_json, send_json
from edge.reading.radiograph import Radiograph

START_TIMEOUT_S = 60.0  # imports from a slow SD card
CRASHED = "dicom.decoder-crashed"
STOP_TIMEOUT_S = 2.0
DEFAULT_TIMEOUT_S = 30.0
RETIRE_AT_BYTES = 320 * 1024 * 1024  # resident memory kept between files; codecs leak on damaged ones
DEFAULT_MEMORY_BYTES = 1536 * 1024 * 1024


class Decoder:
    """One warm decoding child. Safe to call from several threads: one file is decoded at a time.

    timeout_s: for one file, from request to the last pixel received; memory_bytes: address space the child may take
    beyond what it has after its imports (RLIMIT_AS).
    """

    def __init__(self, *, timeout_s: float = DEFAULT_TIMEOUT_S, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Start the child now, so that the first file need not wait. Raises DecodeError `dicom.decoder-crashed`."""
        with self._lock:
            self._running()

    def read(self, path: Path) -> tuple[Radiograph, ...]:
        """Read one file as `read_file` does.

        Raises what `read_file` raises, and DecodeError `dicom.decoder-crashed`, `dicom.decoder-timeout` and
        `dicom.decoder-memory`. The next call starts a new child where this one was lost.
        """
        with self._lock:
            sock = self._running()
            deadline_s = time.monotonic() + self._timeout_s
            try:
                sock.settimeout(self._timeout_s)
                send_json(sock, {"path": str(path.absolute()), "timeout_s": self._timeout_s})
                return receive_images(sock, deadline_s)
            except TimeoutError:
                self._kill()
                raise DecodeError(
                    f"expected a decoded image within {self._timeout_s:g} s, got none", code="dicom.decoder-timeout"
                ) from None
            except (WireError, OSError):
                raise self._crashed() from None
            except (KeyboardInterrupt, SystemExit):
                self._kill()  # an answer may still be on its way: never read it as the next file's
                raise
            finally:
                self._retire()

    def close(self) -> None:
        """End the child. A later `read` would start another."""
        with self._lock:
            if self._sock is not None:
                self._sock.close()
                self._sock = None
            if self._child is not None:
                try:
                    self._child.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    self._child.kill()
                    self._child.wait()
                self._child = None

    def _running(self) -> socket.socket:
        if self._sock is not None and self._child is not None and self._child.poll() is None:
            return self._sock
        self._kill()
        ours, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "edge.reading.decode_loop", str(self._memory_bytes)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=_environment(),
            )
        self._sock = ours
        try:
            receive_json(ours, time.monotonic() + START_TIMEOUT_S)
        except (WireError, OSError):
            raise self._crashed() from None
        return ours

    def _retire(self) -> None:
        """End a child that has grown; it is idle now, and the next file starts a fresh one."""
        if self._child is None:
            return
        try:
            pages = int(Path(f"/proc/{self._child.pid}/statm").read_text().split()[1])
        except OSError:  # it died; the next file finds out
            return
        if pages * resource.getpagesize() > RETIRE_AT_BYTES:
            self._kill()

    def _crashed(self) -> DecodeError:
        how = self._kill()
        return DecodeError(f"expected a decoded image, got a decoder that {how}", code=CRASHED)

    def _kill(self) -> str:
        """End what is left of the child; how it ended, in words."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._child is None:
            return "never ran"
        try:
            status = self._child.wait(0.1)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            status = None
        self._child = None
        if status is None:
            return "gave no proper answer"
        return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def read_in_child(path: Path, *, timeout_s: float, memory_bytes: int) -> tuple[Radiograph, ...]:
    """Read one file in a child of its own. Raises what `Decoder.read` raises."""
    with Decoder(timeout_s=timeout_s, memory_bytes=memory_bytes) as decoder:
        return decoder.read(path)


def _environment() -> dict[str, str]:
    """One thread each for the numeric libraries: their stacks count against the address space limit."""
    package_root = str(Path(edge.__file__).resolve().parent.parent)
    search = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": search, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
