"""Crash scenarios of what looks after the box: retention, backup, restore, fsck."""

from __future__ import annotations

import atexit
import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from edge.board import Board, Storage, load_board
from edge.care import backup, fsck, restore
from edge.care.archive_parts import UNFINISHED
from edge.care.retention import clean, finish_removals
from edge.store import Store, StudyDetail, open_store, rendered_path
from edge.store_paths import DATABASE
from tests.backup_box import PASSPHRASE, board_of, carried, draft, files_of, fill, is_empty, put, quick, rows_of
from tests.crash_box import Found, check, recover, sha256_of
from tools.crash.box import database_faults, studies
from tools.crash.trace import Mark, mark

ROOT = Path(__file__).resolve().parent.parent
EXTRA = 1_100_000  # bytes of one object, so that the archive has two parts of one chunk each


@cache
def scratch() -> Path:
    """A folder of this process that no crash reaches (a stick in a drawer); gone with the process."""
    folder = tempfile.mkdtemp(prefix="radbox-crash-")
    atexit.register(shutil.rmtree, folder)
    return Path(folder)


# --- retention ---


def keeping_setup(root: Path) -> None:
    """Six studies: two signed and exported, one only signed, one only exported, a draft, a newest that is both."""
    board = board_of(root)
    with closing(open_store(root)) as store:
        for number in range(6):
            store.complete_study(put(board, store, number, b"object %d" % number * 100))
        while (claimed := store.claim_next("setup")) is not None:
            folder = rendered_path(claimed.study_key, claimed.attempt)
            shutil.copytree(_picture().parent, root / folder)
            store.finish_draft(claimed.study_key, "{}", str(folder), {})
        for key in (1, 2, 3, 6):
            store.sign(key, 1, "Dr. Seeded", '{"signed": true}')
        for key in (1, 2, 4, 6):
            store.mark_exported(key)


@cache
def _picture() -> Path:
    import cv2
    import numpy as np

    path = scratch() / "picture" / "image.png"
    path.parent.mkdir()
    path.write_bytes(cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes())
    return path


def keeping_child(root: Path) -> None:
    """Recorded: room is made; an object of a study that went arrives again; room is made again."""
    storage = dataclasses.replace(_storage(), retention_days=0.0, keep_studies=1)
    with closing(open_store(root)) as store:
        for study in studies(store):
            _promise(study, store)
        for uid in ("2.25.0", "2.25.1"):
            mark("may-go", study=uid)
        clean(root, store, storage, lambda: False, lambda: None)
        for number in (0, 1):
            mark("gone", sha256=hashlib.sha256(b"object %d" % number * 100).hexdigest())
        mark("returning", study="2.25.0")
        again = put(board_of(root), store, 0, b"object 0" * 100)
        back = store.study(again)
        assert back is not None
        _promise(back, store)
        mark("may-go", study="2.25.5")  # the newest no more
        clean(root, store, storage, lambda: False, lambda: None)


def _storage() -> Storage:
    return load_board(ROOT / "board_configs" / "sim.toml").storage


def _promise(study: StudyDetail, store: Store) -> None:
    uid = study.facts.study_instance_uid
    for row in study.instances:
        mark("received", study=uid, sop=row.sop_instance_uid, sha256=row.sha256)
    if study.state == "signed":
        mark("signed", study=uid, report_sha256=sha256_of(store.signed_report(study.summary.study_key) or ""))


def keeping_recover(root: Path) -> tuple[Found, set[str]]:
    """Service care finishes what was noted; then the rest starts. Also: names of the object files left."""
    with closing(open_store(root)) as store:
        finish_removals(root, store)
        left = store.removals()
    found = recover(root)
    found.wrong += ["a removal is noted for ever" for _ in left]
    return found, {path.stem for path in (root / "spool" / "objects").rglob("*.dcm")}


def keeping_check(result: tuple[Found, set[str]], marks: Sequence[Mark]) -> list[str]:
    """All or nothing of what may go, and all of the rest."""
    found, files = result
    # A study that comes again is a new one: what was promised of the old one went with it.
    first = next((number for number, one in enumerate(marks) if one.kind == "returning"), len(marks))
    returned = {one.facts["study"] for one in marks[first:] if one.kind == "returning"}
    gone = {one.facts["study"] for one in marks if one.kind == "may-go"} - set(found.before)
    kept = [
        one
        for number, one in enumerate(marks)
        if one.facts.get("study") not in (gone - returned if number > first else gone | returned)
    ]
    wrong = check(found, kept)
    for one in marks if not returned else ():
        if one.kind == "gone" and one.facts["sha256"] in files:
            wrong.append("the file of a removed study is still there")
    return wrong


# --- backup ---


def backup_setup(root: Path) -> None:
    """A box with studies in every state, and an empty stick."""
    (root / "stick").mkdir()
    board = board_of(root / "box")
    fill(board)
    with closing(open_store(board.data_dir)) as store:
        put(board, store, 77, bytes(EXTRA))


def backup_child(root: Path) -> None:
    """Recorded: two backups to one stick, the first in parts."""
    for name, chunks in (("a.rbk", 1), ("b.rbk", 1000)):
        end = backup.write_backup(
            board_of(root / "box"), root / "stick" / name, PASSPHRASE, quick(chunks_per_part=chunks)
        )
        mark("backup", name=name, files=end.files)


