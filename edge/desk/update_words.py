"""The page's words for the outcomes of an update: a title, and what to do. English; pure."""

from __future__ import annotations

from edge.desk.words import longest_prefix

TITLE_ELSE = "The update was not taken"
TITLES: dict[str, str] = {
    "update.installed": "A new model was installed",
    "update.committed": "The new model has passed its trial",
    "update.proposed": "A new model waits for a decision",
    "update.declined": "A new model was not taken",
    "update.not-newer": "Nothing new on the stick",
    "update.rolled-back-crash": "The new model failed; the earlier one reads again",
    "update.rolled-back-slow": "The new model was too slow; the earlier one reads again",
    "update.rolled-back-person": "The box went back to the earlier model",
    "update.rollback-forbidden": "The box did not go back",
    "update.state-damaged": "The box runs the model it was delivered with",
}

_NOTHING = "Nothing."
_NEW_STICK = "Do not use this stick. Ask those who send you updates for a new one."
_NEWEST_STICK = "Use the newest stick that you were sent."
_WRITE_AGAIN = "Have the stick written again, with nothing else in its folder EDGE-UPDATE."
_REPORT = "Give the stick back to those who sent it: the box has written a report for them onto it."
_FAILED_HERE = "Tell those who sent the stick. If it is put in once more, the box writes a report for them onto it."
_SOFTWARE = "Have the software of the box updated first."

# What to do, by code; the longest matching prefix wins. The first line is for every code that has none of its own.
ADVICE: dict[str, str] = {
    "update.": "Put the stick in again. If that does not help, give the code below to those who sent it.",
    "update.installed": f"{_NOTHING} The box goes back to the earlier model by itself if the new one fails.",
    "update.committed": _NOTHING,
    "update.proposed": "Read above what it would change, then choose.",
    "update.declined": _NOTHING,
    "update.not-newer": _NOTHING,
    "update.rolled-back-person": f"{_NOTHING} The other model is kept; it can be used again on this page.",
    "update.rolled-back-": _FAILED_HERE,
    "update.self-test": _REPORT,
    "update.too-slow": _REPORT,
    "update.too-much-memory": _REPORT,
    "update.failed-before": _REPORT,
    "update.wrong-key": _NEW_STICK,
    "update.too-few-signatures": _NEW_STICK,
    "update.root-chain": _NEW_STICK,
    "update.metadata": _NEW_STICK,
    "update.path": _NEW_STICK,
    "update.too-large": _NEW_STICK,
    "update.replayed": _NEWEST_STICK,
    "update.epoch": _NEWEST_STICK,
    "update.revoked": _NEWEST_STICK,
    "update.state-damaged": "Put the newest stick in again.",
    "update.no-update": "Use the stick that was sent to you, or have it written again.",
    "update.truncated": _WRITE_AGAIN,
    "update.file-changed": _WRITE_AGAIN,
    "update.extra-file": _WRITE_AGAIN,
    "update.symlink": _WRITE_AGAIN,
    "update.too-many-files": _WRITE_AGAIN,
    "update.too-deep": _WRITE_AGAIN,
    "update.other-board": "Use the stick that is meant for this kind of box.",
    "update.needs-newer-box": _SOFTWARE,
    "update.schema": _SOFTWARE,
    "update.no-room": "Free space on the box, then put the stick in again.",
    "update.stick-removed": "Put the stick in again and leave it in until this page says what became of it.",
    "update.file-system": "Have the stick formatted as FAT32 or exFAT and written again.",
    "update.rollback-forbidden": "Keep the model in use, or use the newest stick.",
    "update.busy": "Wait until the other update has ended, then put the stick in again.",
    "bundle.": "Put the newest stick in again.",
}


def title(code: str) -> str:
    """The outcome in a few words."""
    return TITLES.get(code, TITLE_ELSE)


def todo(code: str) -> str:
    """What a person can do about it."""
    return longest_prefix(ADVICE, code) or ADVICE["update."]
