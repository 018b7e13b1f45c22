"""DICOM objects to grey pictures: decoders, look-up tables, polarity, header facts, refusals."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import config, dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame

from edge.errors import DecodeError, RadboxError
from edge.reading.dicom import read_dicom
from edge.reading.dicom_pixels import PLUGINS
from edge.reading.radiograph import Radiograph
from edge.reading.read_file import read_file
from tests.dicom_objects import image_object, item, ramp, save

Reader = Callable[..., Radiograph]


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    """Write an object made of pixels and attributes, read it back, return its only image."""

    def reader(pixels: np.ndarray, **attributes: Any) -> Radiograph:
        (radiograph,) = read_dicom(save(image_object(pixels, **attributes), tmp_path / "one.dcm"))
        return radiograph

    return reader


def code_of(path: Path) -> str:
    with pytest.raises(RadboxError) as caught:
        read_file(path)
    return caught.value.code


# -- the reference files ------------------------------------------------------------------------------------------

REFUSED = {
    "MR_truncated.dcm": "dicom.truncated",
    "meta_missing_tsyntax.dcm": "dicom.transfer-syntax-missing",
    "nested_priv_SQ.dcm": "dicom.no-pixels",
    "NM1_JPLY.dcm": "dicom.pixels-unreadable",  # its scan header breaks ISO 10918-1; libjpeg refuses it
}


def test_every_reference_file_is_read_or_refused_with_its_reason(shared_data: Path) -> None:
    rows = list(csv.DictReader((shared_data / "dicom" / "index.csv").read_text().splitlines()))
    assert len(rows) == 29
    for row in rows:
        path = shared_data / "dicom" / row["file"]
        if row["file"] in REFUSED:
            assert code_of(path) == REFUSED[row["file"]], row["file"]
            continue
        images = read_file(path)
        assert len(images) == images[0].frames == int(row["frames"]), row["file"]
        for image in images:
            assert image.pixels.dtype == np.float32
            assert image.pixels.shape == (int(row["rows"]), int(row["columns"])), row["file"]
            assert image.pixels.min() >= 0
            assert image.pixels.max() <= 1
            assert image.pixels.std() > 0.02, row["file"]
        assert (images[0].modality or "") == row["modality"]
        assert (images[0].body_part or "") == row["body_part"]


def test_both_forms_of_the_chest_study_are_one_picture_of_the_right_polarity(shared_data: Path) -> None:
    (j2k,) = read_dicom(shared_data / "dicom" / "RG1_J2KI.dcm")
    (jls,) = read_dicom(shared_data / "dicom" / "RG1_JLSN.dcm")
    assert np.corrcoef(j2k.pixels.ravel(), jls.pixels.ravel())[0, 1] > 0.999
    assert np.abs(j2k.pixels - jls.pixels).max() < 0.05
    rows, columns = j2k.pixels.shape

    def brightness(y: float, x: float) -> float:
        row, column = int(y * rows), int(x * columns)
        return float(j2k.pixels[row - 60 : row + 60, column - 60 : column + 60].mean())

    right_lung, left_lung = brightness(0.30, 0.30), brightness(0.30, 0.68)
    assert max(right_lung, left_lung) < min(brightness(0.30, 0.5), brightness(0.62, 0.52), brightness(0.9, 0.3))
    assert j2k.view == "PA"
    assert j2k.age_years == pytest.approx(64.5, abs=0.1)  # from the birth and study dates
    assert j2k.spacing_mm is None  # the file says 0.000


def test_an_image_stored_mirrored_is_turned_by_its_patient_orientation(shared_data: Path) -> None:
    """RG3 says R\\F: the collimator's letter R is mirrored in the stored pixels and lies at the right, x = 0.67."""
    (leg,) = read_dicom(shared_data / "dicom" / "RG3_J2KR.dcm")
    rows, columns = leg.pixels.shape
    letter = leg.pixels[int(0.78 * rows) : int(0.85 * rows)]
    left = letter[:, int(0.30 * columns) : int(0.36 * columns)]
    right = letter[:, int(0.64 * columns) : int(0.70 * columns)]
    assert left.std() > 2 * right.std()


