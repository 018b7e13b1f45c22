"""A JPEG or PNG picture as a DICOM object: Secondary Capture (PS3.3 A.8.1) or Ultrasound Image (A.6).

Nothing of a file's name or its metadata is taken over. Same picture and same facts give the same bytes, so a picture
that is handed in twice is one object.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from io import BytesIO
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)

from edge.errors import DecodeError
from edge.intake.jpeg import bare_jpeg, jpeg_frame, jpeg_size
from edge.intake.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
PIXEL_LIMIT: Final = 100_000_000  # a scanner's largest film is 35 million; a small file can claim any size
_NAMESPACE: Final = uuid.UUID("8f5c1b39-2f1e-4f0c-9a53-6a6c6f1f0d7e")
_PNG_HEAD: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class PictureFacts:
    """What the object shall say. Texts are written as given; "" leaves an attribute empty.

    Without a `study_instance_uid` the picture is a study of its own, named by its content. `conversion_type` is a
    defined term of PS3.3 C.8.6.1 (WSD workstation, SI scanned image, DV digitized video, DF digitized film).
    `burned_in`: whether writing is in the pixels, "" where nobody looked. `date` YYYYMMDD, `time` HHMMSS.
    """

    modality: str = "OT"
    conversion_type: str = "WSD"
    burned_in: Literal["YES", "NO", ""] = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    instance_number: int = 1
    patient_name: str = ""
    patient_id: str = ""
    study_description: str = ""
    date: str = ""
    time: str = ""


def wrap_picture(content: bytes, facts: PictureFacts) -> bytes:
    """A DICOM file (PS3.10) around one picture.

    A baseline 8-bit JPEG keeps its coded bits (transfer syntax JPEG Baseline); one that its EXIF orientation turns, any
    other JPEG, and PNG (8 or 16 bit; transparency is dropped) are decoded and stored plain. Modality US becomes an
    Ultrasound Image where the picture has 8 bits. Raises DecodeError: `intake.picture-unreadable`,
    `intake.picture-too-large`.
    """
    _check_size(content)
    raw = np.frombuffer(content, dtype=np.uint8)
    bare, frame = bare_jpeg(content), jpeg_frame(content)
    if bare is not None and frame is not None and not is_turned(raw):
        ds = _dataset(content, facts, JPEGBaseline8Bit, bits=8)
        encapsulated_pixels(ds, bare, frame)
    else:
        picture = _decode(content, raw, cut=jpeg_size(content) is not None and bare is None)
        ds = _dataset(content, facts, ExplicitVRLittleEndian, bits=8 * picture.dtype.itemsize)
        native_pixels(ds, picture, "MONOCHROME2" if picture.ndim == 2 else "RGB", 8 * picture.dtype.itemsize)
        ds.LossyImageCompression = "01" if content[:2] == b"\xff\xd8" else "00"
    target = BytesIO()
    dcmwrite(target, ds, enforce_file_format=True)
    return target.getvalue()


def new_uid() -> str:
    """A UID that nobody else has (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def is_turned(raw: npt.NDArray[np.uint8]) -> bool:
    """Whether the EXIF orientation of JPEG bytes asks for a turn that DICOM cannot carry. Raises DecodeError."""
    upright = cv2.imdecode(raw, cv2.IMREAD_GRAYSCALE)
    stored = cv2.imdecode(raw, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if upright is None or stored is None:
        raise _unreadable()
    return upright.shape != stored.shape or not np.array_equal(upright, stored)


def native_pixels(ds: Dataset, values: Pixels, photometric: str, bits: int) -> None:
    """Pixel module (PS3.3 C.7.6.3) for (H, W) or (H, W, 3) values, stored plain, little endian."""
    ds.SamplesPerPixel = 1 if values.ndim == 2 else 3
    if values.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = photometric
    ds.Rows, ds.Columns = values.shape[:2]
    ds.BitsAllocated = 8 if values.dtype == np.uint8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, 0
    stored = values.astype(values.dtype.newbyteorder("<")).tobytes()
    ds.add_new("PixelData", "OB" if ds.BitsAllocated == 8 else "OW", stored + b"\0" * (len(stored) % 2))


def encapsulated_pixels(ds: Dataset, content: bytes, frame: tuple[int, int, str]) -> None:
    """Pixel module for one baseline JPEG, whose `frame` is (rows, columns, photometric interpretation)."""
    rows, columns, photometric = frame
    samples = 1 if photometric == "MONOCHROME2" else 3
    ds.SamplesPerPixel, ds.PhotometricInterpretation = samples, photometric
    if samples == 3:
        ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.LossyImageCompression = "01"
    ds.LossyImageCompressionMethod = "ISO_10918_1"
    ds.LossyImageCompressionRatio = f"{rows * columns * samples / len(content):.3f}"
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.add_new("PixelData", "OB", encapsulate([content]))
    ds["PixelData"].is_undefined_length = True


def _check_size(content: bytes) -> None:
    """Before anything is decoded. Raises DecodeError."""
    if content[:8] == _PNG_HEAD and len(content) >= 24:  # IHDR comes first (PNG specification 11.2.1)
        size: tuple[int, int] | None = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    else:
        size = jpeg_size(content)
    if size is None:
        raise _unreadable()
    if size[0] * size[1] > PIXEL_LIMIT:
        message = f"expected a picture of at most {PIXEL_LIMIT // 10**6} megapixels, got a larger one"
        raise DecodeError(message, code="intake.picture-too-large")


def _decode(content: bytes, raw: npt.NDArray[np.uint8], *, cut: bool) -> Pixels:
    """(H, W) or (H, W, 3) RGB values, upright. Raises DecodeError."""
    colour = cv2.IMREAD_ANYCOLOR if content[:2] == b"\xff\xd8" else cv2.IMREAD_UNCHANGED  # the former turns it
    try:
        picture = None if cut else cv2.imdecode(raw, colour)
    except cv2.error:
        picture = None
    if picture is None or picture.dtype not in (np.uint8, np.uint16):
        raise _unreadable()
    return np.asarray(picture) if picture.ndim == 2 else np.ascontiguousarray(picture[..., 2::-1])


def _unreadable() -> DecodeError:
    return DecodeError("expected a JPEG or PNG picture, got unreadable bytes", code="intake.picture-unreadable")


def _dataset(content: bytes, facts: PictureFacts, transfer_syntax: UID, bits: int) -> Dataset:
    """Everything but the pixels."""
    digest = hashlib.sha256(content).hexdigest()
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ultrasound = facts.modality == "US" and bits == 8
    ds.SOPClassUID = UltrasoundImageStorage if ultrasound else SecondaryCaptureImageStorage
    ds.StudyInstanceUID = facts.study_instance_uid or _derived("study", digest)
    ds.SeriesInstanceUID = facts.series_instance_uid or _derived("series", ds.StudyInstanceUID)
    ds.SOPInstanceUID = _derived("instance", ds.SeriesInstanceUID, str(facts.instance_number), digest)
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = facts.patient_name, facts.patient_id, "", ""
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = facts.date
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = facts.time
    ds.AccessionNumber = ds.StudyID = ds.ReferringPhysicianName = ds.Laterality = ""
    if facts.study_description:
        ds.StudyDescription = facts.study_description
    ds.Modality = facts.modality
    ds.SeriesNumber, ds.InstanceNumber = 1, facts.instance_number
    ds.Manufacturer = ""
    if not ultrasound:
        ds.ConversionType = facts.conversion_type
        ds.SecondaryCaptureDeviceManufacturer = "radbox"
    ds.ImageType = ["ORIGINAL", "PRIMARY"] if ultrasound else ["DERIVED", "SECONDARY"]
    ds.PatientOrientation = ""
    ds.LossyImageCompression = "00"
    if facts.burned_in:
        ds.BurnedInAnnotation = facts.burned_in
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = transfer_syntax
    ds.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    ds.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    ds.file_meta.FileMetaInformationVersion = b"\x00\x01"
    return ds


def _derived(*parts: str) -> str:
    """A UID that follows from `parts` (PS3.5 B.2, RFC 4122 version 5)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, ' '.join(parts)).int}"
