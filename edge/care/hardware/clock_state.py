"""Whether the wall clock can be believed: set at all, kept right by something, or made to jump.

Synchronised: adjtimex(2), status bit STA_UNSYNC (include/uapi/linux/timex.h), which systemd-timesyncd, chrony and ntpd
clear. Where a service may not ask (systemd ProtectClock=), the file of systemd-timesyncd.service(8) is looked at.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from typing import Final

from edge.care.hardware.readings import Clock
from edge.care.hardware.sysfs import Tree

RELEASED_UNIX_S: Final = 1_795_305_600  # 2026-11-22: no clock that is right shows an earlier time; raised by a release
STEP_S: Final = 60.0  # a smaller jump harms nobody
STEPPED_FOR_S: Final = 3600.0  # so long a jump is told
STA_UNSYNC: Final = 0x0040
TIMESYNC_FILE: Final = "/run/systemd/timesync/synchronized"


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), glibc."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "seconds", "microseconds", "tick")),
        *((name, ctypes.c_long) for name in ("ppsfreq", "jitter")),
        ("shift", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


def kernel_synchronised() -> bool | None:
    """What adjtimex(2) says without changing anything; None where this process may not ask."""
    asked = _Timex(modes=0)
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(asked)) < 0:
        return None
    return not asked.status & STA_UNSYNC


def uptime_s() -> float:
    """Seconds since the start, time asleep included (CLOCK_BOOTTIME): what nobody can set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockSight:
    """Watches the wall clock against the time since the start."""

    def __init__(
        self,
        tree: Tree,
        wall: Callable[[], float] = time.time,
        uptime: Callable[[], float] = uptime_s,
        synchronised: Callable[[], bool | None] = kernel_synchronised,
    ) -> None:
        """wall, uptime, synchronised: for tests."""
        self._tree = tree
        self._wall = wall
        self._uptime = uptime
        self._synchronised = synchronised
        self._last: tuple[float, float] | None = None  # wall clock less uptime, and the wall clock, at the last look
        self._step: tuple[float, float] | None = None  # uptime at a jump, and how far

    def read(self) -> Clock:
        """Look now. A clock that gets its first believable time is not said to have jumped."""
        wall_s, up_s = self._wall(), self._uptime()
        if self._last is not None:
            step_s = wall_s - up_s - self._last[0]
            if abs(step_s) > STEP_S:
                self._step = (up_s, step_s) if is_set(self._last[1]) else None
        self._last = (wall_s - up_s, wall_s)
        recent = self._step if self._step and up_s - self._step[0] < STEPPED_FOR_S else None
        synchronised = self._synchronised()
        if synchronised is None:
            synchronised = self._tree.exists(TIMESYNC_FILE)
        rtc = any(os.path.lexists(path) for path in self._tree.find("sys/class/rtc/rtc*"))
        if not is_set(wall_s):
            return Clock("unset", False, rtc)
        return Clock("stepped", synchronised, rtc, recent[1]) if recent else Clock("set", synchronised, rtc)


def is_set(unix_s: float) -> bool:
    """False for a time before this release was made: nobody has set the clock, and no battery kept it."""
    return unix_s >= RELEASED_UNIX_S
