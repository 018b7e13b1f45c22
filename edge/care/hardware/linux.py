"""A real board: everything a Linux kernel and the makers' drivers tell, whichever board it is.

Each part is asked on every board; a board without it has no such files.
/proc: kernel Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import math
import re
from typing import Final

from edge.board import Board
from edge.box_words import BoxState
from edge.care.boot import read_mark, why
from edge.care.hardware import jetson, lights, pi
from edge.care.hardware.clock_state import ClockSight
from edge.care.hardware.fan import set_fan
from edge.care.hardware.power import power_source
from edge.care.hardware.programs import Remembered, Run, run_program
from edge.care.hardware.readings import Boot, Readings
from edge.care.hardware.reset import panic_records, watchdog_armed, watchdog_reset
from edge.care.hardware.sysfs import Tree, whole
from edge.care.hardware.temperatures import processors_held_back, temperatures_c
from edge.care.hardware.wear import wear_percent
from edge.durable import DiskUse, disk_use
from edge.errors import StorageError
from edge.store_paths import boot_id

WEAR_EVERY_S: Final = 3600.0
FIRMWARE_EVERY_S: Final = 30.0
_AVAILABLE = re.compile(r"^MemAvailable:\s*(\d{1,15}) kB$", re.MULTILINE)
_LONGEST_S: Final = 1e10  # three hundred years


class LinuxHardware:
    """See `edge.care.hardware.readings.Hardware`."""

    def __init__(
        self, board: Board, tree: Tree | None = None, run: Run = run_program, sight: ClockSight | None = None
    ) -> None:
        """tree: this machine's files; run: starts a program; sight: of the clock. All for tests."""
        self._board = board
        self._tree = tree or Tree()
        self._wear_run = Remembered(run, WEAR_EVERY_S)
        self._firmware_run = Remembered(run, FIRMWARE_EVERY_S)
        self._sight = sight or ClockSight(self._tree)
        self._counters = jetson.EventCounters(self._tree)
        self._boot: Boot | None = None

    def read(self) -> Readings:
        """Look now."""
        tree = self._tree
        bits = pi.throttling(pi.read_throttled(tree, self._firmware_run) or 0)
        events = self._counters.read()
        held_back = bits.throttled or processors_held_back(tree)
        low = bits.undervoltage or pi.low_voltage_alarm(tree) or events.undervoltage_now
        use = self._disk_use()
        return Readings(
            clock=self._sight.read(),
            temperatures_c=temperatures_c(tree),
            throttled=held_back,
            throttled_since_boot=held_back or bits.throttled_since_boot,
            undervoltage=low,
            undervoltage_since_boot=low or bits.undervoltage_since_boot or events.undervoltage_since_boot,
            overcurrent=events.overcurrent_now,
            wear_percent=wear_percent(tree, self._wear_run),
            free_bytes=use.free if use else None,
            total_bytes=use.size if use else None,
            load_1m=self._first_number("/proc/loadavg", 1e6),
            memory_free_bytes=self._memory_free_bytes(),
            uptime_s=self._first_number("/proc/uptime", _LONGEST_S),
            accelerators={node: self._has_node(node) for node in self._board.hardware.accelerators},
            power=power_source(tree),
        )

    def boot(self) -> Boot:
        """Why this boot came about, found out once and before care writes its own mark."""
        if self._boot is None:
            tree = self._tree
            reset = jetson.reset(tree) or watchdog_reset(tree) or pi.reset(tree)
            before = read_mark(self._board.data_dir)
            self._boot = why(boot_id(), before, reset, panic_records(tree), watchdog_armed(tree))
        return self._boot

    def panics(self) -> frozenset[str]:
        """Records of panics that exist now."""
        return panic_records(self._tree)

    def set_light(self, state: BoxState) -> bool:
        """True if every light that the board names shows the state."""
        shown = [lights.show(self._tree, name, state) for name in self._board.hardware.leds]
        return all(shown)

    def set_fan(self, percent: float) -> bool:
        """True if the fan that the board names was told, or it names none."""
        fan = self._board.hardware.fan
        return not fan or set_fan(self._tree, fan, percent)

    def _has_node(self, node: str) -> bool:
        """In /dev, or in sysfs where a service does not see the devices (systemd PrivateDevices=)."""
        name = node.rpartition("/")[2]
        known = re.fullmatch(r"[A-Za-z0-9_.-]+", name) is not None
        return self._tree.exists(node) or (known and bool(self._tree.find(f"sys/class/*/{name}")))

    def _disk_use(self) -> DiskUse | None:
        try:
            return disk_use(self._board.data_dir)
        except StorageError:
            return None

    def _memory_free_bytes(self) -> int | None:
        found = _AVAILABLE.search(self._tree.text("/proc/meminfo") or "")
        kib = whole(found[1]) if found else None
        return None if kib is None else kib * 1024

    def _first_number(self, path: str, highest: float) -> float | None:
        words = (self._tree.text(path) or "").split()
        try:
            value = float(words[0]) if words else math.nan
        except ValueError:
            return None
        return value if 0.0 <= value <= highest else None