# -- transfer syntaxes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_lossless_syntaxes_give_the_stored_values_back(tmp_path: Path, syntax: uid.UID) -> None:
    pixels = np.random.default_rng(1).integers(0, 4096, (64, 48)).astype(np.uint16)
    attributes: dict[str, Any] = {"WindowCenter": 2048, "WindowWidth": 4096, "BitsStored": 12, "HighBit": 11}
    native, packed = (image_object(pixels, **attributes) for _ in range(2))
    plugin = "pyjpegls" if syntax == uid.JPEGLSLossless else "pylibjpeg"
    packed.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    (expected,) = read_dicom(save(native, tmp_path / "native.dcm"))
    (found,) = read_dicom(save(packed, tmp_path / "packed.dcm"))
    np.testing.assert_array_equal(found.pixels, expected.pixels)


def test_big_endian_and_implicit_objects_read_the_same(tmp_path: Path) -> None:
    (expected,) = read_dicom(save(image_object(ramp()), tmp_path / "explicit.dcm"))
    implicit = image_object(ramp())
    implicit.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    (found,) = read_dicom(save(implicit, tmp_path / "implicit.dcm"))
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    big = image_object(ramp())
    big.PixelData = ramp().byteswap().tobytes()
    big.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    big.set_original_encoding(is_implicit_vr=False, is_little_endian=False)
    (found,) = read_dicom(save(big, tmp_path / "big.dcm"))
    np.testing.assert_array_equal(found.pixels, expected.pixels)


def test_gdcm_is_never_used() -> None:
    assert set(PLUGINS.values()) == {"", "pylibjpeg", "pyjpegls"}


def test_a_bare_data_set_is_read_in_its_own_encoding(tmp_path: Path) -> None:
    ds = image_object(ramp())
    bare = Dataset(ds)
    bare.save_as(tmp_path / "bare", implicit_vr=True, little_endian=True, enforce_file_format=False)
    (found,) = read_file(tmp_path / "bare")
    assert found.pixels.shape == (32, 32)


# -- the greyscale transformations --------------------------------------------------------------------------------


def test_linear_window(read: Reader) -> None:
    """PS3.3 C.11.2.1.2.1: x <= c - 0.5 - (w - 1) / 2 is black, x > c - 0.5 + (w - 1) / 2 white."""
    values = np.array([[0, 1500, 1501, 2000, 2499, 2500, 4095]], np.uint16)
    shown = read(values, WindowCenter=2000, WindowWidth=1000).pixels[0]
    expected = np.clip((values[0].astype(float) - 1999.5) / 999 + 0.5, 0, 1)
    np.testing.assert_allclose(shown, expected, atol=1e-6)
    assert shown[1] == 0
    assert shown[5] == 1


def test_linear_exact_and_sigmoid_windows(read: Reader) -> None:
    values = ramp()
    exact = read(values, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT").pixels
    np.testing.assert_allclose(exact, np.clip((values - 2000.0) / 1000 + 0.5, 0, 1), atol=1e-6)
    sigmoid = read(values, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID").pixels
    np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-4 * (values - 2000.0) / 1000)), atol=1e-6)


def test_the_first_of_several_windows_after_rescale(read: Reader) -> None:
    shown = read(
        ramp(-1000, 1000, "int16"),
        RescaleSlope=2,
        RescaleIntercept=100,
        WindowCenter=[100, 0],
        WindowWidth=[4000, 10],
        VOILUTFunction="LINEAR_EXACT",
    ).pixels
    expected = (ramp(-1000, 1000, "int16") * 2.0 + 100 - 100) / 4000 + 0.5
    np.testing.assert_allclose(shown, np.clip(expected, 0, 1), atol=1e-6)


@pytest.mark.parametrize("width", ["0", "-5", "", "nan"])
def test_a_window_the_standard_forbids_is_as_none(read: Reader, width: str) -> None:
    with config.disable_value_validation():
        shown = read(ramp(500, 700), WindowCenter="600", WindowWidth=width).pixels
    np.testing.assert_array_equal(shown, read(ramp(500, 700)).pixels)


def test_without_a_window_the_values_fill_the_range_but_for_outliers(read: Reader) -> None:
    values = ramp(500, 700)
    values[0, 0], values[0, 1] = 0, 65535
    shown = read(values).pixels
    assert shown[0, 0] == 0
    assert shown[0, 1] == 1
    assert shown[16].mean() == pytest.approx(0.5, abs=0.05)


