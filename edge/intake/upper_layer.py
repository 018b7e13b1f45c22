"""The DICOM upper layer on one connection: whole PDUs in, whole PDUs out, within a size and a time (PS3.8 9.3).

The socket blocks in the kernel, with the kernel's own time-outs: a silent association costs nothing, and a PDU of
128 KiB is two system calls.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import Final

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

# A-ABORT by the service provider: reason/diagnostic (PS3.8 table 9-26).
UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 1, 2, 6
_BY_USER, _BY_PROVIDER = 0, 2

PDU_LIMIT_BYTES: Final = 2**20  # an A-ASSOCIATE-RQ may be larger than the data PDUs we ask for
_BUFFER_BYTES: Final = 2**17
_LINGER_S: Final = 1.0
_LINGER_BYTES: Final = 2**22
_HEAD: Final = struct.Struct(">BxL")  # type, length (PS3.8 9.3.1)


class EndedError(Exception):
    """The association is over: the peer closed, broke off or fell silent. The text says which."""


class ProtocolError(Exception):
    """The peer did what the standard does not allow; the association is aborted with `reason`."""

    def __init__(self, what: str, reason: int = INVALID_PARAMETER) -> None:
        super().__init__(what)
        self.reason = reason


class SilenceError(EndedError):
    """The peer said nothing, or not enough, for too long."""


class UpperLayer:
    """One connection. For one thread, except `interrupt`."""

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        """`timeout_s`: for a whole PDU to arrive or to be taken. Raises OSError: the connection broke already."""
        self._connection = connection
        self._head = bytearray(_HEAD.size)
        self._buffer = bytearray(_BUFFER_BYTES)
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.set_timeout(timeout_s)

    def set_timeout(self, timeout_s: float) -> None:
        """From now on."""
        self._timeout_s = timeout_s
        whole_s, part_s = divmod(timeout_s, 1)
        interval = struct.pack("ll", int(whole_s), int(part_s * 1e6))  # struct timeval
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._connection.setsockopt(socket.SOL_SOCKET, option, interval)

    def read(self) -> tuple[int, memoryview]:
        """Type and value of the next PDU; the value is good until the next `read`.

        Raises EndedError, SilenceError, ProtocolError (larger than PDU_LIMIT_BYTES).
        """
        # A sender with Nagle's algorithm (Debian's DCMTK, many modalities) waits for our acknowledgement in the middle
        # of each C-STORE; the kernel would delay it by 40 ms and forgets this option after a while.
        try:
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            self._fill(memoryview(self._head))
            kind, length = _HEAD.unpack(self._head)
            if length > PDU_LIMIT_BYTES:
                raise ProtocolError(f"a PDU of {length} bytes")
            if length > len(self._buffer):
                self._buffer = bytearray(PDU_LIMIT_BYTES)
            value = memoryview(self._buffer)[:length]
            self._fill(value)
        except BlockingIOError:
            raise SilenceError("the peer was silent for too long") from None
        except OSError as error:
            raise EndedError(f"the connection broke: {type(error).__name__}") from None
        return kind, value

    def _fill(self, view: memoryview) -> None:
        deadline_s = time.monotonic() + self._timeout_s
        while view:
            got = self._connection.recv_into(view, len(view), socket.MSG_WAITALL)
            if not got:
                raise EndedError("the peer closed the connection")
            view = view[got:]
            if view and time.monotonic() >= deadline_s:
                raise SilenceError("a PDU took too long")

    def send(self, content: bytes) -> None:
        """Send whole PDUs. Raises EndedError."""
        try:
            self._connection.sendall(content)
        except OSError as error:
            raise EndedError(f"the peer did not take our answer: {type(error).__name__}") from None

    def abort(self, reason: int | None = None) -> None:
        """Send A-ABORT, by the service provider if there is a `reason`; harmless on a broken connection."""
        source = _BY_USER if reason is None else _BY_PROVIDER
        with contextlib.suppress(EndedError):
            self.send(pdu(ABORT, bytes((0, 0, source, reason or 0))))

    def interrupt(self) -> None:
        """Make a `read` in another thread see the end of the connection; the peer can still be told."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RD)

    def close(self, *, politely: bool = False) -> None:
        """Close. `politely`: wait a moment for the peer to close first, else our last words may be lost to it."""
        with contextlib.suppress(OSError):
            if politely:
                self._connection.shutdown(socket.SHUT_WR)
                self._drain()
        self._connection.close()

    def _drain(self) -> None:
        """Read and drop what still comes (PS3.8 9.2, state 13)."""
        self.set_timeout(_LINGER_S)
        deadline_s = time.monotonic() + _LINGER_S
        dropped = 0
        while dropped < _LINGER_BYTES and time.monotonic() < deadline_s:
            got = self._connection.recv_into(self._buffer)
            if not got:
                return
            dropped += got


def pdu(kind: int, value: bytes) -> bytes:
    """A PDU of our own (PS3.8 9.3.1)."""
    return _HEAD.pack(kind, len(value)) + value
