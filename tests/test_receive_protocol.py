"""The receiver's own upper layer against a peer made of bytes: how messages may be cut up, and what is not allowed."""

from __future__ import annotations

import io
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import create_file_meta, decode, encode_file_meta

from edge.intake import command as dimse
from edge.intake import negotiation
from edge.intake.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, file_head
from edge.intake.upper_layer import ProtocolError
from tests.raw_peer import (
    CR,
    associate_request,
    data_pdu,
    fragment,
    pdu,
    raw_association,
    read_pdu,
    status_of,
    store_command,
)
from tests.receiver_process import ReceiverProcess, encoded, radiograph, wait_for

COMMAND, LAST = 1, 2
EXPLICIT = struct.pack(">BBH", 0x40, 0, 19) + b"1.2.840.10008.1.2.1"
RELEASE, ABORT = b"\x05\0\0\0\0\x04\0\0\0\0", b"\x07\0\0\0\0\x04\0\0\0\0"


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    with ReceiverProcess(tmp_path_factory.mktemp("protocol")) as process:
        yield process
        assert process.files("spool/incoming") == []
        assert process.stop() == 0
        assert "Traceback" not in process.log.read_text()


def message(seed: int) -> tuple[bytes, bytes]:
    """Command set and data set of a C-STORE of an object of its own."""
    ds = radiograph(seed, sop=generate_uid())
    uid = ds.SOPInstanceUID.encode()
    return store_command(sop_instance=uid + b"\0" * (len(uid) % 2)), encoded(ds)


def cut(content: bytes, step: int, header: int) -> list[bytes]:
    """Fragments of `step` bytes, the last one marked."""
    pieces = [content[at : at + step] for at in range(0, len(content), step)]
    return [fragment(header | LAST * (piece is pieces[-1]), piece) for piece in pieces]


def together(command: bytes, data: bytes) -> bytes:
    return data_pdu(fragment(COMMAND | LAST, command), fragment(LAST, data))


def many_fragments(command: bytes, data: bytes) -> bytes:
    return data_pdu(*cut(command, 10, COMMAND), *cut(data, 1000, 0))


def small_pdus(command: bytes, data: bytes) -> bytes:
    return b"".join(map(data_pdu, [*cut(command, 7, COMMAND), *cut(data, 100, 0)]))


def empty_fragments(command: bytes, data: bytes) -> bytes:
    nothing = fragment(COMMAND, b""), fragment(0, b"")
    first = data_pdu(nothing[0], fragment(COMMAND, command), fragment(COMMAND | LAST, b""))
    return first + data_pdu(nothing[1], fragment(0, data)) + data_pdu(fragment(LAST, b""))


def reserved_bits(command: bytes, data: bytes) -> bytes:
    """Bits 2 to 7 of the header are never checked by a receiver (PS3.8 E.2)."""
    return data_pdu(fragment(0xFC | COMMAND | LAST, command)) + data_pdu(fragment(0xFC | LAST, data))


@pytest.mark.parametrize("shape", [together, many_fragments, small_pdus, empty_fragments, reserved_bits])
def test_a_message_may_be_cut_up_in_any_way(receiver: ReceiverProcess, shape) -> None:
    with raw_association(receiver) as link:
        for seed in range(2):  # the second message begins as the first did
            command, data = message(seed)
            link.sendall(shape(command, data))
            kind, answer = read_pdu(link)
            assert (kind, status_of(answer)) == (4, 0x0000)
            assert any(path.read_bytes().endswith(data) for path in receiver.files("spool/objects"))
        link.sendall(RELEASE)
        assert read_pdu(link) == (6, bytes(4))
        assert read_pdu(link) == (0, b""), "and then the connection is closed"


def test_many_messages_at_once_are_answered_in_their_order(receiver: ReceiverProcess) -> None:
    messages = [message(seed) for seed in range(5)]
    with raw_association(receiver) as link:
        link.sendall(b"".join(pdu(3, command) + pdu(2, data) for command, data in messages))
        for command, _ in messages:
            _, answer = read_pdu(link)
            assert status_of(answer) == 0x0000
            assert command[-30:] in answer, "the SOP Instance UID that was sent"


