"""Open issues and wishes of the store -> what a template shows. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from edge.desk import issue_words, words
from edge.desk.issue_words import FIXES, PUT_OFF, IssueWords
from edge.desk.views import Now
from edge.desk.words import Tone
from edge.issue_titles import title
from edge.store_rows import IssueRow, RequestRow

TONES: Final[Mapping[str, Tone]] = {"critical": "stop", "warning": "warn", "info": "work"}
OUTCOME_TONES: Final[Mapping[str, Tone]] = {"fix.done": "ready", "fix.nothing": "draft"}
# Fixes that are the thing to do; the others are for a person to weigh.
MENDING: Final = ("storage.clean", "clock.use-phone", "worker.try-accelerator", "update.seen", "issue.seen")
SLOW_ANSWER_S: Final = 30.0
CODE: Final = "issue.changed-meanwhile"


@dataclass(frozen=True)
class Button:
    """A fix that is offered. ask: address of the question before it, "" where it is done at once."""

    action: str
    label: str
    ask: str
    main: bool
    needs_time: bool  # the form must say what time it is


@dataclass(frozen=True)
class IssueView:
    """One issue. `id` names its place on the page; `which` what it is about, where there are several of a kind.

    cause: the code or word of what it comes from, for the person who looks after the box, or "".
    """

    id: str
    code: str
    cause: str
    subject: str
    tone: Tone
    icon: str
    title: str
    text: str
    todo: str
    which: str
    since: str
    buttons: tuple[Button, ...]
    link: tuple[str, str]


@dataclass(frozen=True)
class Banner:
    """One line on the list of studies."""

    tone: Tone
    text: str


@dataclass(frozen=True)
class WishView:
    """What a person asked for, and what became of it. detail: care's own words, "" while it is at work."""

    key: int
    tone: Tone
    open: bool
    text: str
    detail: str
    slow: bool


def issue_view(row: IssueRow, now: Now, age_s: float) -> IssueView:
    """age_s: of the box now."""
    said = issue_words.words_of(row.code, row.severity)
    readable = _Readable({**_readable(row.values), "subject": _subject(row)})
    return IssueView(
        id=_id(row.code, row.subject),
        code=row.code,
        cause=str(row.values.get("reason", "")),
        subject=row.subject,
        tone=TONES[row.severity],
        icon=said.icon,
        title=title(row.code).long,
        text=said.text.format_map(readable),
        todo=said.todo,
        which=row.subject if row.subject and "{subject}" not in said.text else "",
        since=_since(row, now, age_s),
        buttons=_buttons(row, said, age_s),
        link=said.link,
    )


def put_off(row: IssueRow, age_s: float) -> bool:
    """True while a person said "not now". Critical ones are never put off, also those that became critical since."""
    return row.severity != "critical" and row.put_off_until_age_s > age_s


def offered(row: IssueRow, age_s: float) -> tuple[str, ...]:
    """Actions that the page offers for an issue; no other is passed on."""
    later = () if row.severity == "critical" or put_off(row, age_s) else (PUT_OFF,)
    return (*issue_words.words_of(row.code, row.severity).fixes, *later)


def banner(rows: Sequence[IssueRow], age_s: float) -> Banner | None:
    """What everyone should know who looks at the list: how many, and the worst. News alone are no reason."""
    pressing = [row for row in rows if row.severity != "info" and not put_off(row, age_s)]
    if not pressing:
        return None
    worst = pressing[0]  # the store has the critical ones first
    first = title(worst.code).long
    number = len(pressing)
    return Banner(TONES[worst.severity], first if number == 1 else f"{number} things need attention. {first}")


def wish_view(row: RequestRow, now: Now) -> WishView:
    """A wish on its own page."""
    if row.code:
        tone = OUTCOME_TONES.get(row.code, "warn")
        return WishView(row.request_key, tone, False, issue_words.outcome(row.action, row.code), row.message, False)
    slow = row.boot_id != now.boot_id or now.monotonic_s - row.monotonic_s > SLOW_ANSWER_S
    fix = FIXES.get(row.action)
    return WishView(row.request_key, "work", True, fix.doing if fix else "", "", slow)


def same_wish(open_ones: Iterable[RequestRow], action: str, code: str, subject: str) -> int | None:
    """The key of a wish that waits already, so that pressing twice asks once."""
    for row in open_ones:
        if (row.action, row.values.get("code"), row.values.get("subject")) == (action, code, subject):
            return row.request_key
    return None


def _buttons(row: IssueRow, said: IssueWords, age_s: float) -> tuple[Button, ...]:
    found = []
    for number, action in enumerate(offered(row, age_s)):
        fix = FIXES[action]
        query = urlencode({"action": action, "code": row.code, "subject": row.subject})
        main = number == 0 and action in MENDING
        found.append(
            Button(action, fix.button, f"/issues/ask?{query}" if fix.ask else "", main, action == "clock.use-phone")
        )
    return tuple(found)


def _id(code: str, subject: str) -> str:
    plain = "".join(sign if sign.isalnum() and sign.isascii() else "-" for sign in f"{code}-{subject}")
    return plain.strip("-")


def _since(row: IssueRow, now: Now, age_s: float) -> str:
    if row.boot_id == now.boot_id:
        return words.ago(max(0.0, now.monotonic_s - row.since_monotonic_s))
    return f"{words.ago(max(0.0, age_s - row.since_age_s))}, not counting when the box was off"


def _subject(row: IssueRow) -> str:
    if row.code == "issue.service-silent":
        return issue_words.SERVICES.get(row.subject, f"the part called {row.subject}")
    return row.subject


class _Readable(dict[str, str]):
    """A value that an older or newer check did not give must not cost the page."""

    def __missing__(self, key: str) -> str:
        return "" if key in ("hottest_c",) else "not known"


def _reason(value: Any) -> str:
    return issue_words.RESETS.get(str(value), f"({value})")


def _problem(value: Any) -> str:
    text = str(value)
    return issue_words.VIDEO.get(text, text or issue_words.PROBLEM_ELSE)


_READERS: Final[Mapping[str, Callable[[Any], str]]] = {
    "free_bytes": lambda value: _gigabytes(float(value)),
    "used_percent": lambda value: f"{int(value)} %",
    "worn_percent": lambda value: f"{int(value)} %",
    "aborted_percent": lambda value: f"{int(value)} %",
    "hottest_c": lambda value: f", about {int(value)} °C",
    "silent_days": lambda value: words.count(int(value), "day", "days"),
    "reason": _reason,
    "problem": _problem,
}


def _readable(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: _READERS.get(name, str)(value) for name, value in values.items()}


def _gigabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
