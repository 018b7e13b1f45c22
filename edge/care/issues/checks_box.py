"""Checks of the box itself: storage, clock, heat, power, restarts, and its own services. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from edge.care.issues.seen import Seen
from edge.disk_marks import Mark, mark
from edge.durable import DiskUse
from edge.store_rows import IssueFacts, Severity

ROUND_BYTES: Final = 100_000_000  # so that a number that moves is not written every ten seconds
ROUND_C: Final = 5
WORN_OUT_PERCENT: Final = 100
RESETS: Final = ("watchdog", "panic", "crash")
ALWAYS: Final = ("receive", "worker")  # on every box
VITAL: Final = ALWAYS  # without which nothing new is read


def disk_full(seen: Seen) -> Iterator[IssueFacts]:
    """New images are refused."""
    if _mark(seen, "issue.disk-full") == "refuse":
        yield IssueFacts("issue.disk-full", "", "critical", _room(seen.disk))


def disk_nearly_full(seen: Seen) -> Iterator[IssueFacts]:
    """Second versions of an image are refused; first ones are still taken."""
    if _mark(seen, "issue.disk-nearly-full") == "warn" and not list(disk_full(seen)):
        yield IssueFacts("issue.disk-nearly-full", "", "warning", _room(seen.disk))


def _mark(seen: Seen, code: str) -> Mark:
    """The disk's mark; an open issue sees a little less room than there is, so that it does not come and go."""
    limit = seen.board.receive.min_free_bytes
    margin = min(seen.disk.size // 100, limit // 4) if seen.is_open(code) else 0
    use = DiskUse(seen.disk.size, seen.disk.used + margin, max(0, seen.disk.free - margin))
    return mark(use, seen.board.storage, limit)


def _room(use: DiskUse) -> dict[str, Any]:
    return {"free_bytes": use.free // ROUND_BYTES * ROUND_BYTES, "used_percent": int(use.percent)}


def clock_unset(seen: Seen) -> Iterator[IssueFacts]:
    """No clock chip kept the time, and nobody has set it since the start."""
    if _clock(seen) == "unset":
        yield IssueFacts("issue.clock-unset", "", "warning")


def _clock(seen: Seen) -> str:
    clock = seen.facts.get("clock") or _hardware(seen).get("clock") or {}
    return str(clock.get("state", ""))


def _hardware(seen: Seen) -> dict[str, Any]:
    return dict(seen.facts.get("hardware", {}))


def _hottest(seen: Seen) -> dict[str, Any]:
    celsius = max((float(value) for value in _hardware(seen).get("temperatures_c", {}).values()), default=None)
    return {} if celsius is None else {"hottest_c": ROUND_C * round(celsius / ROUND_C)}


def too_hot(seen: Seen) -> Iterator[IssueFacts]:
    """Reading is paused until the box has cooled down."""
    if seen.facts.get("thermal", {}).get("state") == "pause":
        yield IssueFacts("issue.too-hot", "", "critical", _hottest(seen))


def throttling(seen: Seen) -> Iterator[IssueFacts]:
    """The box slows down on purpose, or its processor does."""
    slow = seen.facts.get("thermal", {}).get("state") == "slow"
    if (slow or _hardware(seen).get("throttled")) and not list(too_hot(seen)):
        yield IssueFacts("issue.throttling", "", "warning", _hottest(seen))


def weak_power(seen: Seen) -> Iterator[IssueFacts]:
    """Too little voltage or too much current, now (a warning) or since the start (worth knowing)."""
    hardware = _hardware(seen)
    now = bool(hardware.get("undervoltage") or hardware.get("overcurrent"))
    if now or hardware.get("undervoltage_since_boot"):
        yield IssueFacts("issue.weak-power", "", "warning" if now else "info", {"now": now})


def wear(seen: Seen) -> Iterator[IssueFacts]:
    """The storage has used up most of what its maker promises (eMMC life time, NVMe percentage used)."""
    for device, percent in _hardware(seen).get("wear_percent", {}).items():
        if percent >= seen.board.hardware.wear_percent:
            severity: Severity = "critical" if percent >= WORN_OUT_PERCENT else "warning"
            yield IssueFacts("issue.wear", str(device), severity, {"worn_percent": int(percent)})


def database_repaired(seen: Seen) -> Iterator[IssueFacts]:
    """Rebuilt from the stored images: what was only in the database may be missing. Until a person took note."""
    if seen.notes.repaired and seen.notes.seen.get("issue.database-repaired") != str(seen.notes.repaired):
        yield IssueFacts("issue.database-repaired", "", "warning")


def watchdog_reset(seen: Seen) -> Iterator[IssueFacts]:
    """The last start was not a person's or the mains' doing. Until a person took note, or the next start."""
    reason = str(seen.facts.get("boot", {}).get("reason", ""))
    if reason in RESETS and seen.notes.seen.get("issue.watchdog-reset") != seen.boot_id:
        yield IssueFacts("issue.watchdog-reset", "", "info", {"reason": reason})


def service_silent(seen: Seen) -> Iterator[IssueFacts]:
    """A service that this box should have gives no sign of life."""
    for service in expected_services(seen):
        if seen.silent(service):
            severity: Severity = "critical" if service in VITAL else "warning"
            yield IssueFacts("issue.service-silent", service, severity)


def expected_services(seen: Seen) -> tuple[str, ...]:
    """The services that this board needs; care itself is told by the page, which outlives it."""
    board = seen.board
    wanted = {
        "link": bool(board.mqtt.host or board.printer.uri),
        "panel": bool(board.panel.device),
        "capture": bool(board.grabber.source),
    }
    return (*ALWAYS, *(service for service, needed in wanted.items() if needed))
