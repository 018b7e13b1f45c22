"""The DICOM receiver: C-ECHO and C-STORE of every storage class in every transfer syntax, stored as received.

`run` is the service: it listens, turns associations that ended into complete studies, and says how it is. An object
takes the way `server` (network) -> `spool` (temporary file) -> `filing` (durable file, row) -> `status` (answer).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from pydicom.dataset import Dataset

from edge.board import Board, load_board
from edge.durable import free_bytes, make_directory, sweep
from edge.errors import ConfigError, RadboxError
from edge.intake.completion import Completion
from edge.intake.filing import Arrival, Filing
from edge.intake.server import Server, Service, configure_library
from edge.intake.spool import SpoolFile
from edge.service import Stop, notify, setup_logging
from edge.store import INCOMING, Store, database_key, open_store, quarantine_path

_STEP_S: Final = 0.2
_SIGN_OF_LIFE_S: Final = 10.0
_AFTER_REFUSAL_S: Final = 5.0  # how long a disk that refused an object counts as full
_LOG = logging.getLogger("radbox.receive")


class _Receiver:
    """What the associations' threads and the service's own loop share."""

    def __init__(self, board: Board, store: Store) -> None:
        self._board = board
        self._store = store
        self._incoming = board.data_dir / INCOMING
        self._filing = Filing(board.data_dir, store)
        self._completion = Completion(board.receive.quiet_time_s)
        self._refused_s = -_AFTER_REFUSAL_S
        self._said: tuple[str, float] = ("", -_SIGN_OF_LIFE_S)
        make_directory(self._incoming)
        make_directory(board.data_dir / quarantine_path("").parent)
        left_over = sweep(self._incoming)
        unfinished = store.receiving_studies()
        for study_key in unfinished:
            self._completion.resume(study_key)
        if left_over or unfinished:
            _LOG.info("after a restart: %d unfinished files deleted, %d studies go on", left_over, len(unfinished))

    def service(self) -> Service:
        """What the server calls."""
        return Service(self._board.receive, self._open_spool, self._store_object, self._completion.ended)

    def _open_spool(self) -> SpoolFile:
        receive = self._board.receive
        return SpoolFile(self._incoming, receive.max_object_bytes, receive.min_free_bytes)

    def _store_object(self, event: Any, association: int) -> Dataset:
        request = event.request
        arrival = Arrival(
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            calling_ae=str(event.assoc.requestor.ae_title).strip(),
        )
        filed = self._filing.file(request._dataset_file, arrival)
        if filed.study_key is not None:
            self._completion.received(filed.study_key, association)
        if filed.refused.startswith("storage."):
            self._refused_s = time.monotonic()
        return filed.response

    def step(self) -> None:
        """One round of the service's loop."""
        for study_key in self._completion.due():
            try:
                self._store.complete_study(study_key)
                _LOG.info("study %d is complete", study_key)
            except RadboxError as error:
                _LOG.error("study %d could not be queued and waits: %s", study_key, error.message)
                self._completion.resume(study_key)
        try:
            self._say_how_it_is()
        except RadboxError as error:
            _LOG.error("how the receiver is could not be recorded: %s", error.message)

    def _say_how_it_is(self) -> None:
        now_s = time.monotonic()
        free, needed = free_bytes(self._incoming), self._board.receive.min_free_bytes
        full = free < needed or now_s - self._refused_s < _AFTER_REFUSAL_S
        code = "storage.full" if full else ""
        if code == self._said[0] and now_s - self._said[1] < _SIGN_OF_LIFE_S:
            return
        message = (
            f"The disk is full: {free / 2**30:.1f} GiB are free, {needed / 2**30:.1f} GiB must stay free. "
            "New images are refused and stay on the X-ray machine; the images already here are safe. "
            "Free some space, then send again."
        )
        self._said = (code, now_s)
        self._store.set_service("receive", "degraded" if full else "ok", code, message if full else "")


def run(board: Board, stop: Stop) -> None:
    """Receive until `stop`. Raises ConfigError (`config.port`: the port is taken), StoreError, StorageError."""
    configure_library()
    store = open_store(board.data_dir, key=database_key())
    receiver = _Receiver(board, store)
    try:
        server = Server(receiver.service())
    except OSError as error:
        place = f"{board.receive.host} port {board.receive.port}"
        raise ConfigError(
            f"expected {place} to be free to listen on, got: {error.strerror}", code="config.port"
        ) from None
    listening = threading.Thread(target=server.serve_forever, args=(_STEP_S,), name="listen")
    receiver.step()
    listening.start()
    _LOG.info("listening on %s port %d as %s", board.receive.host, board.receive.port, board.receive.ae_title)
    notify("READY=1")
    try:
        while not stop.wait(_STEP_S) and listening.is_alive():
            receiver.step()
            notify("WATCHDOG=1")
    finally:
        notify("STOPPING=1")
        server.shutdown()
        listening.join()
        store.close()
    if not stop.is_set():
        raise RadboxError("expected the receiver to listen until it is stopped, got its end", code="receive.ended")


def main(arguments: list[str]) -> int:
    """`python -m edge.intake.receive BOARD`: the receiver alone."""
    setup_logging("receive")
    try:
        run(load_board(Path(arguments[0])), Stop())
    except RadboxError as error:
        _LOG.error("%s: %s", error.code, error.message)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
