"""What the receiver does not take, and how it says so: rules, full disks, broken objects, hostile bytes."""

from __future__ import annotations

import random
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from tests.raw_peer import associate_request, pdu, raw_association, store_command
from tests.receiver_process import ROOT, ReceiverProcess, encoded, radiograph, send_bytes, wait_for

CR = "1.2.840.10008.5.1.4.1.1.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
PLAIN = [(CR, ExplicitVRLittleEndian)]
ECHO = [(Verification, ExplicitVRLittleEndian)]


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    with ReceiverProcess(tmp_path_factory.mktemp("refusals"), max_object_bytes=2**20) as process:
        yield process
        assert process.stop() == 0
        assert "Traceback" not in process.log.read_text()


def rejection(receiver: ReceiverProcess, **titles: str) -> tuple[int, int, int] | None:
    """Result, source, reason of the rejection, None if accepted."""
    association = receiver.associate(ECHO, **titles)
    if association.is_established:
        association.release()
        return None
    assert association.is_rejected
    answer = association.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


@pytest.mark.requirement("RCV-05")
def test_ae_title_rules(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, called_ae_check=True, calling_ae=["CR1", "US1"]) as receiver:
        assert rejection(receiver, calling_ae="CR1") is None
        assert rejection(receiver, calling_ae="CR2") == (1, 1, 3)
        assert rejection(receiver, calling_ae="CR1", called_ae="OTHER") == (1, 1, 7)
        done = receiver.dcmtk("echoscu", "-aet", "CR2", check=False)
        assert done.returncode != 0
        assert "Calling AE Title Not Recognized" in done.stderr
        receiver.dcmtk("echoscu", "-aet", "US1")


@pytest.mark.requirement("RCV-05")
def test_address_rule_and_limit_of_associations(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, addresses=["10.0.0.0/8"]) as receiver:
        assert rejection(receiver) == (1, 1, 1)
    with ReceiverProcess(tmp_path, addresses=["10.0.0.0/8", "127.0.0.0/8"], max_associations=2) as receiver:
        open_ones: list[Association] = []

        def open_one_more() -> bool:
            """The connection that saw the receiver start may count for a moment."""
            open_ones.append(receiver.associate(ECHO))
            return bool(open_ones[-1].is_established)

        wait_for(open_one_more)
        wait_for(open_one_more)
        assert rejection(receiver) == (2, 3, 2)
        for one in open_ones:
            one.release()
        wait_for(lambda: rejection(receiver) is None)


def test_idle_associations_are_closed(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, network_timeout_s=1) as receiver:
        association = receiver.associate(ECHO)
        assert association.is_established
        wait_for(lambda: association.is_aborted, timeout_s=5)


def test_over_the_size_limit_nothing_stays(receiver: ReceiverProcess) -> None:
    large, small = radiograph(20, rows=800), radiograph(21)
    association = receiver.associate(PLAIN)
    answer = association.send_c_store(large)
    assert (answer.Status, answer.ErrorComment) == (0xA700, "object is larger than this box takes")
    assert receiver.files("spool/incoming") == []
    before = receiver.files("spool")
    assert association.send_c_store(small).Status == 0x0000
    association.release()
    assert len(receiver.files("spool")) == len(before) + 1
    assert "intake.too-large" in [event.code for event in receiver.store().events()]


@pytest.mark.requirement("RCV-04")
def test_below_the_free_space_limit(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, min_free_bytes=2**50) as receiver:
        association = receiver.associate(PLAIN)
        assert association.send_c_store(radiograph(22)).Status == 0xA700
        association.release()
        assert receiver.files("spool") == []
        (service,) = receiver.store().services()
        assert (service.state, service.code) == ("degraded", "storage.full")
        assert "images already here are safe" in service.message


