"""From a received temporary file to a durable object with its row, or to the quarantine with a reason.

The order is the promise: file durable, then row, then Success. A crash between them leaves a file without a row
that nobody was told of, never a row without a file. The row is added by the process that keeps the ledger.
"""

from __future__ import annotations

import logging
import mmap
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge.durable import DurableFile, make_directory
from edge.errors import DicomError, StorageError
from edge.intake.elements import data_set_offset
from edge.intake.header import Header, read_header
from edge.intake.ledger_link import LedgerGoneError, LedgerLink, Quarantined
from edge.intake.spool import SpoolFile
from edge.intake.status import FAULTS, REFUSALS, SUCCESS, Answer
from edge.store import InstanceFacts, object_path, quarantine_path

_LOG = logging.getLogger("radbox.receive")


@dataclass(frozen=True)
class Arrival:
    """What the C-STORE command and its association said."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    urgent: bool = False


class Filing:
    """Files the objects of one association."""

    def __init__(self, data_dir: Path, ledger: LedgerLink) -> None:
        self._data_dir = data_dir
        self._ledger = ledger

    def file(self, spool: SpoolFile | None, arrival: Arrival) -> Answer:
        """File one object or say why not. What it could not keep, it answers with a failure.

        Raises LedgerGoneError alone: then there is nothing to answer.
        """
        return self._guarded(spool, lambda whole, content: self._file(whole, content, arrival))

    def set_aside(self, spool: SpoolFile, calling_ae: str, reason: DicomError) -> Answer:
        """Put bytes into the quarantine that are no object; the rest as for `file`."""
        return self._guarded(spool, lambda _, content: self._quarantine(content, calling_ae, reason))

    def refuse(self, code: str) -> Answer:
        """Nothing is kept. Raises LedgerGoneError."""
        _LOG.warning("refused an object: %s: %s", code, REFUSALS[code].comment)
        self._ledger.refused(code)
        return REFUSALS[code]

    def _guarded(self, spool: SpoolFile | None, keep: Callable[[SpoolFile, DurableFile], Answer]) -> Answer:
        try:
            if spool is None:
                return self.refuse("intake.no-data-set")
            spool.complete()
            if spool.durable is None:
                return self.refuse(spool.refused)
            return keep(spool, spool.durable)
        except LedgerGoneError:
            raise
        except StorageError as error:
            return self.refuse(error.code if error.code in REFUSALS else "storage.failed")
        except Exception as error:  # the border: a fault of ours must cost one object, not the receiver
            _LOG.error("an object could not be processed: %s at %s", type(error).__name__, place(error))
            return self.refuse("intake.broke")

    def _file(self, spool: SpoolFile, content: DurableFile, arrival: Arrival) -> Answer:
        try:
            header = _read(content, arrival)
        except DicomError as error:
            return self._quarantine(content, arrival.calling_ae, error)
        sha256, size = content.sha256, content.size
        path = object_path(sha256)
        final = self._data_dir / path
        make_directory(final.parent)
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
        study = replace(header.study, urgency=1) if arrival.urgent else header.study
        outcome, study_key = self._ledger.record(study, instance)
        _LOG.info(
            "%s: %d bytes for study %s, %.3f s after the last byte",
            *(outcome, size, study_key, time.monotonic() - spool.last_byte_s),
        )
        return Answer(SUCCESS)

    def _quarantine(self, content: DurableFile, calling_ae: str, error: DicomError) -> Answer:
        sha256, size = content.sha256, content.size
        path = quarantine_path(sha256)
        content.commit(self._data_dir / path)
        self._ledger.quarantine(Quarantined(sha256, size, str(path), error.code, error.message, calling_ae))
        _LOG.warning("quarantined %d bytes: %s: %s", size, error.code, error.message)
        return FAULTS[error.code]


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


def place(error: Exception) -> str:
    """File and line that raised; the message itself may quote attribute values."""
    where = error.__traceback__
    while where and where.tb_next:
        where = where.tb_next
    return f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where else "?"
