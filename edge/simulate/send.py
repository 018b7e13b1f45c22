"""A C-STORE client: sends DICOM files, data sets and pictures to a real receiver (PS3.4 B, PS3.7 9.1.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ

from edge.errors import RadboxError
from edge.simulate.objects import picture_dataset

CONTEXTS_PER_ASSOCIATION = 128  # PS3.8 9.3.2.2: odd identifiers 1 to 255
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_REFUSED_CONTEXT = 0x0122  # PS3.7 C.5.6: SOP class not supported
_SENT_WITH_REMARK = range(0xB000, 0xC000)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SendResult:
    """What the receiver answered for one object. status: the DIMSE status (0 is success)."""

    sop_instance_uid: str
    status: int
    message: str

    @property
    def accepted(self) -> bool:
        """Success, or a warning status (0xB...) that still means stored."""
        return self.status == 0 or self.status in _SENT_WITH_REMARK


@dataclass(frozen=True)
class _Parcel:
    """One object to send: its presentation context and where its bytes are."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    content: Path | Dataset


def collect(path: Path) -> tuple[Path, ...]:
    """The files to send under `path`: itself, or every DICOM file, JPEG and PNG of a folder, by content, sorted.

    Raises RadboxError `send.nothing-to-send` when the path is missing, is no such file, or the folder holds none.
    """
    if path.is_file():
        if not _sendable(path):
            raise RadboxError(
                "expected a DICOM file, a JPEG or a PNG, got a file that is none of them", code="send.nothing-to-send"
            )
        return (path,)
    if not path.is_dir():
        raise RadboxError("expected a file or a folder, got a path that does not exist", code="send.nothing-to-send")
    found = tuple(file for file in sorted(path.rglob("*")) if file.is_file() and _sendable(file))
    if not found:
        raise RadboxError(
            "expected a folder with DICOM files, JPEG or PNG pictures, got one without", code="send.nothing-to-send"
        )
    return found


def _sendable(path: Path) -> bool:
    try:
        return _is_picture(path) or _header(path) is not None
    except OSError:
        return False


def _is_picture(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8).startswith(_PICTURES)


def _header(path: Path) -> Dataset | None:
    """The identifying part of a DICOM file, with or without a preamble; None for anything else and for a DICOMDIR."""
    with path.open("rb") as file:
        part10 = file.read(132)[128:] == b"DICM"
    try:
        tags = ["SOPClassUID", "SOPInstanceUID", "TransferSyntaxUID"]
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=not part10)
    except (InvalidDicomError, EOFError, ValueError, KeyError, AttributeError, NotImplementedError):
        return None
    if "SOPClassUID" not in header and "MediaStorageSOPClassUID" not in header.file_meta:
        return None
    if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return None
    return header


def _parcel(item: Path | Dataset) -> _Parcel:
    if isinstance(item, Path):
        if _is_picture(item):
            return _parcel(picture_dataset(item))
        header = _header(item)
        if header is None:
            raise RadboxError("expected a DICOM file, got other content", code="send.failed")
        meta = header.file_meta
        whole = all(
            name in meta for name in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
        )
        if whole:
            return _Parcel(meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID, item)
        return _parcel(_with_syntax(pydicom.dcmread(item, force=True)))
    if "SOPClassUID" not in item or "SOPInstanceUID" not in item or "TransferSyntaxUID" not in item.file_meta:
        raise RadboxError(
            "expected an object with SOP class, SOP instance and transfer syntax, got one without", code="send.failed"
        )
    return _Parcel(item.SOPClassUID, item.SOPInstanceUID, item.file_meta.TransferSyntaxUID, item)


def _with_syntax(ds: Dataset) -> Dataset:
    """Name the encoding in which a file without meta information was found to be written."""
    implicit, little = ds.original_encoding
    if "TransferSyntaxUID" not in ds.file_meta:
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return ds