def test_a_nearly_full_disk_takes_no_second_version(tmp_path: Path) -> None:
    """The first copy of anything is taken; only what is a contradiction is refused."""
    nearly = int(shutil.disk_usage(tmp_path).free / 1.5)  # less than twice as much is free: the mark `warn`
    with ReceiverProcess(tmp_path, min_free_bytes=nearly) as receiver:
        first = radiograph(23)
        second = radiograph(23)
        second.PatientComments = "changed"
        association = receiver.associate(PLAIN)
        assert association.send_c_store(first).Status == 0x0000
        answer = association.send_c_store(second)
        assert (answer.Status, answer.ErrorComment) == (0xA700, "disk nearly full: no second version of an object")
        assert association.send_c_store(first).Status == 0x0000
        assert association.send_c_store(radiograph(24)).Status == 0x0000
        association.release()
        assert len(receiver.files("spool")) == 2
        assert "storage.nearly-full" in [event.code for event in receiver.store().events()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mount)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root to mount a tmpfs")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.requirement("RCV-04")
def test_a_disk_that_really_fills_up(small_disk: Path) -> None:
    with ReceiverProcess(small_disk) as receiver:
        store = receiver.store()
        association = receiver.associate(PLAIN)
        in_the_middle = association.send_c_store(radiograph(23, rows=2500))
        assert in_the_middle.Status == 0xA700, "12 MB do not fit into 8"
        assert receiver.files("spool") == []
        acknowledged, status = 0, 0
        while status == 0:
            status = association.send_c_store(radiograph(100 + acknowledged, rows=700)).Status
            acknowledged += status == 0
        assert (status, acknowledged > 2) == (0xA700, True)
        assert receiver.files("spool/incoming") == []
        assert len(receiver.files("spool/objects")) == acknowledged
        assert sum(row.instance_count for row in store.studies()) == acknowledged
        wait_for(lambda: store.services()[0].state == "degraded")
        association.release()
        wait_for(lambda: store.receiving_studies() == [])
        receiver.files("spool/objects")[0].unlink()  # a person makes room
        receiver.files("spool/objects")[0].unlink()
        wait_for(lambda: store.services()[0].state == "ok")
        association = receiver.associate(PLAIN)
        assert association.send_c_store(radiograph(24)).Status == 0x0000
        association.release()


def damaged(change: Callable[[Dataset], object], cut: int = 0) -> bytes:
    ds = radiograph(30)
    change(ds)
    content = encoded(ds)
    return content[: len(content) - cut]


def unchanged(_: Dataset) -> None:
    """Nothing."""


def drop(keyword: str) -> Callable[[Dataset], object]:
    return lambda ds: delattr(ds, keyword)


def put(keyword: str, value: object) -> Callable[[Dataset], object]:
    return lambda ds: setattr(ds, keyword, value)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        pytest.param(damaged(unchanged, cut=1), 0xC001, "dicom.cut", id="last byte missing"),
        pytest.param(damaged(unchanged, cut=8180), 0xC001, "dicom.cut", id="pixels missing"),
        pytest.param(damaged(unchanged, cut=8220), 0xC001, "dicom.cut", id="cut inside the header"),
        pytest.param(damaged(put("PixelData", bytes(100))), 0xC002, "dicom.pixels-cut", id="too few pixels"),
        pytest.param(damaged(put("NumberOfFrames", 2)), 0xC002, "dicom.pixels-cut", id="a frame missing"),
        pytest.param(damaged(drop("StudyInstanceUID")), 0xC004, "dicom.no-study-uid", id="no study"),
        pytest.param(damaged(drop("SOPInstanceUID")), 0xA900, "dicom.no-sop-uid", id="no SOP instance"),
        pytest.param(damaged(put("SOPClassUID", DX)), 0xA900, "dicom.sop-class-mismatch", id="other class"),
        pytest.param(damaged(put("SOPInstanceUID", "1.2.9")), 0xA900, "dicom.sop-instance-mismatch", id="other UID"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 0xC001, "dicom.cut", id="not DICOM"),
        pytest.param(bytes(128) + b"DICM" + encoded(radiograph(30)), 0xC000, "dicom.malformed", id="a file's preamble"),
        pytest.param(b"\x08\x00\x16\x00", 0xC001, "dicom.cut", id="half an element header"),
        pytest.param(b"\x00" * 1000, 0xA900, "dicom.no-sop-uid", id="zeros"),
    ],
)
@pytest.mark.requirement("RCV-03")
def test_broken_objects_are_quarantined_with_the_reason(
    receiver: ReceiverProcess, content: bytes, status: int, code: str
) -> None:
    association = receiver.associate(PLAIN, calling_ae="CR_BROKEN")
    assert send_bytes(association, content, CR, radiograph(30).SOPInstanceUID) == status
    assert association.is_established, "one broken object does not end the association"
    association.release()
    row = receiver.store().quarantine(1)[0]
    assert (row.code, row.calling_ae) == (code, "CR_BROKEN")
    kept = (receiver.data_dir / row.path).read_bytes()
    assert len(kept) == row.size_bytes
    assert kept.endswith(content)
    assert "expected" in row.message
    assert receiver.files("spool/incoming") == []


