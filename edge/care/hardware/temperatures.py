"""Temperatures of a board, and whether the kernel holds its processors back because of them.

Thermal zones: kernel Documentation/driver-api/thermal/sysfs-api.rst (`temp` in millidegrees, `type`).
Hwmon: kernel Documentation/hwmon/sysfs-interface.rst (`temp*_input` in millidegrees, `temp*_label`, `name`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge.care.hardware.sysfs import Tree, plain_name

LOWEST_C: Final = -40.0
HIGHEST_C: Final = 150.0  # silicon is dead before
_MILLI = 1000.0
# Zones that measure nothing: NVIDIA's Tegra X1 and X2 boards report 100 degrees for this one, always.
_NOT_MEASURED: Final = frozenset({"PMIC-Die"})
# Cooling devices of the kernel that slow a processor down while their state is not 0 (sysfs-api.rst, cur_state):
# drivers/thermal/cpufreq_cooling.c, drivers/acpi/processor_thermal.c, and the throttle alerts of NVIDIA's Jetson Linux.
_THROTTLES_START: Final = ("cpufreq-", "thermal-cpufreq-")
_THROTTLES_END: Final = ("-throttle-alert", "hot-surface-alert")


def temperatures_c(tree: Tree) -> dict[str, float]:
    """Every plausible temperature by the name of its sensor."""
    found: dict[str, float] = {}
    zones = set()
    for zone in tree.find("sys/class/thermal/thermal_zone*"):
        kind = tree.text(zone / "type") or zone.name
        zones.add(kind.replace("-", "_"))  # thermal_hwmon.c gives each zone's twin below hwmon this name
        if kind not in _NOT_MEASURED:
            _add(found, kind, _celsius(tree, zone / "temp"))
    for device in tree.find("sys/class/hwmon/hwmon*"):
        name = tree.text(device / "name") or device.name
        if name in zones:
            continue
        for path in tree.find(f"{device.relative_to(tree.root)}/temp*_input"):
            sensor = path.name.removesuffix("_input")
            label = tree.text(device / f"{sensor}_label") or sensor
            _add(found, f"{name} {label}", _celsius(tree, path))
    return found


def processors_held_back(tree: Tree) -> bool:
    """True while the kernel slows a processor down because something is too hot."""
    return any(
        _throttles(tree.text(device / "type") or "") and (tree.number(device / "cur_state") or 0) > 0
        for device in tree.find("sys/class/thermal/cooling_device*")
    )


def _throttles(kind: str) -> bool:
    return kind == "Processor" or kind.startswith(_THROTTLES_START) or kind.endswith(_THROTTLES_END)


def _celsius(tree: Tree, path: Path) -> float | None:
    milli = tree.number(path)
    return None if milli is None or not LOWEST_C <= milli / _MILLI <= HIGHEST_C else milli / _MILLI


def _add(found: dict[str, float], name: str, value: float | None) -> None:
    """Two sensors of one name keep the higher value: what matters is the hotter one."""
    name = plain_name(name) or "sensor"
    if value is not None:
        found[name] = max(value, found.get(name, value))
