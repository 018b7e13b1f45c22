"""What a data set is written into while it arrives: a durable temporary file that may refuse to grow.

A refusal is remembered, the rest of the object is read and dropped, and the sender gets its status.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

from edge.durable import DurableFile, free_bytes
from edge.errors import StorageError
from edge.intake.writeback import begin_writeback

# Fragments come in any size; whole blocks at multiples of their size cost ext4 half as much as 16 KiB at odd places.
_BLOCK_BYTES: Final = 256 * 2**10
_WRITEBACK_STEP_BYTES: Final = 4 * 2**20  # with objects of 10 MB both less and more was slower
_CHECK_EVERY_BYTES: Final = 16 * 2**20
_LOG = logging.getLogger("radbox.receive")


class SpoolFile:
    """One arriving object.

    `refused` is the code of `status.REFUSALS` once there is a reason, `last_byte_s` the monotonic time of the last
    byte; `durable` is None once the object is refused.
    """

    def __init__(self, incoming: Path, max_object_bytes: int, min_free_bytes: int) -> None:
        self.refused = ""
        self.last_byte_s = time.monotonic()
        self.durable: DurableFile | None = None
        self._incoming = incoming
        self._max_object_bytes = max_object_bytes
        self._min_free_bytes = min_free_bytes
        self._size = 0
        self._next_check_bytes = 0
        self._writing_bytes = 0
        self._block = memoryview(bytearray(_BLOCK_BYTES))
        self._filled = 0
        try:
            self._check_room()
            if not self.refused:
                self.durable = DurableFile(incoming)
        except StorageError as error:
            self._refuse(error.code)

    def write(self, chunk: bytes | memoryview) -> None:
        """Append, or drop if the object is refused."""
        self.last_byte_s = time.monotonic()
        if self.durable is None:
            return
        self._size += len(chunk)
        if self._size > self._max_object_bytes:
            self._refuse("intake.too-large")
        while chunk and self.durable is not None:
            taken = min(len(chunk), _BLOCK_BYTES - self._filled)
            self._block[self._filled : self._filled + taken] = chunk[:taken]
            self._filled += taken
            chunk = chunk[taken:]
            if self._filled == _BLOCK_BYTES:
                self._write_block()

    def complete(self) -> None:
        """The last byte is here: hand over what is left. May be called again."""
        self._write_block()
        if self.durable is not None and self._writing_bytes == 0:  # a small object: now, while its header is read
            begin_writeback(self.durable.fileno(), 0, self.durable.size)

    def _write_block(self) -> None:
        try:
            if self._size > self._next_check_bytes:
                self._check_room()
            if self.durable is not None and self._filled:
                self.durable.write(self._block[: self._filled])
                self._begin_writeback(self.durable)
        except StorageError as error:
            self._refuse(error.code)
        self._filled = 0

    def discard(self) -> None:
        """Delete the temporary file; harmless after it was committed."""
        if self.durable is not None:
            try:
                self.durable.discard()
            except StorageError as error:
                _LOG.error("a temporary file stays until the next start: %s", error.message)

    def _begin_writeback(self, durable: DurableFile) -> None:
        """The disk works while the network does."""
        waiting = durable.size - self._writing_bytes
        if waiting >= _WRITEBACK_STEP_BYTES:
            begin_writeback(durable.fileno(), self._writing_bytes, waiting)
            self._writing_bytes = durable.size

    def _check_room(self) -> None:
        self._next_check_bytes = self._size + _CHECK_EVERY_BYTES
        if free_bytes(self._incoming) < self._min_free_bytes:
            self._refuse("storage.full")

    def _refuse(self, code: str) -> None:
        self.refused = code
        self.discard()
        self.durable = None
