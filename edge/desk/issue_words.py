"""What the page says about an issue and about each fix, keyed by code. English; the titles are in `edge.issue_titles`.

{values} are those of the check, made readable by `edge.desk.issue_view`. A key `code:severity` comes before `code`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PUT_OFF: Final = "issue.put-off"
KEEPER: Final = "tell the person who looks after the box"


@dataclass(frozen=True)
class IssueWords:
    """icon: a name of pages/issue_icons.html. fixes: actions, the best one first. link: a page and how it is called."""

    icon: str
    text: str
    todo: str
    fixes: tuple[str, ...] = ()
    link: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class FixWords:
    """button: what it says. ask: the question before it is done, "" where nothing is lost by it.

    doing: while care is at it. done, nothing: what became of it (codes fix.done, fix.nothing).
    """

    button: str
    doing: str
    done: str
    nothing: str
    ask: str = ""


WORDS: Final[Mapping[str, IssueWords]] = {
    "issue.disk-full": IssueWords(
        "storage",
        "{used_percent} of the storage are used, {free_bytes} are free. New images stay on the X-ray machine; "
        "the images that are here are safe.",
        "Press a button below to make room. If that does not help, have older studies moved to another machine now.",
        ("storage.clean", "storage.quarantine-clear"),
    ),
    "issue.disk-nearly-full": IssueWords(
        "storage",
        "{used_percent} of the storage are used, {free_bytes} are free. New images are still taken in.",
        "Press a button below to make room, or have older studies moved to another machine within the next days.",
        ("storage.clean", "storage.quarantine-clear"),
    ),
    "issue.clock-unset": IssueWords(
        "clock",
        "The box lost the date and the time while it was off. Images are read as always, but times may be shown wrong.",
        "Look whether your phone shows the right date and time, then press the button.",
        ("clock.use-phone",),
    ),
    "issue.modality-silent": IssueWords(
        "machine",
        "The machine {subject} used to send images. The last one came {silent_days} ago, counted while the box was on.",
        "If the machine was not used, nothing is wrong. Else look at its network cable and whether its images wait in "
        "its send queue.",
        ("modality.retire",),
    ),
    "issue.modality-aborting": IssueWords(
        "machine",
        "{aborted_percent} of the transfers of the last hour broke off before their end. Images that arrived are safe.",
        f"Look whether the network cables sit well, and send again what is missing. If it stays, {KEEPER}.",
    ),
    "issue.accelerator-lost": IssueWords(
        "chip",
        "The part that makes reading fast does not answer. The box reads without it, more slowly, and keeps looking.",
        "Press the button to look for it now. If that does not help, switch the box off, wait ten seconds, and switch "
        f"it on again. If it stays, {KEEPER}.",
        ("worker.try-accelerator",),
    ),
    "issue.ai-paused": IssueWords(
        "chip",
        "No new drafts are written. Images still arrive and are kept; they are read as soon as the AI works again.",
        f"Have urgent images read by a person. Press the button to try again. If it stays, {KEEPER} the code below.",
        ("worker.try-accelerator",),
    ),
    "issue.update-rolled-back": IssueWords(
        "model",
        "The box tried a new model, saw that it does not work here, and went back to the earlier one by itself.",
        "Nothing needs to be done here. Tell those who sent the update stick.",
        ("update.seen",),
        ("/model", "To the model page"),
    ),
    "issue.printer": IssueWords(
        "printer",
        "The printer says: {problem}",
        "Look at the printer: paper, toner, cover, and whether it is switched on.",
    ),
    "issue.throttling": IssueWords(
        "heat",
        "The box is warm{hottest_c}. It reads more slowly so that it does not get hotter. Drafts take longer.",
        "See that nothing covers the box or its openings, and that it stands in the shade. Clean away dust.",
    ),
    "issue.too-hot": IssueWords(
        "heat",
        "The box is hot{hottest_c}. Images still arrive and are kept; they are read when it has cooled down.",
        "Uncover the box, move it into the shade, and let air reach it. Have urgent images read by a person.",
    ),
    "issue.weak-power": IssueWords(
        "power",
        "At this moment the box gets less power than it needs, or something plugged into it draws too much. It may "
        "switch off without warning.",
        "Use the power supply that came with the box, straight into the wall. Pull out what does not belong to it.",
    ),
    "issue.weak-power:info": IssueWords(
        "power",
        "Since it was switched on, the box got less power than it needs at least once. Now it is enough.",
        "Use the power supply that came with the box, straight into the wall.",
    ),
    "issue.wear": IssueWords(
        "storage",
        "The storage {subject} has used up {worn_percent} of the life that its maker promises.",
        f"Have a backup made, and the storage replaced soon: {KEEPER}.",
    ),
    "issue.database-repaired": IssueWords(
        "records",
        "The records were damaged, most likely by a power cut, and were made again from the stored images.",
        "Look whether the last days' studies are all here, and send what is missing again. Signatures may be gone.",
        ("issue.seen",),
    ),
    "issue.service-silent": IssueWords(
        "service",
        "It is {subject}. The box starts it again by itself.",
        f"Wait a minute. If it stays, switch the box off, wait ten seconds, and switch it on again. Then {KEEPER}.",
    ),
    "issue.service-silent:critical": IssueWords(
        "service",
        "It is {subject}. The box starts it again by itself. The images that are here are safe.",
        "Have urgent images read by a person. Wait a minute. If it stays, switch the box off, wait ten seconds, and "
        f"switch it on again. Then {KEEPER}.",
    ),
    "issue.watchdog-reset": IssueWords(
        "restart",
        "It restarted {reason}. It works again, and no image that had arrived was lost.",
        f"Send again what the X-ray machine shows as not sent. If it happens often, {KEEPER}.",
        ("issue.seen",),
    ),
    "issue.grabber-no-signal": IssueWords(
        "video",
        "The box waits for the picture of the ultrasound machine: {problem}.",
        "If the machine is switched off, nothing is wrong. Else look at both ends of the video cable.",
    ),
    "issue.panel-lost": IssueWords(
        "panel",
        "The little display of the box does not answer. Everything else works.",
        f"Look at the cable between the display and the box. If it stays, {KEEPER}.",
    ),
    "issue.mqtt-lost": IssueWords(
        "network",
        "The place that collects how boxes are does not answer. Reports wait here; studies are not concerned.",
        f"Look at the network cable of the box. If it stays, {KEEPER}.",
    ),
    "issue.outbox-full": IssueWords(
        "network",
        "Too many status reports waited, and the oldest were dropped. Studies are not concerned.",
        f"Look at the network cable of the box. If it stays, {KEEPER}.",
    ),
}
ELSE: Final = IssueWords(
    "service", "The box found something that this page has no words for.", f"Please {KEEPER} the code below."
)

FIXES: Final[Mapping[str, FixWords]] = {
    "storage.clean": FixWords(
        "Make room now",
        "Removing what another machine keeps and what is old.",
        "There is more room now.",
        "Nothing may be removed: the box only removes what another machine keeps.",
    ),
    "storage.quarantine-clear": FixWords(
        "Delete unreadable files",
        "Deleting the older half of the unreadable files.",
        "Unreadable files were deleted.",
        "There was nothing to delete.",
        "These files came from machines but could not be read as images. The older half of them is deleted for good. "
        "No study is touched.",
    ),
    "clock.use-phone": FixWords(
        "Use this phone's time",
        "Setting the clock.",
        "The clock follows your phone now.",
        "The clock was right already.",
    ),
    "worker.try-accelerator": FixWords(
        "Try again now",
        "Asking the reader to try.",
        "The box tries it now. This page says within a minute or two whether it works.",
        "The box was trying already.",
    ),
    "update.seen": FixWords(
        "Understood", "Noting it.", "Noted. It is not shown any more.", "Somebody noted it already."
    ),
    "issue.seen": FixWords(
        "Understood", "Noting it.", "Noted. It is not shown any more.", "Somebody noted it already."
    ),
    PUT_OFF: FixWords(
        "Not now",
        "Noting it.",
        "It moves to the end of this page for a day.",
        "It was over already.",
    ),
    "modality.retire": FixWords(
        "This machine is not used any more",
        "Noting it.",
        "The box does not miss this machine any more, until it sends again.",
        "The box does not know this machine any more.",
    ),
}

# What became of a wish where the fix itself has no words for it.
OUTCOMES: Final[Mapping[str, str]] = {
    "fix.refused": "This could not be done.",
    "fix.failed": "This did not work.",
    "fix.too-late": "The box did not get to it in time.",
}
OUTCOME_ELSE: Final = "The box answered in a way that this page has no words for."

SERVICES: Final[Mapping[str, str]] = {
    "receive": "the part that takes images in: no new images can arrive",
    "worker": "the part that reads images: no new drafts are written",
    "link": "the part that reports how the box is and watches the printer",
    "panel": "the part that drives the little display",
    "capture": "the part that takes pictures from the video cable",
}
RESETS: Final[Mapping[str, str]] = {
    "watchdog": "because it did not answer any more",
    "panic": "because its system had failed",
    "crash": "without being switched off",
}
VIDEO: Final[Mapping[str, str]] = {
    "starting": "none has come yet",
    "stale": "none comes any more",
    "no-signal": "the cable brings none",
    "geometry": "it has another size than it should",
}
PROBLEM_ELSE: Final = "it does not answer"


def words_of(code: str, severity: str) -> IssueWords:
    """The words of an issue; general ones for a code that this version does not know."""
    return WORDS.get(f"{code}:{severity}") or WORDS.get(code, ELSE)


def outcome(action: str, code: str) -> str:
    """One sentence about what became of a wish."""
    fix = FIXES.get(action)
    if fix and code == "fix.done":
        return fix.done
    if fix and code == "fix.nothing":
        return fix.nothing
    return OUTCOMES.get(code, OUTCOME_ELSE)
