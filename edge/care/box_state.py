"""Which of its five states the box is in, from what its services say and what is known to be wrong. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edge.box_words import STATES, WORDS, BoxState, BoxWords
from edge.service_limits import SILENT_AFTER_S
from edge.store_rows import IssueRow, ServiceRow

__all__ = ["STATES", "VITAL", "WORDS", "BoxState", "BoxWords", "Moment", "box_state"]

VITAL: Final = ("receive", "worker")  # without which no image comes in or none is read
START_S: Final = 120.0  # a service that has said nothing yet is starting for so long, then it is not


@dataclass(frozen=True)
class Moment:
    """When one looks. now_s: CLOCK_MONOTONIC of the boot `boot_id`. age_s: the box's age.

    watched_s: since when the one who looks has been looking: right after a start nothing can have been said yet.
    """

    now_s: float
    boot_id: str
    age_s: float
    watched_s: float


def box_state(services: Iterable[ServiceRow], issues: Iterable[IssueRow], queue: int, moment: Moment) -> BoxState:
    """The state, the gravest first. queue: studies that wait or are being read.

    stopped: no image comes in, or none is read. attention: an issue that is more than information and that nobody put
    off, or a vital service that is not well. An issue that was put off no longer shows here.
    """
    rows = {row.name: row for row in services}
    silent = [name for name in VITAL if _silent(rows.get(name), moment)]
    if silent:
        return "starting" if moment.watched_s < START_S else "stopped"
    if any(rows[name].state == "paused" for name in VITAL):
        return "stopped"
    if any(rows[name].code.endswith(".starting") for name in VITAL):
        return "starting"
    open_issues = [row for row in issues if row.severity != "info"]
    put_off = [row for row in open_issues if row.put_off_until_age_s > moment.age_s]
    unwell = any(rows[name].state == "degraded" for name in VITAL)
    if len(open_issues) > len(put_off) or (unwell and not put_off):
        return "attention"
    return "reading" if queue > 0 else "ready"


def _silent(row: ServiceRow | None, moment: Moment) -> bool:
    if row is None or row.boot_id != moment.boot_id:
        return True
    return moment.now_s - row.monotonic_s > SILENT_AFTER_S[row.name]
