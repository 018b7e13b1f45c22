"""Each shipped board file held against a machine: what speaks for it, what against, what is missing. The best first."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from edge.board_probe.found import Found
from edge.board_probe.parts import PARTS, RUNTIMES, Part
from edge.board_rules import GIB

JETPACK: Final = {"36": "JetPack 6", "38": "JetPack 7.0 or 7.1", "39": "JetPack 7.2 or later"}
_KERNEL_SHARE: Final = 0.85  # of a board's memory, what the kernel and the firmware leave


@dataclass(frozen=True)
class Candidate:
    """A board file and what it takes: machine, compatible, part and l4t; module and memory are only wished for."""

    board: str
    machine: str
    chip: str = ""  # for people
    compatible: tuple[str, ...] = ()
    module: tuple[str, ...] = ()
    l4t: tuple[str, ...] = ()  # major numbers
    part: str = ""  # backend of an accelerator that is not in the chip
    memory_bytes: int = 4 * GIB


_PI5, _ORIN = ("brcm,bcm2712",), ("nvidia,tegra234",)
_NANO = ("nvidia,*p3767-0003*", "nvidia,*p3767-0004*", "nvidia,*p3767-0005*")
CANDIDATES: Final = (
    Candidate("raspberry-pi-5", "aarch64", "BCM2712 of the Raspberry Pi 5", _PI5),
    Candidate("raspberry-pi-5-coral", "aarch64", "BCM2712 of the Raspberry Pi 5", _PI5, part="edgetpu"),
    Candidate("raspberry-pi-5-hailo", "aarch64", "BCM2712 of the Raspberry Pi 5", _PI5, part="hailo"),
    Candidate("jetson-orin-nano-jp6", "aarch64", "Jetson Orin", _ORIN, _NANO, ("36",)),
    Candidate("jetson-orin-nano-jp7", "aarch64", "Jetson Orin", _ORIN, _NANO, ("39",)),
    Candidate(
        "jetson-agx-thor", "aarch64", "Jetson Thor", ("nvidia,tegra264",), l4t=("38", "39"), memory_bytes=64 * GIB
    ),
    Candidate("imx8mp", "aarch64", "i.MX 8M Plus", ("fsl,imx8mp",)),
    Candidate("rk3588", "aarch64", "RK3588", ("rockchip,rk3588*",), memory_bytes=8 * GIB),
    Candidate("generic-x86", "x86_64"),
)


@dataclass(frozen=True)
class Proposal:
    """One board file. `fits`: nothing that it needs of the hardware is absent. `missing`: software to install."""

    board: str
    fits: bool
    speaks_for: tuple[str, ...]
    speaks_against: tuple[str, ...]
    missing: tuple[str, ...]


def proposals(found: Found, backends: Mapping[str, Sequence[str]]) -> tuple[Proposal, ...]:
    """Every board file in `backends` (name -> its worker.backends), the best first."""
    made = [_propose(one, found, backends[one.board]) for one in CANDIDATES if one.board in backends]
    return tuple(sorted(made, key=lambda one: (not one.fits, -len(one.speaks_for), len(one.speaks_against))))


def part_is_there(part: Part, found: Found) -> str:
    """How this accelerator shows itself, "" if it does not."""
    for bus, wanted, there in (("PCI", part.pci, found.pci), ("USB", part.usb, found.usb)):
        for number in wanted:
            if number in there:
                return f"{part.name} on {bus} ({number})"
    return f"{part.name} in the chip" if found.is_compatible(part.compatible) else ""


def unused_parts(found: Found, backends: Sequence[str]) -> tuple[str, ...]:
    """Accelerators on the machine that a board with these backends does not use."""
    shown = ((part, part_is_there(part, found)) for part in PARTS if part.backend not in backends)
    return tuple(f'{there}: add "{part.backend}" to worker.backends to use it' for part, there in shown if there)


def unread_parts(found: Found, backends: Sequence[str], models: Container[str]) -> tuple[str, ...]:
    """Accelerators of a board with these backends that have nothing to run. models: names of the bundle's files."""
    return tuple(
        f"{part.backend}: the model bundle has no {' or '.join(part.models)}, so {part.name} reads nothing"
        for part in PARTS
        if part.backend in backends and part_is_there(part, found) and not any(one in models for one in part.models)
    )


def _propose(one: Candidate, found: Found, backends: Sequence[str]) -> Proposal:
    needs = list(_needs(one, found))
    fits = all(met for met, _ in needs)
    wishes = list(_wishes(one, found)) if fits else []
    return Proposal(
        board=one.board,
        fits=fits,
        speaks_for=tuple(text for met, text in needs + wishes if met),
        speaks_against=tuple(text for met, text in needs + wishes if not met),
        missing=tuple(_missing(found, backends)) if fits else (),
    )


def _needs(one: Candidate, found: Found) -> Iterator[tuple[bool, str]]:
    if not one.compatible:
        yield found.machine == one.machine, f"the processor is {found.machine or 'unknown'}"
        return
    named = [name for name in found.compatible if any(fnmatchcase(name, wanted) for wanted in one.compatible)]
    yield bool(named), f"the chip is a {one.chip} ({named[0]})" if named else f"the device tree names no {one.chip}"
    if one.l4t and named:
        major = found.l4t.partition(".")[0]
        release = (
            f"L4T {found.l4t}, {JETPACK.get(major, 'which no board file knows')}"
            if found.l4t
            else "no L4T release found"
        )
        yield major in one.l4t, release
    if one.part:
        (part,) = (part for part in PARTS if part.backend == one.part)
        there = part_is_there(part, found)
        yield bool(there), there or f"no {part.name} on PCI or USB"


def _wishes(one: Candidate, found: Found) -> Iterator[tuple[bool, str]]:
    if one.module:
        known = found.is_compatible(one.module)
        yield known, "the module is an Orin Nano" if known else "the module is another Orin: threads and power differ"
    if found.memory_bytes < one.memory_bytes * _KERNEL_SHARE:
        yield False, f"{found.memory_bytes / GIB:.1f} GiB of memory, {one.memory_bytes / GIB:g} GiB wanted"


def _missing(found: Found, backends: Sequence[str]) -> Iterator[str]:
    """Of several accelerated backends one that is complete is enough."""
    parts = [list(_missing_of(part, found)) for part in PARTS if part.backend in backends]
    if all(parts):
        yield from (text for texts in parts for text in texts)
    for backend, modules in RUNTIMES.items():
        if backend in backends:
            yield from _missing_package(backend, modules, found)


def _missing_of(part: Part, found: Found) -> Iterator[str]:
    on_usb = any(number in found.usb for number in part.usb)
    has_node = any(fnmatchcase(node, f"/{wanted}") for node in found.nodes for wanted in part.nodes)
    if not has_node and not on_usb and f"DRIVER={part.driver}" not in found.nodes:
        wanted = " or ".join(f"/{node}" for node in part.nodes)
        yield f"{part.backend}: its driver is not loaded (no {wanted})"
    if not any(fnmatchcase(name, wanted) for name in found.libraries for wanted in part.libraries):
        yield f"{part.backend}: {part.library_name} is not installed (no {part.libraries[0]})"
    for group in part.packages:
        yield from _missing_package(part.backend, group, found)


def _missing_package(backend: str, modules: tuple[str, ...], found: Found) -> Iterator[str]:
    if any(found.packages.get(module) for module in modules):
        return
    what = f"the Python package {' or '.join(modules)}"
    if any(module in found.packages for module in modules):
        yield f"{backend}: {what} is the system's, and the box's own Python does not see it"
    else:
        yield f"{backend}: {what} is not installed"
