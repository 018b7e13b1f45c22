"""Obedience to the box's heat: care measures and decides (fact "thermal"), the worker slows down or stops reading."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge.reading.voice import PAUSED, Said
from edge.store_rows import FactRow

LONGEST_PAUSE_S = 600.0
_SLOW = "The box is warm and reads more slowly, so that it does not overheat."
_HOT = "The box is too hot and is cooling down."


@dataclass(frozen=True)
class Heat:
    """pause_s: seconds to rest between studies while slow; message: care's sentence, "" for none."""

    state: Literal["ok", "slow", "pause"]
    pause_s: float = 0.0
    message: str = ""

    def said(self) -> Said | None:
        """What the page says of it."""
        if self.state == "slow":
            return Said("degraded", "worker.slowed", self.message or _SLOW)
        if self.state == "pause":
            return Said("paused", "worker.too-hot", f"{PAUSED} {self.message or _HOT}")
        return None


COOL = Heat("ok")


def heat_of(fact: FactRow | None, boot: str, now_s: float, stale_s: float) -> Heat:
    """What the fact asks for. One that is missing, stale, of another boot or not understood asks for nothing: a care
    service that died must not stop the reading for ever."""
    if fact is None or fact.boot_id != boot or now_s - fact.monotonic_s > stale_s:
        return COOL
    return _heat(fact.value)


def _heat(value: Mapping[str, Any]) -> Heat:
    state, pause_s, message = value.get("state"), value.get("pause_s", 0.0), value.get("message", "")
    if not isinstance(message, str) or not isinstance(pause_s, int | float) or not math.isfinite(pause_s):
        return COOL
    if state == "slow":
        return Heat("slow", min(max(float(pause_s), 0.0), LONGEST_PAUSE_S), message)
    return Heat("pause", 0.0, message) if state == "pause" else COOL
