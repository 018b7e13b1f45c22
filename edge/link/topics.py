"""What the box says over MQTT: a snapshot -> topics and payloads. Pure.

    <topic>/<box id>/status     online | offline     retained; the last will says offline
    <topic>/<box id>/health     Health               retained
    <topic>/<box id>/counters   Counters             retained
    <topic>/<box id>/hardware   Hardware             retained
    <topic>/<box id>/issue      Issue                one for each new issue, kept until it was delivered

Nothing of a patient can be in them: the payloads are the closed dataclasses below, whose leaves are numbers, flags and
words. A word is a code or a name of this program (`word`), or a title of `issue_titles`. Messages, subjects of issues
and AE titles, which somebody else has written, are not told.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from edge.errors import ConfigError
from edge.issue_titles import title
from edge.link.snapshot import Snapshot
from edge.store_rows import IssueRow

MACHINE_ID: Final = Path("/etc/machine-id")
STATUS, HEALTH, COUNTERS, HARDWARE, ISSUE = "status", "health", "counters", "hardware", "issue"
ONLINE, OFFLINE = "online", "offline"
UNLISTED: Final = "unlisted"  # in the place of a word that is none
MOST: Final = 64  # of services, issues, totals, sensors in one payload
_WORD = re.compile(r"[a-z0-9]+(?:[._/+-][a-z0-9]+)*")
_LONGEST_WORD = 64


@dataclass(frozen=True)
class Part:
    """A service. `state`: ok, degraded, paused or silent."""

    state: str
    code: str


@dataclass(frozen=True)
class OpenIssue:
    """What is wrong. `since_box_age_s`: the box's age when it began."""

    code: str
    severity: str
    title: str
    since_box_age_s: int


@dataclass(frozen=True)
class Health:
    """`state`: one of the five of `box_words`. `box_age_s`: seconds that the box has run, all boots together."""

    state: str
    version: str
    box_age_s: int
    waiting: int
    issue_count: int
    services: dict[str, Part]
    issues: tuple[OpenIssue, ...]
    printer: str
    clock: str


@dataclass(frozen=True)
class Counters:
    """Totals since the box was new, and how many studies are in each state."""

    box_age_s: int
    totals: dict[str, int]
    studies: dict[str, int]


@dataclass(frozen=True)
class Hardware:
    """Degrees Celsius, bytes, seconds, percent of the storage's rated life. None: this board cannot tell."""

    hottest_c: float | None
    temperatures_c: dict[str, float] = field(default_factory=dict)
    wear_percent: dict[str, float] = field(default_factory=dict)
    accelerators: dict[str, bool] = field(default_factory=dict)
    throttled: bool | None = None
    undervoltage: bool | None = None
    overcurrent: bool | None = None
    free_bytes: int | None = None
    total_bytes: int | None = None
    memory_free_bytes: int | None = None
    load_1m: float | None = None
    uptime_s: int | None = None
    power: str = "unknown"


@dataclass(frozen=True)
class Issue:
    """News. `id` is the same when a message comes twice, and the same issue that comes again later has another."""

    id: str
    code: str
    severity: str
    title: str
    since_box_age_s: int
    since_unix_s: int
    clock: str  # whether since_unix_s can be trusted: "set", or not


def box_id(machine_id: Path = MACHINE_ID) -> str:
    """12 hexadecimal digits that name this machine and tell nothing of it (machine-id(5): hash it, never show it).

    Raises ConfigError (link.machine-id).
    """
    try:
        text = machine_id.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        text = ""
    if not re.fullmatch(r"[0-9a-f]{32}", text):
        message = "expected /etc/machine-id with 32 hexadecimal digits, got none: `systemd-machine-id-setup` makes it"
        raise ConfigError(message, code="link.machine-id")
    return hashlib.sha256(f"radbox {text}".encode()).hexdigest()[:12]


def name_of(prefix: str, box: str, topic: str) -> str:
    """The whole name of a topic."""
    return f"{prefix}/{box}/{topic}"


