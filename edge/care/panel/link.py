"""The line to the panel: a serial port that may vanish, and one frame at a time that must be acknowledged.

Stop and wait: a frame is sent, and sent again with the same sequence number, until the panel acknowledges it; the panel
obeys a number once. Keys come the same way round. Bytes that are no frame are counted and passed over.
"""

from __future__ import annotations

import os
import select
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import serial

from edge.care.panel import protocol
from edge.care.panel.protocol import Frame, Hello, Key, Kind, PanelError, Reader
from edge.care.panel.replay import Recorder

WRITE_TIMEOUT_S: Final = 2.0
ASK_EVERY_S: Final = 1.0  # a board that resets when the port is opened is silent for a second or two
HELLO_WITHIN_S: Final = 8.0
RESEND_S: Final = 0.4
TRIES: Final = 6
REMEMBERED: Final = 32  # sequence numbers of keys, back from the last, that are not obeyed again
CHUNK_BYTES: Final = 4096


class Port(Protocol):
    """A line of bytes."""

    def read(self, wait_s: float) -> bytes:
        """What has come, waiting at most `wait_s` for the first byte; b"" if nothing did. Raises PanelError."""

    def write(self, content: bytes) -> None:
        """Send all. Raises PanelError."""

    def close(self) -> None:
        """Let go of the device."""


class SerialPort:
    """A serial device, for this process alone."""

    def __init__(self, device: str, baud: int) -> None:
        """8 data bits, no parity, no flow control. A line that has no DTR and RTS, such as a pty, is fine.

        Raises PanelError (panel.lost).
        """
        try:
            self._serial = serial.Serial(device, baud, timeout=0, write_timeout=WRITE_TIMEOUT_S, exclusive=True)
        except (OSError, ValueError, termios.error) as error:  # SerialException is an OSError
            raise PanelError(f"expected a panel on its serial port, got: {_reason(error)}") from error

    def read(self, wait_s: float) -> bytes:
        """See Port."""
        try:
            readable, _, _ = select.select([self._serial.fileno()], [], [], max(0.0, wait_s))
            return bytes(self._serial.read(CHUNK_BYTES)) if readable else b""
        except (OSError, ValueError, termios.error) as error:
            raise PanelError(f"expected the panel to stay connected, got: {_reason(error)}") from error

    def write(self, content: bytes) -> None:
        """See Port."""
        try:
            self._serial.write(content)
        except (OSError, ValueError, termios.error) as error:
            raise PanelError(f"expected the panel to take bytes, got: {_reason(error)}") from error

    def close(self) -> None:
        """See Port."""
        try:
            self._serial.close()
        except (OSError, termios.error):  # of a device that was unplugged; the descriptor is closed either way
            return


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else "a device that is gone"


@dataclass
class _Sent:
    frame: Frame
    at_s: float
    tries: int = 1


@dataclass
class _Outgoing:
    """What waits to be sent: of lines and light only the newest counts, every tone does."""

    newest: dict[Kind, bytes] = field(default_factory=dict)
    tones: list[bytes] = field(default_factory=list)

    def put(self, kind: Kind, payload: bytes) -> None:
        if kind == Kind.BEEP:
            self.tones = [*self.tones, payload][-3:]
        else:
            self.newest[kind] = payload

    def take(self) -> tuple[Kind, bytes] | None:
        if self.tones:
            return Kind.BEEP, self.tones.pop(0)
        for kind in (Kind.LINES, Kind.LIGHT):
            if kind in self.newest:
                return kind, self.newest.pop(kind)
        return None