def test_the_truncated_file_of_the_reference_data(receiver: ReceiverProcess, shared_data: Path) -> None:
    content = (shared_data / "dicom" / "MR_truncated.dcm").read_bytes()
    (group_bytes,) = struct.unpack_from("<L", content, 140)
    mr, uid = "1.2.840.10008.5.1.4.1.1.4", "1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457"
    association = receiver.associate([(mr, ExplicitVRLittleEndian)])
    for _ in range(2):
        assert send_bytes(association, content[144 + group_bytes :], mr, uid) == 0xC001
    association.release()
    row = receiver.store().quarantine(1)[0]
    assert (row.code, row.times) == ("dicom.cut", 2)


def talk(receiver: ReceiverProcess, content: bytes) -> bytes:
    """Send bytes, return the first bytes that come back until the peer closes or answers."""
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=8) as link:
        link.sendall(content)
        try:
            return link.recv(10)
        except ConnectionResetError:
            return b""


def test_a_context_without_transfer_syntax_is_rejected(receiver: ReceiverProcess) -> None:
    proper = struct.pack(">BBH", 0x40, 0, 17) + b"1.2.840.10008.1.2"
    assert talk(receiver, associate_request(proper))[:1] == b"\x02", "accepted"
    answer = talk(receiver, associate_request(b""))
    assert answer[:1] in (b"\x03", b"\x07"), "rejected or aborted, not silent"
    receiver.dcmtk("echoscu")


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\nHost: box\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff",
        b"\x04\x00\x7f\xff\xff\xff" + bytes(100),
        b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        associate_request(b"\x40\x00\xff\xff1.2"),
        random.Random(1).randbytes(5000),
    ],
)
@pytest.mark.requirement("RCV-06")
def test_hostile_bytes(receiver: ReceiverProcess, content: bytes) -> None:
    assert talk(receiver, content)[:1] in (b"", b"\x03", b"\x07")
    receiver.dcmtk("echoscu")
    assert receiver.process is not None
    assert psutil.Process(receiver.process.pid).memory_info().rss < 400 * 2**20


def test_hostile_data_pdus_end_only_their_association(receiver: ReceiverProcess) -> None:
    request = associate_request(struct.pack(">BBH", 0x40, 0, 17) + b"1.2.840.10008.1.2")
    for seed, context in enumerate((1, 3, 255)):
        value = bytes([context, 3]) + random.Random(seed).randbytes(200)
        data = struct.pack(">L", len(value)) + value
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=8) as link:
            link.sendall(request)
            assert link.recv(1) == b"\x02"
            link.sendall(struct.pack(">BBL", 4, 0, len(data)) + data)
            while link.recv(4096):
                pass
    receiver.dcmtk("echoscu")
    assert receiver.files("spool/incoming") == []


