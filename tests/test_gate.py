"""What the gate lets through and what it refuses, with the code of each refusal."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.reading import gate
from edge.reading.radiograph import Radiograph, Refusal
from edge.reading.read_file import read_file


def radiograph(pixels: np.ndarray | None = None, **facts: Any) -> Radiograph:
    return Radiograph(pixels=textured() if pixels is None else pixels.astype(np.float32), **facts)


def textured(height: int = 300, width: int = 300) -> np.ndarray:
    """Structure at all scales, as anatomy has: noise with a 1/f amplitude spectrum, 0.1 to 0.9."""
    rng = np.random.default_rng(3)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    spectrum = np.exp(2j * np.pi * rng.random((height, width))) / (np.hypot(fy, fx) + 1 / max(height, width)) ** 1.5
    image = np.real(np.fft.ifft2(spectrum))
    low, high = np.percentile(image, (1, 99))
    return (0.1 + 0.8 * np.clip((image - low) / (high - low), 0, 1)).astype(np.float32)


def code(refusal: Refusal | None) -> str | None:
    if refusal is None:
        return None
    assert refusal.message.endswith(".")
    assert refusal.message[0].isupper()
    return refusal.code


# -- header -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", [None, "CR", "DX", "RG", "OT", "SC"])
@pytest.mark.parametrize(
    "body_part", [None, "CHEST", "THORAX", "LUNG", "CHEST AP", "PORT CHEST", "RIBS", "UNKNOWN", "CHESTABDOMEN"]
)
def test_a_chest_by_its_header_passes(modality: str | None, body_part: str | None) -> None:
    assert gate.check_header(radiograph(modality=modality, body_part=body_part, view="PA")) is None


@pytest.mark.parametrize(
    ("modality", "said"),
    [("US", "ultrasound"), ("CT", "CT image"), ("MR", "MR image"), ("NM", "nuclear medicine"), ("MG", "mammogram")],
)
@pytest.mark.requirement("READ-01")
def test_other_modalities_are_named_in_words(modality: str, said: str) -> None:
    refusal = gate.check_header(radiograph(modality=modality, body_part="CHEST"))
    assert code(refusal) == "gate.modality"
    assert refusal is not None
    assert said in refusal.message


def test_an_unknown_modality_is_quoted_without_its_odd_characters() -> None:
    refusal = gate.check_header(radiograph(modality="Q<B>\n1"))
    assert refusal == Refusal("gate.modality", f"This is an object of modality QB1. {gate.ONLY_CHEST}")


@pytest.mark.parametrize(
    "body_part",
    [
        "HIP",
        "EXTREMITY",
        "BREAST",
        "ABDOMEN",
        "SKULL",
        "T SPINE",
        "TSPINE",
        "LEFT HAND",
        "KNEE",
        "LEG",
        "UP_EXM ARM",
        "KUB",
    ],
)
@pytest.mark.requirement("READ-01")
def test_other_body_parts(body_part: str) -> None:
    assert code(gate.check_header(radiograph(modality="CR", body_part=body_part))) == "gate.body-part"


def test_lateral_view_cine_and_colour() -> None:
    assert code(gate.check_header(radiograph(modality="DX", view="LATERAL"))) == "gate.view"
    assert code(gate.check_header(radiograph(modality="DX", view="OTHER"))) is None
    assert code(gate.check_header(radiograph(modality="DX", frames=30))) == "gate.multi-frame"
    assert code(gate.check_header(radiograph(colour=True, source="picture"))) == "gate.colour"


def test_reference_files_by_their_header(shared_data: Path) -> None:
    expected = {
        "RG1_J2KI.dcm": None,
        "RG1_JLSN.dcm": None,
        "RG2_RLE.dcm": "gate.body-part",
        "RG3_J2KR.dcm": "gate.body-part",
        "MG1_J2KI.dcm": "gate.body-part",
        "US1_J2KI.dcm": "gate.modality",
        "CT2_JPLL.dcm": "gate.modality",
        "MR2_J2KR.dcm": "gate.modality",
        "JPEG-LL.dcm": "gate.modality",
        "HTJ2KLossless_08_RGB.dcm": "gate.colour",
    }
    for name, wanted in expected.items():
        first = read_file(shared_data / "dicom" / name)[0]
        assert code(gate.check_header(first) or gate.check_exposure(first)) == wanted, name


# -- exposure -----------------------------------------------------------------------------------------------------


def test_structure_passes_at_any_size() -> None:
    for size in ((180, 180), (224, 300), (2048, 1600)):
        assert gate.check_exposure(radiograph(textured(*size))) is None


def test_blank_images_are_blank_before_anything_else() -> None:
    for value in (0.0, 0.5, 1.0):
        flat = radiograph(np.full((64, 64), value))
        assert code(gate.check_blank(flat)) == code(gate.check_exposure(flat)) == "gate.blank"
    assert gate.check_blank(radiograph()) is None


def test_resolution() -> None:
    assert code(gate.check_exposure(radiograph(textured(179, 400)))) == "gate.resolution"


def test_exposure_and_contrast() -> None:
    image = textured()
    for changed in (image * 0.2, image + 0.6, 0.45 + image * 0.1, image - 0.6):
        assert code(gate.check_exposure(radiograph(np.clip(changed, 0, 1)))) == "gate.exposure"


def test_blur_and_noise() -> None:
    for size in (256, 1024):
        image = textured(size, size)
        blurred = cv2.GaussianBlur(image, (0, 0), 6 * size / 256)
        low, high = blurred.min(), blurred.max()
        assert code(gate.check_exposure(radiograph((blurred - low) / (high - low)))) == "gate.sharpness"
    noise = np.random.default_rng(0).random((256, 256))
    assert code(gate.check_exposure(radiograph(noise))) == "gate.noise"


def test_a_black_border_does_not_make_an_image_dark() -> None:
    framed = np.zeros((400, 400), np.float32)
    framed[80:320, 80:320] = textured(240, 240)
    assert gate.check_exposure(radiograph(framed)) is None


@pytest.mark.parametrize("source", ["nih_cxr", "kermany_paediatric_cxr"])
def test_real_radiographs_pass_and_their_blurred_copies_do_not(shared_data: Path, source: str) -> None:
    rows = list(csv.DictReader((shared_data / source / "labels.csv").read_text().splitlines()))
    for row in rows[:: len(rows) // 25]:
        (real,) = read_file(shared_data / source / "images" / row["file"])
        assert gate.check_header(real) is None
        assert gate.check_exposure(real) is None, row["file"]
        sigma = 6 * min(real.pixels.shape) / 256
        blurred = replace(real, pixels=cv2.GaussianBlur(real.pixels, (0, 0), sigma))
        assert code(gate.check_exposure(blurred)) == "gate.sharpness", row["file"]


# -- learned ------------------------------------------------------------------------------------------------------


def test_learned_score() -> None:
    assert gate.check_learned(0.7, 0.5) is None
    assert gate.check_learned(0.5, 0.5) is None
    assert code(gate.check_learned(0.49, 0.5)) == "gate.not-a-chest-radiograph"
    assert code(gate.check_learned(float("nan"), 0.5)) == "gate.not-a-chest-radiograph"


def masks(right: tuple[slice, slice] | None, left: tuple[slice, slice] | None) -> np.ndarray:
    result = np.full((3, 16, 16), 0.05, np.float32)
    for channel, box in enumerate((right, left)):
        if box is not None:
            result[channel][box] = 0.9
    return result


RIGHT, LEFT = (slice(2, 12), slice(2, 7)), (slice(2, 12), slice(9, 14))


def test_two_lungs_side_by_side_or_one_white_lung_pass() -> None:
    assert gate.check_geometry(masks(RIGHT, LEFT)) is None
    assert gate.check_geometry(masks(RIGHT, None)) is None
    assert gate.check_geometry(masks(None, LEFT)) is None


@pytest.mark.parametrize(
    ("right", "left"),
    [
        (None, None),
        (LEFT, RIGHT),  # swapped
        ((slice(0, 5), slice(2, 12)), (slice(10, 15), slice(2, 12))),  # one above the other
        ((slice(0, 2), slice(0, 3)), None),  # a speck
        ((slice(0, 16), slice(0, 8)), (slice(0, 16), slice(8, 16))),  # everywhere
    ],
)
def test_other_arrangements_are_no_lungs(right: tuple[slice, slice] | None, left: tuple[slice, slice] | None) -> None:
    assert code(gate.check_geometry(masks(right, left))) == "gate.lungs-not-found"


def test_masks_that_are_not_numbers_are_no_lungs() -> None:
    assert code(gate.check_geometry(np.full((3, 16, 16), np.nan, np.float32))) == "gate.lungs-not-found"