@dataclass
class Archives:
    """What a stick holds after a crash. `whole`: those that restored completely; `boxes`: what came out, hashed."""

    wrong: list[str] = field(default_factory=list)
    whole: set[str] = field(default_factory=set)


@cache
def _original() -> tuple[dict[str, str], dict[str, Any]]:
    """Files and rows of the box of `backup_setup`."""
    root = scratch() / "original"
    root.mkdir()
    backup_setup(root)
    return carried(files_of(root / "box")), _comparable(rows_of(root / "box"))


def _comparable(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Rows that do not depend on when they were made."""
    kept = {name: [row["sha256"] for row in rows[name]] for name in ("instance", "quarantine")}
    reports = [(row["study_key"], row["outcome"], row["report_json"]) for row in rows["reading"]]
    return {**kept, "reports": reports, "signed": [row["report_json"] for row in rows["signature"]]}


def backup_recover(root: Path) -> Archives:
    """Every archive that bears a name is restored; the box is whole; and the next backup works."""
    found = Archives(database_faults(root / "box"))
    names = [path for path in (root / "stick").glob("*.rbk") if not path.name.endswith(UNFINISHED)]
    for path in names:
        fresh = root / f"fresh-{path.name}"
        restore.restore(board_of(fresh), path, PASSPHRASE, quick())
        _compare(found.wrong, fresh, "an archive")
        found.whole.add(path.name)
    if carried(files_of(root / "box")) != _original()[0]:
        found.wrong.append("the box that was backed up has changed")
    backup.write_backup(board_of(root / "box"), root / "stick" / "next.rbk", PASSPHRASE, quick())
    if (root / "box" / ".backup").exists():
        found.wrong.append("the working folder of a backup was left behind")
    return found


def _compare(wrong: list[str], data_dir: Path, what: str) -> None:
    files, rows = _original()
    if carried(files_of(data_dir)) != files:
        wrong.append(f"{what} holds other files than the box")
    if _comparable(rows_of(data_dir)) != rows:
        wrong.append(f"{what} holds other rows than the box")


def backup_check(found: Archives, marks: Sequence[Mark]) -> list[str]:
    """An archive that was promised is there."""
    missing = {one.facts["name"] for one in marks if one.kind == "backup"} - found.whole
    return found.wrong + ["a finished backup is not there" for _ in missing]


# --- restore ---


@cache
def archive() -> Path:
    """A backup of the box of `backup_setup`, on a stick that stays whole."""
    _original()
    path = scratch() / "archive.rbk"
    backup.write_backup(board_of(scratch() / "original" / "box"), path, PASSPHRASE, quick())
    return path


def restore_child(root: Path, path: str) -> None:
    """Recorded: a restore onto a fresh box."""
    restore.restore(board_of(root / "box"), Path(path), PASSPHRASE, quick())
    mark("restored")


@dataclass
class Restored:
    """A box after a restore was cut. `empty`: no study was there before the restore was run again."""

    empty: bool
    wrong: list[str] = field(default_factory=list)


def restore_recover(root: Path) -> Restored:
    """Without studies, or whole; a second try makes it whole."""
    board: Board = board_of(root / "box")
    found = Restored(not board.data_dir.exists() or is_empty(board.data_dir))
    if found.empty or (board.data_dir / restore.STAGING).exists():
        restore.restore(board, archive(), PASSPHRASE, quick())
    _compare(found.wrong, board.data_dir, "the restored box")
    found.wrong += database_faults(board.data_dir)
    if (board.data_dir / restore.STAGING).exists():
        found.wrong.append("the working folder of a restore was left behind")
    return found


def restore_check(found: Restored, marks: Sequence[Mark]) -> list[str]:
    """A restore that was told to be done is done."""
    return found.wrong + ["a finished restore is not there"] * (
        found.empty and any(m.kind == "restored" for m in marks)
    )


# --- fsck ---


def fsck_setup(root: Path) -> None:
    """Four studies, one of them signed, in a database with a page of noise."""
    board = board_of(root)
    from edge.simulate.objects import encode_file
    from tests.receiver_process import radiograph

    with closing(open_store(root)) as store:
        for number in range(4):
            store.complete_study(put(board, store, number, encode_file(radiograph(number, rows=16))))
        store.sign(draft(board, store), 1, "Dr. Seeded", '{"signed": true}')
    page = 4096
    content = (root / DATABASE).read_bytes()
    (root / DATABASE).write_bytes(content[:page] + b"\xa5" * page + content[2 * page :])


def fsck_child(root: Path) -> None:
    """Recorded: the repair."""
    report = fsck.check(root, None, True)
    assert report.faults, "the database was not damaged after all"
    mark("repaired")


def fsck_recover(root: Path) -> list[str]:
    """Repaired again if need be; then every object has its row and its study, and nothing is wrong."""
    fsck.check(root, None, True)
    report = fsck.check(root, None, False)
    wrong = [f"after two repairs: {one.code}" for one in report.findings]
    wrong += database_faults(root)
    with closing(open_store(root)) as store:
        held = sorted(row.sha256 for study in studies(store) for row in study.instances)
    files = sorted(path.stem for path in (root / "spool" / "objects").rglob("*.dcm"))
    if held != files or len(files) != 4:
        wrong.append("an object has no row")
    return wrong


def fsck_check(wrong: list[str], _marks: Sequence[Mark]) -> list[str]:
    """Nothing is promised but that all is there at the end."""
    return wrong
