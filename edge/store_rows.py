"""What goes into the store and what comes out: frozen rows, no behaviour.

`monotonic_s` fields are CLOCK_MONOTONIC seconds of the boot named beside them; `*_unix_s` is the wall clock, for
people's eyes only. Paths are relative to the data folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

AddOutcome = Literal["stored", "duplicate", "conflict"]
ServiceState = Literal["ok", "degraded", "paused"]
Severity = Literal["info", "warning", "critical"]
StudyState = Literal["receiving", "queued", "reading", "draft", "refused", "failed", "signed"]


@dataclass(frozen=True)
class StudyFacts:
    """Attributes of the study as one of its objects states them (PS3.3 C.7.1.1, C.7.2.1); "" where it says nothing."""

    study_instance_uid: str
    patient_id: str = ""
    patient_name: str = ""
    accession_number: str = ""
    study_date: str = ""
    modality: str = ""
    study_description: str = ""
    urgency: int = 0  # 1: Requested Procedure Priority STAT or HIGH (PS3.3 C.4.11), or a C-STORE of priority HIGH


@dataclass(frozen=True)
class InstanceFacts:
    """One received object. `receive_s`: seconds from its last byte to its file being durable (0 where not measured)."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str
    size_bytes: int
    path: str
    calling_ae: str
    received_monotonic_s: float
    receive_s: float = 0.0


@dataclass(frozen=True)
class Added:
    """What became of an object, and our key of its study."""

    outcome: AddOutcome
    study_key: int


@dataclass(frozen=True)
class InstanceRow:
    """A stored object of a study. `conflict`: its SOP Instance UID came before with other bytes."""

    instance_key: int
    study_key: int
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str
    size_bytes: int
    path: str
    calling_ae: str
    conflict: bool
    received_monotonic_s: float
    receive_s: float
    boot_id: str
    arrived_unix_s: float


@dataclass(frozen=True)
class ClaimedStudy:
    """A study that a worker now reads. `attempt` never repeats for a study (it names the folder of rendered images).

    `instances` in order of arrival, without those whose SOP Instance UID the study already has.
    `last_received_monotonic_s` compares with `time.monotonic()` only if `same_boot`.
    """

    study_key: int
    attempt: int
    instances: tuple[InstanceRow, ...]
    last_received_monotonic_s: float
    same_boot: bool = True


@dataclass(frozen=True)
class StudySummary:
    """A line of the list. `code` and `message` say why a study was refused or failed."""

    study_key: int
    study_instance_uid: str
    patient_id: str
    patient_name: str
    accession_number: str
    study_date: str
    modality: str
    study_description: str
    urgency: int
    state: StudyState
    instance_count: int
    conflict_count: int
    code: str
    message: str
    report_json: str
    arrived_unix_s: float


@dataclass(frozen=True)
class StudyDetail:
    """One study: `summary`, the current reading's results ("" and {} before one) and every object received."""

    summary: StudySummary
    state: StudyState
    facts: StudyFacts
    code: str
    message: str
    report_json: str
    rendered: str
    timings_s: dict[str, float]
    attempt: int
    instances: tuple[InstanceRow, ...]
    conflicts: tuple[InstanceRow, ...]
    superseded_reports: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class QuarantineRow:
    """Bytes that were refused but kept. `times`: how often the same bytes came with the same fault."""

    quarantine_key: int
    sha256: str
    size_bytes: int
    path: str
    code: str
    message: str
    calling_ae: str
    times: int
    arrived_unix_s: float


@dataclass(frozen=True)
class ServiceRow:
    """How a service says it is."""

    name: str
    state: ServiceState
    code: str
    message: str
    monotonic_s: float
    boot_id: str


@dataclass(frozen=True)
class EventRow:
    """Something worth telling a person; no patient data in `message`."""

    event_key: int
    code: str
    message: str
    study_key: int | None
    monotonic_s: float
    boot_id: str
    happened_unix_s: float


@dataclass(frozen=True)
class Removable:
    """A study that may go. `idle_s`: seconds of running time since it was exported and last got an image."""

    study_key: int
    idle_s: float
    size_bytes: int


@dataclass(frozen=True)
class FactRow:
    """What a service measured last. `monotonic_s` compares with `time.monotonic()` only in the boot named."""

    name: str
    value: dict[str, Any]
    monotonic_s: float
    boot_id: str


@dataclass(frozen=True)
class ModalityRow:
    """A sender, by its AE title. Ages are of the box, in seconds that it has run."""

    calling_ae: str
    images: int
    first_age_s: float
    last_age_s: float
    last_monotonic_s: float
    boot_id: str


@dataclass(frozen=True)
class IssueFacts:
    """Something wrong that a person can do something about; `subject` tells two of a kind apart ("" for one)."""

    code: str
    subject: str
    severity: Severity
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class IssueRow:
    """An open issue and since when. `put_off_until_age_s`: a person said "not now" until this age of the box."""

    code: str
    subject: str
    severity: Severity
    values: dict[str, Any]
    since_monotonic_s: float
    boot_id: str
    since_age_s: float
    since_unix_s: float
    put_off_until_age_s: float


@dataclass(frozen=True)
class RequestRow:
    """What a person asked for on the page or the panel. `code` is "" until it was answered."""

    request_key: int
    action: str
    values: dict[str, Any]
    code: str
    message: str
    monotonic_s: float
    boot_id: str


@dataclass(frozen=True)
class OutboxRow:
    """A message that waits for the broker."""

    outbox_key: int
    topic: str
    payload: str
