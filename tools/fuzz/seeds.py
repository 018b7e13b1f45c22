"""Small valid documents to start from, made here: a fuzzer that begins with noise stays in the first `if`."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydicom.dataset import Dataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from securesystemslib.exceptions import FormatError
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from edge.care.archive import Kdf, new_header
from edge.care.archive_records import About, RecordWriter
from edge.slot_state import FACTORY_STATE, Outcome, Trial, state_bytes
from edge.trust import Budget
from tools.update.release import Release, snapshot_signed, targets_signed
from tools.update.sign import first_root, next_root, sign_document

ROOT = Path(__file__).resolve().parent.parent.parent
SYNTAXES: tuple[UID, ...] = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def data_set(syntax: UID) -> bytes:
    """A small radiograph with a character set, a nested sequence of undefined length and pixel data."""
    ds = Dataset()
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    ds.SOPInstanceUID = "1.2.3.4"
    ds.StudyDate, ds.Modality, ds.StudyDescription = "20260101", "CR", "Thorax"
    ds.PatientName, ds.PatientID, ds.StudyInstanceUID = "A^B", "P", "1.2.3"
    inner, outer = Dataset(), Dataset()
    inner.CodeValue = "T"
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    ds.ReferencedImageSequence = Sequence([outer])
    ds["ReferencedImageSequence"].is_undefined_length = True
    outer["PurposeOfReferenceCodeSequence"].is_undefined_length = True
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = 2
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.add_new(0x7FE00010, "OW", b"\1\2" * 4)
    stream = io.BytesIO()
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    ds._is_implicit_VR, ds._is_little_endian = implicit, little  # type: ignore[attr-defined]
    file = DicomFileLike(stream)
    file.is_implicit_VR, file.is_little_endian = implicit, little
    write_dataset(file, ds)
    return stream.getvalue()


def manifest() -> bytes:
    """The shipped bundle's manifest without its indentation."""
    text = (ROOT / "models" / "bundles" / "chest" / "manifest.json").read_text(encoding="utf-8")
    return json.dumps(json.loads(text)).encode()


def boards() -> list[bytes]:
    """Every board file of the repository."""
    return [path.read_bytes() for path in sorted((ROOT / "board_configs").glob("*.toml"))]


def reports() -> list[bytes]:
    """Reports that this program wrote."""
    return [path.read_bytes() for path in sorted((ROOT / "tests" / "fuzz" / "report").glob("*.json"))]


@lru_cache(maxsize=1)
def _keys() -> tuple[CryptoSigner, ...]:
    """Two root keys, two release keys, one snapshot key; fixed, so that what was found is found again."""
    return tuple(CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)) for number in range(1, 6))


@lru_cache(maxsize=1)
def root() -> bytes:
    """The root of an organisation of fixed keys."""
    public = [key.public_key for key in _keys()]
    return sign_document(first_root({"root": public[:2], "targets": public[2:4], "snapshot": public[4:]}), _keys()[:2])


def signed_anyway(content: bytes) -> bytes:
    """The document as its key holders may have signed it in earnest; unchanged where it cannot be signed."""
    try:
        signed = json.loads(content)
        return sign_document(signed, _keys()) if isinstance(signed, dict) else content
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, FormatError):
        return content


def update() -> list[bytes]:
    """Every kind of document, and its signed part to be signed again after mutation."""
    public = [key.public_key for key in _keys()]
    again = next_root(root(), {"snapshot": [public[0]]}, [])
    bundle = ROOT / "models" / "bundles" / "chest"
    budgets = {"*": Budget(2.0, 10**9)}
    parts = (
        again,
        snapshot_signed(3, {"chest": 2}),
        targets_signed(Release("chest", "0.2", 2, budgets=budgets), bundle),
    )
    whole = [bytes([kind]) + sign_document(part, _keys()) for kind, part in enumerate(parts)]
    return [*whole, *(bytes([4 + kind]) + json.dumps(part).encode() for kind, part in enumerate(parts))]


def state() -> list[bytes]:
    """Of a new box, and of one with a model on trial."""
    trial = Trial("ab" * 32, 3, 0, 1)
    busy = replace(
        FACTORY_STATE, active=trial.slot, trial=trial, versions={"chest": 4}, last=Outcome("update.x", "Words.")
    )
    return [state_bytes(FACTORY_STATE), state_bytes(busy)]


def archive_headers() -> list[bytes]:
    """Of a first and a second part."""
    header, _ = new_header(b"correct horse battery", Kdf(log2_n=2, r=1, p=1))
    return [header.pack(), header.of_part(1).pack()]


def records() -> list[bytes]:
    """A small archive before it is sealed."""
    out: list[bytes] = []
    writer = RecordWriter(out.append, About("sim", "0.1.0", 2))
    writer.file("radbox.sqlite3", [b"row"], key="ab" * 32)
    sha256 = hashlib.sha256(b"DICMpixels").hexdigest()
    writer.file(f"spool/objects/{sha256[:2]}/{sha256}.dcm", [b"DICM", b"pixels"])
    writer.end(1)
    return [b"".join(out)]


def network() -> list[bytes]:
    """A C-STORE-RQ, a C-ECHO-RQ, and an A-ASSOCIATE-RQ without its first 6 bytes."""
    from pynetdicom.pdu import A_ASSOCIATE_RQ
    from pynetdicom.pdu_primitives import A_ASSOCIATE, MaximumLengthNotification
    from pynetdicom.presentation import build_context

    def element(number: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHL", 0, number, len(value)) + value

    def short(value: int) -> bytes:
        return struct.pack("<H", value)

    store = element(2, b"1.2.840.10008.5.1.4.1.1.1") + element(0x100, short(1)) + element(0x110, short(7))
    store += element(0x700, short(0)) + element(0x800, short(1)) + element(0x1000, b"1.2.3")
    echo = element(2, b"1.2.840.10008.1.1") + element(0x100, short(0x30)) + element(0x110, short(1))
    echo += element(0x800, short(0x101))
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = "FUZZ", "RADBOX"
    context = build_context("1.2.840.10008.5.1.4.1.1.1")
    context.context_id = 1
    request.presentation_context_definition_list = [context]
    length = MaximumLengthNotification()
    length.maximum_length_received = 16384
    request.user_information = [length]
    associate = bytes(A_ASSOCIATE_RQ(request).encode())[6:]
    return [b"\1" + store, b"\1" + echo, b"\0" + associate]
