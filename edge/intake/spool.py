"""What pynetdicom writes a data set into while it arrives: a durable temporary file that may refuse to grow.

pynetdicom opens the file in the network thread, where an exception would only cut the connection. So a refusal is
remembered, the rest of the object is read and dropped, and the sender gets its status.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

from edge.durable import DurableFile, free_bytes
from edge.errors import StorageError

_CHECK_EVERY_BYTES: Final = 16 * 2**20
_LOG = logging.getLogger("radbox.receive")


class SpoolFile:
    """One arriving object. Offers what pynetdicom uses of a `tempfile.NamedTemporaryFile`: name, file, write, close.

    `refused` is the code of `status.REFUSALS` once there is a reason, `last_byte_s` the monotonic time of the last
    byte, `done` true once nothing of it is left to delete.
    """

    def __init__(self, incoming: Path, max_object_bytes: int, min_free_bytes: int) -> None:
        self.refused = ""
        self.last_byte_s = time.monotonic()
        self.done = False
        self.durable: DurableFile | None = None
        self._incoming = incoming
        self._max_object_bytes = max_object_bytes
        self._min_free_bytes = min_free_bytes
        self._next_check_bytes = 0
        try:
            self._check_room(0)
            if not self.refused:
                self.durable = DurableFile(incoming)
        except StorageError as error:
            self._refuse(error.code)
        self.name = str(self.durable.path if self.durable else incoming / "refused")

    @property
    def file(self) -> SpoolFile:
        """pynetdicom flushes `.file`."""
        return self

    def write(self, chunk: bytes) -> int:
        """Append, or drop if the object is refused."""
        self.last_byte_s = time.monotonic()
        if self.durable is None:
            return len(chunk)
        size = self.durable.size + len(chunk)
        try:
            if size > self._max_object_bytes:
                self._refuse("intake.too-large")
            elif size > self._next_check_bytes:
                self._check_room(size)
            if self.durable is not None:
                self.durable.write(chunk)
        except StorageError as error:
            self._refuse(error.code)
        return len(chunk)

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Called by pynetdicom after the answer was decided: whatever was not filed goes."""
        self.discard()

    def discard(self) -> None:
        """Delete the temporary file; harmless after it was committed."""
        self.done = True
        if self.durable is not None:
            try:
                self.durable.discard()
            except StorageError as error:
                _LOG.error("a temporary file stays until the next start: %s", error.message)

    def _check_room(self, size: int) -> None:
        self._next_check_bytes = size + _CHECK_EVERY_BYTES
        if free_bytes(self._incoming) < self._min_free_bytes:
            self._refuse("storage.full")

    def _refuse(self, code: str) -> None:
        self.refused = code
        self.discard()
        self.durable = None
