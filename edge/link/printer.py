"""How the printer is, in a few known words; what a printer calls its trouble stays in the tables of this module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from edge.link.ipp import Answer, IppError, ask

PrinterState = Literal["idle", "processing", "stopped", "offline"]

# RFC 8011 section 5.4.11
STATES: Final[dict[int, PrinterState]] = {3: "idle", 4: "processing", 5: "stopped"}

# RFC 8011 section 5.4.12 and PWG 5100.9: what a printer may call it, without -report, -warning, -error -> our word.
REASONS: Final[dict[str, str]] = {
    "media-empty": "media-empty",
    "media-needed": "media-empty",
    "media-low": "media-low",
    "media-jam": "media-jam",
    "input-tray-missing": "tray-missing",
    "input-media-supply-empty": "media-empty",
    "input-media-supply-low": "media-low",
    "door-open": "door-open",
    "cover-open": "door-open",
    "interlock-open": "door-open",
    "toner-empty": "toner-empty",
    "toner-low": "toner-low",
    "marker-supply-empty": "toner-empty",
    "marker-supply-low": "toner-low",
    "marker-waste-full": "waste-full",
    "marker-waste-receptacle-full": "waste-full",
    "output-area-full": "output-full",
    "output-tray-missing": "tray-missing",
    "paused": "paused",
    "moving-to-paused": "paused",
    "shutdown": "offline",
    "timed-out": "offline",
    "connecting-to-device": "offline",
    "fuser-over-temp": "too-hot",
    "spool-area-full": "memory-full",
}
_IGNORED: Final = ("none", "cups-")  # nothing, and how a queue of CUPS is set up
_SEVERITIES: Final = ("-report", "-warning", "-error")  # real printers say media-empty-report and stand all the same
_MOST_REASONS: Final = 8

WORDS: Final[dict[str, str]] = {
    "media-empty": "The paper is empty.",
    "media-low": "There is little paper left.",
    "media-jam": "Paper is jammed.",
    "tray-missing": "A tray is missing.",
    "door-open": "A door or cover is open.",
    "toner-empty": "Toner or ink is empty.",
    "toner-low": "There is little toner or ink left.",
    "waste-full": "The waste box is full.",
    "output-full": "The output tray is full.",
    "paused": "It is paused.",
    "offline": "It does not answer.",
    "too-hot": "It is too hot.",
    "memory-full": "Its memory is full.",
    "not-accepting": "It takes no jobs now.",
    "other": "It has stopped. Its own display says why.",
}


@dataclass(frozen=True)
class Printer:
    """`reasons`: keys of WORDS, in the order of the printer; empty when nothing is wrong."""

    state: PrinterState
    reasons: tuple[str, ...] = ()
    code: str = ""  # of the error, where there was no answer

    @property
    def message(self) -> str:
        """What is wrong, in words; "" when nothing is."""
        return " ".join(WORDS[reason] for reason in self.reasons)


def look(uri: str) -> Printer:
    """Ask the printer `uri` how it is; one that does not answer is `offline`."""
    try:
        return printer_of(ask(uri))
    except IppError as error:
        return Printer("offline", ("offline",), error.code)


def printer_of(answer: Answer) -> Printer:
    """The printer's own words in ours. Raises IppError (printer.no-ipp) if it does not say how it is."""
    (number, *_) = answer.attributes.get("printer-state", (0,))
    state = STATES.get(number) if isinstance(number, int) else None
    if state is None:
        raise IppError("expected printer-state idle, processing or stopped, got none of them")
    said = [value for value in answer.attributes.get("printer-state-reasons", ()) if isinstance(value, str)]
    reasons = list(dict.fromkeys(reason for one in said if (reason := reason_of(one, state))))
    if answer.attributes.get("printer-is-accepting-jobs") == (False,):
        reasons.append("not-accepting")
    if state == "stopped" and not reasons:
        reasons.append("other")
    return Printer(state, tuple(reasons[:_MOST_REASONS]))


def reason_of(keyword: str, state: PrinterState) -> str:
    """Our word for a reason; "" for one that is no trouble. What is not known matters only if the printer stands."""
    if keyword.startswith(_IGNORED):
        return ""
    for severity in _SEVERITIES:
        keyword = keyword.removesuffix(severity)
    return REASONS.get(keyword, "other" if state == "stopped" else "")
