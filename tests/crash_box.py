"""A data folder after a crash: start the services' way, look at everything in it, compare with what was promised."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from edge.durable import make_directory, sweep
from edge.store import INCOMING, Store, StudyDetail, open_store, quarantine_path
from tools.crash.box import ENDED, database_faults, half_report, studies
from tools.crash.trace import Mark, mark

MAX_ATTEMPTS = 3
RECOVERED = "{}"  # the report that recovery writes
NO_REPORTS = (RECOVERED, '{"report": 1}')  # of scenarios in which no worker takes part


@dataclass
class Found:
    """What lay there after the services had started. `wrong`: what must not be, whatever was promised."""

    wrong: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)  # SOP Instance UID -> sha256 of row and file
    claimed: collections.Counter[str] = field(default_factory=collections.Counter)
    before: dict[str, StudyDetail] = field(default_factory=dict)  # by Study Instance UID, as the crash left them
    signed: dict[str, str] = field(default_factory=dict)
    quarantined: set[str] = field(default_factory=set)  # sha256


def recover(data_dir: Path) -> Found:
    """Start receiver and worker as they do, read what waits, and look at everything."""
    found = Found()
    with closing(open_store(data_dir)) as store:
        found.wrong += database_faults(data_dir)
        for folder in (INCOMING, quarantine_path("").parent):
            make_directory(data_dir / folder)
        sweep(data_dir / INCOMING)
        found.wrong += [f"{path.name} left in incoming" for path in (data_dir / INCOMING).iterdir()]
        for study in studies(store):
            _look_at(found, data_dir, store, study)
        found.quarantined = {row.sha256 for row in store.quarantine(10_000) if (data_dir / row.path).exists()}
        _read_what_waits(found, store)
    with closing(open_store(data_dir)) as store:  # and once more: recovery is not undone by the next start
        found.wrong += [
            f"study in state {one.state} after recovery" for one in studies(store) if one.state not in ENDED
        ]
        if store.requeue_stale(MAX_ATTEMPTS):
            found.wrong.append("a second start found a study still being read")
    return found


def _look_at(found: Found, data_dir: Path, store: Store, study: StudyDetail) -> None:
    found.before[study.facts.study_instance_uid] = study
    for row in study.instances:
        path = data_dir / row.path
        if not path.exists():
            found.wrong.append("a row without its file")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != row.sha256:
            found.wrong.append("a file with other bytes than its row says")
        else:
            found.kept[row.sop_instance_uid] = row.sha256
    found.wrong += half_report(data_dir, study, NO_REPORTS)
    if study.state == "signed":
        found.signed[study.facts.study_instance_uid] = store.signed_report(study.summary.study_key) or ""


def _read_what_waits(found: Found, store: Store) -> None:
    store.requeue_stale(MAX_ATTEMPTS)
    for study_key in store.receiving_studies():
        store.complete_study(study_key)
    while (claimed := store.claim_next("recovery")) is not None:
        found.claimed.update(row.sop_instance_uid for row in claimed.instances)
        store.finish_draft(claimed.study_key, RECOVERED, "", {})


def check(found: Found, marks: Sequence[Mark]) -> list[str]:
    """Broken promises. Marks: received (sop, sha256), draft (study, report_sha256), signed (study, report_sha256)."""
    wrong = list(found.wrong)
    wrong += ["an object was claimed twice" for times in found.claimed.values() if times > 1]
    gone = {facts["study"] for facts in _facts(marks, "forgetting")}
    drafts = {facts["study"]: facts["report_sha256"] for facts in _facts(marks, "draft")}
    for facts in _facts(marks, "received"):
        if facts["study"] in gone:
            continue
        if found.kept.get(facts["sop"]) != facts["sha256"]:
            wrong.append("an acknowledged object is not there")
        if found.claimed[facts["sop"]] + _is_ended(found, facts["study"]) != 1:
            wrong.append("an acknowledged object is not read exactly once")
    for study, sha256 in drafts.items():
        if study not in gone and sha256_of(found.before[study].report_json if study in found.before else "") != sha256:
            wrong.append("a finished draft is not there")
    for facts in _facts(marks, "signed"):
        if facts["study"] not in gone and sha256_of(found.signed.get(facts["study"], "")) != facts["report_sha256"]:
            wrong.append("a signed report is not there")
    missing = {facts["sha256"] for facts in _facts(marks, "quarantined")} - found.quarantined
    return wrong + ["quarantined bytes are not there" for _ in missing]


def _facts(marks: Sequence[Mark], kind: str) -> list[dict[str, str]]:
    return [dict(one.facts) for one in marks if one.kind == kind]


def _is_ended(found: Found, study: str) -> bool:
    return study in found.before and found.before[study].state in ENDED


def sha256_of(text: str) -> str:
    """Hex digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def mark_after(place: type, name: str, facts: Callable[..., dict[str, object]]) -> None:
    """In a recorded process: after each call of `place.name` returned, remark `facts(*arguments)` ("kind" included)."""
    real = getattr(place, name)

    def marking(*arguments: object, **named: object) -> object:
        answer = real(*arguments, **named)
        mark(**facts(*arguments, **named))  # type: ignore[arg-type]
        return answer

    setattr(place, name, marking)
