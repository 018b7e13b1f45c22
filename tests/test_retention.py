"""What may go goes, whatever else stays, and nothing is lost on the way."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.care import retention
from edge.care.retention import Cleaned, clean, finish_removals, trim_quarantine
from edge.durable import locked, make_directory, write_file
from edge.store import Store, object_path, open_store, quarantine_path
from tests.care_box import (
    ROOT,
    board_of,
    files_of,
    object_bytes,
    put_draft,
    put_expired,
    put_object,
    read_next,
    sign,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def never() -> bool:
    return False


def nothing() -> None:
    return None


def cleaned(tmp_path: Path, store: Store, **storage: object) -> Cleaned:
    return clean(tmp_path, store, board_of(tmp_path, **{"retention_days": 0, **storage}).storage, never, nothing)


def keys(store: Store) -> set[int]:
    return {row.study_key for row in store.studies()}


@pytest.mark.requirement("KEEP-07")
def test_only_what_is_exported_settled_and_expired_goes(tmp_path: Path, store: Store) -> None:
    gone, gone_path = put_expired(tmp_path, store, 1)
    waiting, _ = put_object(tmp_path, store, 2)
    store.mark_exported(waiting)
    draft, _ = put_draft(tmp_path, store, 3)
    store.mark_exported(draft)
    unsent, _ = put_draft(tmp_path, store, 4)
    sign(store, unsent)
    before = files_of(tmp_path)
    size_bytes = (tmp_path / gone_path).stat().st_size
    assert cleaned(tmp_path, store) == Cleaned(studies=1, size_bytes=size_bytes)
    assert keys(store) == {waiting, draft, unsent}
    left = {gone_path, f"rendered/{gone}/1/image.png"}
    assert files_of(tmp_path) == [path for path in before if path not in left]
    assert not (tmp_path / "rendered" / str(gone)).exists()
    assert store.removals() == []


def test_retention_and_the_floor(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"s": 1000.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["s"])
    store.tick_age()
    expired = [put_expired(tmp_path, store, seed)[0] for seed in range(3)]
    now["s"] += 10 * 86400
    store.tick_age()
    fresh, _ = put_expired(tmp_path, store, 7)
    now["s"] += 86400
    store.tick_age()
    assert cleaned(tmp_path, store, retention_days=12).studies == 0
    assert cleaned(tmp_path, store, retention_days=5, keep_studies=3).studies == 1
    assert keys(store) == {*expired[1:], fresh}, "the oldest first, the newest three stay"
    assert cleaned(tmp_path, store, retention_days=5).studies == 2
    assert keys(store) == {fresh}


def test_it_stops_when_there_is_enough_room(tmp_path: Path, store: Store) -> None:
    for seed in range(4):
        put_expired(tmp_path, store, seed)
    storage = board_of(tmp_path, retention_days=0).storage
    done = clean(tmp_path, store, storage, lambda: len(store.studies()) <= 2, nothing)
    assert (done.studies, len(store.studies()), done.anything) == (2, 2, True)
    assert "studies that another machine keeps: 2" in done.in_words()


def test_an_image_that_comes_after_the_choice_saves_its_study(tmp_path: Path, store: Store) -> None:
    study_key, _ = put_expired(tmp_path, store, 1)
    (chosen,) = store.removable(0, 0)
    put_object(tmp_path, store, 2, study=store.study(study_key).facts.study_instance_uid)  # type: ignore[union-attr]
    assert not store.forget_study(chosen.study_key)
    assert store.signed_report(study_key)
    assert len(files_of(tmp_path)) == 3
    assert not store.forget_study(999)


def test_replaced_pictures_go_and_the_current_one_stays(tmp_path: Path, store: Store) -> None:
    study_key, _ = put_draft(tmp_path, store, 1)
    put_object(tmp_path, store, 2, study=store.study(study_key).facts.study_instance_uid)  # type: ignore[union-attr]
    store.complete_study(study_key)
    assert read_next(tmp_path, store) == study_key
    assert cleaned(tmp_path, store).renderings == 1
    assert [path for path in files_of(tmp_path) if "rendered" in path] == [f"rendered/{study_key}/2/image.png"]
    detail = store.study(study_key)
    assert detail is not None
    assert detail.superseded_reports == ('{"of": 1}',)


def put_quarantined(tmp_path: Path, store: Store, content: bytes, code: str = "dicom.cut") -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    path = quarantine_path(sha256)
    make_directory((tmp_path / path).parent)
    with locked((tmp_path / path).parent):
        write_file(tmp_path / path, content)
        store.add_quarantine(sha256, len(content), str(path), code, "cut", "CR1")
    return str(path)


def test_the_oldest_quarantine_goes(tmp_path: Path, store: Store) -> None:
    paths = [put_quarantined(tmp_path, store, bytes([number]) * 100) for number in range(4)]
    put_quarantined(tmp_path, store, bytes([0]) * 100, "dicom.empty")  # the oldest bytes, with a new fault
    assert store.quarantine_bytes() == 400
    assert trim_quarantine(tmp_path, store, 400) == 0
    assert trim_quarantine(tmp_path, store, 250) == 3
    assert files_of(tmp_path) == sorted([paths[0], paths[3]])
    assert {(row.path, row.code) for row in store.quarantine()} == {(paths[3], "dicom.cut"), (paths[0], "dicom.empty")}


def test_a_removal_that_a_crash_cut_is_finished(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = put_expired(tmp_path, store, 1)
    (chosen,) = store.removable(0, 0)
    assert store.forget_study(chosen.study_key)
    assert sorted(store.removals()) == sorted([path, f"rendered/{chosen.study_key}/1"])
    monkeypatch.setattr(retention, "remove", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        finish_removals(tmp_path, store)
    monkeypatch.undo()
    assert (tmp_path / path).exists()
    again = open_store(tmp_path)
    finish_removals(tmp_path, again)
    assert (files_of(tmp_path), again.removals()) == ([], [])


def test_an_object_that_comes_again_before_its_file_went_stays(tmp_path: Path, store: Store) -> None:
    _, path = put_expired(tmp_path, store, 1)
    (chosen,) = store.removable(0, 0)
    noted = store.removals
    assert store.forget_study(chosen.study_key)
    stale = noted()
    study_key, again = put_object(tmp_path, store, 1)
    assert again == path
    for one in stale:
        retention._remove(tmp_path, store, one)
    assert files_of(tmp_path) == [path]
    assert store.holds_object(path)
    assert (store.removals(), keys(store)) == ([], {study_key})


def test_nothing_outside_the_boxs_own_folders_is_ever_deleted(tmp_path: Path, store: Store) -> None:
    (tmp_path / "update").mkdir()
    for path in ("update/state.json", "spool/objects/../../update/state.json", str(tmp_path / "update/state.json")):
        (tmp_path / "update" / "state.json").write_text("{}")
        store._db.all("INSERT INTO removal VALUES (?)", path)
        finish_removals(tmp_path, store)
        assert (tmp_path / "update" / "state.json").exists()
        assert store.removals() == []


# --- two processes ---

RECEIVER = """
import sys, time
from contextlib import suppress
from pathlib import Path
from edge.durable import DurableFile, locked, make_directory
from edge.errors import StoreError
from edge.store import open_store
from tests.care_box import object_bytes, radiograph
from edge.store import InstanceFacts, StudyFacts, object_path
import hashlib

