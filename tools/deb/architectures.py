"""The two architectures of the package, and what each is called by whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NEWEST_GLIBC: Final = 36  # Debian 12 has glibc 2.36
OLDEST_GLIBC: Final = 5


@dataclass(frozen=True)
class Architecture:
    """`debian` names it in the package, `machine` in wheels and kernels; `board` is the board file it starts with."""

    debian: str
    machine: str
    board: str
    compiler: str  # of C++
    readelf: str
    libc_loader: str  # soname of the dynamic loader

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platform tags of wheels that run on Debian 12, the newest first (PEP 600)."""
        named = [f"manylinux_2_{minor}_{self.machine}" for minor in range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1)]
        return (*named, f"manylinux2014_{self.machine}", f"linux_{self.machine}")


ARCHITECTURES: Final = {
    one.debian: one
    for one in (
        Architecture("amd64", "x86_64", "generic-x86", "g++", "readelf", "ld-linux-x86-64.so.2"),
        Architecture(
            "arm64",
            "aarch64",
            "raspberry-pi-5",
            "aarch64-linux-gnu-g++",
            "aarch64-linux-gnu-readelf",
            "ld-linux-aarch64.so.1",
        ),
    )
}
