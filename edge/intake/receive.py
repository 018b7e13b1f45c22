"""The DICOM receiver: C-ECHO and C-STORE of every storage class in every transfer syntax, stored as received.

`run` is the service: it listens, turns associations that ended into complete studies, and says how it is. An object
takes the way `association` (network, in a child process) -> `spool` (temporary file) -> `filing` (durable file) ->
`ledger` (row, in this process) -> `status` (answer).
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from pathlib import Path
from typing import Final

from edge.board import Board, load_board
from edge.disk_marks import DiskWatch
from edge.durable import free_bytes, make_directory, make_siblings, sweep
from edge.errors import ConfigError, RadboxError, StorageFullError
from edge.intake.association import Settings
from edge.intake.completion import Completion
from edge.intake.inbox import Inbox
from edge.intake.ledger import Ledger
from edge.intake.server import Server
from edge.service import Stop, notify, setup_logging
from edge.store import INCOMING, Store, database_key, object_path, open_store, quarantine_path

_STEP_S: Final = 0.2
_SIGN_OF_LIFE_S: Final = 10.0
_AFTER_REFUSAL_S: Final = 5.0  # how long a disk that refused an object counts as full
_LOG = logging.getLogger("radbox.receive")


class _Receiver:
    """Which studies are complete, and how the receiver is."""

    def __init__(self, board: Board, store: Store) -> None:
        self._board = board
        self._store = store
        self._incoming = board.data_dir / INCOMING
        self.completion = Completion(board.receive.quiet_time_s)
        self.ledger = Ledger(board.data_dir, store, self.completion, DiskWatch(board))
        self._said: tuple[str, float] = ("", -_SIGN_OF_LIFE_S)
        make_directory(self._incoming)
        make_directory(board.data_dir / quarantine_path("").parent)
        _make_object_folders(board.data_dir)
        left_over = sweep(self._incoming)
        unfinished = store.receiving_studies()
        for study_key in unfinished:
            self.completion.resume(study_key)
        if left_over or unfinished:
            _LOG.info("after a restart: %d unfinished files deleted, %d studies go on", left_over, len(unfinished))

    def step(self) -> None:
        """One round of the service's loop."""
        for study_key in self.completion.due():
            try:
                self._store.complete_study(study_key)
                _LOG.info("study %d is complete", study_key)
            except RadboxError as error:
                _LOG.error("study %d could not be queued and waits: %s", study_key, error.message)
                self.completion.resume(study_key)
        try:
            self._say_how_it_is()
        except RadboxError as error:
            _LOG.error("how the receiver is could not be recorded: %s", error.message)

    def close(self) -> None:
        """The last counts."""
        try:
            self.ledger.save_counts()
        except RadboxError as error:
            _LOG.error("what was counted last is lost: %s", error.message)

    def _say_how_it_is(self) -> None:
        now_s = time.monotonic()
        free, needed = free_bytes(self._incoming), self._board.receive.min_free_bytes
        full = free < needed or now_s - self.ledger.storage_refused_s < _AFTER_REFUSAL_S
        code = "storage.full" if full else ""
        if code == self._said[0] and now_s - self._said[1] < _SIGN_OF_LIFE_S:
            return
        message = (
            f"The disk is full: {free / 2**30:.1f} GiB are free, {needed / 2**30:.1f} GiB must stay free. "
            "New images are refused and stay on the X-ray machine; the images already here are safe. "
            "Free some space, then send again."
        )
        self._said = (code, now_s)
        self.ledger.save_counts()
        self._store.set_service("receive", "degraded" if full else "ok", code, message if full else "")


def _make_object_folders(data_dir: Path) -> None:
    """All of them at the start, so that no object waits for its folder to become durable; children know they are."""
    folders = [(data_dir / object_path(f"{number:02x}")).parent for number in range(256)]
    with contextlib.suppress(StorageFullError):  # filing makes what is missing
        make_siblings(folders)


def run(board: Board, stop: Stop) -> None:
    """Receive until `stop`. Raises ConfigError (`config.port`: the port is taken), StoreError, StorageError."""
    store = open_store(board.data_dir, key=database_key())
    receiver = _Receiver(board, store)
    try:
        settings = Settings(board.receive, board.data_dir)
        server = Server(settings, receiver.ledger, receiver.completion)
    except OSError as error:
        place = f"{board.receive.host} port {board.receive.port}"
        raise ConfigError(
            f"expected {place} to be free to listen on, got: {error.strerror}", code="config.port"
        ) from None
    inbox = Inbox(settings, server)
    receiver.step()
    _LOG.info("listening on %s port %d as %s", board.receive.host, board.receive.port, board.receive.ae_title)
    notify("READY=1")
    next_step_s = time.monotonic() + _STEP_S
    try:
        while not stop.is_set():
            server.serve(max(0.0, next_step_s - time.monotonic()))
            if time.monotonic() >= next_step_s:
                receiver.step()
                inbox.step()
                notify("WATCHDOG=1")
                next_step_s = time.monotonic() + _STEP_S
    finally:
        notify("STOPPING=1")
        server.close()
        inbox.close()
        receiver.close()
        store.close()


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
