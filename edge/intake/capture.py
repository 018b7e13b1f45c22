"""Service `capture`: watches a frame grabber and turns a press on "freeze" into a study.

Without a grabber on the board it ends at once.
"""

from __future__ import annotations

import logging
from contextlib import closing
from typing import Final

from edge.board import Board
from edge.errors import RadboxError
from edge.service import Stop, notify
from edge.store import database_key, open_store

_STEP_S: Final = 0.2  # how long a press may wait
_LOG = logging.getLogger("radbox.capture")


def run(board: Board, stop: Stop) -> None:
    """Serve until `stop`. Raises ConfigError (the preset), StoreError, StorageError."""
    if not board.grabber.source:
        _LOG.info("no frame grabber is configured")
        return
    from edge.intake.grabber.duty import Duty  # late: libraries that a box without a grabber never needs

    with closing(open_store(board.data_dir, key=database_key())) as store, closing(Duty(board, store)) as duty:
        notify("READY=1")
        while not stop.is_set():
            try:
                duty.step()
            except RadboxError as error:  # the next round tries again; only damage ends the rounds
                if error.code == "store.damaged":
                    raise
                _LOG.error("%s: %s", error.code, error.message)
            notify("WATCHDOG=1")
            stop.wait(_STEP_S)
    notify("STOPPING=1")
