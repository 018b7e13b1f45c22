"""A data folder with studies in every state, to be backed up, and what must be the same after a restore."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge.board import Board, load_board
from edge.care.archive import Kdf
from edge.care.archive_records import End
from edge.care.backup import Options, write_backup
from edge.care.restore import restore
from edge.durable import make_directory, write_file
from edge.errors import RadboxError
from edge.slots import FACTORY_STATE, STATE, state_bytes
from edge.store import InstanceFacts, Store, StudyFacts, object_path, open_store, quarantine_path, rendered_path
from edge.store_connection import Connection
from edge.store_paths import DATABASE, RESTORING

ROOT = Path(__file__).resolve().parent.parent
PASSPHRASE = b"six words of a dice on paper"
SECRET_NAME = "OKONKWO^ADAEZE"
TABLES = ("study", "instance", "reading", "quarantine", "signature", "event", "box", "sqlite_sequence")
# What restoring changes on purpose (see `edge.store_backup.adopt`).
PERISHABLE = {"study": {"claimed_boot_id", "state", "tries"}, "box": {"ticked_monotonic_s", "boot_id"}}
SLOT = "5" * 64


def quick(**changes: Any) -> Options:
    """Options that cost no time; `tell` keeps quiet."""
    return dataclasses.replace(Options(kdf=Kdf(4, 8), tell=lambda _: None), **changes)


def board_of(data_dir: Path, name: str = "test") -> Board:
    """The simulated board on a data folder of its own."""
    sim = load_board(ROOT / "board_configs" / "sim.toml")
    receive = dataclasses.replace(sim.receive, min_free_bytes=2**20)
    return dataclasses.replace(sim, name=name, data_dir=data_dir, receive=receive)


def put(board: Board, store: Store, number: int, content: bytes) -> int:
    """File an object of a study of its own as the receiver does; the study's key."""
    sha256 = hashlib.sha256(content).hexdigest()
    path = object_path(sha256)
    make_directory((board.data_dir / path).parent)
    write_file(board.data_dir / path, content)
    uid = f"2.25.{number}"
    study = StudyFacts(uid, f"P-{number}", SECRET_NAME, "A1", "20260312", "DX", "Chest PA")
    facts = InstanceFacts(f"{uid}.1", "1.2", "1.2.1", sha256, len(content), str(path), "CR1", time.monotonic())
    store.add_instance(study, facts)
    key = store.study_key(uid)
    assert key is not None
    return key


def draft(board: Board, store: Store) -> int:
    """Read the next study; its key."""
    claimed = store.claim_next("w")
    assert claimed is not None
    folder = rendered_path(claimed.study_key, claimed.attempt)
    make_directory(board.data_dir / folder)
    write_file(board.data_dir / folder / "image.png", b"PNG of %d" % claimed.study_key)
    store.finish_draft(claimed.study_key, '{"report": 1}', str(folder), {"total": 1.5})
    return claimed.study_key


def fill(board: Board, objects: int = 6, size_bytes: int = 3000, key: bytes | None = None) -> dict[str, int]:
    """Studies in many states, a refused object, a model that was updated; study keys by state."""
    chance = random.Random(objects)
    keys: dict[str, int] = {}
    with closing(open_store(board.data_dir, key=key)) as store:
        store.tick_age()
        for number in range(objects):
            study = put(board, store, number, chance.randbytes(size_bytes + number))
            store.complete_study(study)
        keys["signed"] = draft(board, store)
        store.sign(keys["signed"], 1, "A. Doctor", '{"report": "signed"}')
        store.mark_exported(keys["signed"])
        keys["draft"] = draft(board, store)
        refused = store.claim_next("w")
        reading = store.claim_next("w")
        assert refused is not None
        assert reading is not None
        store.finish_refused(refused.study_key, "gate.no", "no chest", {})
        keys |= {"refused": refused.study_key, "reading": reading.study_key}
        keys["receiving"] = put(board, store, 1000, b"still arriving")
        content = b"not DICOM at all"
        sha256 = hashlib.sha256(content).hexdigest()
        make_directory(board.data_dir / "quarantine")
        write_file(board.data_dir / quarantine_path(sha256), content)
        store.add_quarantine(sha256, len(content), str(quarantine_path(sha256)), "dicom.bad", "no", "CR1")
        store.set_service("worker", "ok", "", "here")
    state = dataclasses.replace(FACTORY_STATE, active=SLOT, root_version=2, snapshot_version=7, epoch=3)
    for name, content in (
        (f"slots/{SLOT}/targets.json", b"signed"),
        (f"slots/{SLOT}/model.tflite", chance.randbytes(5000)),
        (f"slots/{'6' * 64}/targets.json", b"retired"),
        ("update/roots/2.root.json", b"root"),
        ("update/device.key", b"this box alone"),
        (str(STATE), state_bytes(state)),
        ("reserve.bin", bytes(1000)),
        ("spool/incoming/.half.part", b"half"),
    ):
        make_directory((board.data_dir / name).parent)
        write_file(board.data_dir / name, content)
    return keys


def files_of(data_dir: Path) -> dict[str, str]:
    """sha256 of every file of the data folder, the database aside."""
    return {
        str(path.relative_to(data_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in data_dir.rglob("*")
        if path.is_file() and not path.name.startswith((DATABASE.name, "radbox.lock", "backup.lock"))
    }


def rows_of(data_dir: Path, key: bytes | None = None) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, without what a restore changes on purpose."""
    with closing(Connection(data_dir / DATABASE, key)) as connection:
        rows = {}
        for table in TABLES:
            names = [row[1] for row in connection.all(f"PRAGMA table_info({table})")]
            names = names or ["name", "seq"]
            found = [dict(zip(names, row, strict=True)) for row in connection.all(f"SELECT * FROM {table} ORDER BY 1")]
            rows[table] = [
                {name: value for name, value in row.items() if name not in PERISHABLE.get(table, ())} for row in found
            ]
    rows["event"] = [row for row in rows["event"] if not row["code"].startswith("backup.")]
    rows["sqlite_sequence"] = [row for row in rows["sqlite_sequence"] if row["name"] != "event"]
    return rows


CARRIED = ("spool/objects/", "quarantine/", "rendered/", f"slots/{SLOT}/", "update/roots/", "update/state.json")


def carried(files: dict[str, str]) -> dict[str, str]:
    """Those of `files_of` that a backup holds."""
    return {name: sha256 for name, sha256 in files.items() if name.startswith(CARRIED)}


def is_empty(data_dir: Path) -> bool:
    """True if the services would find a box without studies, or none yet because a restore must be finished first."""
    if not (data_dir / DATABASE).exists() or (data_dir / RESTORING).exists():
        return True
    with closing(open_store(data_dir)) as store:
        return store.studies() == [] and store.quarantine() == []


def save(board: Board, path: Path, **changes: Any) -> End:
    """Back up, quickly."""
    return write_backup(board, path, PASSPHRASE, quick(**changes))


def load(board: Board, path: Path) -> int:
    """Restore."""
    return restore(board, path, PASSPHRASE, quick())


def refusal(call: Callable[[], object]) -> str:
    """The code that `call` is refused with; its sentence names no patient."""
    with pytest.raises(RadboxError) as caught:
        call()
    assert SECRET_NAME not in caught.value.message
    return caught.value.code