def send(
    items: Iterable[Path | Dataset],
    host: str,
    port: int,
    called_ae: str,
    calling_ae: str = "RADBOX-SIM",
    *,
    timeout_s: float = 30.0,
    progress: Progress | None = None,
) -> tuple[SendResult, ...]:
    """Send every object in its own transfer syntax; pictures go as Secondary Capture. Results in the given order.

    Files are streamed as they lie on the disk, never re-encoded. More than 128 kinds of object and transfer syntax take
    several associations. progress(done, total) is called after each object. A refusal of one object is a status in its
    result; raises RadboxError `send.no-connection` (nobody listens), `send.rejected` (the receiver does not want this
    association), `send.failed` (broken off, or an item that is no DICOM object).
    """
    parcels = [_parcel(item) for item in items]
    results: dict[int, SendResult] = {}
    for numbers, contexts in _associations(parcels):
        with _associate(contexts, host, port, called_ae, calling_ae, timeout_s) as association:
            for number in numbers:
                results[number] = _store(association, parcels[number])
                if progress is not None:
                    progress(len(results), len(parcels))
    return tuple(results[number] for number in range(len(parcels)))


def _associations(parcels: Sequence[_Parcel]) -> Iterator[tuple[list[int], list[tuple[str, str]]]]:
    """Parcel numbers and presentation contexts of each association needed."""
    kinds: dict[tuple[str, str], list[int]] = {}
    for number, parcel in enumerate(parcels):
        kinds.setdefault((parcel.sop_class_uid, parcel.transfer_syntax_uid), []).append(number)
    every = list(kinds)
    for start in range(0, len(every), CONTEXTS_PER_ASSOCIATION):
        contexts = every[start : start + CONTEXTS_PER_ASSOCIATION]
        yield sorted(number for kind in contexts for number in kinds[kind]), contexts


@contextmanager
def _associate(
    contexts: list[tuple[str, str]], host: str, port: int, called_ae: str, calling_ae: str, timeout_s: float
) -> Iterator[Association]:
    connected: list[bool] = []
    refused: list[bool] = []  # seen on the wire: a peer that closes at once can make the library report an abort
    ae = AE(ae_title=calling_ae)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    for sop_class, transfer_syntax in contexts:
        ae.add_requested_context(sop_class, transfer_syntax)
    chunked = _config.STORE_SEND_CHUNKED_DATASET
    _config.STORE_SEND_CHUNKED_DATASET = True
    try:
        association = ae.associate(
            host,
            port,
            ae_title=called_ae,
            max_pdu=131072,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, lambda _event: connected.append(True)),
                (
                    evt.EVT_PDU_RECV,
                    lambda event: refused.append(True) if isinstance(event.pdu, A_ASSOCIATE_RJ) else None,
                ),
            ],
        )
        if not association.is_established:
            rejected = association.is_rejected or bool(refused)
            raise _not_established(association, bool(connected), rejected, f"{host}:{port}", called_ae)
        try:
            yield association
        finally:
            if association.is_established:
                association.release()
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = chunked


def _not_established(
    association: Association, connected: bool, rejected: bool, address: str, called_ae: str
) -> RadboxError:
    if not connected:
        return RadboxError(f"expected a receiver at {address}, got no connection", code="send.no-connection")
    if rejected:
        return RadboxError(
            f"expected {called_ae} at {address} to accept the association, got a rejection"
            " (the AE titles or the address are not on its list, or it is full)",
            code="send.rejected",
        )
    if association.rejected_contexts:
        return RadboxError(
            f"expected {called_ae} at {address} to take these kinds of object, got none accepted", code="send.rejected"
        )
    return RadboxError(f"expected an association with {address}, got it aborted", code="send.failed")


def _store(association: Association, parcel: _Parcel) -> SendResult:
    taken = any(
        context.abstract_syntax == parcel.sop_class_uid and parcel.transfer_syntax_uid in context.transfer_syntax
        for context in association.accepted_contexts
    )
    if not taken:
        return SendResult(
            parcel.sop_instance_uid, _REFUSED_CONTEXT, "the receiver does not take this kind of object or its encoding"
        )
    try:
        answer = association.send_c_store(parcel.content)
    except (RuntimeError, ValueError, AttributeError, OSError) as error:
        raise RadboxError(f"expected the object to be sent, got {type(error).__name__}", code="send.failed") from error
    if "Status" not in answer:
        raise RadboxError(
            "expected an answer from the receiver, got the connection closed or a time-out", code="send.failed"
        )
    status = int(answer.Status)
    words = "stored" if status == 0 else f"status 0x{status:04X} {answer.get('ErrorComment', '')}".strip()
    return SendResult(parcel.sop_instance_uid, status, words)
