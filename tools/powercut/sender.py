"""A modality: two associations that send until the receiver is gone and note every Success outside its disk."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from pynetdicom import AE, _config

from tools.powercut.forked import Forked
from tools.powercut.objects import make_object

ASSOCIATIONS = 2
NUMBERS_EACH = 10_000  # object numbers set aside for one association
PDU_BYTES = 131_072
TIMEOUT_S = 15.0
SUCCESS = 0x0000


@dataclass(frozen=True)
class Answer:
    """A C-STORE response: monotonic seconds when it had arrived, object number, status."""

    at_s: float
    number: int
    status: int


class Sender:
    """One batch of objects to one port. The answers are in a file, one line each, in the order of their arrival."""

    def __init__(self, port: int, called_ae: str, seed: int, batch: int, answers: Path) -> None:
        """Fork and start sending; `batch` numbers the objects so that none is ever sent twice."""
        answers.touch()
        self._answers = answers
        first = batch * ASSOCIATIONS * NUMBERS_EACH
        self._process = Forked(answers.with_suffix(".log"), _send_all, port, called_ae, seed, first, answers)

    def answered(self) -> bool:
        """True once a first Success is noted."""
        return any(answer.status == SUCCESS for answer in self.answers())

    def ended(self) -> bool:
        """True once both associations are over."""
        return self._process.ended()

    def answers(self) -> list[Answer]:
        """All answers so far."""
        whole_lines = self._answers.read_text().split("\n")[:-1]
        fields = [line.split() for line in whole_lines]
        return [Answer(float(at_s), int(number), int(status)) for at_s, number, status in fields]

    def close(self) -> None:
        """Kill it."""
        self._process.close()


def _send_all(port: int, called_ae: str, seed: int, first: int, answers: Path) -> None:
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    note = os.open(answers, os.O_WRONLY | os.O_APPEND)
    threads = [
        threading.Thread(target=_send, args=(port, called_ae, seed, first + one * NUMBERS_EACH, note))
        for one in range(ASSOCIATIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _send(port: int, called_ae: str, seed: int, first: int, note: int) -> None:
    ae = AE("POWERCUT")
    ae.maximum_pdu_size = PDU_BYTES
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    ae.add_requested_context(DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title=called_ae, max_pdu=PDU_BYTES)
    for number in range(first, first + NUMBERS_EACH):
        if not association.is_established:
            return
        try:
            response = association.send_c_store(make_object(seed, number))
        except (RuntimeError, OSError):  # the association ended between the check and the request
            return
        if "Status" not in response:
            return
        os.write(note, f"{time.monotonic():.6f} {number} {int(response.Status)}\n".encode())
