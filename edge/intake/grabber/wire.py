"""What passes between the process that reads the grabber and the service: pixels in shared memory, one word for each.

The memory has SLOTS places for a picture, used in turn; a message names the newest. Whoever copies a picture looks
afterwards whether the writer may have come round again (`SLOTS` - 1 messages later) and then takes a newer one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from edge.intake.grabber.preset import HEIGHT_LIMIT, WIDTH_LIMIT

SLOTS: Final = 3
SLOT_BYTES: Final = WIDTH_LIMIT * HEIGHT_LIMIT * 3
MEMORY_BYTES: Final = SLOTS * SLOT_BYTES  # taken from the machine only as far as it is written
_MESSAGE: Final = struct.Struct("=QdIII")
MESSAGE_BYTES: Final = _MESSAGE.size

NOT_OPENED, NO_FRAME, TOO_LARGE = 3, 4, 5  # exit codes of the reading process


@dataclass(frozen=True)
class Arrived:
    """A picture in slot `number % SLOTS`. `digest`: CRC-32 of its bytes; `monotonic_s`: when it was read."""

    number: int
    monotonic_s: float
    height: int
    width: int
    digest: int

    def encode(self) -> bytes:
        """As a message."""
        return _MESSAGE.pack(self.number, self.monotonic_s, self.height, self.width, self.digest)

    @property
    def start(self) -> int:
        """Where its bytes begin."""
        return self.number % SLOTS * SLOT_BYTES


def decode(message: bytes) -> Arrived:
    """The reverse of `Arrived.encode`."""
    return Arrived(*_MESSAGE.unpack(message))
