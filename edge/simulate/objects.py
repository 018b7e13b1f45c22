"""DICOM objects of the simulator: phantoms as DX or CR, JPEG and PNG pictures as Secondary Capture."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from edge import durable
from edge.errors import DecodeError, RadboxError
from edge.intake.jpeg import jpeg_frame
from edge.intake.wrap import encapsulated_pixels, is_turned, native_pixels
from edge.simulate.phantom import Phantom, PhantomOptions, make_phantom

IMPLEMENTATION_UID = generate_uid(entropy_srcs=["radbox", "simulate"])


def _code(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _identity(ds: Dataset, key: str, sop_class: UID, transfer_syntax: UID) -> None:
    """UIDs derived from `key`, and a fixed fictional date: the same input gives the same object."""
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = generate_uid(entropy_srcs=["instance", key])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["series", key])
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["study", key])
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20250101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000"
    ds.AccessionNumber = ds.StudyID = ""
    ds.ReferringPhysicianName = ""
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.Manufacturer, ds.ManufacturerModelName = "radbox", "procedural phantom"
    ds.SoftwareVersions = "1"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, ds.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = "RADBOX_SIM"
    meta.FileMetaInformationVersion = b"\x00\x01"
    ds.file_meta = meta


def phantom_dataset(
    phantom: Phantom,
    *,
    modality: Literal["DX", "CR"] = "DX",
    photometric: Literal["MONOCHROME1", "MONOCHROME2"] = "MONOCHROME2",
    patient_name: str = "PHANTOM^THORAX",
    patient_id: str = "PHANTOM-0",
    age_years: int = 50,
    bits: int = 12,
    study_key: str | None = None,
) -> Dataset:
    """A phantom as a DX (PS3.3 A.26, For Presentation) or CR (A.2) object, Explicit VR Little Endian.

    Stored values fill about 90 % of `bits` (8 to 16) and the VOI window (C.11.2) spans exactly that part, so a reader
    must apply it. MONOCHROME1 stores inverted values. UIDs follow from the phantom's options and these arguments;
    objects with the same `study_key` share one study.
    """
    key = f"{phantom.options!r} {modality} {photometric} {bits} {patient_id}"
    ds = Dataset()
    sop_class = DigitalXRayImageStorageForPresentation if modality == "DX" else ComputedRadiographyImageStorage
    _identity(ds, key, sop_class, ExplicitVRLittleEndian)
    if study_key is not None:
        ds.StudyInstanceUID = generate_uid(entropy_srcs=["study", study_key])
    ds.PatientName, ds.PatientID = patient_name, patient_id
    ds.PatientBirthDate, ds.PatientSex = "", "O"
    ds.PatientAge = f"{age_years:03d}Y"
    ds.StudyDescription = "Chest phantom"
    ds.Modality = modality
    ds.BodyPartExamined = "CHEST"
    view = phantom.options.view
    ds.ViewPosition = view
    ds.PatientOrientation = ["L", "F"]
    ds.ImageType = ["DERIVED" if modality == "CR" else "ORIGINAL", "PRIMARY"]
    ds.ImagerPixelSpacing = [f"{phantom.pixel_mm:.5f}"] * 2
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    if modality == "DX":
        _digital_x_ray(ds, photometric, view)
    _phantom_pixels(ds, phantom, photometric, bits)
    return ds


def _digital_x_ray(ds: Dataset, photometric: str, view: str) -> None:
    """Attributes of the DX series, anatomy, image, detector and positioning modules (PS3.3 C.8.11)."""
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageLaterality = "U"
    ds.AnatomicRegionSequence = Sequence([_code("816094009", "Chest")])
    ds.ViewCodeSequence = Sequence(
        [_code("272479007", "postero-anterior") if view == "PA" else _code("399348003", "antero-posterior")]
    )
    ds.ViewCodeSequence[0].ViewModifierCodeSequence = Sequence([])
    ds.PatientOrientationCodeSequence = Sequence([_code("10904000", "erect")])
    ds.PatientOrientationCodeSequence[0].PatientOrientationModifierCodeSequence = Sequence([])
    ds.PatientGantryRelationshipCodeSequence = Sequence([])
    ds.AcquisitionContextSequence = Sequence([])
    ds.DetectorType = "DIRECT"
    ds.PositionerType = "COLUMN"
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = -1 if photometric == "MONOCHROME2" else 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.PresentationLUTShape = "IDENTITY" if photometric == "MONOCHROME2" else "INVERSE"


def _phantom_pixels(ds: Dataset, phantom: Phantom, photometric: str, bits: int) -> None:
    if not 8 <= bits <= 16:
        raise ValueError(f"expected 8 to 16 bits, got {bits}")
    top = 2**bits - 1
    floor, span = round(top * 0.04), round(top * 0.9)
    values = floor + np.rint(phantom.pixels * span)
    if photometric == "MONOCHROME1":
        values = top - values
        floor = top - floor - span
    ds.WindowCenter, ds.WindowWidth = str(floor + span / 2 + 0.5), str(span + 1)
    native_pixels(ds, values.astype(np.uint16), photometric, bits)


def picture_dataset(path: Path, *, patient_name: str = "PICTURE^UNNAMED", patient_id: str = "PICTURE-0") -> Dataset:
    """A JPEG or PNG file as Secondary Capture (PS3.3 A.8.1), Modality OT, Conversion Type WSD.

    A baseline 8-bit JPEG keeps its bits (transfer syntax JPEG Baseline); everything else, and a JPEG that its EXIF
    orientation turns, is decoded and stored plain. Nothing of the file's name or its metadata is taken over.
    Raises RadboxError `simulate.picture-unreadable`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or "an unknown reason"
        raise RadboxError(f"expected a readable picture, got: {reason}", code="simulate.picture-unreadable") from None
    ds = Dataset()
    key = generate_uid(entropy_srcs=[content.hex()])
    _identity(ds, key, SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    ds.PatientName, ds.PatientID = patient_name, patient_id
    ds.PatientBirthDate, ds.PatientSex = "", ""
    ds.Modality, ds.ConversionType = "OT", "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.PatientOrientation = ""
    raw = np.frombuffer(content, dtype=np.uint8)
    frame = jpeg_frame(content)
    try:
        as_it_is = frame is not None and not is_turned(raw)
    except DecodeError as error:
        raise RadboxError(error.message, code="simulate.picture-unreadable") from None
    if frame is not None and as_it_is:
        encapsulated_pixels(ds, content, frame)
        return ds
    jpeg = content[:2] == b"\xff\xd8"
    colour = cv2.IMREAD_ANYCOLOR if jpeg else cv2.IMREAD_UNCHANGED  # the former turns as EXIF says
    picture = cv2.imdecode(raw, colour) if len(raw) else None
    if picture is None or picture.dtype not in (np.uint8, np.uint16):
        raise RadboxError("expected a JPEG or PNG picture, got unreadable bytes", code="simulate.picture-unreadable")
    bits = 8 if picture.dtype == np.uint8 else 16
    if picture.ndim == 2:
        native_pixels(ds, np.asarray(picture), "MONOCHROME2", bits)
    else:
        native_pixels(ds, np.ascontiguousarray(picture[..., 2::-1]), "RGB", bits)
    if jpeg:
        ds.LossyImageCompression = "01"
    return ds


def sample_dataset(options: PhantomOptions | None = None) -> Dataset:
    """The project's sample study: one PA chest phantom as DX."""
    return phantom_dataset(make_phantom(options))


def encode_file(ds: Dataset) -> bytes:
    """The object as a DICOM file (PS3.10: preamble, file meta, data set)."""
    target = BytesIO()
    dcmwrite(target, ds, enforce_file_format=True)
    return target.getvalue()


def save_file(ds: Dataset, path: Path) -> None:
    """Write the object durably. Raises StorageError, StorageFullError (`edge.durable`)."""
    durable.write_file(path, encode_file(ds))
