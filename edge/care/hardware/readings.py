"""What a box can say of itself, and what can be asked of it. What could not be read is absent: left out, or None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from edge.box_words import BoxState

ClockState = Literal["set", "unset", "stepped"]
PowerSource = Literal["mains", "battery", "unknown"]
BootReason = Literal["power-on", "watchdog", "panic", "reboot", "crash", "unknown"]


@dataclass(frozen=True)
class Clock:
    """The wall clock, which nothing here depends on. `stepped_by_s`: how far it jumped lately (0: it did not).

    `synchronised`: a time server, or something like it, keeps it right. `rtc`: the board has a battery-backed clock.
    """

    state: ClockState
    synchronised: bool
    rtc: bool
    stepped_by_s: float = 0.0


@dataclass(frozen=True)
class Boot:
    """Why the box started. `detail`: one sentence. `power_lost`: it ran, and then it had no power or was reset."""

    boot_id: str
    reason: BootReason
    detail: str
    power_lost: bool = False


@dataclass(frozen=True)
class Readings:
    """One look at the hardware. Degrees Celsius, bytes, seconds; percent of a storage's rated life that is used up.

    The `*_since_boot` flags keep what happened while nobody looked, where the board can tell.
    """

    clock: Clock
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    throttled: bool = False
    throttled_since_boot: bool = False
    undervoltage: bool = False
    undervoltage_since_boot: bool = False
    overcurrent: bool = False
    wear_percent: Mapping[str, float] = field(default_factory=dict)
    free_bytes: int | None = None
    total_bytes: int | None = None
    load_1m: float | None = None
    memory_free_bytes: int | None = None
    uptime_s: float | None = None
    accelerators: Mapping[str, bool] = field(default_factory=dict)  # device nodes the board names: is it there
    power: PowerSource = "unknown"


class Hardware(Protocol):
    """A board. Reading and setting never raise for what the board lacks or refuses."""

    def read(self) -> Readings:
        """Look now. The simulated board raises ConfigError when its state file is wrong."""

    def boot(self) -> Boot:
        """Why this boot came about; the same answer all through a boot."""

    def panics(self) -> frozenset[str]:
        """Records of system failures that exist now, by name: one that is new at the next start is a panic."""

    def set_light(self, state: BoxState) -> bool:
        """Show one of the five states with every light of the board. False: a light refused."""

    def set_fan(self, percent: float) -> bool:
        """Turn the board's fan, 0 to 100. False: it refused."""


def hottest_c(readings: Readings) -> float | None:
    """The highest temperature, None where nothing measures one."""
    return max(readings.temperatures_c.values(), default=None)


def to_fact(readings: Readings) -> dict[str, Any]:
    """The readings as JSON; what could not be read is left out."""
    return {name: value for name, value in asdict(readings).items() if value is not None}
