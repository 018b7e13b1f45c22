"""What a C-STORE answers for each reason: DICOM status by our stable code (PS3.4 B.2.3, PS3.7 C.5), never more.

The comment that goes back to the sender is our own sentence, at most 64 characters (PS3.7 E.2, LO), no attribute value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700
NOT_ITS_SOP_CLASS: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000


@dataclass(frozen=True)
class Answer:
    """(0000,0900) Status and, for a failure, (0000,0902) Error Comment."""

    status: int
    comment: str = ""


# Refused: nothing is kept, the sender keeps its object and may send it again.
REFUSALS: Final[Mapping[str, Answer]] = {
    "storage.full": Answer(OUT_OF_RESOURCES, "no room on the box's disk"),
    "storage.nearly-full": Answer(OUT_OF_RESOURCES, "disk nearly full: no second version of an object"),
    "storage.failed": Answer(OUT_OF_RESOURCES, "the box's disk did not take the object"),
    "intake.too-large": Answer(OUT_OF_RESOURCES, "object is larger than this box takes"),
    "intake.no-data-set": Answer(CANNOT_UNDERSTAND, "C-STORE without a data set"),
    "intake.broke": Answer(0x0110, "the box could not process the object"),
}

# Quarantined: the bytes are kept apart with the reason, and the sender hears a failure.
FAULTS: Final[Mapping[str, Answer]] = {
    "dicom.malformed": Answer(CANNOT_UNDERSTAND, "bytes are not a DICOM data set"),
    "dicom.empty": Answer(CANNOT_UNDERSTAND, "data set has no bytes"),
    "dicom.cut": Answer(0xC001, "data set ends in the middle of an element"),
    "dicom.pixels-cut": Answer(0xC002, "pixel data is shorter than the image it describes"),
    "dicom.inflates-too-large": Answer(0xC003, "deflated data set is too large"),
    "dicom.no-study-uid": Answer(0xC004, "no Study Instance UID in the data set"),
    "dicom.no-sop-uid": Answer(NOT_ITS_SOP_CLASS, "no SOP Class or SOP Instance UID in the data set"),
    "dicom.sop-class-mismatch": Answer(NOT_ITS_SOP_CLASS, "SOP Class UID differs between command and data set"),
    "dicom.sop-instance-mismatch": Answer(NOT_ITS_SOP_CLASS, "SOP Instance UID differs between command and data set"),
}
