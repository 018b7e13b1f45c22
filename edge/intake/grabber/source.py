"""The process that reads the grabber, `python -m edge.intake.grabber.source LINK MEMORY`, and nothing else.

A driver's or FFmpeg's `read` may block for ever or bring the process down; then only this one is lost. It ends when
the source ends or fails, and says how by its exit code (`wire`); the service starts the next.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import socket
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from edge.intake.grabber.wire import MEMORY_BYTES, NO_FRAME, NOT_OPENED, SLOT_BYTES, SLOTS, TOO_LARGE, Arrived

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_REQUEST_LIMIT_BYTES: Final = 2**16


def main(arguments: Sequence[str]) -> int:
    """Read until the source or the service ends; the exit code."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the service says when
    if os.getppid() != parent:
        return 0
    link = socket.socket(fileno=int(arguments[0]))
    request = json.loads(link.recv(_REQUEST_LIMIT_BYTES))
    link.setblocking(False)
    cv2.setNumThreads(1)
    capture = _open(request)
    if not capture.isOpened():
        return NOT_OPENED
    with mmap.mmap(int(arguments[1]), MEMORY_BYTES) as memory:
        return _read(capture, link, memory, _interval_s(capture, request), is_file=Path(request["source"]).is_file())


def _open(request: dict[str, Any]) -> Any:
    """By V4L2 for a device, else by FFmpeg; both with the service's time-outs and, for a device, its geometry."""
    source: str = request["source"]
    timeout_ms = int(1000 * request["timeout_s"])
    if source.startswith("/dev/"):
        wanted = ((cv2.CAP_PROP_FRAME_WIDTH, request["width"]), (cv2.CAP_PROP_FRAME_HEIGHT, request["height"]))
        capture = cv2.VideoCapture(source, cv2.CAP_V4L2)
        for key, value in wanted:
            if value:
                capture.set(key, value)
        return capture
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
    return cv2.VideoCapture(source, cv2.CAP_FFMPEG, timeouts)


def _interval_s(capture: Any, request: dict[str, Any]) -> float:
    """Between two pictures that are handed over."""
    own_fps = capture.get(cv2.CAP_PROP_FPS)
    fps = min(float(request["fps"]), own_fps) if 0 < own_fps < 1000 else float(request["fps"])
    return 1.0 / fps


def _read(capture: Any, link: socket.socket, memory: mmap.mmap, interval_s: float, *, is_file: bool) -> int:
    slots = np.frombuffer(memory, np.uint8).reshape(SLOTS, SLOT_BYTES)
    number, next_s = 0, time.monotonic()
    while capture.grab():  # of a live source every picture is taken, so that none waits in a buffer
        if is_file:
            time.sleep(max(0.0, next_s - time.monotonic()))
        now_s = time.monotonic()
        if now_s < next_s:
            continue
        next_s = max(next_s + interval_s, now_s)
        done, picture = capture.retrieve()
        if not done:
            return NO_FRAME
        if picture.ndim == 2:
            picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
        if picture.nbytes > SLOT_BYTES or picture.dtype != np.uint8 or picture.shape[2] != 3:
            return TOO_LARGE
        number += 1
        slots[number % SLOTS, : picture.nbytes] = picture.ravel()
        try:
            link.send(Arrived(number, now_s, picture.shape[0], picture.shape[1], zlib.crc32(picture)).encode())
        except BlockingIOError:  # the service is busy; it gets a later one
            continue
        except OSError:
            return 0
    return NO_FRAME


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
