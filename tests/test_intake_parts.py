"""The receiver's pure parts: completion, rules, headers, the answers' table."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from edge.board import Receive, load_board
from edge.errors import DicomError
from edge.intake import policy
from edge.intake.completion import Completion
from edge.intake.elements import data_set_offset, inflate, scan
from edge.intake.header import read_header
from edge.intake.status import FAULTS, REFUSALS
from tests.receiver_process import encoded, radiograph


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_study_waits_for_all_associations_and_the_quiet_time() -> None:
    clock = Clock()
    completion = Completion(2.0, clock)
    completion.received(7, association=1)
    completion.received(7, association=2)
    clock.now_s += 100
    completion.ended(1)
    assert completion.due() == []
    clock.now_s += 100
    completion.ended(2)
    completion.ended(3)
    clock.now_s += 1.9
    assert completion.due() == []
    clock.now_s += 0.2
    assert completion.due() == [7]
    assert completion.due() == []


def test_a_new_association_starts_the_quiet_time_anew() -> None:
    clock = Clock()
    completion = Completion(2.0, clock)
    completion.received(7, association=1)
    completion.received(8, association=1)
    completion.ended(1)
    clock.now_s += 1.5
    completion.received(7, association=2)
    clock.now_s += 1.0
    assert completion.due() == [8]
    completion.ended(2)
    clock.now_s += 2.0
    assert completion.due() == [7]


def test_an_association_that_ends_twice_or_late_changes_nothing() -> None:
    clock = Clock()
    completion = Completion(2.0, clock)
    completion.received(7, association=1)
    completion.ended(1)
    clock.now_s += 1.5
    completion.ended(1)
    clock.now_s += 0.5
    assert completion.due() == [7]


def test_resumed_studies_get_a_fresh_quiet_time() -> None:
    clock = Clock()
    completion = Completion(2.0, clock)
    completion.resume(7)
    clock.now_s += 1.9
    assert completion.due() == []
    completion.resume(7)
    clock.now_s += 1.9
    assert completion.due() == []
    clock.now_s += 0.1
    assert completion.due() == [7]


@pytest.fixture
def receive(root: Path) -> Receive:
    return load_board(root / "board_configs" / "sim.toml").receive


@pytest.mark.requirement("RCV-05")
def test_who_may_associate(receive: Receive) -> None:
    assert policy.check(receive, "192.168.1.7", "ANY", "ANY", [1]) is None
    strict = dataclasses.replace(
        receive, called_ae_check=True, calling_ae=("CR1",), addresses=("192.168.1.0/24", "fd00::/8")
    )
    assert policy.check(strict, "192.168.1.7", "CR1 ", "RADBOX  ", [2, 1]) is None
    assert policy.check(strict, "fd00::7", "CR1", "RADBOX", [1]) is None
    assert policy.check(strict, "::ffff:192.168.1.7", "CR1", "RADBOX", [1]) is None
    assert policy.check(strict, "192.168.2.7", "CR1", "RADBOX", [1]) == policy.ADDRESS
    assert policy.check(strict, "fe80::1%eth0", "CR1", "RADBOX", [1]) == policy.ADDRESS
    assert policy.check(strict, "192.168.1.7", "cr1", "RADBOX", [1]) == policy.CALLING_AE
    assert policy.check(strict, "192.168.1.7", "CR1", "ANY-SCP", [1]) == policy.CALLED_AE
    assert policy.check(strict, "192.168.1.7", "CR1", "RADBOX", [1, 0]) == policy.NO_TRANSFER_SYNTAX


@pytest.mark.parametrize("said", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("implicit", [True, False])
def test_the_data_set_itself_says_whether_vrs_are_explicit(said: str, implicit: bool) -> None:
    header = read_header(encoded(radiograph(1), implicit=implicit), 0, said)
    assert header.study.patient_name == "Seeded^Name1"


def test_lengths_that_look_like_a_vr(receive: Receive) -> None:
    ds = radiograph(1)
    ds.PixelData = bytes(0x4F42)  # "BO" where an explicit data set has its VR
    ds.Rows, ds.Columns = 1, 0x4F42 // 2
    assert read_header(encoded(ds, implicit=True), 0, ImplicitVRLittleEndian).study.patient_id == "P1"


def test_big_endian_and_deflated() -> None:
    ds = radiograph(1)
    assert read_header(encoded(ds, little=False), 0, ExplicitVRBigEndian).sop_instance_uid == ds.SOPInstanceUID
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = packer.compress(encoded(ds)) + packer.flush()
    syntax = "1.2.840.10008.1.2.1.99"
    assert read_header(deflated, 0, syntax).sop_instance_uid == ds.SOPInstanceUID
    assert read_header(deflated + b"\0", 0, syntax).sop_instance_uid == ds.SOPInstanceUID, "padded to even length"
    for broken, code in ((deflated[:-20], "dicom.cut"), (b"\xff" * 50, "dicom.malformed")):
        with pytest.raises(DicomError) as caught:
            read_header(broken, 0, syntax)
        assert caught.value.code == code


@pytest.mark.requirement("RCV-06")
def test_a_deflate_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.intake.elements.INFLATED_LIMIT_BYTES", 2**20)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    with pytest.raises(DicomError) as caught:
        inflate(packer.compress(bytes(2**24)) + packer.flush())
    assert caught.value.code == "dicom.inflates-too-large"


@pytest.mark.parametrize(
    ("charset", "raw", "name"),
    [
        (b"", b"Doe^Jane ", "Doe^Jane"),
        (b"ISO_IR 100", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
        (b"ISO_IR 192 ", "Łukasz^Ωmega".encode(), "Łukasz^Ωmega"),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
        (b"NO SUCH SET ", b"Doe^Jane", "Doe^Jane"),
        (b"ISO_IR 192 ", b"Doe\xff^\x00Jane", "Doe\ufffd^\ufffdJane"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom about the two broken ones
def test_names_in_their_character_set(charset: bytes, raw: bytes, name: str) -> None:
    def element(tag: int, value: bytes) -> bytes:
        return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value

    content = element(0x00080005, charset) + element(0x00080016, b"1.2") + element(0x00080018, b"1.2.3\0")
    content += element(0x00100010, raw) + element(0x0020000D, b"1.2.3.4 ")
    header = read_header(content, 0, ImplicitVRLittleEndian)
    assert (header.study.patient_name, header.study.study_instance_uid) == (name, "1.2.3.4")


def test_nesting_and_padding_have_limits() -> None:
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    sequence = struct.pack("<HHL", 0x0040, 0x0275, 0xFFFFFFFF)
    with pytest.raises(DicomError, match="nested"):
        scan((sequence + item) * 5000, 0, ImplicitVRLittleEndian, ())
    content = encoded(radiograph(1))
    assert scan(content + bytes(3), 0, ExplicitVRLittleEndian, ()).pixel_bytes == 64 * 64 * 2
    assert scan(content + bytes(3000), 0, ExplicitVRLittleEndian, ()).pixel_bytes == 64 * 64 * 2
    with pytest.raises(DicomError):
        scan(content + b"\0\0\1", 0, ExplicitVRLittleEndian, ())


def test_chroma_subsampling_is_not_taken_for_missing_pixels() -> None:
    ds: Dataset = radiograph(1)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.BitsAllocated = 3, "YBR_FULL_422", 8
    ds.PixelData = bytes(64 * 64 * 2)
    assert read_header(encoded(ds), 0, ExplicitVRLittleEndian)
    ds.PhotometricInterpretation = "RGB"
    with pytest.raises(DicomError) as caught:
        read_header(encoded(ds), 0, ExplicitVRLittleEndian)
    assert caught.value.code == "dicom.pixels-cut"


@pytest.mark.requirement("RCV-03")
def test_answers_fit_their_elements() -> None:
    for answer in [*REFUSALS.values(), *FAULTS.values()]:
        assert 0 < len(answer.comment) <= 64
        assert answer.comment.isascii()
        assert answer.status >= 0xA700 or answer.status == 0x0110


def test_offset_of_the_data_set(tmp_path: Path) -> None:
    ds = radiograph(1)
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    content = (tmp_path / "a.dcm").read_bytes()
    assert content[data_set_offset(content[:144]) :] == encoded(ds)
