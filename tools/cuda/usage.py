"""Registers, spills and stack of every kernel, as ptxas tells them, and how much of each a kernel may have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

REGISTER_LIMITS: Final = {"attend": 96, "": 64}
"""By the first word of a kernel's name, "" for the rest. Five blocks of 128 threads and 96 registers fit one SM."""


@dataclass(frozen=True)
class Usage:
    """What ptxas says of one kernel."""

    kernel: str
    registers: int
    spill_bytes: int
    stack_bytes: int

    def fault(self) -> str:
        """A sentence when it is beyond its limit, else ""."""
        first = self.kernel.removeprefix("radbox_").split("_")[0]
        limit = REGISTER_LIMITS.get(first, REGISTER_LIMITS[""])
        if self.spill_bytes or self.stack_bytes:
            return f"{self.kernel}: expected no spills, got {self.spill_bytes} bytes and a stack of {self.stack_bytes}"
        if self.registers > limit:
            return f"{self.kernel}: expected at most {limit} registers, got {self.registers}"
        return ""


_FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
_SPILL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")


def read_usage(said: str) -> list[Usage]:
    """The kernels in the output of `ptxas -v`."""
    usages, kernel, stack, spill = [], "", 0, 0
    for line in said.splitlines():
        if match := _FUNCTION.search(line):
            kernel = match.group(1)
        elif match := _SPILL.search(line):
            stack, spill = int(match.group(1)), int(match.group(2)) + int(match.group(3))
        elif (match := _REGISTERS.search(line)) and kernel:
            usages.append(Usage(kernel, int(match.group(1)), spill, stack))
            kernel = ""
    return usages


def expected_kernels() -> int:
    """How many entry points cuda.cu has: 2 storages of 17, and 4 without one."""
    return 2 * (2 * 4 + 4 * 2 + 1) + 4


def faults(usages: list[Usage], where: str) -> list[str]:
    """What is wrong with one target's kernels: too few of them, spills, too many registers."""
    found = [f"{where} {fault}" for usage in usages if (fault := usage.fault())]
    if len(usages) != expected_kernels():
        found.append(f"{where}: expected {expected_kernels()} kernels, got {len(usages)}")
    return found
