"""A DICOM file (PS3.10) or bare data set (PS3.5) -> Radiographs. Nothing pydicom raises or logs leaves this module."""

from __future__ import annotations

import logging
import mmap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from pydicom import config, dcmread, uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID

from edge.errors import DecodeError, DicomError, RadboxError, StorageError
from edge.reading.dicom_display import grey
from edge.reading.dicom_header import as_displayed, header_facts, value
from edge.reading.dicom_pixels import decode_frame, frames_to_read, pixel_layout
from edge.reading.radiograph import F32, Radiograph

# pydicom's log lines and warnings quote attribute values, that is, patient data.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


def read_dicom(path: Path) -> tuple[Radiograph, ...]:
    """Read the image or images of one DICOM object: a Radiograph a frame, of long objects at most 16 evenly spaced.

    Codecs are native code and may crash or hang on hostile bytes: the box calls this through
    `edge.reading.decode_child`.

    Raises:
        DicomError: `dicom.malformed`, `dicom.truncated`, `dicom.transfer-syntax-missing`, `dicom.no-pixels`.
        DecodeError: `dicom.pixels-unreadable`, `dicom.truncated`, `dicom.too-large`,
            `dicom.transfer-syntax-unsupported`, `dicom.decoder-memory`.
        StorageError: the file itself cannot be read.
    """
    with _quiet(), _translated(DicomError.default_code, "expected a DICOM object, got one that cannot be parsed"):
        ds = _parse(path)
        transfer_syntax = _transfer_syntax(ds)
        _check_has_image(ds)
        with _translated(DecodeError.default_code, "expected pixel data that decode, got data the decoder refuses"):
            return _radiographs(ds, transfer_syntax)


@dataclass(frozen=True)
class Identity:
    """Study and SOP Instance UID (PS3.3 C.7.2.1, C.12.1), "" where the object does not say."""

    study_instance_uid: str
    sop_instance_uid: str


def identity(path: Path) -> Identity:
    """Which study and which object a file belongs to; nothing is decoded. Both "" for what cannot be parsed."""
    tags = ["StudyInstanceUID", "SOPInstanceUID"]
    try:
        with _quiet(), _translated(DicomError.default_code, "expected a DICOM object, got one that cannot be parsed"):
            ds = dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
            return Identity(*(str(ds.get(tag) or "") for tag in tags))
    except (DicomError, StorageError):
        return Identity("", "")  # reading the file whole will say what is wrong with it


def _radiographs(ds: FileDataset, transfer_syntax: UID) -> tuple[Radiograph, ...]:
    layout = pixel_layout(ds, transfer_syntax)
    facts = header_facts(ds)
    pixel_bytes = ds["PixelData"].value
    result = []
    for frame in frames_to_read(layout):
        pixels, colour = grey(ds, decode_frame(pixel_bytes, layout, frame), frame)
        result.append(
            Radiograph(
                pixels=_finite(as_displayed(ds, pixels)),
                modality=facts.modality,
                body_part=facts.body_part,
                view=facts.view,
                age_years=facts.age_years,
                spacing_mm=facts.spacing_mm,
                sop_instance_uid=facts.sop_instance_uid,
                frame=frame,
                frames=layout.frames,
                colour=colour,
            )
        )
    return tuple(result)


def _parse(path: Path) -> FileDataset:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        # A map gives what is left of the file, whatever length an element claims; a file would allocate the claim.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            ds = dcmread(cast(BinaryIO, content), force=True)
        if not ds:
            raise DicomError("expected a DICOM object, got a file without a single attribute")
    # pydicom ends a data set at the end of the file and tells only by a warning that it came early.
    early = any("end of file" in str(warning.message).lower() for warning in told)
    if early or _last_value_short(ds):
        raise DicomError("expected a complete DICOM object, got one that ends early", code="dicom.truncated")
    return ds


def _last_value_short(ds: Dataset) -> bool:
    last = ds.get_item(max(ds.keys()))
    length = getattr(last, "length", None)
    if length is None or length == 0xFFFFFFFF or not isinstance(last.value, bytes):
        return False
    return len(last.value) < int(length)


def _transfer_syntax(ds: FileDataset) -> UID:
    """(0002,0010). A data set with no file meta information at all is read as the encoding it was parsed in."""
    named = value(ds.file_meta, "TransferSyntaxUID")
    if named is not None:
        return UID(str(named))
    if len(ds.file_meta):
        raise DicomError(
            "expected a Transfer Syntax UID (0002,0010) in the file meta information, got none",
            code="dicom.transfer-syntax-missing",
        )
    implicit, little = ds.original_encoding
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian


def _check_has_image(ds: Dataset) -> None:
    if "PixelData" in ds and ("Rows" in ds or "Columns" in ds) and ds["PixelData"].value:
        return
    raise DicomError("expected an object with an image, got one without pixel data", code="dicom.no-pixels")


def _finite(pixels: F32) -> F32:
    if not np.isfinite(pixels).all():
        raise DecodeError("expected finite grey values, got others")
    return np.ascontiguousarray(np.clip(pixels, 0.0, 1.0), dtype=np.float32)


@contextmanager
def _quiet() -> Iterator[None]:
    """No value validation and no warnings: whether a value serves is decided where it is used."""
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _translated(code: str, message: str) -> Iterator[None]:
    """The border to pydicom and its plugins, which raise nearly every built-in exception on bad bytes.

    The original is not chained: its text may quote patient data.
    """
    failed: RadboxError
    kind = DecodeError if code == DecodeError.default_code else DicomError
    try:
        yield
    except RadboxError:
        raise
    except MemoryError:
        failed = DecodeError("expected an image that fits the memory limit, got more", code="dicom.decoder-memory")
    except OSError as error:
        if error.errno is None:  # pydicom's own, for bytes that are not DICOM
            failed = kind(f"{message} ({type(error).__name__})", code=code)
        else:
            failed = StorageError(f"expected a readable file, got {error.strerror}")
    except BaseException as error:
        # A panic of a codec written in Rust is no Exception; everything else that is none is not ours to stop.
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        failed = kind(f"{message} ({type(error).__name__})", code=code)
    else:
        return
    raise failed from None
