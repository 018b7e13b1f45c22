"""Migration, the two locks, a full disk's second try, and a database file that is replaced under open connections."""

from __future__ import annotations

import re
import time
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from edge.durable import allocate
from edge.errors import StorageFullError, StoreError
from edge.store import Store, StudyFacts, open_store
from edge.store_connection import Connection
from edge.store_guard import alone, mark_damaged, mark_whole, services_run
from edge.store_paths import DATABASE, RESERVE
from edge.store_salvage import examine, readable_rows
from edge.store_schema import VERSION
from tests.store_v1 import SCHEMA_1
from tests.test_store import STUDY, instance, state


def shape(database: Path) -> dict[str, object]:
    """Tables as sorted columns with type, NOT NULL, default and key; indexes as their SQL."""
    with closing(apsw.Connection(str(database))) as link:
        names = link.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
        found: dict[str, object] = {}
        for row in names.fetchall():
            kind, name, table, sql = map(str, row)
            if kind == "table":
                columns = link.execute(f"PRAGMA table_xinfo({name})").fetchall()
                found[name] = sorted(column[1:] for column in columns)
                found[f"{name} keys"] = sorted(link.execute(f"PRAGMA foreign_key_list({name})").fetchall())
                found[f"{name} checks"] = sorted(re.findall(r"CHECK \(.*?\)\)|STRICT|AUTOINCREMENT|UNIQUE", sql))
            else:
                found[name] = (table, " ".join(sql.split()))
        found["version"] = link.execute("PRAGMA user_version").fetchall()
        return found


def test_a_database_of_version_1_becomes_like_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    old = tmp_path / "old" / DATABASE
    with closing(apsw.Connection(str(old))) as link:
        link.execute(SCHEMA_1)
        link.execute("PRAGMA user_version = 1")
        link.execute(
            "INSERT INTO study (study_instance_uid, patient_id, patient_name, accession_number, study_date, modality,"
            " study_description, state) VALUES ('1.2.3', 'P1', 'Doe^Jane', 'A1', '20240102', 'CR', 'Thorax', 'draft')"
        )
        reading = "INSERT INTO reading VALUES (NULL, 1, ?, 'draft', '', '', '{}', '', '{}', ?, 0.0)"
        link.executemany(reading, [(1, 1), (2, 0)])
    assert examine(old, None).verdict == "older"
    with closing(open_store(tmp_path / "old")) as store:
        detail = store.study(1)
        assert detail is not None
        assert (detail.state, detail.facts) == ("draft", STUDY)
        store.sign(1, 2, "Dr. B", '{"signed": 1}')
        assert store.signed_report(1) == '{"signed": 1}'
        assert store.tick_age() == 0.0
    open_store(tmp_path / "new").close()
    assert shape(old) == shape(tmp_path / "new" / DATABASE)
    assert examine(old, None) == examine(tmp_path / "new" / DATABASE, None)


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with closing(apsw.Connection(str(tmp_path / DATABASE))) as link:
        link.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = (tmp_path / DATABASE).read_bytes()
    with pytest.raises(StoreError) as caught:
        open_store(tmp_path)
    assert caught.value.code == "store.newer"
    assert examine(tmp_path / DATABASE, None).verdict == "newer"
    assert (tmp_path / DATABASE).read_bytes() == before


# --- the two locks ---


def test_a_repair_by_hand_waits_for_no_service(tmp_path: Path) -> None:
    assert not services_run(tmp_path)
    with closing(open_store(tmp_path)):
        assert services_run(tmp_path)
        with pytest.raises(StoreError) as caught, alone(tmp_path):
            pytest.fail("a service runs")
        assert caught.value.code == "store.in-use"
    with alone(tmp_path), pytest.raises(StoreError) as caught:
        open_store(tmp_path)
    assert caught.value.code == "store.in-repair"
    open_store(tmp_path).close()


def test_idle_connections_are_no_hindrance_to_a_repair_and_find_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with closing(open_store(tmp_path / "new")) as new:
        new.add_event("a.b", "in the new one")
    with closing(open_store(tmp_path)) as store, closing(open_store(tmp_path)) as idle:
        store.add_event("a.b", "in the old one")
        with alone(tmp_path, beside_services=True):
            with pytest.raises(StoreError) as caught:
                store.events()
            assert caught.value.code == "store.in-repair"
            for suffix in ("", "-wal", "-shm"):
                (tmp_path / f"{DATABASE}{suffix}").rename(tmp_path / f"old{suffix}")
            with pytest.raises(StoreError):
                store.add_event("a.b", "never")
        with pytest.raises(StoreError) as caught:
            store.events()
        assert caught.value.code == "store.missing"
        (tmp_path / "new" / DATABASE).rename(tmp_path / DATABASE)
        for one in (store, idle):
            assert [event.message for event in one.events()] == ["in the new one"]
        store.add_event("a.b", "after")
    assert examine(tmp_path / DATABASE, None).verdict == "whole"
    assert [row["message"] for row in readable_rows(tmp_path / "old", None, "event")] == ["in the old one"]


