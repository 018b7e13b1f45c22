"""Service `link`: tells a broker on the LAN how the box is (MQTT), and watches the printer. No images, no studies.

The network is left to a thread each, so that a broker or printer that does not answer keeps nobody waiting; this one
writes and says how the service is. Where the board names neither, nothing of it is even loaded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Final

from edge.board import Board
from edge.errors import RadboxError
from edge.service import Stop, notify
from edge.store import ServiceState, Store, boot_id, database_key, open_store

if TYPE_CHECKING:
    from edge.link.reporter import Reporter

STEP_S: Final = 5.0
SIGN_OF_LIFE_S: Final = 10.0
PRINTER_EVERY_S: Final = 30.0
PRINTER_FACT_S: Final = 60.0
STUCK_S: Final = 90.0  # longer than any wait for the network; then systemd may start the service anew
END_S: Final = 5.0
Said = tuple[ServiceState, str, str]
_LOG = logging.getLogger("radbox.link")


def run(board: Board, stop: Stop) -> None:
    """Serve until `stop`. Raises StoreError, StorageError, ConfigError (link.machine-id)."""
    with closing(open_store(board.data_dir, key=database_key())) as store:
        _Link(board, store, stop).run()
    notify("STOPPING=1")


class _Part(threading.Thread):
    """Work that waits for the network."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._moved_s = time.monotonic()
        self.error: BaseException | None = None

    def run(self) -> None:
        """See `work`; what ends it is for the thread that looks."""
        try:
            self._work()
        except BaseException as error:
            self.error = error

    def moved(self) -> None:
        """It works."""
        self._moved_s = time.monotonic()

    def stuck(self) -> bool:
        """True if it did not move for too long."""
        return time.monotonic() - self._moved_s > STUCK_S


class _Link:
    def __init__(self, board: Board, store: Store, stop: Stop) -> None:
        self._board, self._store, self._stop = board, store, stop
        self._parts: list[_Part] = []
        self._reporter: Reporter | None = None
        self._said: Said | None = None
        self._said_s = float("-inf")

    def run(self) -> None:
        """See `run`."""
        if self._board.mqtt.host:
            self._start_mqtt()
        if self._board.printer.uri:
            self._start_printer()
        notify("READY=1")
        while not self._stop.is_set():
            try:
                self._step()
            except RadboxError as error:
                if error.code == "store.damaged":
                    raise
                _LOG.error("%s: %s", error.code, error.message)
            for part in self._parts:
                if part.error is not None:
                    raise part.error
            if not any(part.stuck() for part in self._parts):
                notify("WATCHDOG=1")
            self._stop.wait(STEP_S)
        for part in self._parts:
            part.join(END_S)

    def _step(self) -> None:
        if self._reporter is not None:
            self._reporter.step()
        said = self._how()
        if said != self._said or time.monotonic() - self._said_s >= SIGN_OF_LIFE_S - STEP_S / 2:
            self._store.set_service("link", *said)
            self._said, self._said_s = said, time.monotonic()

    def _how(self) -> Said:
        if not self._parts:
            return "ok", "link.not-configured", "No MQTT broker and no printer are configured."
        code, message = self._reporter.trouble if self._reporter is not None else ("", "")
        if code:
            return "degraded", code, f"{message} Reading goes on; messages wait."
        return "ok", "", ""

    def _start_mqtt(self) -> None:
        from edge.link.mqtt import Broker  # late: paho is loaded only where it is used
        from edge.link.reporter import Reporter, address
        from edge.link.topics import box_id

        box = box_id()
        settings = self._board.mqtt
        part = _Part("mqtt", lambda: broker.run(self._stop))
        broker = Broker(settings, address(settings, box), self._store, part.moved)
        self._reporter = Reporter(settings, self._store, boot_id(), box, broker)
        self._parts.append(part)
        part.start()
        _LOG.info("this box is %s/%s at the MQTT broker", settings.topic, box)

    def _start_printer(self) -> None:
        part = _Part("printer", lambda: _watch_printer(self._board.printer.uri, self._store, part.moved, self._stop))
        self._parts.append(part)
        part.start()


def _watch_printer(uri: str, store: Store, moved: Callable[[], None], stop: Stop) -> None:
    """Keep the fact `printer`: state, reasons (our words), message, code."""
    from edge.link.printer import look  # late, as above

    said, said_s = None, float("-inf")
    while not stop.is_set():
        moved()
        found = look(uri)
        moved()
        if found != said or time.monotonic() - said_s >= PRINTER_FACT_S:
            value = {"state": found.state, "reasons": list(found.reasons), "message": found.message, "code": found.code}
            try:
                store.set_fact("printer", value)
                said, said_s = found, time.monotonic()
            except RadboxError as error:
                _LOG.error("%s: how the printer is could not be written down", error.code)
        stop.wait(PRINTER_EVERY_S)
