"""The panel's wire format: bytes in, frames out, and back. Pure; a port, a clock and a screen are elsewhere.

    frame   = version (1) | kind (1) | sequence (1) | payload (0 to 246) | CRC-16 (2, big-endian)
    on wire = COBS(frame) | 0x00

COBS: S. Cheshire, M. Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on Networking 7(2), 1999,
section III: no zero is left inside a frame, so a zero always ends one, and a reader that has lost its place finds it
again at the next zero. A zero is sent before a frame too where the line may carry half a frame.

CRC-16: polynomial x^16 + x^12 + x^5 + 1 (0x1021, ITU-T V.41), start 0xFFFF, not reflected, no final XOR: in the
catalogue of CRC RevEng "CRC-16/IBM-3740", also called CCITT-FALSE. Check value of "123456789": 0x29B1.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from edge.errors import RadboxError

VERSION: Final = 1
DELIMITER: Final = 0
CRC_START: Final = 0xFFFF
HEAD_BYTES: Final = 3
CRC_BYTES: Final = 2
LARGEST_PAYLOAD_BYTES: Final = 246
LARGEST_FRAME_BYTES: Final = HEAD_BYTES + LARGEST_PAYLOAD_BYTES + CRC_BYTES
LARGEST_STUFFED_BYTES: Final = LARGEST_FRAME_BYTES + 1  # below 254 bytes COBS adds exactly one
LARGEST_COLUMNS: Final = 80
LARGEST_ROWS: Final = 16
LARGEST_CHARACTERS: Final = LARGEST_PAYLOAD_BYTES - 2
FOOT_SWITCH: Final = 0  # the key number of the foot switch; 1 and on are keys of the panel


class PanelError(RadboxError):
    """A panel that is not there, does not answer, or speaks another protocol."""

    default_code = "panel.lost"


class Kind(IntEnum):
    """What a frame is; from 0x80 on it comes from the panel. ACK goes both ways."""

    ACK = 0x00  # status (1): 0 done, 1 not understood; its sequence number is that of the frame it answers
    WHO = 0x01  # nothing; the panel answers with HELLO
    LINES = 0x02  # rows (1), columns (1), rows x columns characters of ASCII 0x20 to 0x7E
    LIGHT = 0x03  # red (1), green (1), blue (1), period of blinking in 0.1 s (1), 0 for a steady light
    BEEP = 0x04  # number of tones (1), length of each and of the pause after it in 0.01 s (1)
    HELLO = 0x81  # version (1), columns (1), rows (1); never acknowledged, and understood in every version
    KEY = 0x82  # key (1), 1 pressed or 0 released (1)


@dataclass(frozen=True)
class Frame:
    """One frame. `kind` may be one that this version does not know; sequence and version are 0 to 255."""

    kind: int
    sequence: int
    payload: bytes = b""
    version: int = VERSION


@dataclass(frozen=True)
class Hello:
    """What a panel says of itself: the version it speaks, and its characters."""

    version: int
    columns: int
    rows: int


@dataclass(frozen=True)
class Key:
    """A key that went down or up."""

    key: int
    pressed: bool


def crc16(content: bytes) -> int:
    """CRC-16/IBM-3740 of `content`. binascii calls the same polynomial CRC-CCITT."""
    return binascii.crc_hqx(content, CRC_START)


def encode(frame: Frame) -> bytes:
    """The bytes on the wire, the ending zero included. Raises ValueError for a payload that is too long."""
    if len(frame.payload) > LARGEST_PAYLOAD_BYTES:
        raise ValueError(f"expected a payload of at most {LARGEST_PAYLOAD_BYTES} bytes, got {len(frame.payload)}")
    content = bytes((frame.version, frame.kind, frame.sequence)) + frame.payload
    return stuff(content + crc16(content).to_bytes(CRC_BYTES, "big")) + bytes((DELIMITER,))


def decode(stuffed: bytes) -> Frame | None:
    """The frame between two zeros, or None if these bytes are none: stuffing, length or checksum are wrong."""
    content = unstuff(stuffed)
    if content is None or not HEAD_BYTES + CRC_BYTES <= len(content) <= LARGEST_FRAME_BYTES:
        return None
    head, crc = content[:-CRC_BYTES], int.from_bytes(content[-CRC_BYTES:], "big")
    if crc16(head) != crc:
        return None
    version, kind, sequence = head[:HEAD_BYTES]
    return Frame(kind, sequence, head[HEAD_BYTES:], version)


def stuff(content: bytes) -> bytes:
    """COBS (Cheshire and Baker, section III.B, without the optional zero-pair codes): `content` without any zero."""
    blocks = bytearray()
    for part in content.split(b"\0"):
        while len(part) >= 0xFE:
            blocks += b"\xff" + part[:0xFE]
            part = part[0xFE:]
        blocks += bytes((len(part) + 1,)) + part
    return bytes(blocks)


def unstuff(stuffed: bytes) -> bytes | None:
    """The inverse of `stuff`; None for what it never gives."""
    content, at = bytearray(), 0
    while at < len(stuffed):
        code = stuffed[at]
        block = stuffed[at + 1 : at + code]
        if code == 0 or len(block) != code - 1 or 0 in block:
            return None
        content += block
        at += code
        if code < 0xFF and at < len(stuffed):
            content.append(0)
    return bytes(content)


class Reader:
    """Frames out of a stream of bytes, whatever else comes on the line.

    `bad` counts what lay between two zeros and was no frame. At most LARGEST_STUFFED_BYTES are ever kept.
    """

    def __init__(self) -> None:
        self.bad = 0
        self._kept = bytearray()
        self._skipping = False

    def feed(self, content: bytes) -> list[Frame]:
        """The frames that `content` completes, in order."""
        frames = []
        *ended, rest = content.split(b"\0")
        for part in ended:
            self._keep(part)
            if (frame := self._end()) is not None:
                frames.append(frame)
        self._keep(rest)
        return frames

    def _keep(self, part: bytes) -> None:
        if len(self._kept) + len(part) > LARGEST_STUFFED_BYTES:
            self._skipping = True
            self._kept.clear()
        if not self._skipping:
            self._kept += part

    def _end(self) -> Frame | None:
        stuffed, skipped = bytes(self._kept), self._skipping
        self._kept.clear()
        self._skipping = False
        if not stuffed and not skipped:
            return None  # two zeros in a row: nothing was lost
        frame = None if skipped else decode(stuffed)
        self.bad += frame is None
        return frame


def lines_payload(lines: tuple[str, ...], columns: int) -> bytes:
    """Payload of LINES: every line cut or filled to `columns`; what an LCD's ASCII does not have becomes `?`."""
    text = "".join(line[:columns].ljust(columns) for line in lines)
    shown = bytes(ord(sign) if " " <= sign <= "~" else ord("?") for sign in text)
    return bytes((len(lines), columns)) + shown


def read_lines(payload: bytes) -> tuple[str, ...] | None:
    """The lines of a LINES payload; None if its size is not what it says."""
    if len(payload) < 2 or len(payload) != 2 + payload[0] * payload[1]:
        return None
    rows, columns = payload[:2]
    text = payload[2:].decode("ascii", "replace")
    return tuple(text[row * columns : (row + 1) * columns] for row in range(rows))


def hello_payload(hello: Hello) -> bytes:
    """Payload of HELLO."""
    return bytes((hello.version, hello.columns, hello.rows))


def read_hello(payload: bytes) -> Hello | None:
    """What a HELLO payload says; later versions may add to it. None if it is short or no panel has such a size."""
    if len(payload) < 3:
        return None
    version, columns, rows = payload[:3]
    if not 8 <= columns <= LARGEST_COLUMNS or not 1 <= rows <= LARGEST_ROWS or columns * rows > LARGEST_CHARACTERS:
        return None
    return Hello(version, columns, rows)


def read_key(payload: bytes) -> Key | None:
    """What a KEY payload says; None if it is none."""
    if len(payload) != 2 or payload[1] not in (0, 1):
        return None
    return Key(payload[0], payload[1] == 1)
