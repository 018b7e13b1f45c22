"""NVIDIA Jetson: over-current and under-voltage events, and the source of the last reset.

Events: NVIDIA Jetson Linux Developer Guide, "Platform Power and Performance", over-current events: hwmon `soctherm_oc`,
`oc1_event_cnt` (the input voltage fell), `oc2_event_cnt` (average current), `oc3_event_cnt` (instantaneous current);
each counts from 0 at boot. Reset: kernel drivers/soc/tegra/pmc.c, attribute `reset_reason` of the power management
controller, one of the names in `tegra*_reset_sources`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge.care.hardware.reset import Reset
from edge.care.hardware.sysfs import Tree

HOLD_S: Final = 60.0  # an event is over in microseconds; people need longer to see it
VOLTAGE_EVENTS: Final = frozenset({"oc1_event_cnt"})
_REASONS = ("sys/devices/platform/*.pmc/reset_reason", "sys/devices/platform/*/*.pmc/reset_reason")
_POWER_ON = frozenset({"SYS_RESET", "SYS_RESET_N", "POWER_ON_RESET"})
_REBOOT = frozenset({"MAINSWRST", "SWREST", "SW_MAIN"})
_HEAT = frozenset({"SENSOR", "AOTAG"})


@dataclass(frozen=True)
class Events:
    """`*_now`: within the last minute."""

    overcurrent_now: bool = False
    undervoltage_now: bool = False
    undervoltage_since_boot: bool = False


class EventCounters:
    """Remembers the counters between two looks; what had happened before the first look is not "now"."""

    def __init__(self, tree: Tree, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: for tests."""
        self._tree = tree
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._grew_s: dict[str, float] = {}

    def read(self) -> Events:
        """Look at the counters now."""
        now_s = self._clock()
        counts = self._read_counts()
        for name, count in counts.items():
            if count > self._counts.get(name, count):
                self._grew_s[name] = now_s
        self._counts.update(counts)
        recent = {name for name, grew_s in self._grew_s.items() if now_s - grew_s < HOLD_S}
        return Events(
            overcurrent_now=bool(recent - VOLTAGE_EVENTS),
            undervoltage_now=bool(recent & VOLTAGE_EVENTS),
            undervoltage_since_boot=any(counts.get(name, 0) > 0 for name in VOLTAGE_EVENTS),
        )

    def _read_counts(self) -> dict[str, int]:
        counts = {}
        for path in self._tree.find("sys/class/hwmon/hwmon*/oc*_event_cnt"):
            count = self._tree.number(path)
            if count is not None and count >= 0:
                counts[path.name] = count
        return counts


def reset(tree: Tree) -> Reset | None:
    """What the power management controller says of the last reset; None on another board."""
    names = [tree.text(path) or "" for pattern in _REASONS for path in tree.find(pattern)]
    return next((found for name in names if (found := _meaning(name))), None)


def _meaning(name: str) -> Reset | None:
    if name in _POWER_ON:
        return Reset("power-on", "The power came on, or the reset button was pressed.")
    if name.endswith("WDT") or name == "WATCHDOG":
        return Reset("watchdog", f"The watchdog of the processor reset the box ({name}).")
    if name in _REBOOT:
        return Reset("reboot", "Software asked for the reset.")
    if name in _HEAT:
        return Reset("crash", "The board switched itself off because it was too hot.")
    return None
