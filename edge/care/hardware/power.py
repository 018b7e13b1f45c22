"""Where the power comes from (kernel Documentation/ABI/testing/sysfs-class-power)."""

from __future__ import annotations

from edge.care.hardware.readings import PowerSource
from edge.care.hardware.sysfs import Tree

_SUPPLIES = frozenset({"Mains", "USB", "Wireless"})


def power_source(tree: Tree) -> PowerSource:
    """ "battery" while one is drained and no supply gives power; "unknown" on a board that does not measure it."""
    online = drained = False
    for device in tree.find("sys/class/power_supply/*"):
        if tree.text(device / "scope") == "Device":  # the battery of a mouse, say
            continue
        kind = tree.text(device / "type") or ""
        online |= kind in _SUPPLIES and (tree.number(device / "online") or 0) > 0
        drained |= kind in ("Battery", "UPS") and tree.text(device / "status") == "Discharging"
    if online:
        return "mains"
    return "battery" if drained else "unknown"
