"""What an issue is called, everywhere: a short title for one line of the panel, a long one for the page.

An Issue is something wrong that a person can do something about. Its code never changes once released; what the
person reads on the page beside the title is in `edge.desk.issue_words`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LCD_COLUMNS: Final = 20  # of the usual character display (HD44780, 20 x 4)


@dataclass(frozen=True)
class Title:
    """short: ASCII, at most LCD_COLUMNS characters."""

    short: str
    long: str


ELSE: Final = Title("Box needs a look", "The box needs attention")
TITLES: Final[Mapping[str, Title]] = {
    "issue.disk-full": Title("Storage is full", "Storage is full: new images are turned away"),
    "issue.disk-nearly-full": Title("Storage nearly full", "Storage is nearly full"),
    "issue.clock-unset": Title("Clock is not set", "The clock is not set"),
    "issue.modality-silent": Title("A machine is silent", "A machine sends no images any more"),
    "issue.modality-aborting": Title("Sending breaks off", "Machines break off while they send"),
    "issue.accelerator-lost": Title("AI chip is missing", "The AI chip does not answer"),
    "issue.ai-paused": Title("AI paused", "The AI is paused, the images are safe"),
    "issue.update-rolled-back": Title("New model failed", "A new model failed; the earlier one reads again"),
    "issue.printer": Title("Printer problem", "The printer needs attention"),
    "issue.throttling": Title("Box runs slower", "The box runs slower to stay cool"),
    "issue.too-hot": Title("Box is too hot", "The box is too hot: reading is paused"),
    "issue.weak-power": Title("Power is too weak", "The power supply is too weak"),
    "issue.wear": Title("Storage wears out", "The storage is wearing out"),
    "issue.database-repaired": Title("Records were rebuilt", "The records of this box were rebuilt"),
    "issue.service-silent": Title("A part has stopped", "A part of the box does not answer"),
    "issue.watchdog-reset": Title("Box restarted itself", "The box restarted by itself"),
    "issue.grabber-no-signal": Title("No video signal", "No picture comes from the video cable"),
    "issue.panel-lost": Title("Panel not connected", "The status panel is not connected"),
    "issue.mqtt-lost": Title("Status link is down", "The box cannot report how it is"),
    "issue.outbox-full": Title("Status reports lost", "Status reports were dropped"),
}


def title(code: str) -> Title:
    """The titles of a code; general ones for a code that this version does not know."""
    return TITLES.get(code, ELSE)