def test_modality_and_voi_look_up_tables(read: Reader) -> None:
    """C.11.1.1, C.11.2.1.1: values outside the table take its first and last entry."""
    entries = np.array([0, 100, 200, 300], "<u2").tobytes()
    squares = bytes(round(255 * (i / 300) ** 2) for i in range(301)) + bytes(1)  # padded to even length
    modality = item(LUTDescriptor=[4, 10, 16], LUTData=entries, ModalityLUTType="US")
    voi = item(LUTDescriptor=[301, 0, 8], LUTData=squares)
    values = np.array([[0, 10, 11, 12, 13, 99]], np.uint16)
    shown = read(values, ModalityLUTSequence=[modality], VOILUTSequence=[voi], WindowCenter=1, WindowWidth=1).pixels[0]
    expected = np.round(255 * np.array([0, 0, 1 / 3, 2 / 3, 1, 1]) ** 2) / 255
    np.testing.assert_allclose(shown, expected, atol=1e-6)


def test_monochrome1_is_inverted_once_whatever_else_says_so(read: Reader) -> None:
    window: dict[str, Any] = {"WindowCenter": 2048, "WindowWidth": 4096}
    upright = read(ramp(), **window).pixels
    for attributes in (
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"},
        {"PresentationLUTShape": "INVERSE"},
    ):
        np.testing.assert_allclose(read(ramp(), **window, **attributes).pixels, 1 - upright, atol=1e-6)
    np.testing.assert_array_equal(read(ramp(), **window, PresentationLUTShape="IDENTITY").pixels, upright)


def test_padding_is_black_and_does_not_stretch_the_range(read: Reader) -> None:
    values = ramp(1000, 2000)
    values[:8] = 60000
    shown = read(values, PixelPaddingValue=60000, PhotometricInterpretation="MONOCHROME1").pixels
    assert shown[:8].max() == 0
    assert shown[8].mean() > 0.9
    assert shown[-1].mean() < 0.1


