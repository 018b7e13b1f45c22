"""When the box reads more slowly because it is hot, and when it pauses. Pure: temperatures in, decisions out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

ThermalState = Literal["ok", "slow", "pause"]

EASE_C: Final = 5.0  # so much cooler than a limit before it no longer holds
SHORTEST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0  # between two studies, right below the limit at which reading pauses


@dataclass(frozen=True)
class Thermal:
    """pause_s: to wait after each study. message: "" while all is well."""

    state: ThermalState
    pause_s: float
    message: str


COOL: Final = Thermal("ok", 0.0, "")


def decide(hottest_c: float | None, before: ThermalState, slow_c: float, pause_c: float) -> Thermal:
    """What to do at this temperature. before: the state up to now, for the hysteresis of EASE_C.

    Nothing is held back where nothing measures a temperature: the processor's own protection is left.
    """
    if hottest_c is None:
        return COOL
    if hottest_c >= pause_c - (EASE_C if before == "pause" else 0.0):
        return Thermal("pause", LONGEST_PAUSE_S, _pause_words(hottest_c, pause_c))
    if hottest_c >= slow_c - (0.0 if before == "ok" else EASE_C):
        return Thermal("slow", _pause_s(hottest_c, slow_c, pause_c), _slow_words(hottest_c))
    return COOL


def _pause_s(hottest_c: float, slow_c: float, pause_c: float) -> float:
    """Grows evenly from one limit to the other; whole seconds, so that it does not change with every look."""
    share = (hottest_c - slow_c) / max(1.0, pause_c - slow_c)
    return min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, float(round(share * LONGEST_PAUSE_S))))


def _slow_words(hottest_c: float) -> str:
    return f"The box is hot ({hottest_c:.0f} °C). It reads more slowly until it cools. Give it air."


def _pause_words(hottest_c: float, pause_c: float) -> str:
    return f"The box is too hot ({hottest_c:.0f} °C). Reading goes on below {pause_c - EASE_C:.0f} °C. Give it air."
