"""From a received temporary file to a durable object with its row, or to the quarantine with a reason.

The order is the promise: file durable, then row, then Success. A crash between them leaves a file without a row
that nobody was told of, never a row without a file.
"""

from __future__ import annotations

import logging
import mmap
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from edge.durable import DurableFile, make_directory, remove
from edge.errors import DicomError, RadboxError, StorageError, StorageFullError
from edge.intake.elements import data_set_offset
from edge.intake.header import Header, read_header
from edge.intake.spool import SpoolFile
from edge.intake.status import FAULTS, REFUSALS, SUCCESS, answer
from edge.store import InstanceFacts, Store, object_path, quarantine_path

_LOG = logging.getLogger("radbox.receive")
_REFUSAL_EVENT_EVERY_S = 60.0


@dataclass(frozen=True)
class Arrival:
    """What the C-STORE command said."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str


@dataclass(frozen=True)
class Filed:
    """The answer to the sender, and our key of the study the object was filed under, if it was."""

    response: Dataset
    study_key: int | None = None
    refused: str = ""


class Filing:
    """Files objects; used by every association's thread at once."""

    def __init__(self, data_dir: Path, store: Store) -> None:
        self._data_dir = data_dir
        self._store = store
        # One object's file and row are one step: the same object arriving twice at once must not undo each other.
        self._locks = tuple(threading.Lock() for _ in range(16))
        self._told_s: dict[str, float] = {}

    def file(self, spool: SpoolFile | None, arrival: Arrival) -> Filed:
        """File one object or say why not. Never raises; what it could not keep, it answers with a failure."""
        try:
            if spool is None:
                return self._refuse("intake.no-data-set")
            if spool.durable is None:
                return self._refuse(spool.refused)
            return self._file(spool, spool.durable, arrival)
        except StorageError as error:
            return self._refuse(error.code if error.code in REFUSALS else "storage.failed")
        except Exception as error:  # the border: a fault of ours must cost one object, not the receiver
            where = error.__traceback__
            while where and where.tb_next:
                where = where.tb_next
            line = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where else "?"
            _LOG.error("an object could not be processed: %s at %s", type(error).__name__, line)
            return self._refuse("intake.broke")

    def _file(self, spool: SpoolFile, content: DurableFile, arrival: Arrival) -> Filed:
        try:
            header = _read(content, arrival)
        except DicomError as error:
            return self._quarantine(content, arrival, error)
        sha256, size = content.sha256, content.size
        path = object_path(sha256)
        final = self._data_dir / path
        make_directory(final.parent)
        with self._locks[int(sha256[0], 16)]:
            was_there = final.exists()
            content.commit(final)
            durable_s = time.monotonic()
            instance = InstanceFacts(
                sop_instance_uid=header.sop_instance_uid,
                sop_class_uid=header.sop_class_uid,
                transfer_syntax_uid=arrival.transfer_syntax_uid,
                sha256=sha256,
                size_bytes=size,
                path=str(path),
                calling_ae=arrival.calling_ae,
                received_monotonic_s=spool.last_byte_s,
                receive_s=durable_s - spool.last_byte_s,
            )
            try:
                outcome = self._store.add_instance(header.study, instance)
            except StorageFullError:  # rolled back for certain: nothing stays behind
                if not was_there:
                    remove(final)
                raise
        study_key = self._store.study_key(header.study.study_instance_uid)
        _LOG.info(
            "%s: %d bytes for study %s, %.3f s after the last byte",
            *(outcome, size, study_key, time.monotonic() - spool.last_byte_s),
        )
        return Filed(answer(SUCCESS), study_key)

    def _quarantine(self, content: DurableFile, arrival: Arrival, error: DicomError) -> Filed:
        status, comment = FAULTS[error.code]
        sha256, size = content.sha256, content.size
        path = quarantine_path(sha256)
        content.commit(self._data_dir / path)
        self._store.add_quarantine(sha256, size, str(path), error.code, error.message, arrival.calling_ae)
        _LOG.warning("quarantined %d bytes: %s: %s", size, error.code, error.message)
        return Filed(answer(status, comment))

    def _refuse(self, code: str) -> Filed:
        status, comment = REFUSALS[code]
        _LOG.warning("refused an object: %s: %s", code, comment)
        now_s = time.monotonic()
        if now_s - self._told_s.get(code, -_REFUSAL_EVENT_EVERY_S) >= _REFUSAL_EVENT_EVERY_S:
            self._told_s[code] = now_s
            try:
                self._store.add_event(code, comment)
            except RadboxError as error:
                _LOG.error("the refusal could not be recorded: %s", error.message)
        return Filed(answer(status, comment), refused=code)


def _read(content: DurableFile, arrival: Arrival) -> Header:
    """Facts of a whole object that is what its command says. Raises DicomError."""
    with mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as view:
        header = read_header(view, data_set_offset(view[:144]), arrival.transfer_syntax_uid)
    if header.sop_class_uid != arrival.sop_class_uid:
        message = "expected the SOP Class UID of the command in the data set, got another"
        raise DicomError(message, code="dicom.sop-class-mismatch")
    if header.sop_instance_uid != arrival.sop_instance_uid:
        message = "expected the SOP Instance UID of the command in the data set, got another"
        raise DicomError(message, code="dicom.sop-instance-mismatch")
    return header
