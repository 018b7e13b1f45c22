"""Energy, where the board measures it: one interface over what the makers offer.

INA3221 (Jetson): kernel Documentation/hwmon/ina3221.rst (`in*_label`, `in*_input` in mV, `curr*_input` in mA); rails by
the NVIDIA Jetson Linux Developer Guide, "Jetson Orin Nano Series ...", power monitors. The older driver of Jetson Linux
32 lies below iio (`rail_name_*`, `in_power*_input` in mW). INA238 (input of Jetson Thor): kernel
Documentation/hwmon/ina238.rst (`power1_input` in uW).
Raspberry Pi 5: `vcgencmd pmic_read_adc`, volts and amperes of every rail behind the power management chip.
x86: kernel Documentation/power/powercap/powercap.rst, zones intel-rapl (`energy_uj`, `max_energy_range_uj`).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from edge.care.hardware.programs import Run, run_program
from edge.care.hardware.sysfs import Tree

SAMPLE_EVERY_S: Final = 0.2
VIN: Final = "VIN"
INPUT_RAILS: Final = (VIN, "VDD_IN", "POM_5V_IN")  # what the whole module draws, where the board has such a rail
MILLI, MICRO = 1e-3, 1e-6
_HWMON, _IIO = "sys/class/hwmon/hwmon*", "sys/bus/i2c/drivers/ina3221x/*/iio:device*"
_RAPL: Final = "sys/class/powercap/intel-rapl:*"
_ADC = re.compile(r"^\s*(\w{1,32})_([AV]) (?:current|volt)\(\d+\)=(-?\d{1,6}\.\d{1,12})[AV]\s*$", re.MULTILINE)


class Sensor(Protocol):
    """scope: which part of the board it sees, in words. energy_j: joules since it was opened, None if it failed."""

    name: str
    scope: str
    whole_board: bool

    def energy_j(self) -> float | None: ...


@dataclass(frozen=True)
class Absent:
    """No sensor. why: a sentence for the result."""

    why: str


class PowerSensor:
    """Watts now, added up over the time between two looks (trapezoid)."""

    def __init__(
        self,
        name: str,
        scope: str,
        whole_board: bool,
        watts: Callable[[], float | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """watts: looks now. clock: for tests."""
        self.name, self.scope, self.whole_board = name, scope, whole_board
        self._watts, self._clock = watts, clock
        self._last: tuple[float, float] | None = None
        self._sum_j = 0.0

    def energy_j(self) -> float | None:
        """See `Sensor`."""
        watts, now_s = self._watts(), self._clock()
        if watts is None:
            return None
        if self._last is not None:
            self._sum_j += (now_s - self._last[0]) * (watts + self._last[1]) / 2.0
        self._last = (now_s, watts)
        return self._sum_j


class CounterSensor:
    """Counters of microjoules that begin anew at their range (powercap)."""

    whole_board = False

    def __init__(self, name: str, scope: str, tree: Tree, zones: list[Path]) -> None:
        self.name, self.scope = name, scope
        self._tree = tree
        self._ranges = {zone: tree.number(zone / "max_energy_range_uj") or 0 for zone in zones}
        self._last: dict[Path, int] = {}
        self._sum_uj = 0

    def energy_j(self) -> float | None:
        """See `Sensor`. Exact as long as it is asked more often than a counter goes round (a minute at least)."""
        for zone, range_uj in self._ranges.items():
            now_uj = self._tree.number(zone / "energy_uj")
            if now_uj is None:
                return None
            before_uj = self._last.get(zone, now_uj)
            self._sum_uj += now_uj - before_uj if now_uj >= before_uj else now_uj + range_uj - before_uj
            self._last[zone] = now_uj
        return self._sum_uj * MICRO


def open_sensor(tree: Tree | None = None, run: Run = run_program) -> Sensor | Absent:
    """The board's best sensor: of the whole board before one of a part. tree, run: for tests."""
    tree = tree or Tree()
    found = _monitors(tree) or _pmic(run) or _rapl(tree)
    if found is not None:
        return found
    if tree.find(_RAPL):
        return Absent("The processor counts its energy (powercap), but only root may read the counters.")
    return Absent("This machine has no INA3221 or INA238, no pmic_read_adc and no powercap counters of energy.")


