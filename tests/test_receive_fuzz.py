"""Mutated objects: the receiver lives, answers every one with a proper status, and keeps or quarantines its bytes."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from edge.errors import DicomError
from edge.intake.header import read_header
from edge.intake.status import FAULTS
from tests.receiver_process import ReceiverProcess, encoded, radiograph, send_bytes

CR = "1.2.840.10008.5.1.4.1.1.1"
MUTATIONS = 160
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def original(seed: int = 50) -> Dataset:
    """A small object with nested sequences of undefined length and a character set."""
    ds = radiograph(seed, rows=24)
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    inner, outer = Dataset(), Dataset()
    inner.CodeValue = "T-28000"
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    outer.ReferencedSOPInstanceUID = "1.2.3"
    ds.ReferencedImageSequence = Sequence([outer, outer])
    for element in (ds["ReferencedImageSequence"], outer["PurposeOfReferenceCodeSequence"]):
        element.is_undefined_length = True
        for item in element.value:
            item.is_undefined_length_sequence_item = True
    return ds


def mutated(content: bytes, chance: random.Random) -> bytes:
    """One or two random edits."""
    edited = bytearray(content)
    for _ in range(chance.randint(1, 2)):
        at, size = chance.randrange(len(edited) + 1), chance.choice([1, 1, 2, 4, 8, 60])
        match chance.choice([0, 0, 0, 0, 1, 2, 3, 4, 5]):
            case 0:
                edited[at : at + size] = chance.randbytes(size)
            case 1:
                del edited[at : at + size]
            case 2:
                edited[at:at] = chance.randbytes(size)
            case 3:
                edited[at:at] = edited[at : at + size]
            case 4:
                edited[at : at + 4] = chance.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xfe\xff\xdd\xe0", b"SQ\0\0"])
            case 5:
                del edited[at:]
    return bytes(edited) or b"\0"  # without a byte a sender sends no data set at all


@pytest.mark.requirement("RCV-06")
def test_mutated_objects_over_a_real_association(tmp_path: Path) -> None:
    chance = random.Random(4711)
    ds = original()
    plain = {uid: encoded(ds, implicit=uid.is_implicit_VR, little=uid.is_little_endian) for uid in SYNTAXES[:3]}
    statuses: dict[int, int] = {}
    with ReceiverProcess(tmp_path, quiet_time_s=600) as receiver:
        store = receiver.store()
        associations = {uid: receiver.associate([(CR, uid)]) for uid in plain}
        for number in range(MUTATIONS):
            uid = chance.choice(list(plain))
            content = mutated(plain[uid], chance)
            association = associations[uid]
            assert association.is_established, "a broken object does not end the association"
            status = send_bytes(association, content, CR, ds.SOPInstanceUID, number + 1)
            assert status is not None, "every object is answered"
            assert status == 0 or status == 0xA900 or 0xC000 <= status <= 0xCFFF, f"{status:04X}"
            statuses[status] = statuses.get(status, 0) + 1
            kept = receiver.files("spool/objects" if status == 0 else "quarantine")
            assert any(path.read_bytes().endswith(content) for path in kept)
        for association in associations.values():
            association.release()
        receiver.dcmtk("echoscu")
        assert receiver.alive()
        rows = sum(row.instance_count for row in store.studies(limit=1000))
        assert rows == len(receiver.files("spool/objects"))
        assert len(store.quarantine(limit=1000)) >= len(receiver.files("quarantine"))
        assert receiver.files("spool/incoming") == []
        assert receiver.stop() == 0
        assert "intake.broke" not in receiver.log.read_text()
    assert min(statuses.get(0, 0), sum(statuses.values()) - statuses.get(0, 0)) > MUTATIONS // 10, statuses


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom about character sets
@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(SYNTAXES), st.booleans())
def test_headers_of_mutated_objects(seed: int, syntax, only_noise: bool) -> None:
    chance = random.Random(seed)
    ds = original()
    content = encoded(ds, implicit=syntax.is_implicit_VR, little=syntax.is_little_endian)
    content = chance.randbytes(300) if only_noise else mutated(content, chance)
    with contextlib.suppress(DicomError):
        header = read_header(content, 0, syntax)
        assert 0 < len(header.study.study_instance_uid) <= 64
        assert header.study.patient_name.isprintable()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 400))
def test_every_cut_is_found(back: int) -> None:
    content = encoded(original())
    with pytest.raises(DicomError) as caught:
        read_header(content[: len(content) - 1 - back], 0, ExplicitVRLittleEndian)
    assert caught.value.code in FAULTS
