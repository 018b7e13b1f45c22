"""The states of a study, and that what was recorded stays recorded."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import pytest

from edge.errors import StoreError
from edge.store import InstanceFacts, Store, StudyFacts, database_key, object_path, open_store
from edge.store_schema import EVENTS_KEPT, STATES, TRANSITIONS

STUDY = StudyFacts("1.2.3", "P1", "Doe^Jane", "A1", "20240102", "CR", "Thorax")


def instance(sop: str, sha256: str = "", **other) -> InstanceFacts:
    sha256 = sha256 or f"{sop}-bytes"
    path = str(object_path(sha256))
    return InstanceFacts(sop, "1.2", "1.2.840.10008.1.2.1", sha256, 10, path, "CR1", time.monotonic(), **other)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def key_of(store: Store, study: StudyFacts = STUDY) -> int:
    key = store.study_key(study.study_instance_uid)
    assert key is not None
    return key


def state(store: Store, key: int) -> str:
    detail = store.study(key)
    assert detail is not None
    return detail.state


def queued(store: Store) -> int:
    store.add_instance(STUDY, instance("1"))
    key = key_of(store)
    store.complete_study(key)
    return key


def reading(store: Store) -> int:
    key = queued(store)
    assert store.claim_next("w") is not None
    return key


def test_the_way_of_a_study(store: Store) -> None:
    assert store.add_instance(STUDY, instance("1", receive_s=0.25)) == "stored"
    assert store.add_instance(STUDY, instance("2")) == "stored"
    key = key_of(store)
    assert (state(store, key), store.receiving_studies(), store.claim_next("w")) == ("receiving", [key], None)
    store.complete_study(key)
    assert (state(store, key), store.receiving_studies()) == ("queued", [])
    claimed = store.claim_next("w")
    assert claimed is not None
    assert (claimed.study_key, claimed.attempt, claimed.same_boot) == (key, 1, True)
    assert [row.sop_instance_uid for row in claimed.instances] == ["1", "2"]
    assert claimed.instances[0].receive_s == 0.25
    assert claimed.last_received_monotonic_s == claimed.instances[1].received_monotonic_s
    assert store.claim_next("w") is None
    store.finish_draft(key, '{"a": 1}', "rendered/1/1", {"total": 0.5})
    detail = store.study(key)
    assert detail is not None
    assert (detail.state, detail.report_json, detail.rendered) == ("draft", '{"a": 1}', "rendered/1/1")
    assert (detail.timings_s, detail.facts, detail.attempt) == ({"total": 0.5}, STUDY, 1)


def test_same_instance_twice_is_one_row(store: Store) -> None:
    store.add_instance(STUDY, instance("1"))
    assert store.add_instance(STUDY, instance("1")) == "duplicate"
    assert store.studies()[0].instance_count == 1
    assert store.events() == []


@pytest.mark.requirement("RCV-07")
def test_same_uid_with_other_bytes_is_kept_apart_and_reported(store: Store) -> None:
    key = reading(store)
    store.finish_draft(key, "{}", "", {})
    assert store.add_instance(STUDY, instance("1", "other")) == "conflict"
    assert store.add_instance(STUDY, instance("1", "other")) == "duplicate"
    detail = store.study(key)
    assert detail is not None
    assert [row.sha256 for row in detail.instances] == ["1-bytes", "other"]
    assert [row.sha256 for row in detail.conflicts] == ["other"]
    assert detail.state == "draft", "nothing new to read"
    assert [(event.code, event.study_key) for event in store.events()] == [("intake.uid-conflict", key)]


def test_conflicting_bytes_are_not_read_but_another_patients_are(store: Store) -> None:
    store.add_instance(STUDY, instance("1"))
    store.add_instance(STUDY, instance("1", "other"))
    other = StudyFacts("9.9", "P2")
    assert store.add_instance(other, instance("1", "third")) == "conflict"
    for facts, expected in ((STUDY, ["1-bytes"]), (other, ["third"])):
        store.complete_study(key_of(store, facts))
        claimed = store.claim_next("w")
        assert claimed is not None
        assert [row.sha256 for row in claimed.instances] == expected


@pytest.mark.parametrize("outcome", ["draft", "refused", "failed"])
def test_more_images_bring_a_finished_study_back(store: Store, outcome: str) -> None:
    key = reading(store)
    if outcome == "draft":
        store.finish_draft(key, '{"first": 1}', "rendered/1/1", {})
    elif outcome == "refused":
        store.finish_refused(key, "gate.hand", "a hand", {})
    else:
        store.fail(key, "worker.broke", "it broke", retry=False)
    assert state(store, key) == outcome
    store.add_instance(STUDY, instance("2"))
    detail = store.study(key)
    assert detail is not None
    assert (detail.state, detail.code, detail.report_json) == ("receiving", "", "")
    assert detail.superseded_reports == (('{"first": 1}',) if outcome == "draft" else ())
    store.complete_study(key)
    claimed = store.claim_next("w")
    assert claimed is not None
    assert (claimed.attempt, len(claimed.instances)) == (2, 2)


@pytest.mark.parametrize("complete_first", [True, False])
def test_images_that_arrive_while_reading_are_read_afterwards(store: Store, complete_first: bool) -> None:
    key = reading(store)
    store.add_instance(STUDY, instance("2"))
    assert (state(store, key), store.receiving_studies()) == ("reading", [key])
    if complete_first:
        store.complete_study(key)
        assert store.receiving_studies() == []
    store.finish_draft(key, "{}", "", {})
    assert state(store, key) == ("queued" if complete_first else "receiving")
    store.complete_study(key)
    claimed = store.claim_next("w")
    assert claimed is not None
    assert [row.sop_instance_uid for row in claimed.instances] == ["1", "2"]
    store.finish_draft(key, "{}", "", {})
    assert state(store, key) == "draft"


def test_a_completed_study_is_not_completed_again(store: Store) -> None:
    key = reading(store)
    store.complete_study(key)
    assert state(store, key) == "reading"
    store.finish_draft(key, "{}", "", {})
    store.complete_study(key)
    assert state(store, key) == "draft"


def test_a_worker_that_dies_again_and_again(store: Store) -> None:
    key = queued(store)
    for attempt in (1, 2):
        claimed = store.claim_next("w")
        assert claimed is not None
        assert claimed.attempt == attempt
        assert store.requeue_stale(max_attempts=3) == [key]
    assert store.claim_next("w") is not None
    assert store.requeue_stale(max_attempts=3) == []
    detail = store.study(key)
    assert detail is not None
    assert (detail.state, detail.code) == ("failed", "worker.died-repeatedly")
    store.add_instance(STUDY, instance("2"))
    store.complete_study(key)
    claimed = store.claim_next("w")
    assert claimed is not None
    assert claimed.attempt == 4, "folders of rendered images never repeat"
    assert store.requeue_stale(max_attempts=3) == [key], "new images, new attempts"


def test_fail_retries_as_often_as_allowed(store: Store) -> None:
    key = reading(store)
    store.fail(key, "worker.slow", "too slow", retry=True, max_attempts=2)
    assert state(store, key) == "queued"
    assert store.claim_next("w") is not None
    store.fail(key, "worker.slow", "too slow", retry=True, max_attempts=2)
    detail = store.study(key)
    assert detail is not None
    assert (detail.state, detail.code, detail.message) == ("failed", "worker.slow", "too slow")


@pytest.mark.requirement("READ-05")
def test_only_the_tables_transitions_happen(store: Store) -> None:
    key = queued(store)
    for wrong in (
        lambda: store.finish_draft(key, "{}", "", {}),
        lambda: store.finish_refused(key, "c", "m", {}),
        lambda: store.fail(key, "c", "m", retry=True),
        lambda: store.finish_draft(999, "{}", "", {}),
    ):
        with pytest.raises(StoreError):
            wrong()
    assert state(store, key) == "queued"
    assert {name for pair in TRANSITIONS for name in pair} == set(STATES)
    assert all(pair[0] != "signed" for pair in TRANSITIONS), "what was signed stays"


def test_images_after_signing_are_kept_and_reported(store: Store, tmp_path: Path) -> None:
    key = reading(store)
    store.finish_draft(key, "{}", "", {})
    apsw.Connection(str(tmp_path / "radbox.sqlite3")).execute("UPDATE study SET state = 'signed'")
    assert store.add_instance(STUDY, instance("2")) == "stored"
    detail = store.study(key)
    assert detail is not None
    assert (detail.state, len(detail.instances), detail.report_json) == ("signed", 2, "{}")
    assert [event.code for event in store.events()] == ["intake.images-after-signing"]


def test_facts_fill_up_and_contradictions_are_reported(store: Store) -> None:
    store.add_instance(StudyFacts("1.2.3", "P1"), instance("1"))
    store.add_instance(StudyFacts("1.2.3", "P1", "Doe^Jane", modality="CR"), instance("2"))
    store.add_instance(StudyFacts("1.2.3", "P2", "Roe^John", modality="DX"), instance("3"))
    summary = store.studies()[0]
    assert (summary.patient_id, summary.patient_name, summary.modality) == ("P1", "Doe^Jane", "CR")
    assert [event.code for event in store.events()] == ["intake.patient-contradiction"]
    assert not any(word in event.message for event in store.events() for word in ("P2", "Roe", "1.2.3"))


def test_newest_first_and_pages(store: Store) -> None:
    for number in range(5):
        store.add_instance(StudyFacts(f"1.{number}"), instance(f"{number}"))
    store.add_instance(StudyFacts("1.1"), instance("late"))
    assert [row.study_instance_uid for row in store.studies()] == ["1.1", "1.4", "1.3", "1.2", "1.0"]
    assert [row.study_instance_uid for row in store.studies(limit=2, offset=1)] == ["1.4", "1.3"]
    assert store.study(999) is None


def test_quarantine_counts_repetitions(store: Store) -> None:
    for _ in range(3):
        store.add_quarantine("aa", 7, "quarantine/aa.bin", "dicom.cut", "cut", "CR1")
    store.add_quarantine("bb", 8, "quarantine/bb.bin", "dicom.cut", "cut", "CR1")
    assert [(row.sha256, row.times) for row in store.quarantine()] == [("bb", 1), ("aa", 3)]


def test_services_and_events(store: Store) -> None:
    store.set_service("worker", "ok", "", "")
    store.set_service("worker", "paused", "bundle.invalid", "the model is damaged")
    (row,) = store.services()
    assert (row.name, row.state, row.code) == ("worker", "paused", "bundle.invalid")
    assert row.monotonic_s <= time.monotonic()
    with pytest.raises(StoreError):
        store.set_service("worker", "happy", "", "")  # type: ignore[arg-type]
    store.add_event("a.b", "something")
    assert [(event.code, event.study_key) for event in store.events(1)] == [("a.b", None)]


def test_events_do_not_grow_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert EVENTS_KEPT >= 1000
    monkeypatch.setattr("edge.store_base.EVENTS_KEPT", 3)
    for number in range(6):
        store.add_event("a.b", str(number))
    assert [event.message for event in store.events()] == ["5", "4", "3"]


@pytest.mark.requirement("READ-05")
def test_many_claimers_one_claim(tmp_path: Path, store: Store) -> None:
    for number in range(8):
        store.add_instance(StudyFacts(f"1.{number}"), instance(f"{number}"))
        store.complete_study(key_of(store, StudyFacts(f"1.{number}")))
    stores = [open_store(tmp_path) for _ in range(4)]

    def claim_all(one: Store) -> list[int]:
        claimed = []
        while (study := one.claim_next("w")) is not None:
            claimed.append(study.study_key)
        return claimed

    with ThreadPoolExecutor(4) as pool:
        claimed = [key for keys in pool.map(claim_all, stores) for key in keys]
    assert sorted(claimed) == list(range(1, 9))


def test_one_store_serves_many_threads(store: Store) -> None:
    def add(number: int) -> str:
        return store.add_instance(STUDY, instance(str(number % 20)))

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(add, range(60)))
    assert outcomes.count("stored") == 20
    assert outcomes.count("duplicate") == 40


@pytest.mark.requirement("RCV-01")
def test_rows_survive_and_are_durable_by_settings(tmp_path: Path, store: Store) -> None:
    key = queued(store)
    again = open_store(tmp_path)
    assert state(again, key) == "queued"
    assert again._db.one("PRAGMA synchronous") == (2,)
    assert again._db.one("PRAGMA journal_mode") == ("wal",)
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    assert version >= (3, 51, 3), "an older SQLite damages WAL databases that two processes write"


@pytest.mark.requirement("SEC-07")
def test_at_rest_key(tmp_path: Path) -> None:
    store = open_store(tmp_path, key=b"k" * 32)
    store.add_instance(STUDY, instance("1"))
    store.close()
    content = b"".join(path.read_bytes() for path in tmp_path.glob("radbox.sqlite3*"))
    assert b"Doe^Jane" not in content
    assert b"SQLite format 3" not in content
    assert open_store(tmp_path, key=b"k" * 32).studies()[0].patient_name == "Doe^Jane"
    for wrong in (None, b"x" * 32):
        with pytest.raises(StoreError) as caught:
            open_store(tmp_path, key=wrong)
        assert caught.value.code == "store.key"


@pytest.mark.requirement("SEC-07")
def test_key_comes_from_systemds_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert database_key() is None
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert database_key() is None
    (tmp_path / "radbox-db-key").write_bytes(b"secret")
    assert database_key() == b"secret"


def test_a_newer_or_damaged_database_is_not_touched(tmp_path: Path) -> None:
    newer, damaged = tmp_path / "newer", tmp_path / "damaged"
    open_store(newer).close()
    apsw.Connection(str(newer / "radbox.sqlite3")).execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="99") as caught:
        open_store(newer)
    assert caught.value.code == "store.newer"
    damaged.mkdir()
    (damaged / "radbox.sqlite3").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError):
        open_store(damaged)
    assert (damaged / "radbox.sqlite3").read_bytes() == b"not a database" * 1000


def test_a_study_that_retention_removed_needs_no_completion(store: Store) -> None:
    key = queued(store)
    assert store.claim_next("w") is not None
    store.finish_refused(key, "gate.view", "no frontal image", {})
    store.mark_exported(key)
    assert store.forget_study(key)
    store.complete_study(key)
    assert store.studies() == []