def test_bytes_that_dribble_in(receiver: ReceiverProcess) -> None:
    command, data = message(7)
    chance = random.Random(3)
    content = many_fragments(command, data)
    with raw_association(receiver) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while content:
            step = chance.choice([1, 2, 5, 3000])
            link.sendall(content[:step])
            content = content[step:]
        assert status_of(read_pdu(link)[1]) == 0x0000


def test_a_peer_that_takes_only_small_pdus(receiver: ReceiverProcess) -> None:
    with raw_association(receiver, largest_pdu_bytes=64) as link:
        link.sendall(pdu(3, store_command(data_set_type=b"\x01\x01")))
        headers: list[int] = []
        command_set = b""
        while not headers or not headers[-1] & LAST:
            kind, value = read_pdu(link)
            assert (kind, len(value) <= 64) == (4, True)
            headers.append(value[5])
            command_set += value[6:]
        assert headers == [COMMAND] * (len(headers) - 1) + [COMMAND | LAST]
        assert len(headers) > 1
        answer = decode(io.BytesIO(command_set), True, True)
        assert (answer.Status, answer.CommandField, answer.MessageIDBeingRespondedTo) == (0xC000, 0x8001, 1)


def test_a_cancel_of_nothing_is_not_answered(receiver: ReceiverProcess) -> None:
    cancel = store_command(sop_class=None, sop_instance=None, field=b"\xff\x0f", data_set_type=b"\x01\x01")
    with raw_association(receiver) as link:
        link.sendall(pdu(3, cancel) + RELEASE)
        assert read_pdu(link)[0] == 6


HALF_COMMAND = data_pdu(fragment(COMMAND, store_command()[:20]))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(data_pdu(), id="no fragment"),
        pytest.param(data_pdu(b"\0\0\0"), id="half a fragment's head"),
        pytest.param(data_pdu(struct.pack(">LBB", 1, 1, 3)), id="a length below 2"),
        pytest.param(data_pdu(struct.pack(">LBB", 100, 1, 3) + bytes(50)), id="a length beyond the PDU"),
        pytest.param(data_pdu(fragment(3, store_command(), context=3)), id="a context that was not proposed"),
        pytest.param(data_pdu(fragment(LAST, bytes(50))), id="a data set without a command"),
        pytest.param(pdu(3, store_command()) + pdu(3, store_command()), id="a command where a data set must come"),
        pytest.param(HALF_COMMAND + pdu(2, bytes(50)), id="a data set before the command's end"),
        pytest.param(b"".join([pdu(1, bytes(4000))] * 5), id="an endless command"),
        pytest.param(pdu(3, b"\x08\0\x16\0" + bytes(20)), id="a data set as a command"),
        pytest.param(pdu(3, store_command()[:-3]), id="a command that is cut"),
        pytest.param(pdu(3, store_command(field=b"\x01\x80")), id="a response"),
        pytest.param(pdu(3, store_command(field=b"\x20\0")), id="a C-FIND"),
        pytest.param(associate_request(EXPLICIT), id="another A-ASSOCIATE-RQ"),
        pytest.param(b"\x06\0\0\0\0\x04\0\0\0\0", id="an A-RELEASE-RP"),
        pytest.param(b"\x63\0\0\0\0\x04\0\0\0\0", id="no PDU type"),
        pytest.param(b"\x04\0\x7f\xff\xff\xff", id="a PDU of 2 GiB"),
    ],
)
def test_what_is_not_allowed_is_aborted(receiver: ReceiverProcess, content: bytes) -> None:
    with raw_association(receiver) as link:
        link.sendall(content)
        kind, value = read_pdu(link)
        assert (kind, value[2]) == (7, 2), "A-ABORT by the service provider"
        assert read_pdu(link) == (0, b"")
    wait_for(lambda: receiver.files("spool/incoming") == [])
    receiver.dcmtk("echoscu")


