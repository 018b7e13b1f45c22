"""What the hardware knows of the last reset: the watchdog's boot status and the kernel's record of a panic.

bootstatus: kernel Documentation/ABI/testing/sysfs-class-watchdog, bits in include/uapi/linux/watchdog.h. A driver that
does not know the reason says 0, and some keep a bit until the power is removed.
Panic records: kernel Documentation/admin-guide/pstore-blk.rst and ramoops.rst (`/sys/fs/pstore/dmesg-*`);
systemd-pstore.service(8) moves them to /var/lib/systemd/pstore.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edge.care.hardware.sysfs import Tree

# "warm": reset while it had power, and nothing says by what.
ResetCause = Literal["power-on", "watchdog", "reboot", "crash", "warm"]

WDIOF_OVERHEAT: Final = 0x01
WDIOF_POWERUNDER: Final = 0x10
WDIOF_CARDRESET: Final = 0x20
WDIOF_POWEROVER: Final = 0x40
LIMIT_RECORDS: Final = 200
_RECORDS = (
    "sys/fs/pstore/dmesg-*",
    "var/lib/systemd/pstore/dmesg*",
    "var/lib/systemd/pstore/*/dmesg*",
    "var/lib/systemd/pstore/*/*/dmesg*",
)


@dataclass(frozen=True)
class Reset:
    """`detail`: one plain sentence."""

    cause: ResetCause
    detail: str


def watchdog_reset(tree: Tree) -> Reset | None:
    """What a hardware watchdog found at the start; None where none says anything."""
    found = 0
    for device in tree.find("sys/class/watchdog/watchdog*"):
        bits = tree.number(device / "bootstatus", 0)
        found |= bits if bits is not None and 0 <= bits < 2**32 else 0
    if found & WDIOF_CARDRESET:
        return Reset("watchdog", "The hardware watchdog reset the box because it no longer answered.")
    if found & WDIOF_OVERHEAT:
        return Reset("crash", "The board reset itself because it was too hot.")
    if found & (WDIOF_POWERUNDER | WDIOF_POWEROVER):
        return Reset("power-on", "The voltage of the power supply was wrong.")
    return None


def watchdog_armed(tree: Tree) -> bool:
    """True if a hardware watchdog runs now, which is so from early boot on where systemd was told to."""
    return any(tree.text(device / "state") == "active" for device in tree.find("sys/class/watchdog/watchdog*"))


def panic_records(tree: Tree) -> frozenset[str]:
    """Names of all kernel panics on record, with their times: a name may come again."""
    names = [_record(tree.root, path) for pattern in _RECORDS for path in tree.find(pattern)]
    return frozenset(name for name in names[:LIMIT_RECORDS] if name)


def _record(root: Path, path: Path) -> str:
    try:
        return f"{path.relative_to(root)}@{int(path.lstat().st_mtime)}"
    except OSError:
        return ""
