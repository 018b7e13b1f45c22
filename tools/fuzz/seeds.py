"""Small valid documents to start from, made here: a fuzzer that begins with noise stays in the first `if`."""

from __future__ import annotations

import io
import json
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

ROOT = Path(__file__).resolve().parent.parent.parent
SYNTAXES: tuple[UID, ...] = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def data_set(syntax: UID) -> bytes:
    """A small radiograph with a character set, a nested sequence of undefined length and pixel data."""
    ds = Dataset()
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    ds.SOPInstanceUID = "1.2.3.4"
    ds.StudyDate, ds.Modality, ds.StudyDescription = "20260101", "CR", "Thorax"
    ds.PatientName, ds.PatientID, ds.StudyInstanceUID = "A^B", "P", "1.2.3"
    inner, outer = Dataset(), Dataset()
    inner.CodeValue = "T"
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    ds.ReferencedImageSequence = Sequence([outer])
    ds["ReferencedImageSequence"].is_undefined_length = True
    outer["PurposeOfReferenceCodeSequence"].is_undefined_length = True
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = 2
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.add_new(0x7FE00010, "OW", b"\1\2" * 4)
    stream = io.BytesIO()
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    ds._is_implicit_VR, ds._is_little_endian = implicit, little  # type: ignore[attr-defined]
    from pydicom.filebase import DicomFileLike

    file = DicomFileLike(stream)
    file.is_implicit_VR, file.is_little_endian = implicit, little
    write_dataset(file, ds)
    return stream.getvalue()


def manifest() -> bytes:
    """The shipped bundle's manifest without its indentation."""
    text = (ROOT / "models" / "bundles" / "chest" / "manifest.json").read_text(encoding="utf-8")
    return json.dumps(json.loads(text)).encode()


def boards() -> list[bytes]:
    """Every board file of the repository."""
    return [path.read_bytes() for path in sorted((ROOT / "board_configs").glob("*.toml"))]


def reports() -> list[bytes]:
    """Reports that this program wrote."""
    return [path.read_bytes() for path in sorted((ROOT / "tests" / "fuzz" / "report").glob("*.json"))]
