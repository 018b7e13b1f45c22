"""The inbox: what other services of the box put there becomes studies, once, whatever happens in between."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import psutil
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from edge import durable
from edge.errors import DicomError
from edge.intake.inbox import waiting
from edge.intake.inbox_folder import INBOX
from edge.intake.part10 import read_head
from edge.simulate.objects import encode_file
from edge.store import Store, StudyDetail
from tests.receiver_process import ReceiverProcess, claims, encoded, radiograph, send_bytes, wait_for

CR = "1.2.840.10008.5.1.4.1.1.1"
STICK = INBOX / "USB-STICK"


def put(receiver: ReceiverProcess, content: bytes, name: str = "", source: Path = STICK) -> Path:
    """As a writer does it."""
    folder = receiver.data_dir / source
    durable.make_directory(folder)
    path = folder / f"{name or hashlib.sha256(content).hexdigest()}.dcm"
    durable.write_file(path, content)
    return path


def empty(receiver: ReceiverProcess) -> bool:
    return waiting(receiver.data_dir) == []


def detail(store: Store, study_key: int) -> StudyDetail:
    found = store.study(study_key)
    assert found is not None
    return found


def queued(store: Store) -> int:
    return sum(row.state == "queued" for row in store.studies())


def test_files_become_studies_and_go(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path) as receiver:
        for seed in range(3):
            put(receiver, encode_file(radiograph(seed, study="2.25.1")))
        put(receiver, encode_file(radiograph(9)), source=INBOX / "GRABBER")
        store = receiver.store()
        wait_for(lambda: queued(store) == 2)
        assert empty(receiver)
        rows = [row for study in store.studies() for row in detail(store, study.study_key).instances]
        assert sorted(row.calling_ae for row in rows) == ["GRABBER", "USB-STICK", "USB-STICK", "USB-STICK"]
        for row in rows:
            content = (receiver.data_dir / row.path).read_bytes()
            assert hashlib.sha256(content).hexdigest() == row.sha256
        assert sorted(len(uids) for _, uids in claims(store)) == [1, 3]
        assert receiver.stop() == 0
        assert store.counts()["images_received"] == 4
        assert "Seeded" not in receiver.log.read_text()


def test_the_same_object_by_network_and_by_stick_is_one(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path) as receiver:
        dataset = radiograph(1)
        association = receiver.associate([(CR, ExplicitVRLittleEndian)])
        assert send_bytes(association, encoded(dataset), CR, dataset.SOPInstanceUID) == 0
        association.release()
        put(receiver, encode_file(dataset))
        wait_for(lambda: empty(receiver))
        store = receiver.store()
        wait_for(lambda: queued(store) == 1)
        found = detail(store, store.studies()[0].study_key)
        assert (len(found.instances), len(found.conflicts)) == (1, 0)
        assert receiver.files("spool/incoming") == []


def test_what_is_no_object_goes_to_the_quarantine_with_its_reason(tmp_path: Path) -> None:
    whole = encode_file(radiograph(1))
    wrong = {b"": "dicom.empty", b"no DICOM": "dicom.malformed", whole[:-100]: "dicom.cut", whole[:200]: "dicom.cut"}
    with ReceiverProcess(tmp_path) as receiver:
        for content in wrong:
            put(receiver, content)
        put(receiver, encode_file(radiograph(2)))
        wait_for(lambda: empty(receiver))
        store = receiver.store()
        rows = {row.sha256: row for row in store.quarantine()}
        assert {sha: row.code for sha, row in rows.items()} == {
            hashlib.sha256(content).hexdigest(): code for content, code in wrong.items()
        }
        assert {row.calling_ae for row in rows.values()} == {"USB-STICK"}
        for row in rows.values():
            assert (receiver.data_dir / row.path).exists()
        assert len(store.studies()) == 1


def test_unfinished_and_strange_files_are_passed_over(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path) as receiver:
        folder = put(receiver, encode_file(radiograph(1))).parent
        (folder / ".abc.part").write_bytes(b"x")
        (folder / ".hidden.dcm").write_bytes(b"x")
        (folder / "note.txt").write_bytes(b"x")
        (folder / "folder.dcm").mkdir()
        (folder / "link.dcm").symlink_to("/etc/hostname")
        os.mkfifo(folder / "pipe.dcm")
        (folder.parent / "lower case").mkdir()
        (folder.parent / "lower case" / "1.dcm").write_bytes(b"x")
        wait_for(lambda: len(receiver.store().studies()) == 1)
        wait_for(lambda: empty(receiver))
        names = sorted(path.name for path in folder.iterdir())
        assert names == [".abc.part", ".hidden.dcm", "folder.dcm", "link.dcm", "note.txt", "pipe.dcm"]
        assert receiver.store().quarantine() == []


def test_a_full_disk_leaves_files_where_they_are(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, min_free_bytes=2**50) as receiver:
        path = put(receiver, encode_file(radiograph(1)))
        store = receiver.store()
        wait_for(lambda: any(event.code == "storage.full" for event in store.events()))
        assert path.exists()
        assert receiver.stop() == 0
    again = ReceiverProcess(tmp_path)  # there is room now
    with again:
        wait_for(lambda: len(store.studies()) == 1)
        wait_for(lambda: not path.exists())


def test_a_file_that_is_too_large_is_told_of_and_goes(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, max_object_bytes=2**20) as receiver:
        put(receiver, encode_file(radiograph(1, rows=800)))
        put(receiver, encode_file(radiograph(2)), "z")
        wait_for(lambda: empty(receiver))
        store = receiver.store()
        assert [event.code for event in store.events()] == ["intake.too-large"]
        assert len(store.studies()) == 1


@pytest.mark.requirement("RCV-08")
def test_killed_at_any_moment_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """The process that empties the inbox, and the receiver itself, die while 60 files are taken."""
    with ReceiverProcess(tmp_path, quiet_time_s=0.5) as receiver:
        for seed in range(60):
            put(receiver, encode_file(radiograph(seed, study=f"2.25.{seed // 10}")))
        for round_ in range(6):
            assert receiver.process is not None
            main = psutil.Process(receiver.process.pid)
            if round_ % 2:
                receiver.kill()
                receiver.start()
            elif helpers := main.children()[2:]:  # the first two hold associations
                helpers[-1].send_signal(signal.SIGKILL)
        store = receiver.store()
        wait_for(lambda: empty(receiver), 30)
        wait_for(lambda: queued(store) == 6, 30)
        taken = sorted(uid for _, uids in claims(store) for uid in uids)
        assert taken == sorted(str(radiograph(seed).SOPInstanceUID) for seed in range(60))
        assert all(detail(store, row.study_key).conflicts == () for row in store.studies())
        wait_for(lambda: receiver.files("spool/incoming") == [])


def test_counts_of_associations(tmp_path: Path) -> None:
    with ReceiverProcess(tmp_path, calling_ae=["TESTSCU"]) as receiver:
        released = receiver.associate([(CR, ExplicitVRLittleEndian)])
        assert released.send_c_store(radiograph(1)).Status == 0
        assert released.send_c_store(radiograph(1)).Status == 0
        released.release()
        aborted = receiver.associate([(CR, ExplicitVRLittleEndian)])
        aborted.abort()
        refused = receiver.associate([(CR, ExplicitVRLittleEndian)], calling_ae="SOMEBODY")
        assert refused.is_rejected
        assert receiver.stop() == 0
        with_counts = receiver.store().counts()
    names = ("associations", "associations_aborted", "associations_rejected", "images_received")
    assert [with_counts.get(name, 0) for name in names] == [2, 1, 1, 1]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "dicom.malformed"),
        (bytes(200), "dicom.malformed"),
        (bytes(128) + b"DICM", "dicom.malformed"),
        (bytes(128) + b"DICM\2\0\x10\0UI\xff\xff1.2", "dicom.cut"),
        (bytes(128) + b"DICM\2\0\x10\0UI\4\0\xff\xfe12", "dicom.malformed"),
    ],
)
def test_heads_that_are_none(content: bytes, code: str) -> None:
    with pytest.raises(DicomError) as caught:
        read_head(content)
    assert caught.value.code == code


def test_a_head_with_a_wrong_group_length_is_read() -> None:
    content = bytearray(encode_file(radiograph(1)))
    transfer_syntax, start = read_head(bytes(content))
    content[140:144] = b"\xff\xff\0\0"
    assert read_head(bytes(content)) == (transfer_syntax, start)
    assert transfer_syntax == ExplicitVRLittleEndian
