"""What the sender sends: noise, as CT slices of 0.5 MB, every 25th as a DX of 10 MB. Number and seed fix each byte."""

from __future__ import annotations

import functools

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)
from pynetdicom.dsutils import encode

CT_SHAPE, DX_SHAPE = (512, 512), (2500, 2048)  # rows, columns of 16 bits
DX_EVERY = 25
OBJECTS_PER_STUDY = 40
SHIFTS = 4096  # different beginnings in one noise


@functools.cache
def _noise(seed: int) -> bytes:
    values = DX_SHAPE[0] * DX_SHAPE[1] + SHIFTS
    return np.random.default_rng(seed).integers(0, 4096, values, np.uint16).tobytes()


def is_dx(number: int) -> bool:
    """Whether object `number` is one of the large ones."""
    return number % DX_EVERY == DX_EVERY // 2


def sop_instance_uid(seed: int, number: int) -> str:
    """The UID of object `number`."""
    return str(generate_uid(entropy_srcs=["powercut", str(seed), str(number)]))


def pixel_bytes(seed: int, number: int) -> bytes:
    """Pixel data of object `number`: no two objects share it."""
    rows, columns = DX_SHAPE if is_dx(number) else CT_SHAPE
    start = 2 * (number * 977 % SHIFTS)
    return number.to_bytes(8, "little") + _noise(seed)[start + 8 : start + 2 * rows * columns]


def make_object(seed: int, number: int) -> Dataset:
    """Object `number`, Explicit VR Little Endian, Pixel Data last."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation if is_dx(number) else CTImageStorage
    ds.SOPInstanceUID = sop_instance_uid(seed, number)
    study = str(number // OBJECTS_PER_STUDY)
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["powercut study", str(seed), study])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["powercut series", str(seed), study, str(is_dx(number))])
    ds.Modality = "DX" if is_dx(number) else "CT"
    ds.PatientID, ds.PatientName = f"POWER-{study}", "POWER^CUT"
    ds.PatientBirthDate = ds.PatientSex = ds.StudyTime = ds.AccessionNumber = ds.StudyID = ds.ReferringPhysicianName = (
        ""
    )
    ds.StudyDate = "20260101"
    ds.SeriesNumber, ds.InstanceNumber = 1, number
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = DX_SHAPE if is_dx(number) else CT_SHAPE
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = pixel_bytes(seed, number)
    ds["PixelData"].VR = "OW"
    return ds


def data_set_bytes(seed: int, number: int) -> bytes:
    """The data set as the sender's C-STORE carries it: a bit-preserving receiver's file ends with it."""
    content = encode(make_object(seed, number), False, True)
    assert isinstance(content, bytes)
    return content
