"""Captures of the panel's line: every byte both ways with its time, kept as text and played again.

    radbox-panel-capture 1
    0.000000 < 00 05 01 ...      seconds since the start; < from the panel, > to the panel, bytes in hexadecimal
    4.210000 - lost              - what the box noticed about the line

What goes over the line holds no patient data, so a capture holds none either.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

from edge.care.panel import protocol
from edge.care.panel.protocol import Frame, Kind, PanelError, Reader
from edge.care.panel.simulated import SimulatedPanel
from edge.durable import DurableFile, make_directory

Direction = Literal["<", ">", "-"]
FIRST_LINE: Final = "radbox-panel-capture 1"
LARGEST_BYTES: Final = 16 * 2**20  # of a capture that is written; days of a quiet panel
_LOG = logging.getLogger("radbox.panel")


@dataclass(frozen=True)
class Chunk:
    """What was read or written at once. `words`: of a "-" line, "" for bytes."""

    at_s: float
    direction: Direction
    content: bytes
    words: str = ""


class Recorder:
    """Writes a capture, which gets its name when it is closed. For one thread."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises StorageError."""
        make_directory(path.parent)
        self._path = path
        self._clock = clock
        self._start_s = clock()
        self._full = False
        self._file = DurableFile(path.parent)
        self._file.write(f"{FIRST_LINE}\n".encode())

    def note(self, direction: Direction, content: bytes, words: str = "") -> None:
        """Add a line. Raises StorageError."""
        if self._full:
            return
        at_s = self._clock() - self._start_s
        self._file.write(f"{at_s:.6f} {direction} {words or content.hex(' ')}\n".encode())
        self._full = self._file.size > LARGEST_BYTES
        if self._full:
            _LOG.warning("the capture has reached %d bytes and ends here", LARGEST_BYTES)

    def close(self) -> None:
        """Make it durable under its name. Raises StorageError."""
        self._file.commit(self._path)


def read_capture(path: Path) -> list[Chunk]:
    """The chunks of a capture in order. Raises PanelError (panel.capture), OSError."""
    first, *lines = path.read_text(encoding="ascii", errors="replace").splitlines() or [""]
    if first != FIRST_LINE:
        raise PanelError(f"expected a capture that begins with {FIRST_LINE!r}, got another file", code="panel.capture")
    return [_chunk(number, line) for number, line in enumerate(lines, 2)]


def _chunk(number: int, line: str) -> Chunk:
    at_s, _, rest = line.partition(" ")
    direction, _, said = rest.partition(" ")
    try:
        if direction == "-":
            return Chunk(float(at_s), "-", b"", said)
        if direction in ("<", ">"):
            return Chunk(float(at_s), cast(Direction, direction), bytes.fromhex(said))
    except ValueError:
        pass  # told below, like any other line that is none
    raise PanelError(f"expected time, direction and bytes in line {number}, got something else", code="panel.capture")


def replay(chunks: list[Chunk], columns: int = 20, rows: int = 4) -> Iterator[tuple[float, str]]:
    """(seconds, what happened) in words: every screen as it was shown, every key, and every bad frame."""
    panel = SimulatedPanel(columns, rows, clock=lambda: 0.0)
    sides = {"<": Reader(), ">": Reader()}
    for chunk in chunks:
        if chunk.direction == "-":
            yield chunk.at_s, f"line {chunk.words}"
            continue
        reader = sides[chunk.direction]
        bad = reader.bad
        for frame in reader.feed(chunk.content):
            if chunk.direction == ">":
                panel.feed(protocol.encode(frame))
            yield chunk.at_s, f"{chunk.direction} {in_words(frame)}"
        if reader.bad > bad:
            yield chunk.at_s, f"{chunk.direction} {reader.bad - bad} bad frame(s)"


def in_words(frame: Frame) -> str:
    """A frame in one line."""
    known = frame.kind in tuple(Kind)
    name = Kind(frame.kind).name.lower() if known else f"kind {frame.kind:#04x}"
    said = ""
    if frame.kind == Kind.LINES and (lines := protocol.read_lines(frame.payload)):
        said = " | ".join(line.rstrip() for line in lines)
    elif frame.kind == Kind.KEY and (key := protocol.read_key(frame.payload)):
        said = f"{'foot switch' if key.key == protocol.FOOT_SWITCH else f'key {key.key}'} "
        said += "pressed" if key.pressed else "released"
    elif frame.kind == Kind.HELLO and (hello := protocol.read_hello(frame.payload)):
        said = f"version {hello.version}, {hello.columns} x {hello.rows}"
    elif frame.payload:
        said = frame.payload.hex(" ")
    return f"{name} {frame.sequence} {said}".rstrip()