@pytest.mark.parametrize("ending", [RELEASE, ABORT])
def test_an_end_in_the_middle_of_an_object_leaves_nothing(receiver: ReceiverProcess, ending: bytes) -> None:
    objects = receiver.files("spool/objects")
    command, data = message(9)
    with raw_association(receiver) as link:
        link.sendall(pdu(3, command) + pdu(0, data[:500]) + ending)
        assert read_pdu(link)[0] in (0, 6)
        wait_for(lambda: receiver.files("spool/incoming") == [])
    assert receiver.files("spool/objects") == objects


def test_another_protocol_version_is_rejected(receiver: ReceiverProcess) -> None:
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=8) as link:
        link.sendall(associate_request(EXPLICIT, version=2))
        assert read_pdu(link) == (3, bytes([0, 1, 2, 2]))
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=8) as link:
        link.sendall(associate_request(EXPLICIT, version=3))  # only bit 0 is looked at
        assert read_pdu(link)[0] == 2


def test_a_connection_that_says_nothing_holds_no_place(tmp_path: Path) -> None:
    with (
        ReceiverProcess(tmp_path, max_associations=1) as receiver,
        socket.create_connection(("127.0.0.1", receiver.port), timeout=8),
    ):
        wait_for(lambda: receiver.dcmtk("echoscu", check=False).returncode == 0)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_mutated_association_requests(seed: int) -> None:
    chance = random.Random(seed)
    content = bytearray(associate_request(EXPLICIT)[6:])
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(content))
        content[at : at + chance.choice([0, 1, 4])] = chance.randbytes(chance.choice([0, 1, 4]))
    try:
        request = negotiation.parse(bytes(content))
    except ProtocolError:
        return
    assert len(request.calling_ae) <= 16


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_mutated_commands(seed: int) -> None:
    chance = random.Random(seed)
    content = bytearray(store_command())
    for _ in range(chance.randint(0, 3)):
        at = chance.randrange(len(content))
        content[at : at + chance.choice([0, 1, 4])] = chance.randbytes(chance.choice([0, 1, 4]))
    try:
        command = dimse.decode(bytes(content))
    except ProtocolError:
        return
    assert command.field in (dimse.STORE_RQ, dimse.ECHO_RQ, dimse.CANCEL_RQ)
    assert len(command.sop_class_uid) <= 64
    assert decode(io.BytesIO(dimse.response(command, 0)), True, True).Status == 0


def test_commands_as_another_library_writes_and_reads_them() -> None:
    request = C_STORE()
    request.MessageID, request.Priority = 77, 1
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UID(CR), UID("1.2.345")
    request.DataSet = io.BytesIO(b"x" * 10)
    theirs = C_STORE_RQ()
    theirs.primitive_to_message(request)
    (first, *_) = theirs.encode_msg(1, 0)
    content = first.presentation_data_value_list[0][1][1:]
    command = dimse.decode(content)
    assert command == dimse.Command(dimse.STORE_RQ, 77, True, CR, "1.2.345", dimse.HIGH_PRIORITY)

    answer = C_STORE()
    answer.MessageIDBeingRespondedTo, answer.Status, answer.ErrorComment = 77, 0xA700, "no room"
    answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID = UID(CR), UID("1.2.345")
    theirs = C_STORE_RSP()
    theirs.primitive_to_message(answer)
    (first,) = theirs.encode_msg(1, 0)
    ours = decode(io.BytesIO(dimse.response(command, 0xA700, "no room")), True, True)
    assert ours == decode(io.BytesIO(first.presentation_data_value_list[0][1][1:]), True, True)


@pytest.mark.parametrize("sop_instance", ["1.2.34", "1.2.345"])
def test_the_head_of_a_file_is_what_another_library_writes(sop_instance: str) -> None:
    meta = create_file_meta(
        sop_class_uid=UID(CR),
        sop_instance_uid=UID(sop_instance),
        transfer_syntax=ExplicitVRLittleEndian,
        implementation_uid=UID(IMPLEMENTATION_CLASS_UID),
        implementation_version=IMPLEMENTATION_VERSION,
    )
    ours = file_head(CR, sop_instance, ExplicitVRLittleEndian)
    assert ours == bytes(128) + b"DICM" + encode_file_meta(meta)
