"""The newest picture of a grabber, whatever its driver does: a process of its own, killed by the age of its frames."""

from __future__ import annotations

import json
import logging
import mmap
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

import edge
from edge.intake.grabber import wire
from edge.intake.grabber.preset import Picture, Preset

OPEN_TIMEOUT_S: Final = 10.0  # for the source to be opened and to deliver a first picture
_KILL_AFTER_STALE: Final = 2.0  # times `stale_s`; half of it is for the reading process to give up by itself
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0  # before a source is opened again
_LIVED_LONG_S: Final = 10.0  # then its end is not one of a series
_TRIES: Final = 8
_ENDS: Final = {
    wire.NOT_OPENED: "it could not be opened",
    wire.NO_FRAME: "it delivered no further picture",
    wire.TOO_LARGE: "its pictures are larger than this box takes",
}
_LOG = logging.getLogger("radbox.capture")


@dataclass(frozen=True)
class Frame:
    """One picture, a copy. `monotonic_s`: when it was read from the grabber."""

    monotonic_s: float
    picture: Picture


class Frames:
    """One source. `count`: frames of all processes so far. For one thread; `step` at least every second."""

    def __init__(self, source: str, fps: float, stale_s: float, preset: Preset) -> None:
        self._request = {
            "source": source,
            "fps": fps,
            "timeout_s": max(stale_s, 1.0),
            "width": preset.width,
            "height": preset.height,
        }
        self._stale_s = stale_s
        self._memory_handle = os.memfd_create("radbox-frames")
        os.ftruncate(self._memory_handle, wire.MEMORY_BYTES)
        self._memory = mmap.mmap(self._memory_handle, wire.MEMORY_BYTES, prot=mmap.PROT_READ)
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._newest: wire.Arrived | None = None
        self._first_start_s = time.monotonic()
        self._start_s = self._again_s = self._first_start_s
        self._pause_s = _FIRST_PAUSE_S
        self._changed_s = 0.0
        self._last_s: float | None = None
        self.count = 0

    @property
    def process_id(self) -> int | None:
        """Of the reading process, None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def age_s(self) -> float | None:
        """Of the newest frame; None only while the very first is waited for."""
        now_s = time.monotonic()
        if self._last_s is not None:
            return now_s - self._last_s
        waited_s = now_s - self._first_start_s
        return waited_s if waited_s > OPEN_TIMEOUT_S else None

    @property
    def still_s(self) -> float:
        """How long frames have been identical."""
        return 0.0 if self._last_s is None else self._last_s - self._changed_s

    def step(self) -> None:
        """Take the news, end a process that hangs, start one that is due."""
        now_s = time.monotonic()
        if self._process is None:
            if now_s >= self._again_s:
                self._start()
            return
        self._take_news()
        if self._process.poll() is not None:
            self._bury(_ENDS.get(self._process.returncode, f"its process ended with {self._process.returncode}"))
        elif now_s - self._alive_s() > self._limit_s():
            self._process.kill()
            self._bury(f"no picture came for {now_s - self._alive_s():.1f} s, its process was killed")

    def latest(self) -> Frame | None:
        """The newest picture of the process that runs, or None."""
        for _ in range(_TRIES):
            self._take_news()
            newest = self._newest
            if newest is None:
                return None
            size = newest.height * newest.width * 3
            content = np.frombuffer(self._memory, np.uint8, size, newest.start).copy()
            self._take_news()
            if self._newest is not None and self._newest.number - newest.number < wire.SLOTS - 1:
                return Frame(newest.monotonic_s, content.reshape(newest.height, newest.width, 3))
        return None

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._bury("")
        self._memory.close()
        if self._memory_handle >= 0:
            os.close(self._memory_handle)
            self._memory_handle = -1

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.send(json.dumps(self._request).encode())  # not in the arguments: an address may hold a password
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edge.intake.grabber.source", str(theirs.fileno()), str(self._memory_handle)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._memory_handle),
                env=_environment(),
            )
        ours.setblocking(False)
        self._link = ours
        self._start_s = time.monotonic()

    def _take_news(self) -> None:
        while self._link is not None:
            try:
                message = self._link.recv(wire.MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if len(message) < wire.MESSAGE_BYTES:
                return
            arrived = wire.decode(message)
            if self._newest is None or arrived.digest != self._newest.digest:
                self._changed_s = arrived.monotonic_s
            self._newest, self._last_s = arrived, arrived.monotonic_s
            self.count += 1

    def _alive_s(self) -> float:
        """When the process last gave a sign of life."""
        return self._start_s if self._newest is None else self._newest.monotonic_s

    def _limit_s(self) -> float:
        """How long it may be silent."""
        patience_s = _KILL_AFTER_STALE * max(self._stale_s, 1.0)
        return OPEN_TIMEOUT_S + patience_s if self._newest is None else patience_s

    def _bury(self, why: str) -> None:
        assert self._process is not None
        self._process.wait()
        self._process = None
        if self._link is not None:
            self._link.close()
            self._link = None
        lived_s = time.monotonic() - self._start_s
        self._pause_s = _FIRST_PAUSE_S if lived_s > _LIVED_LONG_S else min(_LONGEST_PAUSE_S, 2 * self._pause_s)
        self._newest = None
        self._again_s = time.monotonic() + self._pause_s
        if why:
            _LOG.warning("the frame grabber's source ended: %s; opened again in %.1f s", why, self._pause_s)


def _environment() -> dict[str, str]:
    """Quiet libraries: their messages name the source, which may hold a password."""
    package_root = str(Path(edge.__file__).resolve().parent.parent)
    search = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": search, "OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
