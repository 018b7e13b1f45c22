"""A panel in software that speaks the real one's protocol: for tests, replays, and a terminal in place of an LCD."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge.care.panel import protocol
from edge.care.panel.protocol import Frame, Hello, Kind, Reader

RESEND_S: Final = 0.3
FORGET_S: Final = 2.0  # a key that nobody heard of for so long is dropped: a late freeze would take another picture
SILENT_S: Final = 30.0
SILENT: Final = "No word from the box"
_DONE, _NOT_UNDERSTOOD = b"\0", b"\1"
_CHUNK_BYTES: Final = 4096


@dataclass(frozen=True)
class Light:
    """0 to 255 each; `period_s` of blinking, 0 for steady."""

    red: int
    green: int
    blue: int
    period_s: float


@dataclass
class _Waiting:
    frame: Frame
    since_s: float
    sent_s: float = float("-inf")


class SimulatedPanel:
    """Bytes of the host in, bytes of the panel out; what it would show is in `screen`, `light`, `beeps`.

    `screens` counts what was drawn, `bad` bytes that were no frame. Times are monotonic seconds.
    """

    def __init__(self, columns: int = 20, rows: int = 4, clock: Callable[[], float] = time.monotonic) -> None:
        self.screen: tuple[str, ...] = ("",) * rows
        self.light: Light | None = None
        self.beeps = 0
        self.screens = 0
        self._hello = Hello(protocol.VERSION, columns, rows)
        self._reader = Reader()
        self._clock = clock
        self._sequence = 0
        self._last_heard: tuple[int, int, bytes] | None = None
        self._last_s = clock()
        self._waiting: list[_Waiting] = []

    @property
    def bad(self) -> int:
        """How many frames of the host were none."""
        return self._reader.bad

    def start(self) -> bytes:
        """What a panel says of itself once it has power, and whenever it is asked."""
        self._last_heard = None
        self._waiting.clear()
        return b"\0" + protocol.encode(Frame(Kind.HELLO, self._next(), protocol.hello_payload(self._hello)))

    def feed(self, content: bytes) -> bytes:
        """Take bytes of the host; returns the answers."""
        return b"".join(self._answer(frame) for frame in self._reader.feed(content))

    def press(self, key: int = protocol.FOOT_SWITCH, *, pressed: bool = True) -> bytes:
        """A key goes down, or up with pressed=False; returns what the panel sends at once."""
        now_s = self._clock()
        frame = Frame(Kind.KEY, self._next(), bytes((key, pressed)))
        self._waiting.append(_Waiting(frame, now_s))
        return self._due()

    def tick(self) -> bytes:
        """To be called now and then: what must be sent again. A host that is silent for long is told of on screen."""
        now_s = self._clock()
        if now_s - self._last_s >= SILENT_S:
            self._show((SILENT,))
            self._last_s = now_s
        self._waiting = [one for one in self._waiting if now_s - one.since_s < FORGET_S]
        return self._due()

    def _due(self) -> bytes:
        """The oldest key that was not acknowledged, if it is time: one at a time, so that they stay in order."""
        now_s = self._clock()
        if not self._waiting or now_s - self._waiting[0].sent_s < RESEND_S:
            return b""
        self._waiting[0].sent_s = now_s
        return protocol.encode(self._waiting[0].frame)

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) % 256
        return self._sequence

    def _answer(self, frame: Frame) -> bytes:
        self._last_s = self._clock()
        if frame.kind == Kind.WHO:
            return self.start()
        if frame.version != protocol.VERSION:
            return b""
        if frame.kind == Kind.ACK:
            self._waiting = [one for one in self._waiting if one.frame.sequence != frame.sequence]
            return self._due()
        heard = (frame.kind, frame.sequence, frame.payload)
        again = heard == self._last_heard  # its acknowledgement was lost: say it again, do nothing again
        self._last_heard = heard
        done = again or self._obey(frame)
        return protocol.encode(Frame(Kind.ACK, frame.sequence, _DONE if done else _NOT_UNDERSTOOD))

    def _obey(self, frame: Frame) -> bool:
        if frame.kind == Kind.LINES and (lines := protocol.read_lines(frame.payload)) is not None:
            self._show(lines)
        elif frame.kind == Kind.LIGHT and len(frame.payload) == 4:
            red, green, blue, period = frame.payload
            self.light = Light(red, green, blue, period / 10)
        elif frame.kind == Kind.BEEP and len(frame.payload) == 2:
            self.beeps += 1
        else:
            return False
        return True

    def _show(self, lines: tuple[str, ...]) -> None:
        columns, rows = self._hello.columns, self._hello.rows
        filled = (*lines, *("",) * rows)[:rows]
        self.screen = tuple(line[:columns].ljust(columns) for line in filled)
        self.screens += 1


def serve(panel: SimulatedPanel, handle: int, wait_s: float) -> None:
    """One round on the panel's end of a line: wait for bytes, answer, send again. Raises OSError once it is cut."""
    readable, _, _ = select.select([handle], [], [], wait_s)
    answer = panel.feed(os.read(handle, _CHUNK_BYTES)) if readable else b""
    send(handle, answer + panel.tick())


def send(handle: int, content: bytes) -> None:
    """Write all of `content`. Raises OSError."""
    while content:
        content = content[os.write(handle, content) :]
