"""`radbox fsck`: is everything here that the database names, is it what was received, and what can be put right?

Looking is always allowed. Repairing needs the data folder for itself; only a damaged database is rebuilt by service
`care` while the other services run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from edge.board import Board
from edge.care.census import object_files
from edge.care.fsck_files import AFTER_A_REBUILD, CHECKS, Scene
from edge.care.fsck_rebuild import finish_rebuild, rebuild
from edge.care.fsck_report import Finding, FsckReport
from edge.errors import StoreError
from edge.store import database_key
from edge.store_check import CheckStore
from edge.store_connection import Connection
from edge.store_guard import Alone, alone, services_run
from edge.store_paths import DAMAGED, DATABASE, QUARANTINE
from edge.store_salvage import examine

_HOPELESS: Final = {"newer": "fsck.database-newer", "locked-away": "fsck.database-locked"}


def main(board: Board, *, repair: bool, as_json: bool) -> int:
    """Print what was found; 0 if nothing was, else 1, repaired or not. Raises StoreError (store.in-use)."""
    report = check(board.data_dir, database_key(), repair)
    if as_json:
        print(json.dumps(report.document(), indent=1))
        return int(not report.clean)
    for finding in report.findings:
        print(f"{finding.severity:9s} {finding.in_words()} [{finding.code}]")
    if report.busy:
        print("Services are running: what they just write was left alone.")
    if report.clean:
        print(f"Clean: {report.objects} images and the database agree.")
    elif not repair and any(finding.code not in _HOPELESS.values() for finding in report.findings):
        print("`radbox fsck --repair` puts right what can be; stop the services first.")
    return int(not report.clean)


def check(
    data_dir: Path,
    key: bytes | None,
    repair: bool,
    *,
    hashes: bool = True,
    alive: Callable[[], None] = lambda: None,
) -> FsckReport:
    """Compare database and files, with `repair` put right what can be.

    hashes: read every byte of every object. alive: called for each object.
    Raises StoreError (store.in-use: services run and `repair` was asked for), StorageError.
    """
    if not data_dir.is_dir():
        return FsckReport(())
    if not repair:
        return _check(data_dir, key, False, services_run(data_dir), hashes, alive)
    with alone(data_dir):
        return _check(data_dir, key, True, False, hashes, alive)


def rebuild_damaged(data_dir: Path, key: bytes | None, alive: Callable[[], None]) -> FsckReport:
    """Rebuild a damaged database while services run, whose uses of it fail meanwhile.

    Raises StoreError: another key or a newer version (nothing is changed), a use that does not end; StorageError.
    """
    with alone(data_dir, beside_services=True):
        condition = examine(data_dir / DATABASE, key)
        if condition.verdict in _HOPELESS:
            code = "store.newer" if condition.verdict == "newer" else "store.key"
            raise StoreError(Finding(_HOPELESS[condition.verdict]).in_words(), code=code)
        findings = list(_database(data_dir, key, True, alive))
        with closing(_open(data_dir, key, repair=True)) as store:
            scene = Scene(data_dir, store, True, False, False, alive)
            for one in AFTER_A_REBUILD:
                findings += one(scene)
        return FsckReport(tuple(findings))


def _check(
    data_dir: Path, key: bytes | None, repair: bool, busy: bool, hashes: bool, alive: Callable[[], None]
) -> FsckReport:
    findings = list(_database(data_dir, key, repair, alive))
    usable = examine(data_dir / DATABASE, key).verdict == "whole" and not (data_dir / DAMAGED).exists()
    if not usable:
        return FsckReport(tuple(findings), 0, busy)
    with closing(_open(data_dir, key, repair)) as store:
        scene = Scene(data_dir, store, repair, busy, hashes, alive)
        for one in CHECKS:
            findings += one(scene)
        return FsckReport(tuple(findings), sum(scene.files.values()), busy)


def _open(data_dir: Path, key: bytes | None, repair: bool) -> CheckStore:
    return CheckStore(Connection(data_dir / DATABASE, key, Alone() if repair else None))


def _database(data_dir: Path, key: bytes | None, repair: bool, alive: Callable[[], None]) -> Iterator[Finding]:
    """How the database is; with `repair` it is whole afterwards, unless it must not be touched."""
    condition = examine(data_dir / DATABASE, key)
    if condition.verdict in _HOPELESS:
        yield Finding(_HOPELESS[condition.verdict])
    elif condition.verdict == "older":
        if repair:
            _open(data_dir, key, repair).close()
        yield Finding("fsck.database-older", repaired=repair)
    elif condition.verdict == "damaged":
        yield from _mend(data_dir, key, "fsck.database-damaged", condition.complaint, repair, alive)
    elif condition.verdict == "missing" and (_holds_files(data_dir) or (data_dir / DAMAGED).exists()):
        yield from _mend(data_dir, key, "fsck.database-missing", "", repair, alive)
    elif (data_dir / DAMAGED).exists():
        if repair:
            finish_rebuild(data_dir)
        yield Finding("fsck.database-marked", repaired=repair)


def _mend(
    data_dir: Path, key: bytes | None, code: str, complaint: str, repair: bool, alive: Callable[[], None]
) -> Iterator[Finding]:
    said = f"SQLite says: {complaint}. " if complaint else ""
    if not repair:
        yield Finding(code, more=said.strip())
        return
    rebuilt = rebuild(data_dir, key, alive)
    yield Finding(code, repaired=True, more=f"{said}In the new one: {rebuilt.in_words()}")
    if rebuilt.unplaced:
        yield Finding("fsck.signature-unplaced", rebuilt.unplaced)


def _holds_files(data_dir: Path) -> bool:
    return any(ours for _, ours in object_files(data_dir)) or any((data_dir / QUARANTINE).glob("*.bin"))