def _monitors(tree: Tree) -> PowerSensor | None:
    rails = _rails_w(tree)
    if not rails:
        return None
    whole = next((name for name in INPUT_RAILS if name in rails), None)
    counted = (whole,) if whole else tuple(rails)
    scope = f"input of the module ({whole})" if whole else f"rails {', '.join(counted)}, not the carrier board"
    name = "INA238" if whole == VIN else "INA3221"
    return PowerSensor(name, scope, whole is not None, lambda: _sum(_rails_w(tree), counted))


def _sum(rails: Mapping[str, float], counted: tuple[str, ...]) -> float | None:
    return sum(rails[name] for name in counted) if all(name in rails for name in counted) else None


def _rails_w(tree: Tree) -> dict[str, float]:
    """Watts by the name of the rail."""
    rails: dict[str, float] = {}
    for device in tree.find(_HWMON):
        microwatts = tree.number(device / "power1_input")
        if tree.text(device / "name") == "ina238" and microwatts is not None:
            rails[VIN] = microwatts * MICRO
        if tree.text(device / "name") == "ina3221":
            for channel in (1, 2, 3):
                label = tree.text(device / f"in{channel}_label")
                millivolts = tree.number(device / f"in{channel}_input")
                milliamperes = tree.number(device / f"curr{channel}_input")
                if label and label != "NC" and millivolts is not None and milliamperes is not None:
                    rails[label] = millivolts * MILLI * milliamperes * MILLI
    for device in tree.find(_IIO):
        for channel in (0, 1, 2):
            label = tree.text(device / f"rail_name_{channel}")
            milliwatts = tree.number(device / f"in_power{channel}_input")
            if label and label != "NC" and milliwatts is not None:
                rails[label] = milliwatts * MILLI
    return rails


def _pmic(run: Run) -> PowerSensor | None:
    if _pmic_w(run) is None:
        return None
    scope = "rails behind the power management chip; its own losses and the USB ports are not in it"
    return PowerSensor("pmic_read_adc", scope, False, lambda: _pmic_w(run))


def _pmic_w(run: Run) -> float | None:
    """Sum of volts times amperes of the rails that have both."""
    text = (run(("vcgencmd", "pmic_read_adc")) or b"").decode("ascii", "replace")
    found: dict[str, dict[str, float]] = {}
    for rail, unit, value in _ADC.findall(text):
        found.setdefault(rail, {})[unit] = float(value)
    watts = [both["A"] * both["V"] for both in found.values() if len(both) == 2]
    return sum(watts) if watts else None


def _rapl(tree: Tree) -> CounterSensor | None:
    """The platform's counter where there is one, else packages and memory; sub-zones of a package are in it already."""
    zones = {zone: tree.text(zone / "name") or "" for zone in tree.find(_RAPL)}
    chosen = [zone for zone, name in zones.items() if name == "psys"]
    chosen = chosen or [zone for zone, name in zones.items() if name.startswith("package") or name == "dram"]
    readable = [zone for zone in chosen if tree.number(zone / "energy_uj") is not None]
    if not chosen or len(readable) < len(chosen):
        return None
    scope = f"processor counters {', '.join(zones[zone] for zone in chosen)}, not the whole machine"
    return CounterSensor("RAPL", scope, tree, chosen)


@dataclass(frozen=True)
class Mark:
    """A moment: monotonic seconds and joules up to then; None if the sensor failed."""

    at_s: float
    joules: float | None


class Meter:
    """Looks at a sensor five times a second in a thread of its own; `mark` looks at once."""

    def __init__(self, sensor: Sensor, every_s: float = SAMPLE_EVERY_S) -> None:
        self.sensor = sensor
        self._every_s = every_s
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="energy", daemon=True)
        self._thread.start()

    def mark(self) -> Mark:
        """Look now."""
        with self._lock:
            return Mark(time.monotonic(), self.sensor.energy_j())

    def stop(self) -> None:
        """End the thread; harmless a second time."""
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(self._every_s):
            self.mark()


def mean_w(first: Mark, second: Mark) -> float | None:
    """Mean power between two marks, None where one failed or no time passed."""
    passed_s = second.at_s - first.at_s
    if first.joules is None or second.joules is None or passed_s <= 0.0:
        return None
    return (second.joules - first.joules) / passed_s
