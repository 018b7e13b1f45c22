"""The page's own plain words: states, ages, sizes, names, and what to do about a reason. English; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["ready", "draft", "work", "warn", "refused", "stop"]


@dataclass(frozen=True)
class StateWords:
    """How one state of a study is told: a tone (colour and shape), a label, and a sentence."""

    tone: Tone
    label: str
    explain: str
    unsettled: bool = False  # the page keeps looking by itself


STATES: dict[str, StateWords] = {
    "receiving": StateWords("work", "Receiving images", "Images of this study are still arriving.", True),
    "queued": StateWords("work", "Waiting to be read", "The images are safe and wait their turn.", True),
    "reading": StateWords("work", "Being read", "The box is reading this study now.", True),
    "draft": StateWords("draft", "Draft ready", "Written by a machine. A clinician must check it against the image."),
    "refused": StateWords("refused", "Not read", "The images are safe, but the box does not read this study."),
    "failed": StateWords("stop", "Reading failed", "The images are safe, but the box could not read them."),
    "signed": StateWords("ready", "Signed", "A clinician has checked and signed this report."),
}

_ANOTHER_PART = "Nothing is wrong if another examination was meant: have this study read by a person."
_KEEPER = "tell the person who looks after the box the code below."

# What to do, by code; the longest matching prefix wins. Every area of codes that a study can carry is here.
ADVICE: dict[str, str] = {
    "gate.": "Look at the image yourself. If it is a chest X-ray, check exposure and position and take it again.",
    "gate.modality": _ANOTHER_PART,
    "gate.body-part": _ANOTHER_PART,
    "gate.not-a-chest": _ANOTHER_PART,
    "gate.multi-frame": _ANOTHER_PART,
    "gate.colour": _ANOTHER_PART,
    "gate.resolution": "Send the image in its full size from the X-ray unit, or have this study read by a person.",
    "gate.view": "Send the frontal (PA or AP) chest image of this patient too, or have this study read by a person.",
    "dicom.": "Send the image again from the X-ray unit. If it fails again, tell the unit's keeper the code below.",
    "worker.": f"Have this study read by a person now, and {_KEEPER}",
    "bundle.": "Have this study read by a person now. The model of this box must be installed again.",
    "backend.": f"Have this study read by a person now. Restart the box. If that does not help, {_KEEPER}",
    "storage.": "Free space or replace the storage of the box, then send the image again.",
}
ADVICE_ELSE = f"Have this study read by a person, and {_KEEPER}"


@dataclass(frozen=True)
class Advice:
    """Title and action of a banner about a service."""

    title: str
    todo: str


# By code; then, for codes that are not here, by service and state.
SERVICE_CODES: dict[str, Advice] = {
    "storage.full": Advice(
        "Storage is full: new images are turned away",
        "Leave the images on the X-ray unit. Have older studies moved to another machine now, or the storage replaced.",
    ),
    "storage.nearly-full": Advice(
        "Storage is nearly full",
        "Have older studies moved to another machine, or the storage replaced, within the next days.",
    ),
    "storage.repaired": Advice(
        "The records of this box were damaged and have been rebuilt from the stored images",
        "Look whether the studies of the last days are all here, and send what is missing again from the X-ray unit.",
    ),
    "worker.other-backend": Advice(
        "Reading works, but more slowly", f"Nothing needs to be done now. If this stays for a day, {_KEEPER}"
    ),
    "worker.slowed": Advice(
        "The box is hot: reading takes longer",
        "Give the box air: keep it out of the sun and its openings free. Reading goes on.",
    ),
    "worker.too-hot": Advice(
        "The box is too hot: no new drafts",
        "Give the box air: out of the sun, its openings free. Have urgent images read by a person meanwhile.",
    ),
    "worker.starts-slowly": Advice(
        "No new drafts for a moment",
        f"Have urgent images read by a person. If this comes again and again, {_KEEPER}",
    ),
    "worker.earlier-model": Advice(
        "Reading works, with an earlier model", f"Put the newest update stick in again. If this stays, {_KEEPER}"
    ),
}
SERVICE_STATES: dict[tuple[str, str], Advice] = {
    ("worker", "paused"): Advice(
        "No new drafts",
        "Have urgent images read by a person. Waiting studies are read as soon as the AI works again.",
    ),
    ("worker", "degraded"): Advice("Reading works, but perhaps slower", f"If this stays, {_KEEPER}"),
    ("care", "paused"): Advice("The box does not look after its storage", _KEEPER.capitalize()),
    ("care", "degraded"): Advice("The box's storage needs attention", _KEEPER.capitalize()),
    ("capture", "paused"): Advice(
        "No pictures can be taken from the machine's screen", "Look whether its cable is plugged in and it is on."
    ),
    ("capture", "degraded"): Advice("Pictures from the machine's screen need a look", "Look at each picture taken."),
    ("panel", "degraded"): Advice("The status panel does not answer", "Look whether its cable is plugged in."),
    ("link", "degraded"): Advice("The monitoring system or the printer cannot be reached", "Reading goes on."),
    ("receive", "paused"): Advice("No new images can arrive", f"Keep the images on the X-ray unit, and {_KEEPER}"),
    ("receive", "degraded"): Advice("Some images may not arrive", "Check here that each image you send appears."),
}

# A service that gives no sign of life for `service_limits.SILENT_AFTER_S`.
SILENT: dict[str, Advice] = {
    "receive": Advice(
        "The receiver does not answer: no new images can arrive",
        "Keep the images on the X-ray unit. Restart the box. If this stays, tell the person who looks after it.",
    ),
    "worker": Advice(
        "The reader does not answer: no new drafts",
        f"Have urgent images read by a person. Restart the box. If this stays, {_KEEPER}",
    ),
    "care": Advice("The box does not look after its storage", f"Restart the box. If this stays, {_KEEPER}"),
    "link": Advice("The box tells the monitoring system and the printer watch nothing", f"If this stays, {_KEEPER}"),
    "panel": Advice("The status panel shows nothing new", f"Look at this page instead. If this stays, {_KEEPER}"),
    "capture": Advice(
        "No pictures can be taken from the machine's screen",
        f"Keep the pictures on the machine. Restart the box. If this stays, {_KEEPER}",
    ),
}


LONG_WAIT_S = 300.0
LONG_WAIT = "It waits longer than usual: have it read by a person if it is urgent."


def state_words(state: str) -> StateWords:
    """Words for a state of the store's transition table; KeyError for a state that is not in it."""
    return STATES[state]


