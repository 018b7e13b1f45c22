"""The box at one moment, as the store knows it, for everybody who tells it on: MQTT, /metrics, the page.

Nothing of a study but counts. `facts` are those of this boot only: what an earlier boot measured says nothing now.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Any

from edge.box_words import BoxState
from edge.care.box_state import Moment, box_state
from edge.service_limits import SILENT_AFTER_S
from edge.store import Store
from edge.store_rows import IssueRow, ServiceRow


@dataclass(frozen=True)
class Snapshot:
    """`studies`: how many are in each state. `moment.age_s`: seconds that the box has run, all boots together."""

    moment: Moment
    state: BoxState
    services: tuple[ServiceRow, ...]
    issues: tuple[IssueRow, ...]
    studies: Mapping[str, int]
    counts: Mapping[str, int]
    facts: Mapping[str, Mapping[str, Any]]

    @property
    def waiting(self) -> int:
        """Studies that wait or are being read."""
        return self.studies.get("queued", 0) + self.studies.get("reading", 0)

    def silent_for_s(self, row: ServiceRow) -> float | None:
        """Seconds since a service's last sign of life, None where that was before this boot."""
        return self.moment.now_s - row.monotonic_s if row.boot_id == self.moment.boot_id else None

    def is_silent(self, row: ServiceRow) -> bool:
        """True if the service should have said something by now."""
        silent_s = self.silent_for_s(row)
        return silent_s is None or silent_s > SILENT_AFTER_S.get(row.name, float("inf"))


def take(store: Store, boot_id: str, start_s: float) -> Snapshot:
    """Look now. start_s: CLOCK_MONOTONIC since when the caller looks. Raises StorageError, StoreError."""
    now_s = time.monotonic()
    services, issues, studies = tuple(store.services()), tuple(store.issues()), store.study_counts()
    moment = Moment(now_s, boot_id, store.age_s(), now_s - start_s)
    waiting = studies.get("queued", 0) + studies.get("reading", 0)
    return Snapshot(
        moment=moment,
        state=box_state(services, issues, waiting, moment),
        services=services,
        issues=issues,
        studies=studies,
        counts=store.counts(),
        facts={row.name: row.value for row in store.facts().values() if row.boot_id == boot_id},
    )


@lru_cache(maxsize=1)
def version() -> str:
    """Of radbox; "source" where it is not installed."""
    try:
        return metadata.version("radbox")
    except metadata.PackageNotFoundError:
        return "source"
