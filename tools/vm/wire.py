"""Two lines to a virtual machine, both JSON over a Unix socket: QMP to QEMU, and the root shell of a test image."""

from __future__ import annotations

import base64
import itertools
import json
import queue
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONNECT_S = 30.0


class VmError(Exception):
    """The machine did not do what the test needs to go on; the message says what."""


class Line:
    """JSON objects in and out of one socket; a thread sorts what comes in into answers and news."""

    def __init__(self, path: Path, is_answer: Any) -> None:
        """is_answer: tells an answer from news (an event, a hello). Raises VmError if nobody listens."""
        self._socket = _connect(path)
        self._is_answer = is_answer
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self.news: list[tuple[float, dict[str, Any]]] = []  # (monotonic seconds, object), only ever longer
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        buffer = b""
        while True:
            try:
                chunk = self._socket.recv(1 << 16)
            except OSError:
                return
            if not chunk:
                return
            buffer += chunk
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                self._sort(line)

    def _sort(self, line: bytes) -> None:
        try:
            found = json.loads(line)
        except ValueError:  # half a line of before a reset or a snapshot
            return
        if self._is_answer(found):
            self._answers.put(found)
        else:
            self.news.append((time.monotonic(), found))

    def send(self, message: dict[str, Any]) -> None:
        """One line out."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def answer(self, timeout_s: float) -> dict[str, Any]:
        """The next answer. Raises VmError."""
        try:
            return self._answers.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            raise VmError(f"expected an answer of the machine within {timeout_s:.0f} s, got none") from None

    def wait_news(self, key: str, value: str | None, since: int, timeout_s: float) -> tuple[float, dict[str, Any]]:
        """The first news from number `since` on that has `key` (as `value`). Raises VmError."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            for at_s, one in self.news[since:]:
                if key in one and value in (None, one[key]):
                    return at_s, one
            time.sleep(0.05)
        raise VmError(f"expected {value or key} within {timeout_s:.0f} s, got none")

    def close(self) -> None:
        """Hang up; the reading thread ends."""
        self._socket.close()


@dataclass(frozen=True)
class Said:
    """What a command in the machine answered. out: its stdout and stderr together."""

    code: int
    out: str


class Shell:
    """Commands as root in a test image."""

    def __init__(self, path: Path) -> None:
        self.line = Line(path, lambda found: "id" in found)
        self._numbers = itertools.count(time.time_ns() % 10**9)  # unlike any that a snapshot may have kept

    def run(self, command: str, timeout_s: float = 120.0) -> Said:
        """A bash command. Raises VmError when the machine itself does not answer."""
        found = self._ask({"sh": command, "timeout_s": timeout_s}, timeout_s + 120)
        return Said(found["rc"], found["out"].strip())

    def put(self, path: str, content: bytes) -> None:
        """Write a file in the machine. Raises VmError."""
        found = self._ask({"put": path, "base64": base64.b64encode(content).decode()}, 120)
        if found["rc"]:
            raise VmError(f"expected {path} to be written, got: {found['out']}")

    def _ask(self, message: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        number = next(self._numbers)
        self.line.send({"id": number, **message})
        end = time.monotonic() + timeout_s
        while True:
            found = self.line.answer(end - time.monotonic())
            if found["id"] == number:
                return found


class Qmp:
    """QEMU's own control line (QMP)."""

    def __init__(self, path: Path) -> None:
        self.line = Line(path, lambda found: "return" in found or "error" in found)
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        """One command's result. Raises VmError with QEMU's words when it refuses."""
        self.line.send({"execute": command, "arguments": arguments})
        found = self.line.answer(300)
        if "error" in found:
            raise VmError(f"QEMU refused {command}: {found['error']['desc']}")
        return found["return"]

    def monitor(self, line: str) -> str:
        """A line of the human monitor (savevm has no QMP command that waits). Raises VmError when it answers."""
        said = str(self.ask("human-monitor-command", **{"command-line": line})).strip()
        if said:
            raise VmError(f"QEMU answered {line!r}: {said}")
        return said


def _connect(path: Path) -> socket.socket:
    end = time.monotonic() + CONNECT_S
    while True:
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(str(path))
            return link
        except OSError as error:
            link.close()
            if time.monotonic() > end:
                raise VmError(f"expected QEMU to listen at {path.name}, got: {error}") from error
            time.sleep(0.05)
