"""What every daemon needs: one-line logs, a stop flag that signals set, and word to systemd."""

from __future__ import annotations

import importlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn


def setup_logging(name: str, level: int = logging.INFO) -> logging.Logger:
    """Send one-line records to stderr (the journal adds time and unit) and return the daemon's logger `radbox.<name>`.

    pynetdicom and pydicom put attribute values into their lower levels, so only their errors pass.
    """
    root = logging.getLogger()
    root.handlers[:] = [logging.StreamHandler(sys.stderr)]
    root.handlers[0].setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root.setLevel(level)
    for library in ("pynetdicom", "pydicom"):
        logging.getLogger(library).setLevel(logging.ERROR)
    return logging.getLogger(f"radbox.{name}")


class Stop:
    """A flag that SIGTERM and SIGINT set.

    The handler writes to a pipe instead of taking a lock: `threading.Event.set` inside a signal handler can wait
    for the very `wait` that it interrupted.
    """

    def __init__(self, *, signals: bool = True) -> None:
        """`signals=False` leaves the process's signal handlers alone (a box inside a test, a thread)."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._set = False
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.set()

    def set(self) -> None:
        """Ask for the stop; safe in a signal handler and in any thread."""
        if not self._set:
            self._set = True
            os.write(self._write, b"x")

    def is_set(self) -> bool:
        """True once a stop was asked for."""
        return self._set

    def wait(self, seconds: float) -> bool:
        """Sleep at most `seconds`; True as soon as a stop was asked for."""
        if not self._set:
            select.select([self._read], [], [], max(0.0, seconds))
        return self._set


def _systemd_notify() -> Callable[[str], object] | None:
    """sd_notify(3) of systemd's own Python binding; None where that is not installed."""
    try:
        found = importlib.import_module("systemd.daemon")
    except ImportError:
        return None
    notify_systemd: Callable[[str], object] = found.notify
    return notify_systemd


_through_systemd = _systemd_notify()


def notify(state: str) -> None:
    """Tell systemd `READY=1`, `WATCHDOG=1`, `STOPPING=1`, `STATUS=...` (sd_notify(3)); nothing without $NOTIFY_SOCKET.

    A message that systemd cannot take now is dropped: the next one says the same.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        (_through_systemd or _through_socket)(state)
    except OSError as error:
        logging.getLogger("radbox.service").warning("systemd did not take a message: errno %s", error.errno)


def _through_socket(state: str) -> None:
    address = os.environ["NOTIFY_SOCKET"]
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
        link.setblocking(False)
        link.sendto(state.encode(), address)


class Progress:
    """The watchdog of a service of several parts: systemd hears of it only while every part moves."""

    def __init__(self, *names: str, limit_s: float) -> None:
        """names: the parts; limit_s: how long one may go without `moved`. All count as moved now."""
        self._limit_s = limit_s
        self._moved_s = dict.fromkeys(names, time.monotonic())

    def moved(self, name: str) -> None:
        """Part `name` did some of its work; safe in any thread. Raises KeyError for a name that is no part."""
        if name not in self._moved_s:
            raise KeyError(name)
        self._moved_s[name] = time.monotonic()

    def ping(self) -> bool:
        """Send WATCHDOG=1 and return True if every part moved within the limit; else nothing is sent."""
        oldest_s = min(self._moved_s.values(), default=float("-inf"))
        if time.monotonic() - oldest_s > self._limit_s:
            return False
        notify("WATCHDOG=1")
        return True


def start_afresh() -> NoReturn:
    """Replace this process by a fresh one of the same command: execve(2) ends every thread and closes every device,
    while process id, parent and unit stay, so that nobody takes it for a death."""
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
