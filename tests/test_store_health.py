"""The box's own rows: facts, totals, history, senders, issues, requests, the outbox."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import StoreError
from edge.store import InstanceFacts, IssueFacts, Store, StudyFacts, boot_id, open_store
from edge.store_schema import MODALITIES_KEPT, REQUESTS_KEPT, SAMPLES_KEPT


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def test_a_fact_is_replaced_and_outlives_its_writer(store: Store, tmp_path: Path) -> None:
    store.set_fact("clock", {"state": "unset"})
    store.set_fact("clock", {"state": "set", "drift_s": 0.5})
    again = open_store(tmp_path)
    row = again.facts()["clock"]
    again.close()
    assert row.value == {"state": "set", "drift_s": 0.5}
    assert row.boot_id == boot_id()
    assert 0 <= time.monotonic() - row.monotonic_s < 60


def test_a_fact_that_is_no_json_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        store.set_fact("hardware", {"temperature": float("nan")})
    assert store.facts() == {}


def test_totals_only_grow_and_add_up(store: Store) -> None:
    store.add_counts({"images_received": 3, "associations": 1, "imports": 0})
    store.add_counts({"images_received": 2})
    assert store.counts() == {"associations": 1, "images_received": 5}


def test_history_is_in_order_and_bounded(store: Store) -> None:
    for number in range(SAMPLES_KEPT + 5):
        store.add_samples({"temperature_c": number})
    store.add_samples({"free_percent": 50})
    kept = [value for _, value in store.samples("temperature_c")]
    assert kept == list(range(5, SAMPLES_KEPT + 5))
    assert [value for _, value in store.samples("temperature_c", 2)] == kept[-2:]
    assert len(store.samples("free_percent")) == 1


def _send(store: Store, number: int, calling_ae: str) -> None:
    instance = InstanceFacts(
        f"1.2.{number}", "1.1", "1.2", f"{number:064x}", 10, f"p{number}", calling_ae, 5.0 + number
    )
    store.add_instances([(StudyFacts("1.9"), instance)])


def test_senders_are_remembered_the_newest_of_them(store: Store) -> None:
    for number in range(3):
        _send(store, number, "XRAY")
    _send(store, 3, "US")
    _send(store, 0, "XRAY")  # a duplicate is no image
    rows = {row.calling_ae: row for row in store.modalities()}
    assert {name: row.images for name, row in rows.items()} == {"XRAY": 3, "US": 1}
    assert rows["XRAY"].last_monotonic_s == 7.0
    for number in range(4, 4 + MODALITIES_KEPT):
        _send(store, number, f"AE{number}")
    assert len(store.modalities()) == MODALITIES_KEPT
    assert "XRAY" not in {row.calling_ae for row in store.modalities()}


def test_issues_keep_their_time_and_go_when_they_are_over(store: Store) -> None:
    store.tick_age()
    full = IssueFacts("issue.disk-full", "", "critical", {"free_bytes": 10})
    silent = IssueFacts("issue.modality-silent", "XRAY", "warning", {"hours": 30})
    store.set_issues([silent, full])
    first = store.issues()
    assert [row.code for row in first] == ["issue.disk-full", "issue.modality-silent"]
    store.put_off_issue("issue.modality-silent", "XRAY", 3600.0)
    store.set_issues([silent, IssueFacts("issue.disk-full", "", "warning", {"free_bytes": 20})])
    after = {row.code: row for row in store.issues()}
    assert after["issue.disk-full"].severity == "warning"
    assert after["issue.disk-full"].values == {"free_bytes": 20}
    assert after["issue.disk-full"].since_unix_s == first[0].since_unix_s
    assert after["issue.modality-silent"].put_off_until_age_s >= 3600.0
    store.set_issues([])
    assert store.issues() == []
    store.set_issues([silent])
    assert store.issues()[0].put_off_until_age_s == 0


def test_a_request_is_answered_once(store: Store) -> None:
    key = store.ask("grabber.freeze", {"seconds": 1})
    other = store.ask("storage.clean", {})
    assert [row.request_key for row in store.asked()] == [key, other]
    assert [row.action for row in store.asked("grabber.")] == ["grabber.freeze"]
    store.answer(key, "done", "Taken.")
    row = store.request(key)
    assert row is not None
    assert (row.action, row.values, row.code, row.message) == ("grabber.freeze", {"seconds": 1}, "done", "Taken.")
    with pytest.raises(StoreError) as caught:
        store.answer(key, "done", "Again.")
    assert caught.value.code == "store.request"
    assert [row.request_key for row in store.asked()] == [other]
    assert store.request(99) is None


def test_old_requests_go(store: Store) -> None:
    keys = [store.ask("storage.clean", {}) for _ in range(REQUESTS_KEPT + 2)]
    assert store.request(keys[1]) is None
    assert store.request(keys[2]) is not None


def test_the_outbox_keeps_order_across_a_restart_and_drops_the_oldest(store: Store, tmp_path: Path) -> None:
    assert [store.put_out("event", str(number), 3) for number in range(5)] == [0, 0, 0, 1, 1]
    again = open_store(tmp_path)
    waiting = again.outbox()
    again.close()
    assert [row.payload for row in waiting] == ["2", "3", "4"]
    store.sent(waiting[0].outbox_key)
    assert [row.payload for row in store.outbox(1)] == ["3"]


def test_studies_are_counted_by_state(store: Store) -> None:
    assert set(store.study_counts().values()) == {0}
    _send(store, 1, "XRAY")
    counts = store.study_counts()
    assert counts.pop("receiving") == 1
    assert set(counts.values()) == {0}


def test_what_became_of_studies_is_counted_with_it(store: Store) -> None:
    _send(store, 1, "XRAY")
    key = store.study_key("1.9")
    assert key is not None
    store.complete_study(key)
    store.claim_next("factory")
    store.finish_refused(key, "gate.blank", "blank", {})
    assert store.counts() == {"studies_refused": 1}