def todo(code: str) -> str:
    """What a nurse can do about the reason of a study; the longest prefix in ADVICE wins."""
    return longest_prefix(ADVICE, code) or ADVICE_ELSE


def longest_prefix(advice: dict[str, str], code: str) -> str:
    """The advice of the longest key that `code` begins with, "" where none does."""
    matching = [prefix for prefix in advice if code.startswith(prefix)]
    return advice[max(matching, key=len)] if matching else ""


def advice(service: str, state: str, code: str) -> Advice:
    """Title and action for a service that is not well."""
    if code in SERVICE_CODES:
        return SERVICE_CODES[code]
    state_word = "has stopped" if state == "paused" else "has a problem"
    return SERVICE_STATES.get((service, state)) or Advice(f"The service {service} {state_word}", _KEEPER.capitalize())


def ago(seconds: float) -> str:
    """An age in plain words: "just now", "3 min ago", "2 h ago", "5 days ago"."""
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    if seconds < 2 * 86400:
        return f"{int(seconds // 3600)} h ago"
    return f"{int(seconds // 86400)} days ago"


def age(monotonic_s: float, boot_id: str, now_s: float, boot_now: str) -> str:
    """Age of a stored monotonic time; a time of another boot cannot be compared (CLOCK_MONOTONIC starts at boot)."""
    return ago(max(0.0, now_s - monotonic_s)) if boot_id == boot_now else "before the last restart"


def size(size_bytes: int) -> str:
    """Decimal size with a unit: "512 bytes", "3.4 kB", "10.2 MB"."""
    if size_bytes < 1000:
        return f"{size_bytes} bytes"
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1e3:.1f} kB"
    return f"{size_bytes / 1e6:.1f} MB"


def person(name: str) -> str:
    """DICOM PN (PS3.5 6.2.1) as a person reads it: "DOE^JANE^^DR" -> "DOE, JANE DR"; the first filled group is used."""
    group = next((part for part in name.split("=") if part.strip("^ ")), "")
    parts = [part.strip() for part in group.split("^")] + [""] * 5
    family, given, middle, prefix, suffix = parts[:5]
    rest = " ".join(part for part in (prefix, given, middle, suffix) if part)
    return ", ".join(part for part in (family, rest) if part) or "Name not given"


def date(value: str) -> str:
    """DICOM DA (PS3.5 6.2) "20260131" -> "2026-01-31"; anything else as given."""
    if len(value) == 8 and value.isdigit():
        return f"{value[:4]}-{value[4:6]}-{value[6:]}"
    return value or "date not given"


def count(number: int, one: str, many: str) -> str:
    """ "1 image", "2 images"."""
    return f"{number} {one if number == 1 else many}"
