"""The fan: how fast it should turn for a temperature, and how a board is told.

Kernel Documentation/hwmon/sysfs-interface.rst (`pwm1` 0 to 255, `pwm1_enable` 1: by hand) or a cooling device
(Documentation/driver-api/thermal/sysfs-api.rst: `cur_state` 0 to `max_state`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge.care.hardware.sysfs import Tree

EASE_C: Final = 5.0  # so much cooler than a step's start before the fan slows down again
# Degrees below the temperature at which the box slows down, and percent from there on.
STEPS: Final[Sequence[tuple[float, float]]] = ((30.0, 30.0), (20.0, 50.0), (10.0, 75.0), (3.0, 100.0))
_PWM_FULL, _BY_HAND = 255, "1"


def fan_percent(hottest_c: float | None, before_percent: float, slow_c: float) -> float:
    """The speed, 0 to 100. It rises at once, and falls only when the box is EASE_C cooler than the step asks for.

    Full speed where nothing measures a temperature.
    """
    if hottest_c is None:
        return 100.0
    rising = _step(hottest_c, slow_c)
    return rising if rising >= before_percent else min(before_percent, _step(hottest_c + EASE_C, slow_c))


def _step(temperature_c: float, slow_c: float) -> float:
    return max((percent for below_c, percent in STEPS if temperature_c >= slow_c - below_c), default=0.0)


def set_fan(tree: Tree, name: str, percent: float) -> bool:
    """Turn the fan `name` (a hwmon name or the type of a cooling device). False where it is missing or refuses."""
    share = min(100.0, max(0.0, percent)) / 100.0
    for device in tree.find("sys/class/hwmon/hwmon*"):
        if tree.text(device / "name") == name and tree.exists(device / "pwm1"):
            by_hand = tree.text(device / "pwm1_enable")
            if by_hand not in (None, _BY_HAND) and not tree.write(device / "pwm1_enable", _BY_HAND):
                return False
            return _set(tree, device / "pwm1", round(share * _PWM_FULL))
    for device in tree.find("sys/class/thermal/cooling_device*"):
        if tree.text(device / "type") == name:
            highest = tree.number(device / "max_state") or 0
            return highest > 0 and _set(tree, device / "cur_state", round(share * highest))
    return False


def _set(tree: Tree, path: Path, value: int) -> bool:
    return tree.number(path) == value or tree.write(path, str(value))
