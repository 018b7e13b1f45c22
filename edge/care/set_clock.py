"""Setting this machine's clocks. Needs CAP_SYS_TIME, and access to the clock's device for the battery-backed one.

clock_settime(2). The battery-backed clock: ioctl RTC_SET_TIME with struct rtc_time, rtc(4), include/uapi/linux/rtc.h.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from pathlib import Path
from typing import Final

RTC_SET_TIME: Final = 0x4024700A  # _IOW('p', 0x0a, struct rtc_time), nine ints
RTC_DEVICES: Final = (Path("/dev/rtc"), Path("/dev/rtc0"))


def rtc_time(unix_s: float) -> bytes:
    """struct rtc_time in UTC: second, minute, hour, day, month from 0, year from 1900, and three that are not used."""
    utc = time.gmtime(unix_s)
    return struct.pack(
        "9i", utc.tm_sec, utc.tm_min, utc.tm_hour, utc.tm_mday, utc.tm_mon - 1, utc.tm_year - 1900, 0, 0, 0
    )


class SystemClock:
    """See `edge.care.clock.Setter`."""

    def set_time(self, unix_s: float) -> None:
        """Raises OSError."""
        time.clock_settime(time.CLOCK_REALTIME, unix_s)

    def set_rtc(self, unix_s: float) -> bool:
        """True if one of the board's battery-backed clocks took it."""
        return any(_set(device, unix_s) for device in RTC_DEVICES)


def _set(device: Path, unix_s: float) -> bool:
    try:
        handle = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.ioctl(handle, RTC_SET_TIME, rtc_time(unix_s))
    except OSError:
        return False
    finally:
        os.close(handle)
    return True
