"""The receiver and its real peers: echoscu, storescu, dcmsend, pynetdicom."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid
from pynetdicom.sop_class import Verification

from edge.store import InstanceRow, object_path
from tests.receiver_process import ReceiverProcess, encoded, radiograph, send_bytes, wait_for

CR = "1.2.840.10008.5.1.4.1.1.1"
PLAIN = [(CR, ExplicitVRLittleEndian)]


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    """One receiver for the tests that need no settings of their own; its log may name no patient and no object."""
    with ReceiverProcess(tmp_path_factory.mktemp("receiver")) as process:
        yield process
        assert process.stop() == 0
        log = process.log.read_text()
        assert "stored:" in log
        assert "Traceback" not in log
        for secret in ("Seeded", "Name", "CompressedSamples", "1.3.6.1.4.1.5962", "1.2.826"):
            assert secret not in log


def rows_of(receiver: ReceiverProcess, sop_instance_uid: str) -> list[InstanceRow]:
    """Rows of an object; their files are whole and are what the rows say."""
    found = []
    store = receiver.store()
    for summary in store.studies(limit=1000):
        detail = store.study(summary.study_key)
        assert detail is not None
        found += [row for row in detail.instances if row.sop_instance_uid == sop_instance_uid]
    for row in found:
        content = (receiver.data_dir / row.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row.sha256
        assert len(content) == row.size_bytes
        assert row.path == str(object_path(row.sha256))
    return found


def only_row_of(receiver: ReceiverProcess, sop_instance_uid: str) -> tuple[InstanceRow, pydicom.Dataset]:
    (row,) = rows_of(receiver, sop_instance_uid)
    ds = pydicom.dcmread(receiver.data_dir / row.path)
    assert ds.file_meta.MediaStorageSOPInstanceUID == sop_instance_uid
    assert ds.file_meta.TransferSyntaxUID == row.transfer_syntax_uid
    return row, ds


def test_echo(receiver: ReceiverProcess) -> None:
    receiver.dcmtk("echoscu")
    association = receiver.associate([(Verification, ExplicitVRLittleEndian)])
    assert association.send_c_echo().Status == 0x0000
    association.release()


@pytest.mark.requirement("RCV-02")
def test_stored_as_received(receiver: ReceiverProcess) -> None:
    ds = radiograph(1)
    association = receiver.associate(PLAIN, calling_ae="CR_ROOM1")
    assert association.send_c_store(ds).Status == 0x0000
    association.release()
    row, stored = only_row_of(receiver, ds.SOPInstanceUID)
    assert stored == ds
    assert (row.calling_ae, row.transfer_syntax_uid, row.conflict) == ("CR_ROOM1", ExplicitVRLittleEndian, False)
    assert 0 < row.receive_s < 5
    assert row.received_monotonic_s < time.monotonic()
    detail = receiver.store().study(row.study_key)
    assert detail is not None
    facts = detail.facts
    assert (facts.study_instance_uid, facts.patient_name) == (ds.StudyInstanceUID, "Seeded^Name1")
    assert (facts.patient_id, facts.accession_number, facts.study_date) == ("P1", "A1", "20240102")
    assert (facts.modality, facts.study_description) == ("CR", "Thorax")


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom about the reference data's broken UIDs
def test_dcmsend_of_everything_it_can_read(receiver: ReceiverProcess, shared_data: Path) -> None:
    receiver.dcmtk("dcmsend", "-nh", "-nuc", "+sd", "+sp", "*.dcm", shared_data / "dicom", check=False)
    unreadable_for_dcmtk = {"HTJ2KLossless_08_RGB", "JLSN_RGB_ILV0", "OT-PAL-8-face", "MR_truncated"}
    unreadable_for_dcmtk |= {"meta_missing_tsyntax", "nested_priv_SQ"}
    for path in sorted((shared_data / "dicom").glob("*.dcm")):
        if path.stem in unreadable_for_dcmtk:
            continue
        original = pydicom.dcmread(path)
        stored = [pydicom.dcmread(receiver.data_dir / row.path) for row in rows_of(receiver, original.SOPInstanceUID)]
        same = [ds for ds in stored if ds.SOPClassUID == original.SOPClassUID]
        assert len(same) == 1, path.name
        if original.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:  # dcmsend prefers to send little endian
            assert (same[0].pixel_array == original.pixel_array).all()
            continue
        assert same[0].PixelData == original.PixelData, path.name
        assert same[0].file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID, path.name


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("option", "name", "transfer_syntax"),
    [
        ("-xi", "vlut_04", "1.2.840.10008.1.2"),
        ("-xb", "gdcm-US-ALOKA-16_big", "1.2.840.10008.1.2.2"),
        ("-xd", "mlut_18", "1.2.840.10008.1.2.1.99"),
        ("-xs", "MR1_JPLL", "1.2.840.10008.1.2.4.70"),
        ("-xx", "NM1_JPLY", "1.2.840.10008.1.2.4.51"),
        ("-xu", "RG1_JLSN", "1.2.840.10008.1.2.4.81"),
        ("-xv", "MR2_J2KR", "1.2.840.10008.1.2.4.90"),
        ("-xw", "RG1_J2KI", "1.2.840.10008.1.2.4.91"),
        ("-xr", "emri_small_RLE", "1.2.840.10008.1.2.5"),
    ],
)
@pytest.mark.requirement("RCV-02")
def test_storescu_in_every_transfer_syntax(
    receiver: ReceiverProcess, shared_data: Path, tmp_path: Path, option: str, name: str, transfer_syntax: str
) -> None:
    ds = pydicom.dcmread(shared_data / "dicom" / f"{name}.dcm")
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name, option])
    ds.save_as(tmp_path / "sent.dcm")
    receiver.dcmtk("storescu", "-R", option, tmp_path / "sent.dcm")
    row, stored = only_row_of(receiver, ds.SOPInstanceUID)
    assert row.transfer_syntax_uid == transfer_syntax
    assert stored.PixelData == ds.PixelData


@pytest.mark.requirement("RCV-02")
def test_syntaxes_and_classes_nobody_knows(receiver: ReceiverProcess, shared_data: Path) -> None:
    htj2k = pydicom.dcmread(shared_data / "dicom" / "HTJ2KLossless_08_RGB.dcm")
    htj2k.StudyInstanceUID = generate_uid(entropy_srcs=["htj2k"])
    private = radiograph(2)
    private.SOPClassUID = UID("1.3.12.2.1107.5.9.1")
    unknown_syntax = radiograph(3)
    contexts = [
        (htj2k.SOPClassUID, htj2k.file_meta.TransferSyntaxUID),
        (private.SOPClassUID, ExplicitVRLittleEndian),
        (CR, UID("1.2.3.4.5.6.7")),
    ]
    association = receiver.associate(contexts)
    assert association.send_c_store(htj2k).Status == 0x0000
    assert association.send_c_store(private).Status == 0x0000
    assert send_bytes(association, encoded(unknown_syntax), CR, unknown_syntax.SOPInstanceUID) == 0x0000
    association.release()
    assert only_row_of(receiver, htj2k.SOPInstanceUID)[1].PixelData == htj2k.PixelData
    assert only_row_of(receiver, private.SOPInstanceUID)[0].sop_class_uid == "1.3.12.2.1107.5.9.1"
    assert only_row_of(receiver, unknown_syntax.SOPInstanceUID)[0].transfer_syntax_uid == "1.2.3.4.5.6.7"


@pytest.mark.requirement("RCV-07")
def test_the_same_object_again_is_no_error(receiver: ReceiverProcess, tmp_path: Path) -> None:
    ds = radiograph(4)
    ds.save_as(tmp_path / "sent.dcm", enforce_file_format=True)
    receiver.dcmtk("storescu", "--repeat", 3, tmp_path / "sent.dcm")
    association = receiver.associate(PLAIN, calling_ae="OTHER")
    assert send_bytes(association, encoded(ds), CR, ds.SOPInstanceUID) == 0x0000
    association.release()
    assert len(rows_of(receiver, ds.SOPInstanceUID)) == 1


@pytest.mark.requirement("RCV-07")
def test_the_same_uid_with_other_bytes_is_kept_apart(receiver: ReceiverProcess) -> None:
    first, second = radiograph(5), radiograph(6)
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "PatientID"):
        setattr(second, keyword, first[keyword].value)
    association = receiver.associate(PLAIN)
    assert association.send_c_store(first).Status == 0x0000
    assert association.send_c_store(second).Status == 0x0000
    association.release()
    rows = rows_of(receiver, first.SOPInstanceUID)
    assert [row.conflict for row in rows] == [False, True]
    assert pydicom.dcmread(receiver.data_dir / rows[0].path).PixelData == first.PixelData
    assert pydicom.dcmread(receiver.data_dir / rows[1].path).PixelData == second.PixelData
    events = [event for event in receiver.store().events() if event.study_key == rows[0].study_key]
    assert [event.code for event in events] == ["intake.uid-conflict"]


def test_a_study_is_complete_when_all_its_associations_ended(receiver: ReceiverProcess) -> None:
    study = generate_uid(entropy_srcs=["completion"])
    first, second = receiver.associate(PLAIN), receiver.associate(PLAIN)
    assert first.send_c_store(radiograph(7, study=study)).Status == 0x0000
    assert second.send_c_store(radiograph(8, study=study)).Status == 0x0000
    store = receiver.store()
    key = store.study_key(study)
    assert key is not None
    first.release()
    time.sleep(1.0)  # three quiet times
    assert key in store.receiving_studies()
    second.abort()
    wait_for(lambda: key not in store.receiving_studies())
    detail = store.study(key)
    assert detail is not None
    assert (detail.state, len(detail.instances)) == ("queued", 2)


def test_a_study_goes_on_after_a_restart(tmp_path: Path) -> None:
    ds = radiograph(9)
    with ReceiverProcess(tmp_path, quiet_time_s=1.0) as receiver:
        association = receiver.associate(PLAIN)
        assert association.send_c_store(ds).Status == 0x0000
        assert receiver.stop() == 0
        wait_for(lambda: not association.is_alive())
        assert association.is_aborted
        store = receiver.store()
        assert store.receiving_studies() == [1]
        receiver.start()
        wait_for(lambda: store.receiving_studies() == [])
        (service,) = store.services()
        assert (service.name, service.state) == ("receive", "ok")
