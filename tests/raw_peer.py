"""A DICOM peer made of bytes, which can say what no library says."""

from __future__ import annotations

import socket
import struct

from tests.receiver_process import ReceiverProcess

CR = "1.2.840.10008.5.1.4.1.1.1"


def associate_request(transfer_syntax: bytes, largest_pdu_bytes: int = 16384, version: int = 1) -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2) for CR; its one context proposes the given sub-items."""

    def item(kind: int, value: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(value)) + value

    context = item(0x20, b"\x01\0\0\0" + item(0x30, CR.encode()) + transfer_syntax)
    user = item(0x50, item(0x51, struct.pack(">L", largest_pdu_bytes)) + item(0x52, b"1.2.3"))
    body = struct.pack(">HH16s16s32x", version, 0, b"RADBOX".ljust(16), b"RAW".ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + context + user
    return struct.pack(">BBL", 1, 0, len(body)) + body


def fragment(header: int, value: bytes, context: int = 1) -> bytes:
    """A presentation data value item; header bits: 1 command, 2 last."""
    return struct.pack(">LBB", len(value) + 2, context, header) + value


def data_pdu(*fragments: bytes) -> bytes:
    """A P-DATA-TF (PS3.8 9.3.5)."""
    data = b"".join(fragments)
    return struct.pack(">BBL", 4, 0, len(data)) + data


def pdu(header: int, value: bytes) -> bytes:
    """A P-DATA-TF with one fragment of context 1."""
    return data_pdu(fragment(header, value))


def store_command(**changed: bytes | None) -> bytes:
    """The command set of a C-STORE-RQ (PS3.7 9.3.1.1); None leaves an element out."""
    elements = {
        "sop_class": (0x0002, CR.encode() + b"\0"),
        "field": (0x0100, b"\x01\x00"),
        "message_id": (0x0110, b"\x01\x00"),
        "priority": (0x0700, b"\x02\x00"),
        "data_set_type": (0x0800, b"\x00\x00"),
        "sop_instance": (0x1000, b"1.2.3.4.5.6 "),
    }
    values = {name: (element, changed.get(name, value)) for name, (element, value) in elements.items()}
    return b"".join(
        struct.pack("<HHL", 0, element, len(value)) + value for element, value in values.values() if value is not None
    )


def raw_association(receiver: ReceiverProcess, largest_pdu_bytes: int = 16384) -> socket.socket:
    """A connection with an accepted association: context 1, CR, explicit VR little endian."""
    link = socket.create_connection(("127.0.0.1", receiver.port), timeout=8)
    link.sendall(associate_request(struct.pack(">BBH", 0x40, 0, 19) + b"1.2.840.10008.1.2.1", largest_pdu_bytes))
    assert read_pdu(link)[0] == 2
    return link


def read_pdu(link: socket.socket) -> tuple[int, bytes]:
    """Type and value of the next PDU; (0, b"") where the peer closed."""
    head = _exactly(link, 6)
    if not head:
        return 0, b""
    kind, length = struct.unpack(">BxL", head)
    return kind, _exactly(link, length)


def _exactly(link: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        try:
            more = link.recv(size - len(got))
        except ConnectionResetError:
            more = b""
        if not more:
            return b""
        got += more
    return got


def status_of(answer: bytes) -> int | None:
    """(0000,0900) of a command set anywhere in the bytes."""
    at = answer.find(struct.pack("<HHL", 0, 0x0900, 2))
    return None if at < 0 else int(struct.unpack_from("<H", answer, at + 8)[0])
