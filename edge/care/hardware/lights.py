"""Lights: each of the five states has its own rhythm, so that neither colour nor a second light is needed.

Kernel Documentation/leds/leds-class.rst and ledtrig `timer` (`trigger`, `delay_on`, `delay_off` in milliseconds,
`brightness`, `max_brightness`). The kernel blinks by itself: a dark light means that the box is off or hangs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge.box_words import BoxState
from edge.care.hardware.sysfs import Tree

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@-]{0,63}")


@dataclass(frozen=True)
class Rhythm:
    """Milliseconds lit and dark, over and over; dark 0: lit all the time."""

    lit_ms: int
    dark_ms: int


RHYTHMS: Final[Mapping[BoxState, Rhythm]] = {
    "starting": Rhythm(1000, 1000),  # slow and even
    "ready": Rhythm(1000, 0),  # steady
    "reading": Rhythm(1900, 100),  # lit, with a wink every two seconds
    "attention": Rhythm(150, 150),  # hurried
    "stopped": Rhythm(100, 2900),  # dark, with a flash every three seconds
}


def show(tree: Tree, name: str, state: BoxState) -> bool:
    """See that the light `name` (below /sys/class/leds) shows the state; writes only what differs.

    False where the light is missing or refuses: worth another try, since udev may give the rights a moment later.
    """
    folder = f"/sys/class/leds/{name}"
    if not _NAME.fullmatch(name) or not tree.exists(folder):
        return False
    rhythm = RHYTHMS[state]
    if rhythm.dark_ms == 0:
        full = tree.text(f"{folder}/max_brightness") or "1"
        return _trigger(tree, folder, "none") and _set(tree, f"{folder}/brightness", full)
    return (
        _trigger(tree, folder, "timer")
        and _set(tree, f"{folder}/delay_on", str(rhythm.lit_ms))
        and _set(tree, f"{folder}/delay_off", str(rhythm.dark_ms))
    )


def _trigger(tree: Tree, folder: str, wanted: str) -> bool:
    """The chosen trigger is the word in brackets."""
    offered = (tree.text(f"{folder}/trigger") or "").split()
    return f"[{wanted}]" in offered or (wanted in offered and tree.write(f"{folder}/trigger", wanted))


def _set(tree: Tree, path: str, value: str) -> bool:
    return tree.text(path) == value or tree.write(path, value)
