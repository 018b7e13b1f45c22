"""Watches the hardware: tells what it measures, shows the box's state by light, cools, and holds reading back when hot.

Called every few seconds by care. Facts are written when something changes that matters, and as a sign of life once in
a while, so that a box that runs for years does not wear out its storage by its own measurements.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from edge.board import Board
from edge.care.boot import Mark, leave_mark, read_mark, write_mark
from edge.care.box_state import Moment, box_state
from edge.care.hardware import Boot, Clock, Hardware, Readings, hottest_c, to_fact
from edge.care.hardware.fan import fan_percent
from edge.care.thermal_policy import COOL, Thermal, decide
from edge.errors import ConfigError
from edge.store import Store, boot_id

SAMPLE_EVERY_S: Final = 300.0
TELL_AGAIN_S: Final = 60.0  # facts that did not change
HOT_AGAIN_S: Final = 20.0  # the worker forgets the heat of a care service that says nothing for a minute
BLIND_FOR_S: Final = 60.0  # so long the last temperature counts when none can be read
STEP_C: Final = 3.0  # a smaller change is not worth a write
FULL_FAN: Final = 100.0
WAITING: Final = ("queued", "reading")
# Reason of a boot -> event and total; an ordinary start is no event.
RESETS: Final = {
    "watchdog": ("box.reset-watchdog", "watchdog_resets"),
    "panic": ("box.panic", "panics"),
    "crash": ("box.crashed", "crashes"),
}
POWER_LOST: Final = ("box.power-lost", "power_losses")
_HEAT_EVENTS: Final = {"slow": "box.hot", "pause": "box.too-hot", "ok": "box.cooled"}
_LOG = logging.getLogger("radbox.care")


class Watch:
    """One box's hardware over time. For one thread."""

    def __init__(
        self, board: Board, store: Store, hardware: Hardware, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """clock: for tests."""
        self._board = board
        self._store = store
        self._hardware = hardware
        self._clock = clock
        self._boot_id = boot_id()
        self._start_s = clock()
        self._started = False
        self._thermal: Thermal = COOL
        self._hottest: tuple[float, float] | None = None  # the last temperature that could be read, and when
        self._fan = FULL_FAN
        self._clock_state = ""
        self._since = {"throttled_since_boot": False, "undervoltage_since_boot": False}
        self._told: dict[str, tuple[float, Hashable]] = {}
        self._sampled_s = float("-inf")
        self._complaint = ""

    def step(self) -> None:
        """Look, tell, show and cool. Raises StorageError, StoreError; never for what the hardware does."""
        try:
            if not self._started:
                self._start()
            readings = self._latched(self._hardware.read())
        except ConfigError as error:  # the state file of a simulated box
            self._complain(f"{error.code}: {error.message}")
            return
        counts = self._store.study_counts()
        queue = sum(counts[state] for state in WAITING)
        self._heat(readings)
        self._tell_clock(readings.clock)
        self._tell_hardware(readings)
        self._show(queue)
        self._sample(readings, queue)

    def stop(self) -> None:
        """An orderly end: the mark that tells it from a loss of power; the fan at full, since nobody steers it now."""
        self._hardware.set_fan(FULL_FAN)
        self._hardware.set_light("stopped")
        leave_mark(self._board.data_dir, self._boot_id)

    # --- the start ---

    def _start(self) -> None:
        """Once a boot: why it came about. The mark goes last, so that a crash in between tells it twice, not never."""
        boot, mark = self._hardware.boot(), read_mark(self._board.data_dir)
        before = self._store.facts().get("hardware")
        if before is not None and before.boot_id == self._boot_id:
            self._since = {name: bool(before.value.get(name)) for name in self._since}
        self._store.set_fact("boot", asdict(boot))
        if mark is None or mark.boot.boot_id != boot.boot_id:
            self._tell_boot(boot)
            write_mark(self._board.data_dir, Mark(boot, False, tuple(sorted(self._hardware.panics()))))
        elif mark.orderly:
            write_mark(self._board.data_dir, replace(mark, orderly=False))
        self._started = True

    def _tell_boot(self, boot: Boot) -> None:
        _LOG.info("this boot: %s. %s", boot.reason, boot.detail)
        event = POWER_LOST if boot.power_lost else RESETS.get(boot.reason)
        if event is not None:
            self._store.add_event(event[0], boot.detail)
            self._store.add_counts({event[1]: 1})

    # --- heat ---

    def _heat(self, readings: Readings) -> None:
        now_s, found = self._clock(), hottest_c(readings)
        if found is not None:
            self._hottest = (found, now_s)
        elif self._hottest is not None and now_s - self._hottest[1] > BLIND_FOR_S:
            self._hottest = None
        temperature = self._hottest[0] if self._hottest else None
        limits = self._board.hardware
        before, self._thermal = self._thermal, decide(temperature, self._thermal.state, limits.slow_c, limits.pause_c)
        if before.state != self._thermal.state:
            self._store.add_event(_HEAT_EVENTS[self._thermal.state], self._thermal.message or "The box has cooled.")
        self._fan = fan_percent(temperature, self._fan, limits.slow_c)
        if not self._hardware.set_fan(self._fan):
            self._complain("the fan that the board names is missing or refuses")
        key = (self._thermal.state, self._thermal.pause_s)
        again_s = TELL_AGAIN_S if self._thermal.state == "ok" else HOT_AGAIN_S
        self._tell("thermal", {**asdict(self._thermal), "temperature_c": temperature}, key, again_s)

    # --- facts ---

    def _latched(self, readings: Readings) -> Readings:
        """What happened once in this boot stays told, even where the firmware forgets it or care began again."""
        for name in self._since:
            self._since[name] = self._since[name] or getattr(readings, name)
        return replace(readings, **self._since)  # type: ignore[arg-type]

    def _tell_hardware(self, readings: Readings) -> None:
        """A temperature or a size that moves a little is no news; a flag or a device is."""
        fact = {**to_fact(readings), "hottest_c": hottest_c(readings), "fan_percent": self._fan}
        news = (
            tuple((name, value) for name, value in sorted(fact.items()) if isinstance(value, bool | str)),
            tuple(sorted(readings.accelerators.items())),
            tuple(sorted(readings.wear_percent.items())),
            tuple((name, round(value / STEP_C)) for name, value in sorted(readings.temperatures_c.items())),
        )
        self._tell("hardware", fact, news)

    def _tell_clock(self, clock: Clock) -> None:
        if self._clock_state and clock.state != self._clock_state:
            if clock.state == "stepped":
                message = f"The clock jumped by {clock.stepped_by_s:.0f} seconds. Nothing here depends on it."
                self._store.add_event("box.clock-stepped", message)
            elif self._clock_state == "unset":
                self._store.add_event("box.clock-set", "The clock was set.")
        self._clock_state = clock.state
        self._tell("clock", asdict(clock), (clock.state, clock.synchronised, clock.rtc))

    def _tell(self, name: str, fact: Mapping[str, Any], news: Hashable, again_s: float = TELL_AGAIN_S) -> None:
        """Write a fact if `news` differs from what was told last, or that is a while ago."""
        now_s = self._clock()
        told = self._told.get(name)
        if told is None or told[1] != news or now_s - told[0] >= again_s:
            self._store.set_fact(name, fact)
            self._told[name] = (now_s, news)

    # --- light and history ---

    def _show(self, queue: int) -> None:
        store, now_s = self._store, self._clock()
        moment = Moment(now_s, self._boot_id, store.age_s(), now_s - self._start_s)
        state = box_state(store.services(), store.issues(), queue, moment)
        if not self._hardware.set_light(state):
            self._complain("a light that the board names is missing or refuses")

    def _sample(self, readings: Readings, queue: int) -> None:
        if self._clock() - self._sampled_s < SAMPLE_EVERY_S:
            return
        self._sampled_s = self._clock()
        free, total = readings.free_bytes, readings.total_bytes
        values = {
            "temperature_c": hottest_c(readings),
            "free_percent": 100.0 * free / total if free is not None and total else None,
            "queue": float(queue),
            "studies_read": float(self._store.counts().get("studies_read", 0)),
            "memory_free_bytes": readings.memory_free_bytes,
        }
        self._store.add_samples({name: float(value) for name, value in values.items() if value is not None})

    def _complain(self, message: str) -> None:
        """Once for as long as it stays the same."""
        if message != self._complaint:
            self._complaint = message
            _LOG.warning("%s", message)
