"""The only SQL, the only spool paths. Which state follows which is the table in `store_schema.TRANSITIONS`.

One class in six parts: `store_intake` (the receiver), `store_readings` (the worker), `store_keeping` (age, signing,
what may go), `store_page` (people), `store_health` (how the box is), `store_outbox` (messages that wait).
"""

from __future__ import annotations

from pathlib import Path

from edge.store_connection import Connection
from edge.store_health import HealthPart
from edge.store_intake import IntakePart
from edge.store_keeping import KeepingPart
from edge.store_outbox import OutboxPart
from edge.store_page import PagePart
from edge.store_paths import DATABASE, INCOMING, boot_id, database_key, object_path, quarantine_path, rendered_path
from edge.store_readings import ReadingsPart
from edge.store_rows import (
    Added,
    AddOutcome,
    ClaimedStudy,
    EventRow,
    FactRow,
    InstanceFacts,
    InstanceRow,
    IssueFacts,
    IssueRow,
    ModalityRow,
    OutboxRow,
    QuarantineRow,
    Removable,
    RequestRow,
    ServiceRow,
    ServiceState,
    Severity,
    StudyDetail,
    StudyFacts,
    StudySummary,
)

__all__ = [
    "INCOMING",
    "AddOutcome",
    "Added",
    "ClaimedStudy",
    "EventRow",
    "FactRow",
    "InstanceFacts",
    "InstanceRow",
    "IssueFacts",
    "IssueRow",
    "ModalityRow",
    "OutboxRow",
    "QuarantineRow",
    "Removable",
    "RequestRow",
    "ServiceRow",
    "ServiceState",
    "Severity",
    "Store",
    "StudyDetail",
    "StudyFacts",
    "StudySummary",
    "boot_id",
    "database_key",
    "object_path",
    "open_store",
    "quarantine_path",
    "rendered_path",
]


class Store(IntakePart, ReadingsPart, KeepingPart, PagePart, HealthPart, OutboxPart):
    """Every change is one transaction and durable on return. Usable by many threads and many processes.

    All methods raise StorageFullError, StorageError (disk) and StoreError (a transition the table does not have).
    """


def open_store(data_dir: Path, *, key: bytes | None = None) -> Store:
    """Open, or create, the database of a data folder. Raises StoreError (wrong key, damage), StorageError."""
    return Store(Connection(data_dir / DATABASE, key))