def test_damage_is_marked_and_nobody_opens_it_any_more(tmp_path: Path) -> None:
    with closing(open_store(tmp_path)) as store:
        for number in range(300):
            store.add_event("a.b", "x" * 400 + str(number))
    content = bytearray((tmp_path / DATABASE).read_bytes())
    content[4096 * 35 : 4096 * 39] = b"\xa5" * 4096 * 4
    (tmp_path / DATABASE).write_bytes(content)
    assert examine(tmp_path / DATABASE, None).verdict == "damaged"
    assert 100 < len(readable_rows(tmp_path / DATABASE, None, "event")) < 300
    with closing(open_store(tmp_path)) as store:
        with pytest.raises(StoreError) as caught:
            store.events(1000)
        assert caught.value.code == "store.damaged"
    with pytest.raises(StoreError) as caught:
        open_store(tmp_path)
    assert caught.value.code == "store.damaged"
    mark_whole(tmp_path)
    open_store(tmp_path).close()
    mark_damaged(tmp_path)
    mark_damaged(tmp_path)
    with pytest.raises(StoreError):
        open_store(tmp_path)


def test_examine_tells_what_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite3"
    assert examine(path, None).verdict == "missing"
    path.write_bytes(b"")
    assert examine(path, None).verdict == "missing"
    path.write_bytes(b"not a database" * 1000)
    assert examine(path, None).verdict == "locked-away"
    path.write_bytes(bytes(8192))
    assert examine(path, None).verdict == "damaged"
    open_store(tmp_path / "a", key=b"k" * 32).close()
    assert examine(tmp_path / "a" / DATABASE, b"k" * 32).verdict == "whole"
    assert examine(tmp_path / "a" / DATABASE, None).verdict == "locked-away"
    assert readable_rows(tmp_path / "a" / DATABASE, None, "event") == []


# --- a second try where there was no room ---


class Full:
    """Stands in for the SQLite connection: `COMMIT` finds the disk full once, as SQLite says it (rolled back)."""

    def __init__(self, connection: Connection, times: int, meanwhile=lambda: None) -> None:
        self._db, self._times, self._meanwhile = connection._db, times, meanwhile
        connection._db = self  # type: ignore[assignment]

    def execute(self, sql: str, values=()):
        if sql == "COMMIT" and self._times:
            self._times -= 1
            self._db.execute("ROLLBACK")
            self._meanwhile()
            raise apsw.FullError("database or disk is full")
        return self._db.execute(sql, values)

    def __getattr__(self, name: str):
        return getattr(self._db, name)


def events(store: Store) -> list[str]:
    return [event.message for event in store.events()]


def test_a_commit_without_room_gives_the_reserve_back_and_is_done_again(tmp_path: Path) -> None:
    with closing(open_store(tmp_path)) as store:
        store.add_instance(STUDY, instance("1"))
        allocate(tmp_path / RESERVE, 2**20)
        Full(store._db, 1)
        assert store.add_instance(StudyFacts("1.2.4"), instance("2")) == "stored"
        assert not (tmp_path / RESERVE).exists()
        assert [(row.study_key, row.instance_count) for row in store.studies()] == [(2, 1), (1, 1)]


def test_a_commit_is_not_repeated_over_what_others_wrote_meanwhile(tmp_path: Path) -> None:
    with closing(open_store(tmp_path)) as store, closing(open_store(tmp_path)) as other:
        store.add_instance(STUDY, instance("1"))
        store.complete_study(1)
        Full(store._db, 1, lambda: other.claim_next("other"))
        with pytest.raises(StorageFullError):
            store.claim_next("w")
        assert state(store, 1) == "reading"
        assert store.claim_next("w") is None
        Full(store._db, 1, lambda: other.tick_age())  # what this transaction never looked at
        store.fail(1, "a.b", "broke", retry=True)
        assert state(store, 1) == "queued"


def test_a_disk_that_stays_full_is_told(tmp_path: Path) -> None:
    with closing(open_store(tmp_path)) as store:
        Full(store._db, 2)
        with pytest.raises(StorageFullError) as caught:
            store.add_event("a.b", "no room")
        assert caught.value.code == "storage.full"
        assert events(store) == []
        store.add_event("a.b", "room")
        assert events(store) == ["room"]


# --- age ---


@pytest.mark.parametrize("step_s", [50 * 365.25 * 86400, -50 * 365.25 * 86400])
@pytest.mark.requirement("KEEP-06")
def test_a_clock_that_jumps_by_fifty_years_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    now = {"monotonic": 1000.0, "wall": 1.7e9}
    monkeypatch.setattr(time, "monotonic", lambda: now["monotonic"])
    monkeypatch.setattr(time, "time", lambda: now["wall"])
    with closing(open_store(tmp_path)) as store:
        store.tick_age()
        store.add_instance(STUDY, instance("1"))
        store.complete_study(1)
        store.claim_next("w")
        store.finish_refused(1, "gate.hand", "a hand", {})
        store.mark_exported(1)
        now["wall"] += step_s
        now["monotonic"] += 60
        assert store.tick_age() == pytest.approx(60)
        assert store.removable(61, 0) == []
        assert [one.idle_s for one in store.removable(59, 0)] == [pytest.approx(60)]
        assert store.removable(0, 1) == [], "the newest stay whatever their age"


def test_another_boot_adds_only_its_own_running_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"monotonic": 5000.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["monotonic"])
    with closing(open_store(tmp_path)) as store:
        store.tick_age()
        now["monotonic"] = 5100.0
        assert store.tick_age() == pytest.approx(100)
        store._boot_id = "another boot"
        now["monotonic"] = 7.0
        assert store.tick_age() == pytest.approx(107)
        now["monotonic"] = 17.0
        assert store.tick_age() == pytest.approx(117)
        assert store.age_s() == pytest.approx(117)
        now["monotonic"] = 3.0  # cannot happen within one boot
        assert store.tick_age() == pytest.approx(117), "age never shrinks"