def health(snapshot: Snapshot, version: str) -> Health:
    """How the box is."""
    issues = tuple(
        OpenIssue(word(row.code), word(row.severity), title(row.code).short, int(row.since_age_s))
        for row in snapshot.issues
    )
    services = {
        word(row.name): Part("silent" if snapshot.is_silent(row) else row.state, word(row.code))
        for row in snapshot.services[:MOST]
    }
    return Health(
        state=snapshot.state,
        version=word(version),
        box_age_s=int(snapshot.moment.age_s),
        waiting=snapshot.waiting,
        issue_count=len(issues),
        services=services,
        issues=issues[:MOST],
        printer=word(str(_fact(snapshot, "printer").get("state", "none"))),
        clock=_clock(snapshot),
    )


def same_health(one: Health, other: Health | None) -> bool:
    """True if nothing changed but the time."""
    return other is not None and replace(one, box_age_s=other.box_age_s) == other


def counters(snapshot: Snapshot) -> Counters:
    """The totals; what is no name of this program's is left out."""
    totals = {name: total for name, total in snapshot.counts.items() if word(name) == name}
    return Counters(int(snapshot.moment.age_s), _numbers(totals, int), dict(snapshot.studies))


def hardware(snapshot: Snapshot) -> Hardware:
    """What care measured last, field by field."""
    fact = _fact(snapshot, "hardware")
    temperatures_c = _numbers(fact.get("temperatures_c"), _tenths)
    return Hardware(
        hottest_c=max(temperatures_c.values(), default=None),
        temperatures_c=temperatures_c,
        wear_percent=_numbers(fact.get("wear_percent"), _tenths),
        accelerators={slug(name): there is True for name, there in _items(fact.get("accelerators"))},
        throttled=_flag(fact.get("throttled")),
        undervoltage=_flag(fact.get("undervoltage")),
        overcurrent=_flag(fact.get("overcurrent")),
        free_bytes=_number(fact.get("free_bytes"), int),
        total_bytes=_number(fact.get("total_bytes"), int),
        memory_free_bytes=_number(fact.get("memory_free_bytes"), int),
        load_1m=_number(fact.get("load_1m"), lambda value: round(value, 2)),
        uptime_s=_number(fact.get("uptime_s"), int),
        power=word(str(fact.get("power", "unknown"))),
    )


def issue_key(row: IssueRow) -> str:
    """Names one coming of an issue."""
    coming = repr((row.code, row.subject, row.boot_id, row.since_monotonic_s))
    return hashlib.sha256(coming.encode()).hexdigest()[:16]


def issue(row: IssueRow, snapshot: Snapshot) -> Issue:
    """The news of an issue."""
    return Issue(
        id=issue_key(row),
        code=word(row.code),
        severity=word(row.severity),
        title=title(row.code).short,
        since_box_age_s=int(row.since_age_s),
        since_unix_s=int(row.since_unix_s),
        clock=_clock(snapshot),
    )


def payload(told: Health | Counters | Hardware | Issue) -> str:
    """JSON, UTF-8, keys in order."""
    return json.dumps(asdict(told), sort_keys=True, allow_nan=False, separators=(",", ":"))


def word(text: str) -> str:
    """`text` if it is a code or a name of this program, "" if it is empty, else UNLISTED."""
    return text if not text or (len(text) <= _LONGEST_WORD and _WORD.fullmatch(text)) else UNLISTED


def slug(text: str) -> str:
    """The name of a sensor or device as a word: "Package id 0" -> "package-id-0"."""
    return "-".join(re.findall(r"[a-z0-9]+(?:_[a-z0-9]+)*", text.lower()))[:_LONGEST_WORD].rstrip("-_") or UNLISTED


def _clock(snapshot: Snapshot) -> str:
    clock = _fact(snapshot, "clock") or _fact(snapshot, "hardware").get("clock", {})
    return word(str(clock.get("state", "unknown"))) if isinstance(clock, Mapping) else "unknown"


def _fact(snapshot: Snapshot, name: str) -> Mapping[str, Any]:
    return snapshot.facts.get(name, {})


def _items(value: object) -> list[tuple[str, Any]]:
    return [(str(name), one) for name, one in value.items()][:MOST] if isinstance(value, Mapping) else []


def _numbers(value: object, kind: Any) -> dict[str, Any]:
    found = {slug(name): _number(one, kind) for name, one in _items(value)}
    return {name: number for name, number in found.items() if number is not None}


def _number(value: object, kind: Any) -> Any:
    return kind(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _tenths(value: float) -> float:
    return round(value, 1)
