"""A panel at the other end of a pty: the simulated one in a thread, with a line that can be cut and dirtied."""

from __future__ import annotations

import os
import select
import threading
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edge.care.panel.simulated import SimulatedPanel, send

WITHIN_S = 10.0


class PanelLine:
    """A pty whose slave is reached under a path that stays the same when the panel is plugged in again.

    `spoil` is applied to what the panel sends.
    """

    def __init__(self, path: Path, columns: int = 20, rows: int = 4) -> None:
        self.path = path
        self.panel = SimulatedPanel(columns, rows)
        self.spoil: Callable[[bytes], bytes] = lambda content: content
        self._size = (columns, rows)
        self._master = self._slave = -1
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()

    def plug(self) -> None:
        """A new pty, and a panel that has just been switched on."""
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(self._slave))
        self.panel = SimulatedPanel(*self._size)
        self._over.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """The device vanishes: its other end is closed and its name is gone."""
        self._over.set()
        if self._thread:
            self._thread.join(WITHIN_S)
        self.path.unlink(missing_ok=True)
        for handle in (self._master, self._slave):
            with suppress(OSError):
                os.close(handle)

    def press(self, key: int = 0) -> None:
        """Down and up."""
        with self._lock:
            self.write(self.panel.press(key))
            self.write(self.panel.press(key, pressed=False))

    def write(self, content: bytes) -> None:
        """Bytes from the panel's side, spoilt as asked for."""
        send(self._master, self.spoil(content))

    def _run(self) -> None:
        with suppress(OSError):
            self.write(self.panel.start())
            while not self._over.is_set():
                readable, _, _ = select.select([self._master], [], [], 0.02)
                with self._lock:
                    answer = self.panel.feed(os.read(self._master, 4096)) if readable else b""
                    self.write(answer + self.panel.tick())


def wait_until(what: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    """Raise AssertionError unless it becomes true."""
    end_s = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.01)
