"""Folders as people put them on sticks: objects, a real DICOMDIR by DCMTK, pictures, and what else lies about."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from tests.dicom_objects import image_object, ramp

NAME = "HIDDEN^PATIENT"


def object_file(path: Path, number: int, **attributes: Any) -> Path:
    """A small radiograph as a Part 10 file, with what DCMTK's dcmmkdir asks of one."""
    uid = f"2.25.{1000 + number}"
    ds = image_object(ramp(number, 4000 - number), SOPInstanceUID=uid, **attributes)
    ds.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    ds.PatientName, ds.PatientID = NAME, "ID-4711"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "2.25.11", "2.25.12"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200101", "120000", "1", ""
    ds.SeriesNumber, ds.InstanceNumber = "1", str(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def bare_file(path: Path, number: int, *, implicit: bool) -> Path:
    """The same object as modalities before PS3.10 wrote it: no preamble, no file meta information."""
    whole = object_file(path, number)
    ds = Dataset(pydicom.dcmread(whole))
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, implicit
    write_dataset(target, ds)
    path.write_bytes(target.getvalue())
    return path


def make_dicomdir(folder: Path, *files: str) -> None:
    """A DICOMDIR of `files` (File IDs relative to `folder`, as PS3.10 8.2 wants them)."""
    command = ["dcmmkdir", "--quiet", "--general-purpose", "--invent", "--output-file", "DICOMDIR", *files]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def picture_file(path: Path, seed: int = 0) -> Path:
    """A JPEG or PNG, by its suffix."""
    values = np.random.default_rng(seed).integers(0, 255, (64, 48), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, values)[1].tobytes())
    return path