class Link:
    """One connection, from the first question to the loss of the line. Not for use by two threads.

    `hello`: what the panel said of itself, None until it did; `hellos`: how often (it has forgotten everything each
    time). Times are monotonic seconds.
    """

    def __init__(
        self, port: Port, recorder: Recorder | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.hello: Hello | None = None
        self.hellos = 0
        self._port = port
        self._recorder = recorder
        self._clock = clock
        self._reader = Reader()
        self._sequence = 0
        self._sent: _Sent | None = None
        self._outgoing = _Outgoing()
        self._last_key: int | None = None  # its sequence number
        self._opened_s = clock()
        self._asked_s = float("-inf")

    @property
    def bad(self) -> int:
        """How many frames of the panel were none."""
        return self._reader.bad

    @property
    def idle(self) -> bool:
        """True if the panel has acknowledged everything."""
        return self._sent is None and not self._outgoing.newest and not self._outgoing.tones

    def put(self, kind: Kind, payload: bytes) -> None:
        """Send when the panel is ready for it; a newer screen or light replaces one that still waits."""
        self._outgoing.put(kind, payload)

    def step(self, wait_s: float) -> list[Key]:
        """Send what is due, then wait at most `wait_s` for the panel; returns keys that went down or up.

        Raises PanelError: panel.lost, panel.silent, panel.version.
        """
        self._ask()
        self._send_due()
        content = self._port.read(min(wait_s, self._next_due_s()))
        if content and self._recorder:
            self._recorder.note("<", content)
        keys = [key for frame in self._reader.feed(content) if (key := self._take(frame)) is not None]
        self._send_due()
        return keys

    def _ask(self) -> None:
        now_s = self._clock()
        if self.hello is not None:
            return
        if now_s - self._opened_s > HELLO_WITHIN_S:
            raise PanelError("expected the panel to answer, got silence", code="panel.silent")
        if now_s - self._asked_s >= ASK_EVERY_S:
            self._asked_s = now_s
            self._write(b"\0" + protocol.encode(Frame(Kind.WHO, 0)))  # the zero ends what may lie on the line

    def _send_due(self) -> None:
        now_s = self._clock()
        if self.hello is None:
            return
        if self._sent is None:
            if (outgoing := self._outgoing.take()) is None:
                return
            self._sequence = (self._sequence + 1) % 256
            self._sent = _Sent(Frame(outgoing[0], self._sequence, outgoing[1]), now_s)
        elif now_s - self._sent.at_s < RESEND_S:
            return
        elif self._sent.tries >= TRIES:
            raise PanelError("expected the panel to acknowledge, got silence", code="panel.silent")
        else:
            self._sent = _Sent(self._sent.frame, now_s, self._sent.tries + 1)
        self._write(protocol.encode(self._sent.frame))

    def _next_due_s(self) -> float:
        """Seconds until `step` has something to do of its own."""
        now_s = self._clock()
        if self.hello is None:
            return max(0.0, self._asked_s + ASK_EVERY_S - now_s)
        return max(0.0, self._sent.at_s + RESEND_S - now_s) if self._sent else float("inf")

    def _take(self, frame: Frame) -> Key | None:
        if frame.kind == Kind.HELLO:
            self._greet(frame)
        elif frame.version == protocol.VERSION and frame.kind == Kind.ACK:
            if self._sent and self._sent.frame.sequence == frame.sequence:
                self._sent = None
        elif frame.version == protocol.VERSION and frame.kind == Kind.KEY and self.hello is not None:
            return self._key(frame)
        return None

    def _greet(self, frame: Frame) -> None:
        hello = protocol.read_hello(frame.payload)
        if hello is None:
            return
        if hello.version != protocol.VERSION:
            message = f"expected a panel of protocol version {protocol.VERSION}, got {hello.version}"
            raise PanelError(message, code="panel.version")
        self.hello = hello
        self.hellos += 1
        self._sent = None
        self._outgoing = _Outgoing()
        self._last_key = None

    def _key(self, frame: Frame) -> Key | None:
        self._write(protocol.encode(Frame(Kind.ACK, frame.sequence, b"\0")))
        if self._last_key is not None and (self._last_key - frame.sequence) % 256 < REMEMBERED:
            return None  # it came before: our acknowledgement was lost
        self._last_key = frame.sequence
        return protocol.read_key(frame.payload)

    def _write(self, content: bytes) -> None:
        if self._recorder:
            self._recorder.note(">", content)
        self._port.write(content)
