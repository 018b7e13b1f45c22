"""A box played from a TOML file, for laptops, demonstrations and the scenarios: change the file, and the box changes.

The file is `hardware.state_file` of the board, read anew at each look. Without one, or without a key, the box is
healthy; docs/hardware.md lists every key. A key that does not exist stops nothing but is told (ConfigError).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, cast

from edge.board import Board
from edge.box_words import BoxState
from edge.care.boot import read_mark, why
from edge.care.hardware.readings import Boot, Clock, ClockState, PowerSource, Readings
from edge.care.hardware.reset import Reset, ResetCause
from edge.durable import disk_use
from edge.errors import ConfigError
from edge.store_paths import boot_id
from edge.toml import parse_toml

LIMIT_BYTES: Final = 64 * 1024
DEFAULT_TEMPERATURES_C: Final = {"cpu-thermal": 45.0}
DEFAULT_WEAR_PERCENT: Final = {"mmcblk0": 10.0}
MEMORY_FREE_BYTES: Final = 2 * 2**30

_FLAGS = ("throttled", "throttled_since_boot", "undervoltage", "undervoltage_since_boot", "overcurrent")
_NUMBERS = ("free_bytes", "total_bytes", "load_1m", "memory_free_bytes", "uptime_s")
_TABLES = ("temperatures_c", "wear_percent", "accelerators", "clock", "boot", "accelerator")
_CLOCK: Final = tuple(field.name for field in fields(Clock))
_CLOCK_STATES, _POWERS = ("set", "unset", "stepped"), ("mains", "battery", "unknown")
_CAUSES = ("power-on", "watchdog", "reboot", "crash", "warm")
ACCELERATOR_STATES: Final = ("ok", "lost", "hang", "wrong")


class SimulatedHardware:
    """See `edge.care.hardware.readings.Hardware`. `light` and `fan_percent`: what was set last."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._boot: Boot | None = None
        self.light: BoxState | None = None
        self.fan_percent: float | None = None

    def read(self) -> Readings:
        """The state file now. Raises ConfigError that names the key."""
        state = load_state(self._board.hardware.state_file)
        use = disk_use(self._board.data_dir)
        lost = _table(state, "accelerator").get("state", "ok") == "lost"
        nodes = dict.fromkeys(self._board.hardware.accelerators, not lost)
        flags = {name: _is(state.get(name, False), name) for name in _FLAGS}
        return Readings(
            clock=_clock(_table(state, "clock")),
            temperatures_c=_numbers(state, "temperatures_c", DEFAULT_TEMPERATURES_C),
            wear_percent=_numbers(state, "wear_percent", DEFAULT_WEAR_PERCENT),
            load_1m=_number(state, "load_1m", 0.2),
            uptime_s=_number(state, "uptime_s", 3600.0),
            accelerators={**nodes, **{name: _is(there, name) for name, there in _table(state, "accelerators").items()}},
            power=cast(PowerSource, _word(state, "power", _POWERS, "mains")),
            free_bytes=int(_number(state, "free_bytes", use.free)),
            total_bytes=int(_number(state, "total_bytes", use.size)),
            memory_free_bytes=int(_number(state, "memory_free_bytes", MEMORY_FREE_BYTES)),
            **flags,
        )

    def boot(self) -> Boot:
        """From [boot] and the mark of an orderly stop. Raises ConfigError."""
        if self._boot is None:
            table = _table(load_state(self._board.hardware.state_file), "boot")
            cause = _word(table, "cause", _CAUSES, "") if "cause" in table else ""
            reset = Reset(cast(ResetCause, cause), str(table.get("detail", "Simulated."))) if cause else None
            panics = frozenset(["simulated"] if _is(table.get("panic", False), "boot.panic") else [])
            self._boot = why(boot_id(), read_mark(self._board.data_dir), reset, panics, armed=True)
        return self._boot

    def panics(self) -> frozenset[str]:
        """None is on record: a panic of [boot] is always a new one."""
        return frozenset()

    def set_light(self, state: BoxState) -> bool:
        """Remember it."""
        self.light = state
        return True

    def set_fan(self, percent: float) -> bool:
        """Remember it."""
        self.fan_percent = percent
        return True


def load_state(state_file: str) -> dict[str, Any]:
    """The tables of the state file; none where the board names no file or it is not there. Raises ConfigError."""
    if not state_file:
        return {}
    try:
        with Path(state_file).open("rb") as file:
            state = parse_toml(file.read(LIMIT_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{Path(state_file).name}: expected readable TOML, got: {error}") from error
    known = (*_FLAGS, *_NUMBERS, *_TABLES, "power")
    for key in state:
        if key not in known:
            raise ConfigError(f"{Path(state_file).name}: expected only the keys {', '.join(known)}, got {key!r}")
    _word(_table(state, "accelerator"), "state", ACCELERATOR_STATES, "ok")
    return state


def _clock(table: Mapping[str, Any]) -> Clock:
    if unknown := set(table) - set(_CLOCK):
        raise ConfigError(f"section [clock]: expected only the keys {', '.join(_CLOCK)}, got {sorted(unknown)[0]!r}")
    return Clock(
        state=cast(ClockState, _word(table, "state", _CLOCK_STATES, "set")),
        synchronised=_is(table.get("synchronised", False), "clock.synchronised"),
        rtc=_is(table.get("rtc", True), "clock.rtc"),
        stepped_by_s=_number(table, "stepped_by_s", 0.0),
    )


def _table(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = state.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"key {name!r}: expected a section, got {type(table).__name__}")
    return table


def _numbers(state: Mapping[str, Any], name: str, default: Mapping[str, float]) -> dict[str, float]:
    table = _table(state, name)
    return {key: _number(table, key, 0.0) for key in table} if name in state else dict(default)


def _number(table: Mapping[str, Any], name: str, default: float) -> float:
    value = table.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 2**53:
        raise ConfigError(f"key {name!r}: expected a number, got {value!r}")
    return float(value)


def _is(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"key {name!r}: expected true or false, got {value!r}")
    return value


def _word(table: Mapping[str, Any], name: str, words: tuple[str, ...], default: str) -> str:
    value = table.get(name, default)
    if value not in words:
        raise ConfigError(f"key {name!r}: expected one of {', '.join(words)}, got {value!r}")
    return str(value)