data_dir, rename_inside, end_s = Path(sys.argv[1]), sys.argv[2] == "inside", time.monotonic() + float(sys.argv[3])
store = open_store(data_dir)
content, names = object_bytes(1), radiograph(1)
sha256 = hashlib.sha256(content).hexdigest()
path = object_path(sha256)
folder = data_dir / path.parent
make_directory(folder)
make_directory(data_dir / "spool/incoming")
uid = str(names.SOPInstanceUID)
answers = {"stored": 0, "duplicate": 0, "refused": 0}
while time.monotonic() < end_s:
    file = DurableFile(data_dir / "spool/incoming")
    file.write(content)
    if not rename_inside:
        file.commit(data_dir / path)
    with locked(folder):
        if rename_inside:
            file.commit(data_dir / path)
        if not (data_dir / path).exists():
            answers["refused"] += 1
            continue
        row = InstanceFacts(uid, "1.2", "1.2", sha256, len(content), str(path), "CR1", time.monotonic())
        answers[store.add_instance(StudyFacts("1.2.3"), row)] += 1
        assert store.holds_object(str(path)) and (data_dir / path).exists()
    key = store.study_key("1.2.3")
    if key is not None:
        with suppress(StoreError):  # removed meanwhile
            store.complete_study(key)
    with locked(folder):
        assert not store.holds_object(str(path)) or (data_dir / path).exists(), "a row without its file"
print(answers["stored"], answers["duplicate"], answers["refused"])
"""


@pytest.mark.parametrize("rename", ["inside", "outside"])
@pytest.mark.requirement("KEEP-07")
def test_two_processes_one_takes_in_what_the_other_removes(tmp_path: Path, store: Store, rename: str) -> None:
    """`inside`: renamed under the lock. `outside`: renamed before, looked at again under the lock, or refused."""
    command = [sys.executable, "-c", RECEIVER, str(tmp_path), rename, "1.5"]
    removed = 0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as receiver:
        while receiver.poll() is None:
            claimed = store.claim_next("w")
            if claimed is None:
                continue
            store.finish_refused(claimed.study_key, "gate.hand", "a hand", {})
            store.mark_exported(claimed.study_key)
            removed += store.forget_study(claimed.study_key)
            finish_removals(tmp_path, store)
        out, err = receiver.communicate()
    assert receiver.returncode == 0, err
    stored, _, refused = map(int, out.split())
    assert stored >= 10
    assert removed >= 10
    assert refused == 0 or rename == "outside"
    finish_removals(tmp_path, store)
    path = object_path(hashlib.sha256(object_bytes(1)).hexdigest())
    assert (tmp_path / path).exists() == store.holds_object(str(path))
