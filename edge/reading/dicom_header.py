"""Header facts of a DICOM object for the gate and the report. Odd or missing values become None, never an error."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from edge.reading.radiograph import F32, ViewCode

LONGEST_WORD = 64  # characters kept of a code string (PS3.5 6.2: CS 16, LO and UI 64)
OLDEST_YEARS = 130.0
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_YEARS_PER = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_DATE = re.compile(r"(\d{4})[.]?(\d{2})[.]?(\d{2})")  # the dots are of ACR-NEMA (PS3.5 6.2, DA)

# PS3.3 C.8.1.2.1.2 (0018,5101) and what devices write instead. Decubitus views (LLD, RLD) and obliques are OTHER.
_VIEW_WORDS: dict[str, ViewCode] = {
    "PA": "PA",
    "POSTEROANTERIOR": "PA",
    "AP": "AP",
    "ANTEROPOSTERIOR": "AP",
    "LL": "LATERAL",
    "RL": "LATERAL",
    "LAT": "LATERAL",
    "LATERAL": "LATERAL",
    "LLAT": "LATERAL",
    "RLAT": "LATERAL",
    "LEFTLATERAL": "LATERAL",
    "RIGHTLATERAL": "LATERAL",
}
# PS3.16 CID 4010 "DX View": SNOMED CT codes and the SNOMED-RT (SRT, SNM3) codes they replaced.
_VIEW_CODES: dict[str, ViewCode] = {
    "272479007": "PA",
    "R-10214": "PA",
    "R-40888": "PA",
    "399348003": "AP",
    "R-10206": "AP",
    "399067008": "LATERAL",
    "R-102CD": "LATERAL",
    "399173006": "LATERAL",
    "R-10236": "LATERAL",
    "399198007": "LATERAL",
    "R-10232": "LATERAL",
}
# PS3.16 CID 4031 "Common Anatomic Regions": chest (thorax) and lung.
_CHEST_CODES = ("51185008", "T-D3000", "816094009", "39607008", "T-28000")


@dataclass(frozen=True)
class HeaderFacts:
    """The header fields of `Radiograph`; see there for units."""

    modality: str | None
    body_part: str | None
    view: ViewCode | None
    age_years: float | None
    spacing_mm: tuple[float, float] | None
    sop_instance_uid: str | None


def header_facts(ds: Dataset) -> HeaderFacts:
    """Read the facts of one object. Raises nothing: what cannot be read is None."""
    return HeaderFacts(
        modality=word(ds, "Modality"),
        body_part=_body_part(ds),
        view=_view(ds),
        age_years=_age_years(ds),
        spacing_mm=_spacing_mm(ds),
        sop_instance_uid=_text(ds, "SOPInstanceUID"),
    )


def value(ds: Dataset, keyword: str) -> Any:
    """The attribute's value, or None where it is absent, empty or cannot be converted."""
    try:
        found = ds.get(keyword)
    except Exception:  # pydicom converts lazily and raises nearly anything for a bad value
        return None
    return None if found is None or found == "" else found


def first(ds: Dataset, keyword: str) -> Any:
    """The first of a multi-valued attribute (value multiplicity 1-n), or None."""
    found = value(ds, keyword)
    if found is None or isinstance(found, (str, bytes)) or not hasattr(found, "__getitem__"):
        return found
    return found[0] if len(found) else None


def number(ds: Dataset, keyword: str) -> float | None:
    """The first value as a finite float, or None."""
    try:
        result = float(first(ds, keyword))
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None


def word(ds: Dataset, keyword: str) -> str | None:
    """The first value as an upper-case word, or None."""
    text = _text(ds, keyword)
    return text.upper() if text else None


def items(ds: Dataset, keyword: str) -> Iterator[Dataset]:
    """The items of a sequence; none where it is absent or not a sequence."""
    found = value(ds, keyword)
    if found is not None and not isinstance(found, (str, bytes)) and hasattr(found, "__iter__"):
        yield from (item for item in found if isinstance(item, Dataset))


def as_displayed(ds: Dataset, pixels: F32) -> F32:
    """Turn a frontal image the way it is read: patient's right on the left of the picture, head up.

    pixels (H, W) or (W, H). PS3.3 C.7.6.1.1.1: Patient Orientation (0020,0020) names the direction of the rows, then
    of the columns. Only coronal orientations (R or L with H or F) are turned; anything else is left as stored.
    """
    found = value(ds, "PatientOrientation")
    if found is None or isinstance(found, str) or len(found) != 2:
        return pixels
    row, column = (str(direction)[:1].upper() for direction in found)
    if row in ("H", "F") and column in ("R", "L"):
        pixels, row, column = pixels.T, column, row
    if row not in ("R", "L") or column not in ("H", "F"):
        return pixels
    if row == "R":
        pixels = pixels[:, ::-1]
    if column == "H":
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _text(ds: Dataset, keyword: str) -> str | None:
    found = first(ds, keyword)
    if found is None:
        return None
    return str(found).replace("\0", "").strip()[:LONGEST_WORD] or None


def _body_part(ds: Dataset) -> str | None:
    named = word(ds, "BodyPartExamined")
    if named:
        return named
    for item in items(ds, "AnatomicRegionSequence"):
        return "CHEST" if _text(item, "CodeValue") in _CHEST_CODES else word(item, "CodeMeaning")
    return None


def _view(ds: Dataset) -> ViewCode | None:
    position = word(ds, "ViewPosition")
    if position:
        return _VIEW_WORDS.get(re.sub(r"[^A-Z]", "", position), "OTHER")
    for item in items(ds, "ViewCodeSequence"):
        return _VIEW_CODES.get(_text(item, "CodeValue") or "", "OTHER")
    return None


def _age_years(ds: Dataset) -> float | None:
    """PS3.5 6.2, VR AS: nnnD, nnnW, nnnM or nnnY; else the study date less the birth date."""
    match = _AGE.fullmatch(word(ds, "PatientAge") or "")
    if match:
        years = int(match[1]) * _YEARS_PER[match[2]]
    else:
        born = _date(ds, "PatientBirthDate")
        taken = _date(ds, "StudyDate") or _date(ds, "AcquisitionDate")
        if born is None or taken is None:
            return None
        years = (taken - born).days / 365.25
    return years if 0.0 <= years <= OLDEST_YEARS else None


def _date(ds: Dataset, keyword: str) -> date | None:
    match = _DATE.fullmatch(_text(ds, keyword) or "")
    if not match:
        return None
    try:
        return date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return None


def _spacing_mm(ds: Dataset) -> tuple[float, float] | None:
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        found = value(ds, keyword)
        if found is None or isinstance(found, (str, bytes)) or not hasattr(found, "__len__") or len(found) != 2:
            continue
        try:
            row, column = float(found[0]), float(found[1])
        except (TypeError, ValueError):
            continue
        if 0.0 < row < 1e3 and 0.0 < column < 1e3:
            return row, column
    return None
