"""Command sets of the DIMSE services that the box answers: C-STORE and C-ECHO (PS3.7 6.3, 9.3.1, 9.3.5, E.1).

A command set is a data set of group 0000 in implicit VR little endian, whatever the context's transfer syntax.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from edge.intake.upper_layer import P_DATA, ProtocolError, pdu

STORE_RQ, ECHO_RQ, CANCEL_RQ = 0x0001, 0x0030, 0x0FFF
LIMIT_BYTES: Final = 16 * 2**10  # real ones have a few hundred
HIGH_PRIORITY: Final = 0x0001  # PS3.7 E.1: 0000 medium, 0001 high, 0002 low

_SOP_CLASS, _FIELD, _MESSAGE_ID, _ANSWERED_ID = 0x0002, 0x0100, 0x0110, 0x0120
_PRIORITY, _DATA_SET_TYPE, _STATUS, _COMMENT, _SOP_INSTANCE = 0x0700, 0x0800, 0x0900, 0x0902, 0x1000
_RESPONSE: Final = 0x8000
_NO_DATA_SET: Final = 0x0101
_ELEMENT: Final = struct.Struct("<HHL")  # group, element, length
_NUMBER: Final = struct.Struct("<H")
_COMMAND, _LAST = 1, 2  # bits of the message control header (PS3.8 E.2)
_LEAST_PDU_BYTES: Final = 64  # of a peer that asks for less than it can possibly use


@dataclass(frozen=True)
class Command:
    """A request. UIDs as sent, without padding; "" where absent."""

    field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: str
    sop_instance_uid: str
    priority: int


def decode(content: bytes) -> Command:
    """Raises ProtocolError: not a command set, or one that lacks what its service must have."""
    elements = _elements(content)
    field, message_id = _number(elements, _FIELD), _number(elements, _MESSAGE_ID)
    data_set_type = _number(elements, _DATA_SET_TYPE)
    if field is None or data_set_type is None:
        raise ProtocolError("a command without Command Field or Data Set Type")
    if field not in (STORE_RQ, ECHO_RQ, CANCEL_RQ):
        raise ProtocolError(f"command {field:04X}")
    if message_id is None and field != CANCEL_RQ:
        raise ProtocolError("a command without Message ID")
    command = Command(
        field,
        message_id or 0,
        data_set_type != _NO_DATA_SET,
        _uid(elements, _SOP_CLASS),
        _uid(elements, _SOP_INSTANCE),
        _number(elements, _PRIORITY) or 0,
    )
    if field == STORE_RQ and not (command.sop_class_uid and command.sop_instance_uid):
        raise ProtocolError("a C-STORE without SOP Class or SOP Instance UID")
    return command


def _elements(content: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(content):
        if len(content) - at < _ELEMENT.size:
            raise ProtocolError("a command set that ends in an element")
        group, element, length = _ELEMENT.unpack_from(content, at)
        at += _ELEMENT.size
        if group != 0 or length > len(content) - at:
            raise ProtocolError("bytes that are no command set")
        found[element] = content[at : at + length]
        at += length
    return found


def _number(elements: dict[int, bytes], element: int) -> int | None:
    value = elements.get(element, b"")
    return int(_NUMBER.unpack(value)[0]) if len(value) == _NUMBER.size else None


def _uid(elements: dict[int, bytes], element: int) -> str:
    value = elements.get(element, b"").rstrip(b"\0 ").lstrip(b" ")
    if len(value) > 64 or not value.isascii() or not value.decode("ascii").isprintable():
        raise ProtocolError("a UID that is none")
    return value.decode("ascii")


def response(command: Command, status: int, comment: str = "") -> bytes:
    """The command set that answers `command` (PS3.7 9.3.1.2, 9.3.5.2)."""
    body = b""
    if command.sop_class_uid:
        body += _text_element(_SOP_CLASS, command.sop_class_uid, b"\0")
    body += _number_element(_FIELD, command.field | _RESPONSE)
    body += _number_element(_ANSWERED_ID, command.message_id)
    body += _number_element(_DATA_SET_TYPE, _NO_DATA_SET)
    body += _number_element(_STATUS, status)
    if comment:
        body += _text_element(_COMMENT, comment, b" ")
    if command.sop_instance_uid:
        body += _text_element(_SOP_INSTANCE, command.sop_instance_uid, b"\0")
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<L", len(body)) + body


def _number_element(element: int, value: int) -> bytes:
    return _ELEMENT.pack(0, element, 2) + _NUMBER.pack(value)


def _text_element(element: int, text: str, padding: bytes) -> bytes:
    value = text.encode("ascii")
    value += padding * (len(value) % 2)
    return _ELEMENT.pack(0, element, len(value)) + value


def data_pdus(context_id: int, content: bytes, largest_pdu_bytes: int) -> bytes:
    """A command set as P-DATA-TF PDUs of one fragment each; `largest_pdu_bytes` as the peer asked, 0: any (D.1)."""
    step = max(_LEAST_PDU_BYTES, largest_pdu_bytes) - 6 if largest_pdu_bytes else len(content)
    pdus = b""
    for at in range(0, len(content), step):
        fragment = content[at : at + step]
        last = _LAST if at + step >= len(content) else 0
        pdus += pdu(P_DATA, struct.pack(">LBB", len(fragment) + 2, context_id, _COMMAND | last) + fragment)
    return pdus
