"""A new database from the stored images, with what can still be read of the old one, which is kept.

Whenever power fails, `radbox.damaged` is there until the new database bears the name: no service opens anything else.
Every study waits to be read again, except those whose report was signed.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge.care.census import object_files
from edge.care.fsck_objects import read_object
from edge.durable import disk_use, make_directory, remove
from edge.durable_names import remove_tree, rename
from edge.errors import DicomError, StoreError
from edge.store import InstanceFacts, StudyFacts
from edge.store_check import CheckStore
from edge.store_connection import Connection
from edge.store_guard import Alone, mark_damaged, mark_whole
from edge.store_paths import DATABASE, KEPT_ASIDE, RENDERED, RESERVE, rendered_path
from edge.store_salvage import readable_rows

REBUILD: Final = Path("rebuild")
_BATCH: Final = 200
_OLDEST_S: Final = 200 * 365 * 86_400.0
_NEEDED_TIMES: Final = 2
_LOG = logging.getLogger("radbox.care")


@dataclass(frozen=True)
class Rebuilt:
    """What the new database holds. `kept`: folder of the old one, relative to the data folder, "" if there is none.

    `unplaced`: signed reports that could not be taken over. `unreadable`: objects that are none, relative paths.
    """

    studies: int
    objects: int
    signed: int
    unplaced: int
    kept: str
    unreadable: tuple[str, ...]

    def in_words(self) -> str:
        """For people."""
        kept = f" The old database is kept in {self.kept}." if self.kept else ""
        held = f"studies: {self.studies}, images: {self.objects}, signed reports taken over: {self.signed}"
        return f"{held}.{kept}"


@dataclass(frozen=True)
class _Old:
    """Rows that can still be read; `key_of`: the old key of a study, by its UID and by the path of its objects."""

    arrivals: Mapping[str, Mapping[str, Any]]
    key_of: Mapping[str, int]
    attempts: Mapping[int, int]
    readings: tuple[Mapping[str, Any], ...]
    signatures: tuple[Mapping[str, Any], ...]
    others: Mapping[str, tuple[Mapping[str, Any], ...]]
    age_s: float


@dataclass
class _Count:
    objects: int = 0
    signed: int = 0
    unplaced: int = 0
    unreadable: list[str] = field(default_factory=list)


def rebuild(data_dir: Path, key: bytes | None, alive: Callable[[], None]) -> Rebuilt:
    """Move the database aside and make a new one. The caller is `edge.store_guard.alone`; may be cut and run again.

    alive: called from time to time. Raises StorageError, StoreError.
    """
    mark_damaged(data_dir)
    _make_room(data_dir)
    kept = _move_aside(data_dir)
    remove_tree(data_dir / REBUILD)
    old = _read_old(data_dir / kept / DATABASE, key) if kept else _read_old(None, key)
    count = _Count()
    path = data_dir / REBUILD / DATABASE
    with closing(CheckStore(Connection(path, key, Alone()))) as store:
        store.hurry()
        _fill(data_dir, store, old, count, alive)
        studies = store.study_count()
        store.settle()
    rename(path, data_dir / DATABASE)
    finish_rebuild(data_dir)
    return Rebuilt(studies, count.objects, count.signed, count.unplaced, kept, tuple(count.unreadable))


def finish_rebuild(data_dir: Path) -> None:
    """The database that bears the name is whole: services may open it. Raises StorageError."""
    remove_tree(data_dir / REBUILD)
    mark_whole(data_dir)


def _make_room(data_dir: Path) -> None:
    """The new database is about as large as the old one."""
    old = data_dir / DATABASE
    needed = _NEEDED_TIMES * (old.stat().st_size if old.exists() else 0) + (data_dir / RESERVE).exists()
    if disk_use(data_dir).free < needed:
        remove(data_dir / RESERVE)


def _move_aside(data_dir: Path) -> str:
    """The database with its WAL into damaged/<n>, the database first; returns the newest such folder, "" for none.

    A move that was cut goes on into the same folder.
    """
    aside = data_dir / KEPT_ASIDE
    numbers = [int(path.name) for path in aside.iterdir() if path.name.isdecimal()] if aside.is_dir() else []
    number = max(numbers, default=0)
    names = [f"{DATABASE}{suffix}" for suffix in ("", "-wal", "-shm")]
    there = [name for name in names if (data_dir / name).exists()]
    if there and (not number or (aside / str(number) / there[0]).exists()):
        number += 1
    for name in there:
        make_directory(aside / str(number))
        rename(data_dir / name, aside / str(number) / name)
    return str(KEPT_ASIDE / str(number)) if number else ""


def _read_old(database: Path | None, key: bytes | None) -> _Old:
    """What is left of the old database. Nothing of it is believed that would let an image be deleted."""

    def rows(table: str) -> list[dict[str, Any]]:
        return readable_rows(database, key, table) if database and database.exists() else []

    instances, studies = rows("instance"), rows("study")
    key_of = {str(row["path"]): row["study_key"] for row in instances}
    key_of |= {str(row["study_instance_uid"]): row["study_key"] for row in studies}
    ages = [row["age_s"] for row in rows("box") if isinstance(row["age_s"], float) and 0 <= row["age_s"] < _OLDEST_S]
    return _Old(
        arrivals={str(row["path"]): row for row in instances},
        key_of={name: study_key for name, study_key in key_of.items() if isinstance(study_key, int)},
        attempts={row["study_key"]: row["attempt"] for row in studies if isinstance(row["attempt"], int)},
        readings=tuple(rows("reading")),
        signatures=tuple(rows("signature")),
        others={table: tuple(rows(table)) for table in ("quarantine", "event")},
        age_s=max(ages, default=0.0),
    )


def _fill(data_dir: Path, store: CheckStore, old: _Old, count: _Count, alive: Callable[[], None]) -> None:
    store.set_age(old.age_s)
    _start_keys(data_dir, store, old)
    placed: dict[int, int] = {}  # old study key -> new one
    batch: list[tuple[StudyFacts, InstanceFacts]] = []
    for facts in _objects(data_dir, old, count):
        batch.append(facts)
        if len(batch) == _BATCH:
            _add(store, old, batch, placed)
            alive()
    _add(store, old, batch, placed)
    _take_over(data_dir, store, old, placed, count)
    for study_key in store.receiving_studies():
        store.complete_study(study_key)


def _start_keys(data_dir: Path, store: CheckStore, old: _Old) -> None:
    """Keys that files on the disk or old rows bear are not given to other studies."""
    rendered = data_dir / RENDERED
    named = [int(path.name) for path in rendered.iterdir() if path.name.isdecimal()] if rendered.is_dir() else []
    store.start_keys_after("study", max([*named, *old.key_of.values()], default=0))
    events = [row["event_key"] for row in old.others["event"] if isinstance(row["event_key"], int)]
    store.start_keys_after("event", max(events, default=0))


def _objects(data_dir: Path, old: _Old, count: _Count) -> Iterator[tuple[StudyFacts, InstanceFacts]]:
    """Every object, in the old order of arrival as far as it is known; then by the time of its file."""

    def order(path: str) -> tuple[float, int, str]:
        arrival = old.arrivals.get(path, {}).get("instance_key")
        return (arrival if isinstance(arrival, int) else math.inf, (data_dir / path).stat().st_mtime_ns, path)

    for path in sorted((path for path, ours in object_files(data_dir) if ours), key=order):
        try:
            facts = read_object(data_dir, path, str(old.arrivals.get(path, {}).get("calling_ae", "")))
        except (DicomError, OSError):
            count.unreadable.append(path)
        else:
            count.objects += 1
            yield facts


def _add(store: CheckStore, old: _Old, batch: list[tuple[StudyFacts, InstanceFacts]], placed: dict[int, int]) -> None:
    for study, instance in batch:
        old_key = old.key_of.get(study.study_instance_uid, old.key_of.get(instance.path, 0))
        if old_key > 0:
            store.place_study(old_key, study, max(0, old.attempts.get(old_key, 0)))
    for (study, instance), added in zip(batch, store.add_instances(batch), strict=True):
        for name in (study.study_instance_uid, instance.path):
            if name in old.key_of:
                placed.setdefault(old.key_of[name], added.study_key)
    batch.clear()


def _take_over(data_dir: Path, store: CheckStore, old: _Old, placed: Mapping[int, int], count: _Count) -> None:
    """Signed reports, earlier readings, the quarantine's reasons, events: each row that still makes sense."""
    signed: set[tuple[int, int]] = set()
    for row in old.signatures:
        folder = rendered_path(row["study_key"], row["attempt"])
        rendered = str(folder) if (data_dir / folder).is_dir() else ""
        taken = row["study_key"] in placed and _attempt(
            lambda: store.add_signed(placed[row["study_key"]], row, rendered)  # noqa: B023 - called at once
        )
        signed |= {(row["study_key"], row["attempt"])} if taken else set()
        count.unplaced += not taken
    count.signed = len(signed)
    for row in old.readings:
        rendered = str(row["rendered"]) if (data_dir / str(row["rendered"])).is_dir() else ""
        columns = {name: value for name, value in row.items() if name not in ("reading_key", "study_key")}
        is_signed = (row["study_key"], row["attempt"]) in signed
        if not is_signed and row["study_key"] in placed and _is_json(row["report_json"]):
            new = {**columns, "rendered": rendered, "superseded": 1}
            _attempt(lambda: store.add_reading(placed[row["study_key"]], new))  # noqa: B023 - called at once
    for row in old.others["quarantine"]:
        if (data_dir / str(row["path"])).is_file():
            _attempt(lambda: store.add_row("quarantine", row))  # noqa: B023 - called at once
    for row in old.others["event"]:
        study_key = placed.get(row["study_key"])
        _attempt(lambda: store.add_row("event", {**row, "study_key": study_key}))  # noqa: B023 - called at once


def _attempt(step: Callable[[], None]) -> bool:
    """False for a row that damage has made impossible."""
    try:
        step()
    except (StoreError, KeyError) as error:
        _LOG.warning("a row of the damaged database was left out: %s", type(error).__name__)
        return False
    return True


def _is_json(text: object) -> bool:
    try:
        return text == "" or isinstance(json.loads(str(text)), dict)
    except ValueError:
        return False
