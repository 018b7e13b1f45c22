"""Small DICOM objects made in memory, for the tests of reading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

SOP_INSTANCE_UID = "2.25.1234567"


def image_object(pixels: np.ndarray, **attributes: Any) -> FileDataset:
    """A CR object of `pixels` (H, W), (frames, H, W) or (H, W, 3), unsigned or signed; `attributes` by keyword."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = uid.UID(SOP_INSTANCE_UID)
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, SOP_INSTANCE_UID
    ds.Modality = "CR"
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    if colour:
        ds.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        ds.NumberOfFrames = len(pixels)
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def item(**attributes: Any) -> Dataset:
    """A sequence item."""
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def save(ds: FileDataset, path: Path) -> Path:
    """Write `ds` as a file (PS3.10) and return its path."""
    ds.save_as(path, enforce_file_format=True)
    return path


def ramp(low: int = 0, high: int = 4095, dtype: str = "uint16") -> np.ndarray:
    """(32, 32) values that rise from `low` to `high` in reading order."""
    return np.linspace(low, high, 1024).round().astype(dtype).reshape(32, 32)
