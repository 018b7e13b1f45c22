"""The table of checks, and which issues are open: `find`. Pure.

A check says what is so now. An issue is raised when its check has said so for `wait_s` without a break, and is over
when it has said nothing for `hold_s`: what flutters is told once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edge.care.issues import checks_box, checks_links
from edge.care.issues.seen import Key, Seen, Told
from edge.store_rows import IssueFacts


@dataclass(frozen=True)
class Check:
    """One line of the table. Seconds of CLOCK_MONOTONIC."""

    code: str
    look: Callable[[Seen], Iterable[IssueFacts]]
    wait_s: float = 0.0
    hold_s: float = 0.0


MINUTE_S: Final = 60.0
CHECKS: Final[Sequence[Check]] = (
    Check("issue.disk-full", checks_box.disk_full),
    Check("issue.disk-nearly-full", checks_box.disk_nearly_full, wait_s=MINUTE_S),  # cleaning may help
    Check("issue.clock-unset", checks_box.clock_unset, wait_s=2 * MINUTE_S),  # the network may still set it
    Check("issue.too-hot", checks_box.too_hot),
    Check("issue.throttling", checks_box.throttling, wait_s=MINUTE_S, hold_s=5 * MINUTE_S),
    Check("issue.weak-power", checks_box.weak_power),  # "since boot" stays by itself
    Check("issue.wear", checks_box.wear),
    Check("issue.database-repaired", checks_box.database_repaired),
    Check("issue.watchdog-reset", checks_box.watchdog_reset),
    Check("issue.service-silent", checks_box.service_silent),
    Check("issue.modality-silent", checks_links.modality_silent),
    Check("issue.modality-aborting", checks_links.modality_aborting),
    Check("issue.accelerator-lost", checks_links.accelerator_lost, wait_s=20.0),  # it may come back by itself
    Check("issue.ai-paused", checks_links.ai_paused, wait_s=20.0),  # a model is being loaded
    Check("issue.update-rolled-back", checks_links.update_rolled_back),
    Check("issue.printer", checks_links.printer, wait_s=MINUTE_S),  # somebody is changing the paper
    Check("issue.grabber-no-signal", checks_links.grabber_no_signal, wait_s=MINUTE_S),
    Check("issue.panel-lost", checks_links.panel_lost, wait_s=MINUTE_S),
    Check("issue.mqtt-lost", checks_links.mqtt_lost, wait_s=5 * MINUTE_S, hold_s=MINUTE_S),  # a broker restarts
    Check("issue.outbox-full", checks_links.outbox_full),
)
_BY_CODE: Final = {check.code: check for check in CHECKS}


def tell(seen: Seen) -> dict[Key, Told]:
    """What every check says now, joined with what it said before: the `told` of the next look."""
    now = {(one.code, one.subject): one for check in CHECKS for one in check.look(seen)}
    held = {key: old for key, old in seen.told.items() if key not in now and _held(old, seen.now_s)}
    return held | {key: _tell(one, seen.told.get(key), seen.now_s) for key, one in now.items()}


def find(seen: Seen) -> list[IssueFacts]:
    """The open issues."""
    return opened(tell(seen))


def opened(told: dict[Key, Told]) -> list[IssueFacts]:
    """Those that were said for long enough."""
    return [one.facts for one in told.values() if one.raised]


def _tell(facts: IssueFacts, before: Told | None, now_s: float) -> Told:
    if before is None:
        return Told(now_s, now_s, facts, raised=_BY_CODE[facts.code].wait_s <= 0)
    raised = before.raised or now_s - before.first_s >= _BY_CODE[facts.code].wait_s
    return replace(before, last_s=now_s, facts=facts, raised=raised)


def _held(old: Told, now_s: float) -> bool:
    return old.raised and now_s - old.last_s < _BY_CODE[old.facts.code].hold_s
