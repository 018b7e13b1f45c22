"""Header facts of DICOM objects: age, view, body part, spacing, identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom import config

from edge.reading.dicom import read_dicom
from edge.reading.dicom_header import header_facts
from tests.dicom_objects import SOP_INSTANCE_UID, image_object, item, ramp, save

# -- header facts -------------------------------------------------------------------------------------------------


def facts(**attributes: Any) -> Any:
    with config.disable_value_validation():
        return header_facts(item(**attributes))


@pytest.mark.parametrize(
    ("age", "years"),
    [
        ("063Y", 63),
        ("018M", 1.5),
        ("010D", 10 / 365.25),
        ("006W", 42 / 365.25),
        ("63", None),
        ("999Y", None),
        ("", None),
    ],
)
def test_age(age: str, years: float | None) -> None:
    assert facts(PatientAge=age).age_years == (None if years is None else pytest.approx(years))


def test_age_from_dates() -> None:
    assert facts(PatientBirthDate="20000101", StudyDate="20100101").age_years == pytest.approx(10, abs=0.01)
    assert facts(PatientBirthDate="2000", StudyDate="20100101").age_years is None
    assert facts(PatientBirthDate="20100101", StudyDate="20000101").age_years is None
    assert facts(PatientBirthDate="20001340", StudyDate="20100101").age_years is None


@pytest.mark.parametrize(
    ("position", "view"),
    [
        ("PA", "PA"),
        ("ap ", "AP"),
        ("LL", "LATERAL"),
        ("Lateral", "LATERAL"),
        ("LLD", "OTHER"),
        ("MLO", "OTHER"),
        ("", None),
    ],
)
def test_view_position(position: str, view: str | None) -> None:
    assert facts(ViewPosition=position).view == view


@pytest.mark.parametrize(
    ("code", "scheme", "view"),
    [("272479007", "SCT", "PA"), ("R-10206", "SNM3", "AP"), ("R-10236", "SRT", "LATERAL"), ("R-10242", "SRT", "OTHER")],
)
def test_view_code_sequence(code: str, scheme: str, view: str) -> None:
    sequence = [item(CodeValue=code, CodingSchemeDesignator=scheme)]
    assert facts(ViewPosition="", ViewCodeSequence=sequence).view == view


def test_body_part_spacing_and_identity() -> None:
    assert facts(BodyPartExamined=" chest ").body_part == "CHEST"
    region = item(CodeValue="T-D3000", CodingSchemeDesignator="SRT", CodeMeaning="Chest")
    assert facts(AnatomicRegionSequence=[region]).body_part == "CHEST"
    assert facts(AnatomicRegionSequence=[item(CodeValue="X", CodeMeaning="Hip joint")]).body_part == "HIP JOINT"
    assert facts(ImagerPixelSpacing=["0.15", "0.2"], PixelSpacing=["1", "1"]).spacing_mm == (0.15, 0.2)
    assert facts(ImagerPixelSpacing=["0", "0"], PixelSpacing=["1", "1"]).spacing_mm == (1.0, 1.0)
    assert facts(PixelSpacing="0.2").spacing_mm is None
    assert facts(Modality=["cr", "DX"]).modality == "CR"
    assert facts() == facts(Modality="", PatientAge=None, ViewCodeSequence=[], AnatomicRegionSequence=[])


def test_the_instance_is_named(tmp_path: Path) -> None:
    (radiograph,) = read_dicom(save(image_object(ramp()), tmp_path / "one.dcm"))
    assert radiograph.sop_instance_uid == SOP_INSTANCE_UID
    assert radiograph.source == "dicom"
    assert (radiograph.frame, radiograph.frames) == (0, 1)
