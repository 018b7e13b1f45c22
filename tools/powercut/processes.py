"""Processes of a run: all die with it, and all die in a power cut."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import psutil

PR_SET_CHILD_SUBREAPER = 36  # prctl(2): orphans of our children become our children
POLL_S = 0.005


class Stuck(RuntimeError):
    """Something of the harness itself did not work: the run says nothing about the product."""


def adopt_orphans() -> None:
    """Keep grandchildren within reach of `kill_descendants`, whoever started them."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def spawn(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `command`, its output appended to `log`; it gets SIGKILL when this process dies."""
    with log.open("ab") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL and reap; harmless if it ended before."""
    process.kill()
    process.wait()


def kill_descendants(spare: Sequence[int] = ()) -> None:
    """SIGKILL every process that this one started, directly or not, but those of the process ids `spare`."""
    while True:
        living = [one for one in psutil.Process().children(recursive=True) if one.pid not in spare]
        if not living:
            return
        for one in living:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(living, timeout=5)


def run(*command: str | Path, accepted: Sequence[int] = (0,)) -> str:
    """Run to its end and return what it printed. Raises Stuck for another exit status than `accepted`."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    if done.returncode not in accepted:
        raise Stuck(
            f"expected {command[0]} to work, got status {done.returncode}: {(done.stdout + done.stderr)[-400:]}"
        )
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Poll. Raises Stuck naming `what` after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise Stuck(f"expected {what} within {timeout_s:g} s, got nothing")
        time.sleep(POLL_S)


def free_port() -> int:
    """A TCP port of the loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """True if something accepts connections on the loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ignore_stop_signals() -> None:
    """From here on nothing interrupts the tidying up."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt like Ctrl-C does; the first one is the last that is listened to."""

    def stop(number: int, _: FrameType | None) -> None:
        ignore_stop_signals()
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
