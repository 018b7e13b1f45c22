"""The pages of what needs attention: the list, the question before some fixes, and what became of a fix.

The page does nothing itself: it writes down what a person asked for, and care, the one actor, does it. What is passed
on is only what the list offers for an issue that is open now.
"""

from __future__ import annotations

import math
import time
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge.desk import issue_view, issue_words
from edge.desk.forms import Form, Forms
from edge.desk.issue_view import CODE, Banner
from edge.desk.update_pages import Frame
from edge.errors import RadboxError
from edge.store_rows import IssueRow

LARGEST_KEY = 2**63 - 1  # of an SQLite row
TYPED = "%Y-%m-%d %H:%M"  # of <input type=date> and <input type=time>


class ChangedError(RadboxError):
    """The issue is over, or this cannot be done about it (any more)."""

    default_code = CODE


class IssuePages:
    """Reads the store at every request; writes only wishes."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._store = frame.store
        self._forms = Forms(frame.error, CODE)

    def routes(self) -> list[Route]:
        """Addresses of the pages, and of the one action."""
        return [
            Route("/issues", self.issues),
            Route("/issues/ask", self.ask),
            Route("/issues/fix", self._forms.action(self._fix), methods=["POST"]),
            Route("/issues/wish/{key:int}", self.wish),
        ]

    def banner(self) -> Banner | None:
        """The line on the list of studies; it leads to /issues."""
        return issue_view.banner(self._store.issues(), self._store.age_s())

    # --- pages ---

    def issues(self, request: Request) -> Response:
        """Everything that is wrong, the worst first; what was put off at the end."""
        now, age_s, rows = self._frame.now(), self._store.age_s(), self._store.issues()
        pressing = [issue_view.issue_view(row, now, age_s) for row in rows if not issue_view.put_off(row, age_s)]
        later = [issue_view.issue_view(row, now, age_s) for row in rows if issue_view.put_off(row, age_s)]
        return self._page(request, "issues.html", pressing=pressing, later=later)

    def ask(self, request: Request) -> Response:
        """The question before a fix that deletes something."""
        query = request.query_params
        row = self._open(query.get("code", ""), query.get("subject", ""))
        fix = issue_words.FIXES.get(query.get("action", ""))
        if row is None or fix is None or not fix.ask or query["action"] not in self._offered(row):
            raise HTTPException(404)
        return self._page(request, "issue.html", wish=None, fix=fix, action=query["action"], issue=row)

    def wish(self, request: Request) -> Response:
        """What became of a fix; follows by itself until it is done."""
        key: int = request.path_params["key"]
        row = self._store.request(key) if key <= LARGEST_KEY else None
        if row is None or row.action not in issue_words.FIXES:
            raise HTTPException(404)
        return self._page(request, "issue.html", wish=issue_view.wish_view(row, self._frame.now()))

    def _page(self, request: Request, template: str, **context: Any) -> Response:
        return self._frame.answer(
            request, self._frame.render(template, here="issues", token=self._forms.token, **context)
        )

    # --- the action ---

    def _fix(self, form: Form) -> str:
        """Write the wish down, once; the address of its page. Raises ChangedError."""
        action, code, subject = form.get("action", ""), form.get("code", ""), form.get("subject", "")
        row = self._open(code, subject)
        if row is None or action not in self._offered(row):
            raise ChangedError("expected an issue that is open and a fix for it, got none: look at the page again")
        key = issue_view.same_wish(self._store.asked(), action, code, subject)
        if key is None:
            values = {"code": code, "subject": subject}
            key = self._store.ask(action, values | (_time(form) if action == "clock.use-phone" else {}))
        return f"/issues/wish/{key}"

    # --- shared ---

    def _open(self, code: str, subject: str) -> IssueRow | None:
        return next((row for row in self._store.issues() if (row.code, row.subject) == (code, subject)), None)

    def _offered(self, row: IssueRow) -> tuple[str, ...]:
        return issue_view.offered(row, self._store.age_s())


def _time(form: Form) -> dict[str, float]:
    """Seconds since 1970 as the phone says, or as typed in the box's time zone; {} for neither: care refuses that."""
    unix_s = _number(form.get("phone_unix_s", ""))
    if unix_s is None:  # a phone that runs no scripts
        unix_s = _typed(form.get("date", ""), form.get("time", ""))
    return {} if unix_s is None else {"unix_s": unix_s}


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _typed(date: str, clock: str) -> float | None:
    try:
        return time.mktime(time.strptime(f"{date} {clock[:5]}", TYPED))
    except (ValueError, OverflowError):
        return None
