"""Raspberry Pi: what the firmware says of power and heat, and of the last reset.

get_throttled: Raspberry Pi documentation, "Raspberry Pi OS", vcgencmd get_throttled (bits 0 under-voltage, 1 frequency
capped, 2 throttled, 3 soft temperature limit; 16 to 19 the same since boot). As a file: the firmware driver of the
Raspberry Pi kernel (drivers/firmware/raspberrypi.c, hexadecimal without 0x). `in0_lcrit_alarm` of `rpi_volt`: kernel
Documentation/hwmon/raspberrypi-hwmon.rst.
Reset: `/proc/device-tree/chosen/bootloader/rsts`, the PM_RSTS register as the firmware found it (Raspberry Pi
documentation, config.txt, "Device tree"; bits: drivers/watchdog/bcm2835_wdt.c). The kernel's driver sets no
`bootstatus`, and an ordinary reboot too goes through the watchdog, so a warm reset alone proves no hang.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from edge.care.hardware.programs import Run, run_program
from edge.care.hardware.reset import Reset
from edge.care.hardware.sysfs import Tree, whole

THROTTLED_FILE: Final = "sys/devices/platform/soc*/*firmware*/get_throttled"
RSTS_FILE: Final = "proc/device-tree/chosen/bootloader/rsts"
HAD_POWER_ON: Final = 0x1000  # PM_RSTS_HADPOR
HAD_WATCHDOG: Final = 0x70  # PM_RSTS_HADWRQ, HADWRF, HADWRH
_UNDERVOLTAGE, _HELD_BACK, _SINCE_BOOT = 0x1, 0xE, 16
_VCGENCMD = re.compile(rb"throttled=0x([0-9a-fA-F]{1,8})\s*")


@dataclass(frozen=True)
class Throttling:
    """Now, and at some time since the box started."""

    throttled: bool = False
    throttled_since_boot: bool = False
    undervoltage: bool = False
    undervoltage_since_boot: bool = False


def throttling(bits: int) -> Throttling:
    """The meaning of the firmware's number; unknown bits mean nothing."""
    since = bits >> _SINCE_BOOT
    return Throttling(
        throttled=bool(bits & _HELD_BACK),
        throttled_since_boot=bool((bits | since) & _HELD_BACK),
        undervoltage=bool(bits & _UNDERVOLTAGE),
        undervoltage_since_boot=bool((bits | since) & _UNDERVOLTAGE),
    )


def is_pi(tree: Tree) -> bool:
    """True on a Raspberry Pi (device tree: model)."""
    return (tree.text("proc/device-tree/model") or "").startswith("Raspberry Pi")


def read_throttled(tree: Tree, run: Run = run_program) -> int | None:
    """The firmware's number from the kernel's file, else from vcgencmd where that is installed."""
    for path in tree.find(THROTTLED_FILE):
        bits = whole((tree.text(path) or "").lower().removeprefix("0x"), 16)
        if bits is not None and 0 <= bits < 2**32:
            return bits
    if not is_pi(tree):
        return None
    found = _VCGENCMD.fullmatch(run(("vcgencmd", "get_throttled")) or b"")
    return int(found[1], 16) if found else None


def low_voltage_alarm(tree: Tree) -> bool:
    """True while the kernel's voltage monitor of a Raspberry Pi gives the alarm."""
    return any(
        tree.text(device / "name") == "rpi_volt" and tree.number(device / "in0_lcrit_alarm") == 1
        for device in tree.find("sys/class/hwmon/hwmon*")
    )


def reset(tree: Tree) -> Reset | None:
    """What the firmware found at the start; None where it says nothing. The number is big-endian (device tree)."""
    content = tree.content(RSTS_FILE)
    if content is None or len(content) != 4:
        return None
    bits = int.from_bytes(content, "big")
    if bits & HAD_POWER_ON:
        return Reset("power-on", "The power came on.")
    if bits & HAD_WATCHDOG:
        return Reset("warm", "The processor was reset while it had power.")
    return None
