"""Pictures become DICOM objects that others can read, and nothing that stands beside the picture comes along."""

from __future__ import annotations

import io
import struct
import subprocess
import zlib
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from edge.errors import DecodeError
from edge.intake.elements import data_set_offset
from edge.intake.header import read_header
from edge.intake.jpeg import bare_jpeg, jpeg_frame
from edge.intake.part10 import read_head
from edge.intake.wrap import PictureFacts, wrap_picture

SMOOTH = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (90, 121, 3), dtype=np.uint8), (9, 9), 3)


def coded(suffix: str, picture: np.ndarray = SMOOTH, *options: int) -> bytes:
    return cv2.imencode(suffix, picture, options)[1].tobytes()


def read(content: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content))


def exif(orientation: int) -> bytes:
    """An APP1 segment with an orientation and a seeded text."""
    text = b"SEEDED NAME\0"
    entries = struct.pack("<HHLHH", 0x0112, 3, 1, orientation, 0) + struct.pack("<HHLL", 0x013B, 2, len(text), 38)
    body = b"Exif\0\0II*\0" + struct.pack("<LH", 8, 2) + entries + bytes(4) + text
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def test_a_baseline_jpeg_keeps_its_coded_bits() -> None:
    jpeg = coded(".jpg")
    ds = read(wrap_picture(jpeg, PictureFacts()))
    assert ds.file_meta.TransferSyntaxUID == pydicom.uid.JPEGBaseline8Bit
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    assert frame.rstrip(b"\0") == jpeg.rstrip(b"\0")
    assert (ds.Rows, ds.Columns, ds.Modality, ds.ConversionType) == (90, 121, "OT", "WSD")
    assert ds.PhotometricInterpretation == "YBR_FULL_422"
    assert (ds.PatientName, ds.PatientID, "BurnedInAnnotation" in ds) == ("", "", False)
    assert np.abs(ds.pixel_array.astype(int) - SMOOTH[..., ::-1]).mean() < 4


@pytest.mark.parametrize("picture", [SMOOTH, SMOOTH[..., 0], SMOOTH[..., 0].astype(np.uint16) * 257])
def test_a_png_is_stored_exactly(picture: np.ndarray) -> None:
    ds = read(wrap_picture(coded(".png", picture), PictureFacts()))
    expected = picture[..., ::-1] if picture.ndim == 3 else picture
    assert np.array_equal(ds.pixel_array, expected)
    assert ds.LossyImageCompression == "00"


def test_transparency_is_dropped() -> None:
    ds = read(wrap_picture(coded(".png", np.dstack([SMOOTH, SMOOTH[..., 0]])), PictureFacts()))
    assert np.array_equal(ds.pixel_array, SMOOTH[..., ::-1])


def test_a_turned_photograph_is_stored_upright() -> None:
    jpeg = coded(".jpg")
    turned = jpeg[:2] + exif(6) + jpeg[2:]
    ds = read(wrap_picture(turned, PictureFacts()))
    assert (ds.Rows, ds.Columns) == (121, 90)
    assert ds.LossyImageCompression == "01"


def test_other_jpeg_kinds_are_decoded() -> None:
    progressive = coded(".jpg", SMOOTH, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert jpeg_frame(progressive) is None
    ds = read(wrap_picture(progressive, PictureFacts()))
    assert ds.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert (ds.Rows, ds.Columns) == (90, 121)


def test_what_a_photograph_says_beside_its_picture_is_left_out() -> None:
    jpeg = coded(".jpg")
    comment = b"\xff\xfe" + struct.pack(">H", 15) + b"SEEDED^SEEDED"
    loud = jpeg[:2] + exif(1) + comment + jpeg[2:] + b"SEEDED VIDEO"
    assert b"SEEDED" not in wrap_picture(loud, PictureFacts())
    assert bare_jpeg(loud) == bare_jpeg(jpeg)
    assert np.array_equal(read(wrap_picture(loud, PictureFacts())).pixel_array, decoded(jpeg))


def decoded(jpeg: bytes) -> np.ndarray:
    return read(wrap_picture(jpeg, PictureFacts())).pixel_array


def test_the_same_picture_is_the_same_object() -> None:
    jpeg = coded(".jpg")
    assert wrap_picture(jpeg, PictureFacts()) == wrap_picture(jpeg, PictureFacts())
    first, second = (read(wrap_picture(jpeg, PictureFacts(instance_number=number))) for number in (1, 2))
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.StudyInstanceUID.startswith("2.25.")
    assert len(first.SOPInstanceUID) <= 64


def test_ultrasound_and_what_is_given() -> None:
    facts = PictureFacts(modality="US", burned_in="YES", study_instance_uid="2.25.7", patient_id="X", date="20260102")
    ds = read(wrap_picture(coded(".png"), facts))
    assert ds.SOPClassUID == pydicom.uid.UltrasoundImageStorage
    assert (ds.BurnedInAnnotation, ds.StudyInstanceUID, ds.PatientID) == ("YES", "2.25.7", "X")
    assert "ConversionType" not in ds
    deep = read(wrap_picture(coded(".png", SMOOTH[..., 0].astype(np.uint16)), facts))
    assert deep.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage  # the former has 8 bits (PS3.3 C.8.5.6.1)


def test_others_can_read_it(tmp_path: Path) -> None:
    for number, content in enumerate((coded(".jpg"), coded(".png"))):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(wrap_picture(content, PictureFacts(modality="US", patient_name="Größe^Ä")))
        done = subprocess.run(["dcmdump", "--convert-to-utf8", path], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        assert "Größe^Ä" in done.stdout
        assert "W:" not in done.stderr
        transfer_syntax, start = read_head(path.read_bytes())
        assert start == data_set_offset(path.read_bytes()[:144])
        assert read_header(path.read_bytes(), start, transfer_syntax).study.modality == "US"


def bomb() -> bytes:
    """A PNG of few bytes that claims 40,000 x 40,000 pixels."""
    body = b"IHDR" + struct.pack(">LLBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">L", 13) + body + struct.pack(">L", zlib.crc32(body))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "intake.picture-unreadable"),
        (b"GIF89a" + bytes(100), "intake.picture-unreadable"),
        (coded(".jpg")[:-400], "intake.picture-unreadable"),
        (coded(".jpg")[:12], "intake.picture-unreadable"),
        (coded(".png")[:200], "intake.picture-unreadable"),
        (bomb(), "intake.picture-too-large"),
    ],
)
def test_what_is_no_picture_is_refused(content: bytes, code: str) -> None:
    with pytest.raises(DecodeError) as caught:
        wrap_picture(content, PictureFacts())
    assert caught.value.code == code
