"""What a machine is made of, read from its files alone: nothing is imported, loaded, opened or started.

/proc/device-tree: Devicetree Specification 0.4, 2.3 (`model`, `compatible`: NUL-separated texts).
/etc/nv_tegra_release: NVIDIA Jetson Linux ("# R36 (release), REVISION: 4.3, ..."). /sys/bus/pci, /sys/bus/usb: kernel
Documentation/ABI.
"""

from __future__ import annotations

import importlib.util
import platform
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from edge.board_probe.parts import PARTS, RUNTIMES
from edge.care.hardware.sysfs import Tree

LIBRARY_FOLDERS: Final = (
    *("usr/lib", "usr/lib64", "usr/local/lib", "usr/lib/teflon", "usr/lib/*-linux-gnu", "usr/lib/*-linux-gnu/*"),
    "usr/local/lib/*-linux-gnu",
)
PACKAGE_FOLDERS: Final = ("usr/lib/python3*/*-packages", "usr/local/lib/python3*/*-packages")
# Arm's identification of a processor (MIDR_EL1, implementer 0x41), as /proc/cpuinfo prints it.
ARM_PARTS: Final = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD83: "Neoverse-V3AE",
}
LONGEST_NAME: Final = 80
_RELEASE = re.compile(r"#\s*R(\d{1,3}) \(release\), REVISION:\s*([0-9.]{1,16})")
_ID = re.compile(r"(?:0x)?([0-9a-f]{4})")


@dataclass(frozen=True)
class Found:
    """The machine; what could not be read is empty or 0.

    processors: name -> how many. l4t: such as "36.4.3". pci, usb: "vendor:device". nodes: of accelerators, with those
    of a DRM driver as "DRIVER=name". libraries: file names. packages: Python modules -> True where this very Python
    would find it, False where only the system's would.
    """

    machine: str
    model: str
    compatible: tuple[str, ...]
    system: str
    l4t: str
    processors: dict[str, int]
    memory_bytes: int
    pci: tuple[str, ...]
    usb: tuple[str, ...]
    nodes: tuple[str, ...]
    libraries: tuple[str, ...]
    packages: dict[str, bool]

    def is_compatible(self, patterns: tuple[str, ...]) -> bool:
        """True if the device tree names one of `patterns` (a trailing * stands for any ending)."""
        return any(fnmatchcase(name, pattern) for name in self.compatible for pattern in patterns)


def look(tree: Tree | None = None) -> Found:
    """This machine, or the one whose files lie in `tree`. Never raises: what cannot be read is left out."""
    tree = tree or Tree()
    cpuinfo = tree.text("/proc/cpuinfo") or ""
    own = tree.root == Path("/")
    return Found(
        machine=platform.machine() if own else _machine(cpuinfo),
        model=_plain(tree.text("/proc/device-tree/model") or ""),
        compatible=_texts(tree, "/proc/device-tree/compatible"),
        system=_system(tree),
        l4t=_l4t(tree),
        processors=_processors(cpuinfo),
        memory_bytes=_memory_bytes(tree),
        pci=_numbered(tree, "sys/bus/pci/devices/*", "vendor", "device"),
        usb=_numbered(tree, "sys/bus/usb/devices/*", "idVendor", "idProduct"),
        nodes=_nodes(tree),
        libraries=_libraries(tree),
        packages=_packages(tree, own),
    )


def _texts(tree: Tree, path: str) -> tuple[str, ...]:
    return tuple(_plain(text) for text in (tree.text(path) or "").split("\0") if text)


def _plain(text: str) -> str:
    """A name from outside as something that can stand in a line."""
    return re.sub(r"[^ -~]", "", text)[:LONGEST_NAME].strip()


def _machine(cpuinfo: str) -> str:
    """Another machine's `uname -m`, from how its processors describe themselves."""
    return "aarch64" if "CPU implementer" in cpuinfo else "x86_64" if "vendor_id" in cpuinfo else ""


def _system(tree: Tree) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', tree.text("/etc/os-release") or "", re.MULTILINE)
    return _plain(found[1]) if found else ""


def _l4t(tree: Tree) -> str:
    found = _RELEASE.match(tree.text("/etc/nv_tegra_release") or "")
    return f"{found[1]}.{found[2]}" if found else ""


def _processors(cpuinfo: str) -> dict[str, int]:
    names = [
        ARM_PARTS.get(int(part, 16), f"Arm 0x{part}")
        for part in re.findall(r"^CPU part\s*: 0x([0-9a-f]{3})$", cpuinfo, re.M)
    ]
    names += [_plain(name) for name in re.findall(r"^model name\s*: (.*)$", cpuinfo, re.M) if not names]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def _memory_bytes(tree: Tree) -> int:
    found = re.search(r"^MemTotal:\s*(\d{1,15}) kB$", tree.text("/proc/meminfo") or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _numbered(tree: Tree, devices: str, *attributes: str) -> tuple[str, ...]:
    found = []
    for device in tree.find(devices):
        numbers = [_ID.fullmatch((tree.text(device / name) or "").lower()) for name in attributes]
        found.append(":".join(number[1] for number in numbers if number))
    return tuple(sorted({number for number in found if ":" in number}))


def _nodes(tree: Tree) -> tuple[str, ...]:
    patterns = dict.fromkeys(pattern for part in PARTS for pattern in part.nodes)
    nodes = [f"/{path.relative_to(tree.root)}" for pattern in patterns for path in tree.find(pattern)]
    drivers = {
        line
        for path in tree.find("sys/class/drm/renderD*/device/uevent")
        for line in (tree.text(path) or "").splitlines()
        if line.startswith("DRIVER=") and line.removeprefix("DRIVER=") in {part.driver for part in PARTS if part.driver}
    }
    return (*nodes, *sorted(drivers))


def _libraries(tree: Tree) -> tuple[str, ...]:
    patterns = dict.fromkeys(pattern for part in PARTS for pattern in part.libraries)
    found = {
        path.name for folder in LIBRARY_FOLDERS for pattern in patterns for path in tree.find(f"{folder}/{pattern}")
    }
    return tuple(sorted(found))


def _packages(tree: Tree, own: bool) -> dict[str, bool]:
    groups = [*(group for part in PARTS for group in part.packages), *RUNTIMES.values()]
    found = {}
    for name in (name for group in groups for name in group):
        system = any(tree.find(f"{folder}/{name}") for folder in PACKAGE_FOLDERS)
        seen = importlib.util.find_spec(name) is not None if own else system
        if system or seen:
            found[name] = seen
    return found
