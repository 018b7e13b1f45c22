"""The processes that hold the associations: forked from the one that listens, handed connections, started again.

They are forked after everything is imported, so that they share its memory. Of what they inherit they keep one socket
and the log, and they never touch the database.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Final

from edge.intake.association import Association, Settings
from edge.intake.negotiation import quiet_libraries

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0  # before a process that died is started again
_LIVED_LONG_S: Final = 10.0  # then its death is not one of a series
_STOP_S: Final = 5.0
_LOG = logging.getLogger("radbox.receive")


class Child:
    """One process. `connections` counts what it holds now; `link` is None while it is dead."""

    def __init__(self, name: int) -> None:
        self.name = name
        self.connections = 0
        self.link: socket.socket | None = None
        self._process_id = 0
        self._start_s = 0.0
        self._pause_s = 0.0
        self._again_s = float("-inf")

    def is_due(self) -> bool:
        """True if it is dead and may be started."""
        return self.link is None and time.monotonic() >= self._again_s

    def start(self, settings: Settings) -> None:
        """Fork. The caller must have one thread only. Raises OSError: no process to be had; it stays dead a while."""
        self._start_s = time.monotonic()
        self._wait_longer()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process_id = fork(theirs, lambda link: _serve(link, settings))
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        self.link = ours

    def hand_over(self, number: int, connection: socket.socket, link: socket.socket) -> bool:
        """Give it a connection and the association's end of a ledger link; False if it does not take them."""
        if self.link is None:
            return False
        try:
            socket.send_fds(self.link, [str(number).encode()], [connection.fileno(), link.fileno()])
        except OSError:
            return False
        self.connections += 1
        return True

    def bury(self) -> None:
        """It closed its link: make sure that it is dead, and let some time pass before the next."""
        self._close_link()
        os.kill(self._process_id, signal.SIGKILL)
        _, status = os.waitpid(self._process_id, 0)
        self._process_id = 0
        if time.monotonic() - self._start_s > _LIVED_LONG_S:
            self._pause_s = _FIRST_PAUSE_S
        self._again_s = time.monotonic() + self._pause_s
        how = os.waitstatus_to_exitcode(status)
        _LOG.error("receiving process %d ended with %d; the next starts in %.1f s", self.name, how, self._pause_s)

    def close(self) -> None:
        """Ask it to end: it answers what is complete and aborts its associations."""
        self._close_link()

    def wait(self, serve: Callable[[float], None]) -> None:
        """Until it has ended, for at most _STOP_S, then by force; `serve(seconds)` goes on answering meanwhile."""
        deadline_s = time.monotonic() + _STOP_S
        while self._process_id and os.waitpid(self._process_id, os.WNOHANG)[0] == 0:
            serve(0.02)
            if time.monotonic() > deadline_s:
                os.kill(self._process_id, signal.SIGKILL)
        self._process_id = 0

    def _wait_longer(self) -> None:
        self._pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, 2 * self._pause_s))
        self._again_s = time.monotonic() + self._pause_s

    def _close_link(self) -> None:
        if self.link is not None:
            self.link.close()
            self.link = None


def prepare() -> None:
    """Before the first fork: what the children never free stays where it is, so its pages stay shared."""
    gc.collect()
    gc.freeze()


def fork(link: socket.socket, work: Callable[[socket.socket], None]) -> int:
    """A process that keeps `link` and the log, does `work(link)` and ends; returns its id. Raises OSError.

    The caller must have one thread only.
    """
    parent = os.getpid()
    process_id = os.fork()
    if process_id == 0:
        _child(link, parent, work)
    return process_id


def _child(link: socket.socket, parent: int, work: Callable[[socket.socket], None]) -> None:
    """The life of a child; never returns."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent says when: systemd signals both at once
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            _close_all_but(link.fileno())
            quiet_libraries()
            work(link)
        status = 0
    except Exception as error:
        _LOG.error("a receiving process broke: %s", type(error).__name__)
    finally:
        os._exit(status)


def _close_all_but(kept: int) -> None:
    """Above all the listening socket and the other associations' links, whose ends must be noticed."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(name) > 2 and int(name) != kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _serve(link: socket.socket, settings: Settings) -> None:
    """Associations, one thread each, until the parent closes the link."""
    associations: list[Association] = []
    while True:
        message, handles, _, _ = socket.recv_fds(link, 64, 2)
        if not message:
            break
        associations = [one for one in associations if one.is_alive()]
        connection, ledger = (socket.socket(fileno=handle) for handle in handles)
        association = Association(int(message), connection, ledger, settings)
        try:
            association.start()
        except (OSError, RuntimeError):  # the peer is gone already, or no thread is to be had
            connection.close()
            ledger.close()
        else:
            associations.append(association)
    for association in associations:
        association.stop()
    for association in associations:
        association.join()