def test_colour_objects_become_luminance(read: Reader) -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[...] = (200, 100, 50)
    shown = read(rgb)
    np.testing.assert_allclose(shown.pixels, (0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255, atol=1e-3)
    assert shown.colour
    grey = read(np.full((16, 16, 3), 90, np.uint8))
    assert not grey.colour
    ybr = np.zeros((16, 16, 3), np.uint8)
    ybr[...] = (120, 128, 128)
    plain = read(ybr, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(plain.pixels, 120 / 255, atol=1e-6)
    assert not plain.colour
    ybr[...] = (120, 60, 220)
    assert read(ybr, PhotometricInterpretation="YBR_FULL").colour


def test_palette_colour(read: Reader) -> None:
    def channel(top: int) -> bytes:
        return np.linspace(0, top, 256).astype("<u2").tobytes()

    shown = read(
        np.arange(256, dtype=np.uint8).reshape(16, 16),
        PhotometricInterpretation="PALETTE COLOR",
        RedPaletteColorLookupTableDescriptor=[256, 0, 16],
        GreenPaletteColorLookupTableDescriptor=[256, 0, 16],
        BluePaletteColorLookupTableDescriptor=[256, 0, 16],
        RedPaletteColorLookupTableData=channel(65535),
        GreenPaletteColorLookupTableData=channel(0),
        BluePaletteColorLookupTableData=channel(0),
    )
    np.testing.assert_allclose(shown.pixels.ravel(), 0.299 * np.arange(256) / 255, atol=1e-4)
    assert shown.colour


def test_pixels_are_turned_to_the_usual_display(read: Reader) -> None:
    upright = read(ramp()).pixels
    turned = {
        ("L", "F"): upright,
        ("R", "F"): upright[:, ::-1],
        ("L", "H"): upright[::-1],
        ("RP", "HA"): upright[::-1, ::-1],
        ("F", "L"): upright.T,
        ("H", "R"): upright.T[::-1, ::-1],
        ("A", "F"): upright,
        ("P", "F"): upright,
    }
    for orientation, expected in turned.items():
        np.testing.assert_array_equal(read(ramp(), PatientOrientation=list(orientation)).pixels, expected)


# -- frames -------------------------------------------------------------------------------------------------------


def test_long_objects_give_sixteen_evenly_spaced_frames(tmp_path: Path) -> None:
    frames = np.repeat(np.arange(61, dtype=np.uint8), 8 * 8).reshape(61, 8, 8)
    path = save(image_object(frames, WindowCenter=128, WindowWidth=256, Modality="US"), tmp_path / "cine.dcm")
    images = read_dicom(path)
    assert [image.frame for image in images] == list(range(0, 61, 4))
    assert {image.frames for image in images} == {61}
    shown = [float(image.pixels.mean()) * 255 for image in images]
    np.testing.assert_allclose(shown, np.arange(0, 61, 4), atol=0.5)


def test_windows_in_functional_groups_are_used(tmp_path: Path) -> None:
    def group(width: int) -> Dataset:
        return item(
            FrameVOILUTSequence=[item(WindowCenter=width / 2, WindowWidth=width, VOILUTFunction="LINEAR_EXACT")]
        )

    frames = np.full((2, 8, 8), 100, np.uint16)
    ds = image_object(frames, PerFrameFunctionalGroupsSequence=[group(200), group(400)])
    first, second = read_dicom(save(ds, tmp_path / "enhanced.dcm"))
    assert first.pixels.mean() == pytest.approx(0.5)
    assert second.pixels.mean() == pytest.approx(0.25)


# -- refusals -----------------------------------------------------------------------------------------------------


def test_objects_without_an_image(tmp_path: Path) -> None:
    report = image_object(ramp(), Modality="SR")
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated"):
        delattr(report, keyword)
    assert code_of(save(report, tmp_path / "sr.dcm")) == "dicom.no-pixels"


def test_unknown_and_undecodable_transfer_syntaxes(tmp_path: Path) -> None:
    ds = image_object(ramp())
    ds.PixelData = encapsulate([b"\0\0\1\xba" * 8])
    ds.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    assert code_of(save(ds, tmp_path / "video.dcm")) == "dicom.transfer-syntax-unsupported"


def test_too_large_is_refused_before_decoding(tmp_path: Path) -> None:
    wide = image_object(ramp(), Rows=60000, Columns=60000)
    assert code_of(save(wide, tmp_path / "wide.dcm")) == "dicom.too-large"
    long = image_object(ramp(), Rows=4000, Columns=4000, NumberOfFrames=2000)
    assert code_of(save(long, tmp_path / "long.dcm")) == "dicom.too-large"


def test_objects_cut_short_anywhere_are_never_read(tmp_path: Path) -> None:
    whole = save(image_object(ramp()), tmp_path / "whole.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    codes = set()
    for length in range(0, len(whole) - 1, 29):
        path.write_bytes(whole[:length])
        codes.add(code_of(path))
    assert codes <= {"dicom.truncated", "dicom.malformed", "dicom.no-pixels", "dicom.transfer-syntax-missing"}
    path.write_bytes(whole[: len(whole) - 700])
    assert code_of(path) == "dicom.truncated"


def test_a_jpeg_frame_cut_short_is_refused_though_its_codec_is_content(shared_data: Path, tmp_path: Path) -> None:
    ds = dcmread(shared_data / "dicom" / "CT2_JPLL.dcm")
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.PixelData = encapsulate([frame[: len(frame) // 2]])
    ds.save_as(tmp_path / "half.dcm")
    assert code_of(tmp_path / "half.dcm") == "dicom.truncated"


@pytest.mark.parametrize(
    "attributes",
    [{"Rows": 0}, {"BitsAllocated": 13}, {"BitsStored": 99}, {"SamplesPerPixel": 7}, {"PixelRepresentation": 3}],
)
def test_an_impossible_image_pixel_module_is_malformed(tmp_path: Path, attributes: dict[str, int]) -> None:
    path = save(image_object(ramp(), **attributes), tmp_path / "odd.dcm")
    assert code_of(path) in ("dicom.malformed", "dicom.pixels-unreadable")


def test_three_samples_that_claim_to_be_grey_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    for claim in ("MONOCHROME2", "PALETTE COLOR"):
        path = save(image_object(rgb, PhotometricInterpretation=claim), tmp_path / "odd.dcm")
        assert code_of(path) == "dicom.pixels-unreadable"


def test_other_content_and_missing_files(tmp_path: Path) -> None:
    for content in (b"", b"not an image at all, only text" * 20, b"%PDF-1.4" + bytes(400)):
        (tmp_path / "x").write_bytes(content)
        assert code_of(tmp_path / "x") == "dicom.malformed"
    assert code_of(tmp_path / "absent") == "storage.failed"
    assert code_of(tmp_path) == "storage.failed"


def test_errors_carry_no_header_values(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A window that is no number and a palette that is absent: pydicom's own errors would quote what they met."""
    ds = image_object(
        ramp(), PatientName="Secret^Person", PhotometricInterpretation="PALETTE COLOR", WindowWidth="111111"
    )
    path = save(ds, tmp_path / "p.dcm")
    path.write_bytes(path.read_bytes().replace(b"111111", b"Secret"))
    with pytest.raises(DecodeError) as caught:
        read_dicom(path)
    assert caught.value.code == "dicom.pixels-unreadable"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "Secret" not in str(caught.value)
    assert "Secret" not in caplog.text
