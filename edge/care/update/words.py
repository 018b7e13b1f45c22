"""What each outcome of an update is called in plain words, and what to do about it. The table of docs/updates.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge.errors import BundleError, RadboxError, StorageFullError


@dataclass(frozen=True)
class Words:
    """sentence: for the page, the receipt and the events; advice: what a person can do."""

    sentence: str
    advice: str


_NEW_STICK = "Do not use this stick. Get a new one from those who send you updates."
_AGAIN = "Put the stick in again. If it happens twice, have the stick written again or use another."
_MAKER = "Nothing. The stick carries a receipt: give it back to those who sent it."
_REWRITE = "Have the stick written again; put nothing else into the folder EDGE-UPDATE."

OUTCOMES: Final[dict[str, Words]] = {
    "update.installed": Words(
        "A new model is in use, on probation.", "Nothing. The box goes back by itself if it must."
    ),
    "update.proposed": Words(
        "A new model is ready and waits for a yes.", "Look at what it would change, then confirm it on the page."
    ),
    "update.not-newer": Words("This box has this model already.", "Nothing."),
    "update.no-update": Words(
        "There is no complete update on this stick.", "Use the stick that was sent to you, or have it written again."
    ),
    "update.wrong-key": Words("The update was not signed by anyone this box trusts.", _NEW_STICK),
    "update.too-few-signatures": Words("The update was signed by fewer people than this box asks for.", _NEW_STICK),
    "update.root-chain": Words("The keys on the stick do not follow from the keys this box trusts.", _NEW_STICK),
    "update.replayed": Words("The stick is older than what this box has seen already.", "Use the newest stick."),
    "update.epoch": Words("The model is from before a safety limit that this box has passed.", "Use the newest stick."),
    "update.revoked": Words("This model was called back by those who made it.", "Use the newest stick."),
    "update.metadata": Words("The description of the update is in a form this box does not know.", _NEW_STICK),
    "update.schema": Words(
        "The update was made for other software than this box has.", "Update the software of the box first."
    ),
    "update.truncated": Words("A part of the update is missing on the stick.", _REWRITE),
    "update.file-changed": Words("A file on the stick is not the one that was signed.", _REWRITE),
    "update.extra-file": Words("A file lies among the update's files that does not belong to it.", _REWRITE),
    "update.symlink": Words("There is a link on the stick where only files may be.", _REWRITE),
    "update.path": Words("The update has a name in it that is not a plain file's.", _NEW_STICK),
    "update.too-large": Words("A file on the stick is larger than any update may be.", _NEW_STICK),
    "update.too-many-files": Words("There are more files on the stick than any update may have.", _REWRITE),
    "update.too-deep": Words("The folders on the stick lie deeper in each other than any update's.", _REWRITE),
    "update.other-board": Words("The update is for another kind of box.", "Use the stick that is meant for this box."),
    "update.needs-newer-box": Words(
        "The model needs newer software than this box has.", "Update the software of the box first."
    ),
    "update.no-room": Words(
        "There is not enough free space on this box for the update.", "Free space as the page says, then try again."
    ),
    "update.self-test": Words("The new model did not work on this box; the old one stays.", _MAKER),
    "update.too-slow": Words("The new model is too slow on this box; the old one stays.", _MAKER),
    "update.too-much-memory": Words("The new model needs too much memory for this box; the old one stays.", _MAKER),
    "update.stick-removed": Words("The stick was pulled out, or broke, before the update was read.", _AGAIN),
    "update.file-system": Words(
        "The stick is not a USB stick with a file system that this box reads.", "Format it as FAT32 or exFAT."
    ),
    "update.failed-before": Words("This model failed on this box before and is not tried again.", _MAKER),
    "update.rolled-back-crash": Words("The new model stopped the reader; the box went back.", _MAKER),
    "update.rolled-back-slow": Words("The new model was too slow in use; the box went back.", _MAKER),
    "update.rolled-back-person": Words(
        "The box went back to the earlier model because a person asked for it.",
        "Nothing. Asking again swaps them back.",
    ),
    "update.rollback-forbidden": Words(
        "The box must not go back to the earlier model.", "Keep the model in use, or use the newest stick."
    ),
    "update.nothing-waits": Words("No new model waits for a yes.", "Put in a stick first."),
    "update.busy": Words("Another update is at work.", "Wait until it has ended, then try again."),
    "update.state-damaged": Words(
        "The note of which model is in use was damaged; the delivered model runs.", "Put in the newest stick again."
    ),
    "update.failed": Words("The update could not be finished because of a fault in this box.", _AGAIN),
}


def code_of(error: RadboxError) -> str:
    """The code an error has as the outcome of an update: always one of OUTCOMES."""
    if error.code in OUTCOMES:
        return error.code
    if isinstance(error, StorageFullError):
        return "update.no-room"
    if isinstance(error, BundleError):
        return "update.self-test"
    return "update.failed"


def sentence(code: str) -> str:
    """The plain sentence of a code."""
    return OUTCOMES[code].sentence
