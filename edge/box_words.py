"""The five states of the box and their words: the same on the page, the panel, the light and MQTT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

BoxState = Literal["starting", "ready", "reading", "attention", "stopped"]


@dataclass(frozen=True)
class BoxWords:
    """short: ASCII, at most 20 characters (one line of a 20 x 4 display). long: a sentence or two for the page."""

    short: str
    long: str


WORDS: Final[Mapping[BoxState, BoxWords]] = {
    "starting": BoxWords("Starting", "The box is starting. Please wait a minute."),
    "ready": BoxWords("Ready", "The box is ready for images."),
    "reading": BoxWords("Reading", "The box is reading. The draft follows."),
    "attention": BoxWords("Please look here", "The box works, but something needs a look."),
    "stopped": BoxWords("Not reading", "The box makes no drafts now. Images that are here are safe."),
}
STATES: Final[tuple[BoxState, ...]] = tuple(WORDS)
