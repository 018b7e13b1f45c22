"""Seconds per stage of one reading, on the monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable


class StageClock:
    """`stage(name)` ends the stage before and begins the next; the same name may come again (several images).

    moved: called at every stage; this is where the watchdog hears that work moves.
    """

    def __init__(self, moved: Callable[[], None] = lambda: None) -> None:
        self.seconds: dict[str, float] = {}
        self._moved = moved
        self._name: str | None = None
        self._since = time.monotonic()

    def stage(self, name: str) -> None:
        """Begin stage `name`."""
        self.stop()
        self._name = name
        self._moved()

    def stop(self) -> dict[str, float]:
        """End the stage at work; returns seconds by stage so far."""
        now = time.monotonic()
        if self._name is not None:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._name, self._since = None, now
        return dict(self.seconds)