def start_half_an_object(receiver: ReceiverProcess) -> socket.socket:
    """A connection on which half an object was sent and nothing more comes."""
    link = raw_association(receiver)
    half = encoded(radiograph(40, rows=800))[:600_000]
    link.sendall(pdu(3, store_command()) + pdu(0, half))
    wait_for(lambda: [path for path in receiver.files("spool/incoming") if path.stat().st_size > 4000] != [])
    return link


def test_a_store_without_data_set_is_answered(receiver: ReceiverProcess) -> None:
    with raw_association(receiver) as link:
        link.sendall(pdu(3, store_command(data_set_type=b"\x01\x01")))
        answer = link.recv(4096)
    assert answer[:1] == b"\x04"
    assert struct.pack("<HHLH", 0, 0x0900, 2, 0xC000) in answer
    assert b"C-STORE without a data set" in answer


@pytest.mark.parametrize(
    "command",
    [
        store_command(sop_instance=None),
        store_command(sop_class=None),
        store_command(sop_instance=b"1" * 70),
        store_command(sop_instance=b"\xff\xfe\xfd\xfc"),
        store_command(field=b"\x77\x77"),
        store_command(field=None),
        store_command(data_set_type=None),
        store_command(message_id=b""),
    ],
)
def test_a_broken_command_ends_its_association_and_leaves_nothing(receiver: ReceiverProcess, command: bytes) -> None:
    with raw_association(receiver) as link:
        link.sendall(pdu(3, command) + pdu(2, encoded(radiograph(42))))
        answer = link.recv(4096)
    assert answer == b"" or answer[:1] == b"\x07" or struct.pack("<HHLH", 0, 0x0900, 2, 0) not in answer
    wait_for(lambda: receiver.files("spool/incoming") == [])
    receiver.dcmtk("echoscu")


@pytest.mark.parametrize("ending", ["abort", "close", "reset"])
def test_a_transfer_that_ends_in_the_middle_leaves_nothing(receiver: ReceiverProcess, ending: str) -> None:
    objects = receiver.files("spool/objects")
    link = start_half_an_object(receiver)
    if ending == "abort":
        link.sendall(b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00")
    elif ending == "reset":
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.close()
    wait_for(lambda: receiver.files("spool/incoming") == [])
    assert receiver.files("spool/objects") == objects


def test_a_restart_sweeps_what_a_kill_left(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path) as receiver:
        kept = radiograph(41)
        association = receiver.associate(PLAIN)
        assert association.send_c_store(kept).Status == 0x0000
        link = start_half_an_object(receiver)
        receiver.kill()
        link.close()
        association.abort()
        # Its children die with it; one may still have been quick enough to tidy up.
        (receiver.data_dir / "spool" / "incoming" / ".of-a-killed-child.part").write_bytes(b"half")
        assert receiver.files("spool/incoming") != []
        receiver.start()
        assert receiver.files("spool/incoming") == []
        assert len(receiver.files("spool/objects")) == 1


def test_a_stalled_transfer_is_closed(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, network_timeout_s=1) as receiver:
        link = start_half_an_object(receiver)
        link.sendall(b"\x04\x00\x00\x00\x10\x00")  # the head of a PDU, and then silence
        started_s = time.monotonic()
        wait_for(lambda: receiver.files("spool/incoming") == [], timeout_s=8)
        assert time.monotonic() - started_s > 0.5
        link.close()


def test_a_taken_port_stops_the_start_with_a_sentence(receiver: ReceiverProcess, tmp_path: Path) -> None:
    second = ReceiverProcess(tmp_path, port=receiver.port)
    command = [sys.executable, "-m", "edge.intake.receive", str(second.board)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert f"config.port: expected 127.0.0.1 port {receiver.port} to be free" in done.stderr
    assert "Traceback" not in done.stderr
