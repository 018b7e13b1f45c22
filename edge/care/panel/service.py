"""Service `panel`: a small LCD with a light, and a foot switch, on a serial port.

It writes how it is and what a foot asked for, and nothing else. A panel that is unplugged is looked for again with
growing pauses. With a frame grabber the foot switch takes a picture; without one it turns the page, like every key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from edge.board import Board
from edge.care.panel.link import Link, Port, SerialPort
from edge.care.panel.protocol import PanelError
from edge.care.panel.replay import Recorder
from edge.care.panel.show import Show
from edge.errors import RadboxError
from edge.service import Stop, notify
from edge.store import ServiceState, Store, database_key, open_store

STEP_S: Final = 1.0  # longest wait for the panel, so that a stop is noticed
SIGN_OF_LIFE_S: Final = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
NOISE: Final = 20  # bad frames between two signs of life
_NOISY: Final = "expected frames from the panel, got many with wrong checksums: look at its cable"
_LOG = logging.getLogger("radbox.panel")


def run(board: Board, stop: Stop, capture: Path | None = None) -> None:
    """Serve until `stop`. capture: write every byte of the line there; it gets its name at the end.

    Raises StoreError, StorageError (of the database when it starts, of the capture).
    """
    if not board.panel.device:
        _LOG.info("the board names no panel: nothing to do")
        return
    with ExitStack() as stack:
        store = stack.enter_context(closing(open_store(board.data_dir, key=database_key())))
        recorder = stack.enter_context(closing(Recorder(capture))) if capture else None
        notify("READY=1")
        Service(board, store, lambda: SerialPort(board.panel.device, board.panel.baud), recorder).serve(stop)
        notify("STOPPING=1")


class Service:
    """Connects, shows, listens, and starts over when the line is lost."""

    def __init__(
        self, board: Board, store: Store, open_port: Callable[[], Port], recorder: Recorder | None = None
    ) -> None:
        self._board = board
        self._store = store
        self._open_port = open_port
        self._recorder = recorder
        self._pause_s = FIRST_PAUSE_S
        self._said = ""
        self._since_s = time.monotonic()

    def serve(self, stop: Stop) -> None:
        """Until `stop`, whatever the line does. Raises StorageError of the capture alone."""
        while not stop.is_set():
            try:
                with closing(self._open_port()) as port:
                    self._note("opened")
                    self._connected(Link(port, self._recorder), stop)
            except PanelError as error:
                self._note(error.code)
                self._say("degraded", error.code, error.message)
                notify("WATCHDOG=1")
                stop.wait(self._pause_s)
                self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)

    def _connected(self, link: Link, stop: Stop) -> None:
        show = Show(self._board, self._store, link, self._since_s)
        said_s, bad = float("-inf"), 0
        while not stop.is_set():
            for key in link.step(min(STEP_S, show.due_s())):
                show.key(key)
            show.step()
            if link.hello is not None and time.monotonic() - said_s >= SIGN_OF_LIFE_S:
                self._pause_s = FIRST_PAUSE_S
                noisy = link.bad - bad >= NOISE
                self._say(*(("degraded", "panel.noise", _NOISY) if noisy else ("ok", "", "")))
                said_s, bad = time.monotonic(), link.bad
            notify("WATCHDOG=1")
        show.farewell()

    def _say(self, state: ServiceState, code: str, message: str) -> None:
        if code != self._said:
            _LOG.warning("%s: %s", code, message) if code else _LOG.info("the panel answers")
        self._said = code
        try:
            self._store.set_service("panel", state, code, message)
        except RadboxError as error:  # a database in repair comes back; the panel goes on and shows that
            _LOG.error("%s: %s", error.code, error.message)

    def _note(self, words: str) -> None:
        if self._recorder:
            self._recorder.note("-", b"", words)
