"""Store rows -> what a template shows. Pure: no files, no clock of its own, no HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge.desk import report_view, words
from edge.desk.report_view import Fact, TopFinding
from edge.desk.words import StateWords, Tone
from edge.service_limits import SILENT_AFTER_S
from edge.store import InstanceRow, QuarantineRow, ServiceRow, StudyDetail, StudySummary

PAGE_ROWS = 20  # keeps the first view under 50 KB


@dataclass(frozen=True)
class Now:
    """The moment a page is made. `monotonic_s` belongs to `boot_id`; `unix_s` is the wall clock."""

    monotonic_s: float
    boot_id: str
    unix_s: float

    def age_of(self, instance: InstanceRow) -> str:
        """How long ago an object arrived."""
        return words.age(instance.received_monotonic_s, instance.boot_id, self.monotonic_s, self.boot_id)

    def long_wait(self, state: str, instance: InstanceRow) -> str:
        """A warning if a study that came with `instance` should have been read by now, else ""."""
        waited_s = self.monotonic_s - instance.received_monotonic_s
        late = instance.boot_id != self.boot_id or waited_s > words.LONG_WAIT_S
        return words.LONG_WAIT if late and words.state_words(state).unsettled else ""


@dataclass(frozen=True)
class ListRow:
    """One study of the list."""

    key: int
    name: str
    patient_id: str
    modality: str
    study_date: str
    images: str
    age: str
    state: StateWords
    reason: str
    top: TopFinding | None
    note: str
    conflict: str


@dataclass(frozen=True)
class Page:
    """Which part of the list this is; `newer` and `older` are page numbers or None."""

    number: int
    newer: int | None
    older: int | None


@dataclass(frozen=True)
class Notice:
    """A banner about the box itself. `todo` and `code` may be ""."""

    tone: Tone
    title: str
    text: str
    todo: str = ""
    code: str = ""


@dataclass(frozen=True)
class ServiceLine:
    """A service on the page about the box."""

    name: str
    tone: Tone
    state: str
    message: str
    code: str
    age: str


@dataclass(frozen=True)
class QuarantineLine:
    """One file in quarantine. `sha256` is shortened: enough to find the file."""

    code: str
    message: str
    size: str
    age: str
    calling_ae: str
    sha256: str


@dataclass(frozen=True)
class Reason:
    """Why a study has no report, and what a nurse can do."""

    code: str
    text: str
    todo: str


@dataclass(frozen=True)
class InstanceLine:
    """One received object of a study."""

    uid: str
    text: str
    conflict: bool


@dataclass(frozen=True)
class StudyView:
    """One study without its report."""

    key: int
    name: str
    facts: tuple[Fact, ...]
    state: StateWords
    age: str
    reason: Reason | None
    conflict: str
    superseded: str
    late: str
    no_image: str
    timings: tuple[Fact, ...]
    timings_total: str
    instances: tuple[InstanceLine, ...]

    @property
    def unsettled(self) -> bool:
        """The state changes by itself soon."""
        return self.state.unsettled


_STEPS: Mapping[str, str] = {
    "receive": "Store the last image",
    "waiting": "Wait for more images and for a free reader",
    "decode": "Decode the pixels",
    "check": "Check that it can be read",
    "prepare": "Prepare the image",
    "encode": "Look at the image",
    "generate": "Find the findings",
    "evidence": "Find their place",
    "render": "Write report and picture",
    "total": "Total of reading",
}
_SERVICE_WORDS: Mapping[str, tuple[Tone, str]] = {
    "ok": ("ready", "Running"),
    "degraded": ("warn", "Has a problem"),
    "paused": ("stop", "Paused"),
}


UNREADABLE = Notice("stop", report_view.UNREADABLE.title, "The images are safe.", report_view.UNREADABLE.todo)


def page_of(number: int, found: int) -> Page:
    """`found` rows were asked for with one more than PAGE_ROWS, to know whether an older page exists."""
    return Page(number, number - 1 if number > 1 else None, number + 1 if found > PAGE_ROWS else None)


def list_row(summary: StudySummary, age: str, top: TopFinding | None, note: str) -> ListRow:
    """A line of the list. `top`: the most urgent finding of its report; `note`: said where there is none."""
    return ListRow(
        key=summary.study_key,
        name=words.person(summary.patient_name),
        patient_id=summary.patient_id or "not given",
        modality=summary.modality or "modality not given",
        study_date=words.date(summary.study_date),
        images=words.count(summary.instance_count, "image", "images"),
        age=age,
        state=words.state_words(summary.state),
        reason=summary.message if summary.state in ("refused", "failed") else "",
        top=top,
        note=note,
        conflict=_conflict(summary.conflict_count)[0],
    )


def quarantine_line(row: QuarantineRow, now: Now) -> QuarantineLine:
    """A file in quarantine; its age is by the wall clock, the only one its row has."""
    again = f", {row.times} times" if row.times > 1 else ""
    return QuarantineLine(
        code=row.code,
        message=row.message,
        size=words.size(row.size_bytes),
        age=words.ago(now.unix_s - row.arrived_unix_s) + again if now.unix_s >= row.arrived_unix_s else "not known",
        calling_ae=row.calling_ae or "not given",
        sha256=row.sha256[:12],
    )


def notices(rows: Iterable[ServiceRow], now: Now) -> tuple[Notice, ...]:
    """Banners for every service that is not well or gives no sign of life, the worst first.

    What two services say of the same thing, such as a full disk, is one banner.
    """
    found = [notice for row in rows if (notice := _notice(row, now))]
    once = {notice.title: notice for notice in reversed(found)}
    return tuple(sorted((n for n in found if once[n.title] is n), key=lambda notice: notice.tone != "stop"))


def _notice(row: ServiceRow, now: Now) -> Notice | None:
    limit_s = SILENT_AFTER_S.get(row.name)
    if limit_s and (row.boot_id != now.boot_id or now.monotonic_s - row.monotonic_s > limit_s):
        age = words.age(row.monotonic_s, row.boot_id, now.monotonic_s, now.boot_id)
        silent = words.SILENT[row.name]
        return Notice("stop", silent.title, f"Its last sign of life was {age}.", silent.todo, f"{row.name}.silent")
    if row.state == "ok":
        return None
    advice = words.advice(row.name, row.state, row.code)
    return Notice("stop" if row.state == "paused" else "warn", advice.title, row.message, advice.todo, row.code)


def service_line(row: ServiceRow, now: Now) -> ServiceLine:
    """A service on the page about the box."""
    tone, state = _SERVICE_WORDS[row.state]
    age = words.age(row.monotonic_s, row.boot_id, now.monotonic_s, now.boot_id)
    return ServiceLine(row.name, tone, state, row.message, row.code, age)


def study_view(detail: StudyDetail, now: Now) -> StudyView:
    """One study without its report."""
    return StudyView(
        key=detail.summary.study_key,
        name=words.person(detail.facts.patient_name),
        facts=_facts(detail),
        state=words.state_words(detail.state),
        age=f"last image {now.age_of(detail.instances[-1])}" if detail.instances else "",
        reason=Reason(detail.code, detail.message, words.todo(detail.code)) if detail.code else None,
        conflict=" ".join(_conflict(len(detail.conflicts))).strip(),
        superseded=_superseded(len(detail.superseded_reports)),
        late=now.long_wait(detail.state, detail.instances[-1]) if detail.instances else "",
        no_image=_no_image(detail.state),
        timings=tuple(Fact(_STEPS.get(name, name), f"{seconds:.2f}") for name, seconds in detail.timings_s.items()),
        timings_total=_total(detail.timings_s),
        instances=tuple(_instance_line(row, now) for row in detail.instances),
    )


def _facts(detail: StudyDetail) -> tuple[Fact, ...]:
    facts = detail.facts
    pairs = (
        ("Patient ID", facts.patient_id or "not given"),
        ("Study date", words.date(facts.study_date)),
        ("Modality", facts.modality or "not given"),
        ("Accession", facts.accession_number),
        ("Description", facts.study_description),
        ("Images", str(detail.summary.instance_count)),
    )
    return tuple(Fact(label, value) for label, value in pairs if value)


def _conflict(number: int) -> tuple[str, str]:
    """What happened, and what it means; ("", "") where nothing did."""
    if not number:
        return "", ""
    copies = words.count(number, "image came", "images came")
    meaning = "Both copies are kept, and the first is the one that is read. Compare them before you rely on this study."
    return f"{copies} again with different content.", meaning


def _superseded(number: int) -> str:
    if not number:
        return ""
    return f"{words.count(number, 'earlier draft was', 'earlier drafts were')} replaced because more images arrived."


def _no_image(state: str) -> str:
    if words.state_words(state).unsettled:
        return "The image is shown here when the study has been read."
    return "There is no picture of this study to show. The received files are kept on the box."


def _total(timings_s: Mapping[str, float]) -> str:
    total = timings_s.get("total", sum(timings_s.values()))
    return f"{total:.1f} s"


def _instance_line(row: InstanceRow, now: Now) -> InstanceLine:
    text = f"{words.size(row.size_bytes)}, {now.age_of(row)}, from {row.calling_ae or 'an unnamed sender'}"
    return InstanceLine(row.sop_instance_uid, text + (", different content" if row.conflict else ""), row.conflict)
