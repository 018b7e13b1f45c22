"""/metrics, read by Prometheus's own parser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from edge.desk.metrics import MOST_SERIES, Metric, Versions, exposition, metrics
from edge.link.snapshot import take
from edge.store import InstanceFacts, IssueFacts, Store, StudyFacts, boot_id, open_store
from tests.health_store import AGE_S, stocked
from tests.page_store import NAMES, port, serving

VERSIONS = Versions("0.2.0", "3.11.7", 'chest "0.1"\\x\n')


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A box with all that can be told."""
    _, opened = stocked(tmp_path, 1)
    yield opened
    opened.close()


def parsed(store: Store, named: tuple[str, ...] = ()) -> dict[str, list[Sample]]:
    """What Prometheus reads: name -> samples."""
    told = metrics(take(store, boot_id(), time.monotonic()), VERSIONS, store.modalities(), named)
    families = list(text_string_to_metric_families(exposition(told)))
    assert len({one.name for one in families}) == len(families)
    for one in families:
        assert one.name.startswith("radbox_")
        assert one.documentation
        assert one.type in ("gauge", "counter")
        keys = [tuple(sorted(sample.labels.items())) for sample in one.samples]
        assert len(set(keys)) == len(keys)
    return {sample.name: one.samples for one in families for sample in one.samples}


def value(found: dict[str, list[Sample]], name: str, **labels: str) -> float:
    (sample,) = [one for one in found[f"radbox_{name}"] if one.labels == labels]
    return float(sample.value)


def test_everything_is_told_in_the_right_unit(store: Store) -> None:
    found = parsed(store)
    assert value(found, "images_received_total") == 41
    assert value(found, "studies_read_total") == 14  # two were read in the store itself
    assert value(found, "mqtt_dropped_total") == 2
    assert value(found, "info", radbox="0.2.0", python="3.11.7", model=VERSIONS.model) == 1
    assert value(found, "age_seconds") == AGE_S
    assert value(found, "temperature_celsius", sensor="cpu") == 61.2
    assert value(found, "temperature_celsius", sensor="package-id-0") == 58
    assert value(found, "throttled") == 1
    assert value(found, "undervoltage") == 0
    assert value(found, "accelerator_present", device="dev-hailo0") == 0
    assert value(found, "storage_free_bytes") == 20 * 2**30
    assert value(found, "storage_size_bytes") == 60 * 2**30
    assert value(found, "load_1m") == 0.75
    assert value(found, "issues") == 2
    assert value(found, "issue", code="issue.printer", severity="warning") == 1
    assert value(found, "service_state", service="worker") == 1
    assert 0 <= value(found, "service_silent_seconds", service="receive") < 60
    assert value(found, "studies", state="draft") == 2
    assert value(found, "mqtt_connected") == 0
    assert value(found, "mqtt_waiting") == 3
    assert value(found, "printer_state", state="idle") == 1
    assert value(found, "printer_state", state="offline") == 0
    assert sum(one.value for one in found["radbox_state"]) == 1
    assert value(found, "state", state="attention") == 1


def test_a_new_box_tells_little_and_no_nonsense(tmp_path: Path) -> None:
    opened = open_store(tmp_path)
    found = parsed(opened)
    opened.close()
    assert value(found, "issues") == 0
    assert "radbox_temperature_celsius" not in found
    assert "radbox_mqtt_connected" not in found
    assert value(found, "studies", state="queued") == 0


def test_senders_are_named_only_where_the_board_names_them(store: Store) -> None:
    for number in range(100):
        facts = StudyFacts(f"1.2.3.{number}", patient_name="SMITH^JOHN")
        digest = f"{number:064x}"
        store.add_instance(
            facts, InstanceFacts(f"1.2.3.{number}.1", "1.2", "1.2", digest, 10, "p", f"AE{number}", time.monotonic())
        )
    found = parsed(store, ("CR-ROOM-1", "AE7"))
    assert {one.labels["calling_ae"] for one in found["radbox_sender_images_total"]} == {"CR-ROOM-1", "AE7", "other"}
    assert value(found, "sender_images_total", calling_ae="AE7") == 1
    assert value(found, "sender_images_total", calling_ae="other") == 99
    everything = parsed(store, tuple(f"AE{number}" for number in range(100)))
    assert len(everything["radbox_sender_images_total"]) <= MOST_SERIES
    assert sum(one.value for one in everything["radbox_sender_images_total"]) == sum(
        row.images for row in store.modalities()
    )


def test_what_is_no_word_of_ours_is_not_told(store: Store) -> None:
    store.set_service("worker", "ok", "SMITH^JOHN", "SMITH^JOHN")
    store.set_service("SMITH^JOHN", "ok", "", "")
    store.set_issues([IssueFacts("SMITH^JOHN", "SMITH^JOHN", "info", {"name": "SMITH^JOHN"})])
    store.add_counts({"SMITH^JOHN": 1})
    store.set_fact("printer", {"state": "SMITH^JOHN", "message": "SMITH^JOHN"})
    told = exposition(metrics(take(store, boot_id(), 0.0), VERSIONS, store.modalities(), ()))
    assert "smith" not in told.lower()
    assert list(text_string_to_metric_families(told))


def test_labels_and_help_are_escaped() -> None:
    text = exposition([Metric("x", "gauge", "a\\b\nc", (({"l": 'q"\\\n'}, 1.5),)), Metric("y", "counter", "none", ())])
    assert text == '# HELP radbox_x a\\\\b\\nc\n# TYPE radbox_x gauge\nradbox_x{l="q\\"\\\\\\n"} 1.5\n'
    (family,) = text_string_to_metric_families(text)
    assert family.samples[0].labels == {"l": 'q"\\\n'}


def test_the_address_serves_it(tmp_path: Path) -> None:
    board, opened = stocked(tmp_path, port())
    board = replace(board, receive=replace(board.receive, calling_ae=("CR-ROOM-1",)))
    with serving(board) as address:
        answer = httpx.get(f"{address}/metrics")
    opened.close()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {one.name: one for one in text_string_to_metric_families(answer.text)}
    assert found["radbox_images_received"].type == "counter"
    assert found["radbox_info"].samples[0].labels["model"].startswith("chest")
    assert {one.labels["calling_ae"] for one in found["radbox_sender_images"].samples} == {"CR-ROOM-1"}
    for name in NAMES:
        assert name.split("^")[0] not in answer.text.upper()
