"""The files that are sent: DX of 10 MB and CT slices of 0.5 MB, uncompressed, every one with bytes of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid


@dataclass(frozen=True)
class Kind:
    """A kind of object: `shape` is (rows, columns) of 16-bit samples, `count` files in each measurement."""

    name: str
    modality: str
    sop_class_uid: str
    shape: tuple[int, int]
    count: int


DX = Kind("DX 10 MB", "DX", DigitalXRayImageStorageForPresentation, (2500, 2048), 40)
CT = Kind("CT 0.5 MB", "CT", CTImageStorage, (512, 512), 400)


def write_objects(kind: Kind, folders: list[Path], per_folder: int) -> None:
    """Fill each folder with `per_folder` files; one study for each folder."""
    noise = np.random.default_rng(1).integers(0, 4096, kind.shape, dtype=np.uint16)
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        study, series = generate_uid(), generate_uid()
        for index in range(per_folder):
            _dataset(kind, study, series, noise, number * per_folder + index).save_as(
                folder / f"{index:04d}.dcm", enforce_file_format=True
            )


def _dataset(kind: Kind, study: str, series: str, noise: np.ndarray, number: int) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = kind.sop_class_uid
    ds.SOPInstanceUID = generate_uid()
    ds.StudyDate, ds.StudyTime = "20240102", "101500"
    ds.AccessionNumber = f"A{number}"
    ds.Modality = kind.modality
    ds.Manufacturer = "radbox bench"
    ds.StudyDescription = "bench"
    ds.PatientName, ds.PatientID = "Bench^Receive", "BENCH"
    ds.StudyInstanceUID = study
    ds.SeriesInstanceUID = series
    ds.InstanceNumber = number
    ds.ImagePositionPatient = [0, 0, number]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = kind.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    pixels = noise.copy()
    pixels[0, :2] = number % 65536, number // 65536
    ds.PixelData = pixels.tobytes()
    return ds
