"""How an import ended, in words for a person: counts and reasons, never a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

State = Literal["working", "done", "stopped"]

IMPORTED: Final = "stick.imported"
_STOPPED: Final[Mapping[str, str]] = {
    "stick.removed": "The stick was pulled out or cannot be read. Put it in again: the import goes on where it stopped",
    "stick.disk-full": "The box has too little free space for more images. Make room, then put the stick in again",
    "stick.too-long": "The import took too long and was stopped. Put the stick in again: it goes on where it stopped",
    "stick.busy": "Another stick is being imported. Put this one in again when that has ended",
    "stick.failed": "The import could not be finished. Put the stick in again; if it happens twice, use another stick",
}
_NOT_ALL: Final[Mapping[str, str]] = {
    "stick.too-many-files": "There are more files on the stick than are looked at: move images to another stick",
    "stick.too-deep": "Some folders lie too deep in each other and were not looked at",
    "stick.unreadable": "Some folders could not be read",
    "stick.too-long": "The stick is so slow that not all of it was looked at",
}


@dataclass
class Tally:
    """Counts while an import runs. `found`: images in what was looked at so far; `reasons`: refused ones by code;
    `other`: files that are no images; `stopped`: why it ended early, `not_all`: why not all was looked at."""

    found: int = 0
    taken: int = 0
    known: int = 0
    other: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    stopped: str = ""
    not_all: str = ""

    @property
    def refused(self) -> int:
        """Images that could not be taken."""
        return sum(self.reasons.values())

    @property
    def code(self) -> str:
        """The outcome."""
        return self.stopped or (IMPORTED if self.found else "stick.no-images")

    def refuse(self, code: str) -> None:
        """Count an image that cannot be taken."""
        self.reasons[code] = self.reasons.get(code, 0) + 1

    def fact(self, state: State) -> dict[str, object]:
        """What the store keeps and the page shows."""
        return {
            "state": state,
            "code": "stick.working" if state == "working" else self.code,
            "found": self.found,
            "taken": self.taken,
            "known": self.known,
            "refused": self.refused,
            "other": self.other,
            "reasons": dict(self.reasons),
            "message": self.sentence(state),
        }

    def sentence(self, state: State) -> str:
        """For example "12 images were taken from the stick, 3 were here already."."""
        if state == "working":
            return f"Images are copied from the stick. Leave it in. So far: {self._counts()}."
        more = _STOPPED.get(self.stopped) or _NOT_ALL.get(self.not_all, "")
        if self.found:
            sentences = [self._counts(" from the stick"), more]
        else:
            sentences = [more if self.stopped else "No images were found on the stick", "" if self.stopped else more]
        return " ".join(f"{sentence}." for sentence in sentences if sentence)

    def _counts(self, whence: str = "") -> str:
        number = {0: "No new image was", 1: "1 image was"}.get(self.taken, f"{self.taken} images were")
        taken = f"{number} taken{whence}"
        known = f", {self.known} {'was' if self.known == 1 else 'were'} here already" if self.known else ""
        return f"{taken}{known}" + (f", {self.refused} cannot be used" if self.refused else "")
