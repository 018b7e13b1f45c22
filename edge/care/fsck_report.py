"""What `radbox fsck` found, in words and as JSON. No patient data: files are named by the sha256 of their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["fault", "left-over"]

# Code: severity, one of it, several of it, what the repair does (or did).
WORDS: Final[Mapping[str, tuple[Severity, str, str, str]]] = {
    "fsck.database-missing": (
        "fault",
        "The database is missing.",
        "The database is missing.",
        "A new one was made from the stored images; every study waits to be read again.",
    ),
    "fsck.database-damaged": (
        "fault",
        "The database is damaged.",
        "The database is damaged.",
        "It was moved aside, and a new one was made from the stored images.",
    ),
    "fsck.database-marked": (
        "left-over",
        "The database was noted as damaged, or its repair was cut, but it is whole.",
        "",
        "The note was removed.",
    ),
    "fsck.database-newer": (
        "fault",
        "The database was written by a newer radbox. Install that version; nothing was changed.",
        "",
        "",
    ),
    "fsck.database-older": (
        "left-over",
        "The database was written by an older radbox; the next start of a service brings it up to date.",
        "",
        "It was brought up to date.",
    ),
    "fsck.database-locked": (
        "fault",
        "The database does not open with this box's key: either the key is not at hand here (run fsck where the "
        "services run), or its first page is damaged. To rebuild it all the same, move it away by hand first. "
        "Nothing was changed.",
        "",
        "",
    ),
    "fsck.object-missing": (
        "fault",
        "1 stored image is gone from the disk.",
        "{} stored images are gone from the disk.",
        "Their rows were removed and their studies say so; send them again if they are still on the X-ray machine.",
    ),
    "fsck.object-damaged": (
        "fault",
        "1 stored image is not what was received.",
        "{} stored images are not what was received.",
        "They were moved to the quarantine and their studies say so; send them again.",
    ),
    "fsck.object-unknown": (
        "left-over",
        "1 image on the disk is not in the database.",
        "{} images on the disk are not in the database.",
        "They were added; what is no whole DICOM object went to the quarantine.",
    ),
    "fsck.strange-file": (
        "left-over",
        "1 file among the images is none of the box's.",
        "{} files among the images are none of the box's.",
        "",
    ),
    "fsck.temporary-file": (
        "left-over",
        "1 unfinished file was left behind.",
        "{} unfinished files were left behind.",
        "Deleted.",
    ),
    "fsck.rendering-missing": (
        "fault",
        "The picture of 1 report is gone.",
        "The pictures of {} reports are gone.",
        "Drafts among them are read again.",
    ),
    "fsck.rendering-unknown": (
        "left-over",
        "1 folder of pictures belongs to no report.",
        "{} folders of pictures belong to no report.",
        "Deleted.",
    ),
    "fsck.quarantine-missing": (
        "left-over",
        "1 quarantined object is gone from the disk.",
        "{} quarantined objects are gone from the disk.",
        "Their rows were removed.",
    ),
    "fsck.quarantine-unknown": (
        "left-over",
        "1 file of the quarantine is not in the database.",
        "{} files of the quarantine are not in the database.",
        "Added.",
    ),
    "fsck.removal-pending": (
        "left-over",
        "1 file waits to be deleted.",
        "{} files wait to be deleted.",
        "Deleted.",
    ),
    "fsck.update-left": (
        "left-over",
        "1 folder of an interrupted update was left behind.",
        "{} folders of interrupted updates were left behind.",
        "Deleted.",
    ),
    "fsck.signature-damaged": (
        "fault",
        "1 signed report is not what was signed.",
        "{} signed reports are not what was signed.",
        "",
    ),
    "fsck.signature-unplaced": (
        "fault",
        "1 signed report of the damaged database could not be taken over.",
        "{} signed reports of the damaged database could not be taken over.",
        "",
    ),
}


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. `left-over`: a crash leaves it; nothing is lost. `more`: figures."""

    code: str
    count: int = 1
    repaired: bool = False
    more: str = ""

    @property
    def severity(self) -> Severity:
        """Whether something may be lost."""
        return WORDS[self.code][0]

    def in_words(self) -> str:
        """One or two sentences."""
        _, one, several, mended = WORDS[self.code]
        found = one if self.count == 1 else several.format(self.count)
        return " ".join(part for part in (found, self.more, mended if self.repaired else "") if part)


@dataclass(frozen=True)
class FsckReport:
    """All findings. `objects`: image files looked at; `busy`: services ran, so what they just write was left alone."""

    findings: tuple[Finding, ...]
    objects: int = 0
    busy: bool = False

    @property
    def clean(self) -> bool:
        """True if nothing was found."""
        return not self.findings

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Findings that mean a loss or damage."""
        return tuple(finding for finding in self.findings if finding.severity == "fault")

    def in_words(self) -> str:
        """Everything in sentences, without line breaks."""
        return " ".join(finding.in_words() for finding in self.findings) or "Everything is as it should be."

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {
            "clean": self.clean,
            "objects": self.objects,
            "busy": self.busy,
            "findings": [
                {
                    "code": finding.code,
                    "severity": finding.severity,
                    "count": finding.count,
                    "repaired": finding.repaired,
                    "message": finding.in_words(),
                }
                for finding in self.findings
            ],
        }
