"""Data folders for the tests of `edge.care`: real objects, studies in every state, a board of their own."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from pathlib import Path

from edge.board import Board, load_board
from edge.board_keys import MIB
from edge.durable import locked, make_directory, write_file
from edge.simulate.objects import encode_file
from edge.store import InstanceFacts, Store, StudyFacts, object_path
from tests.receiver_process import radiograph

TEXTS = ("patient_id", "patient_name", "accession_number", "study_date", "modality", "study_description")
ROOT = Path(__file__).resolve().parent.parent


def board_of(data_dir: Path, **storage: object) -> Board:
    """The simulated board with this data folder; keys of [storage] may be overridden."""
    plain = load_board(ROOT / "board_configs" / "sim.toml")
    worker = dataclasses.replace(plain.worker, bundle=ROOT / plain.worker.bundle)
    own = dataclasses.replace(plain.storage, **{"reserve_bytes": MIB, "keep_studies": 0, **storage})  # type: ignore[arg-type]
    return dataclasses.replace(plain, data_dir=data_dir, worker=worker, storage=own)


def object_bytes(seed: int, rows: int = 32, **names) -> bytes:
    """A DICOM file; `study`, `sop`: UIDs."""
    return encode_file(radiograph(seed, rows=rows, **names))


def put_object(data_dir: Path, store: Store, seed: int, **more) -> tuple[int, str]:
    """Take one object in as the receiver does; its study and its path."""
    content = object_bytes(seed, **more)
    dataset = radiograph(seed, **more)
    sha256 = hashlib.sha256(content).hexdigest()
    path = object_path(sha256)
    folder = data_dir / path.parent
    make_directory(folder)
    names = (
        "StudyInstanceUID",
        "PatientID",
        "PatientName",
        "AccessionNumber",
        "StudyDate",
        "Modality",
        "StudyDescription",
    )
    uid, *texts = (str(dataset.get(name)) for name in names)
    facts = StudyFacts(uid, **dict(zip(TEXTS, texts, strict=True)))  # type: ignore[arg-type]
    uid, syntax = str(dataset.SOPInstanceUID), str(dataset.file_meta.TransferSyntaxUID)
    row = InstanceFacts(uid, str(dataset.SOPClassUID), syntax, sha256, len(content), str(path), "CR1", time.monotonic())
    with locked(folder):
        write_file(data_dir / path, content)
        (added,) = store.add_instances([(facts, row)])
    return added.study_key, str(path)


def put_draft(data_dir: Path, store: Store, seed: int, **more) -> tuple[int, str]:
    """A study of one object with a draft and its picture."""
    study_key, path = put_object(data_dir, store, seed, **more)
    store.complete_study(study_key)
    return read_next(data_dir, store), path


def read_next(data_dir: Path, store: Store) -> int:
    """What a worker does: a draft with a picture for the next study."""
    claimed = store.claim_next("test")
    assert claimed is not None
    rendered = Path("rendered", str(claimed.study_key), str(claimed.attempt))
    make_directory(data_dir / rendered)
    write_file(data_dir / rendered / "image.png", b"picture")
    store.finish_draft(claimed.study_key, f'{{"of": {claimed.attempt}}}', str(rendered), {})
    return claimed.study_key


def sign(store: Store, study_key: int) -> None:
    """A person signs the draft."""
    detail = store.study(study_key)
    assert detail is not None
    store.sign(study_key, detail.attempt, "Dr. Test", f'{{"signed": {study_key}}}')


def put_expired(data_dir: Path, store: Store, seed: int, **more) -> tuple[int, str]:
    """A study that may go: signed, and kept by another machine."""
    study_key, path = put_draft(data_dir, store, seed, **more)
    sign(store, study_key)
    store.mark_exported(study_key)
    return study_key, path


def files_of(data_dir: Path) -> list[str]:
    """Files below spool/objects, quarantine and rendered, relative."""
    folders = (data_dir / "spool" / "objects", data_dir / "quarantine", data_dir / "rendered")
    return sorted(str(path.relative_to(data_dir)) for one in folders for path in one.rglob("*") if path.is_file())
