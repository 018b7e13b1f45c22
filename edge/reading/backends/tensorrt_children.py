"""Children that touch TensorRT, and what they say: one JSON object a line on standard output.

    {"step": [phase, done, of]}     progress
    {"answer": {...}}               the end, well
    {"refused": [code, message]}    the end, not well

A child is told to stop by the end of its standard input, which the death of its parent is too. Building may crash the
process, hang, or need more memory than there is; so may the first load of a plan. Only the child goes then.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends.setup import Setup

CHILD: Final = (sys.executable, "-m", "edge.reading.backends.tensorrt_child")
LOOK_S: Final = 0.2  # between two looks at whether to stop
GRACE_S: Final = 20.0  # for a child that was told to stop: a step of TensorRT's builder may last
LONGEST_LINE_BYTES: Final = 1 << 20

Report = Callable[[str, int, int], None]
Cancelled = Callable[[], bool]


def silent(_phase: str, _done: int, _of: int) -> None:
    """Nobody is told of the progress."""


def never() -> bool:
    """Nobody cancels."""
    return False


def ask(
    bundle: Bundle,
    setup: Setup,
    words: tuple[str, ...],
    timeout_s: float,
    report: Report = silent,
    cancelled: Cancelled = never,
) -> dict[str, Any]:
    """The answer of a child. words: `facts`, `build PRECISION` or `trial PRECISION`.

    Raises BackendError: what the child refused, tensorrt.cancelled, tensorrt.too-slow, backend.crashed,
    tensorrt.no-answer.
    """
    command = [*CHILD, str(bundle.path), bundle.sha256, setup.to_json(), *words]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C on the terminal is for the parent, which then cancels
    )
    try:
        return _listen(child, words[0], timeout_s, report, cancelled)
    finally:
        _end(child)


def _listen(
    child: subprocess.Popen[bytes], what: str, timeout_s: float, report: Report, cancelled: Cancelled
) -> dict[str, Any]:
    end_s = time.monotonic() + timeout_s
    answer: dict[str, Any] | None = None
    for line in _lines(child, end_s, cancelled):
        said = _parsed(line)
        if "step" in said:
            phase, done, of = said["step"]
            report(str(phase), int(done), int(of))
        elif "refused" in said:
            code, message = said["refused"]
            raise BackendError(str(message), code=str(code))
        elif "answer" in said:
            answer = said["answer"]
    if cancelled():
        raise BackendError("The building of the engine was cancelled.", code="tensorrt.cancelled")
    if time.monotonic() >= end_s:
        raise BackendError(f"TensorRT did not finish '{what}' in {timeout_s:.0f} s.", code="tensorrt.too-slow")
    returncode = child.wait()
    if returncode < 0:
        raise BackendError(f"TensorRT died during '{what}' (signal {-returncode}).", code="backend.crashed")
    if answer is None:
        raise BackendError(f"TensorRT's '{what}' ended without an answer.", code="tensorrt.no-answer")
    return answer


def _lines(child: subprocess.Popen[bytes], end_s: float, cancelled: Cancelled) -> Iterator[bytes]:
    """Whole lines until the child closes its output, the time is over or somebody cancels."""
    assert child.stdout is not None
    handle, rest = child.stdout.fileno(), b""
    while not cancelled() and time.monotonic() < end_s:
        if not select.select([handle], [], [], LOOK_S)[0]:
            continue
        chunk = os.read(handle, 1 << 16)
        if not chunk or len(rest) > LONGEST_LINE_BYTES:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _parsed(line: bytes) -> dict[str, Any]:
    """{} for what is no line of ours: libraries print, too."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _end(child: subprocess.Popen[bytes]) -> None:
    """Tell it to stop, wait a little, then end it."""
    if child.stdin is not None:
        child.stdin.close()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    finally:
        if child.stdout is not None:
            child.stdout.close()


def told_to_stop() -> bool:
    """In a child: True once its standard input has ended."""
    return bool(select.select([0], [], [], 0.0)[0])


def say(out: int, **line: Any) -> None:
    """In a child: one line. A parent that is gone is noticed by `told_to_stop`."""
    with contextlib.suppress(OSError):
        os.write(out, json.dumps(line).encode() + b"\n")
