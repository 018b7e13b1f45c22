"""The page of the frame grabber: what it sees of the machine, and the button that turns the picture into a study.

The page takes nothing itself: it writes down the press, and `capture` answers it (`edge.intake.grabber`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge.desk.forms import Form, Forms
from edge.desk.update_pages import Frame
from edge.desk.views import Now
from edge.desk.words import Tone
from edge.store_rows import FactRow, RequestRow

FREEZE: Final = "grabber.freeze"
TAKEN: Final = "grabber.frozen"
STALE_S: Final = 30.0  # the service says more often how it is
ANSWER_S: Final = 15.0
LARGEST_KEY: Final = 2**63 - 1  # of an SQLite row
_SILENT: Final = "The box does not look at the machine's picture at the moment."


@dataclass(frozen=True)
class Press:
    """What became of a press on the button."""

    key: int
    tone: Tone
    title: str
    text: str
    open: bool


class GrabberPages:
    """There is a page only on a board that names a grabber."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._store = frame.store
        self._forms = Forms(frame.error)

    def routes(self) -> list[Route]:
        """Addresses of the page, of the action and of its outcome."""
        return [
            Route("/grabber", self.grabber),
            Route("/grabber/take", self._forms.action(self._take), methods=["POST"]),
            Route("/grabber/press/{key:int}", self.press),
        ]

    @property
    def present(self) -> bool:
        """True if the list of studies should lead here."""
        return bool(self._frame.board.grabber.source)

    def grabber(self, request: Request) -> Response:
        """How the picture is, and the button."""
        return self._page(request, None)

    def press(self, request: Request) -> Response:
        """What became of a press; follows by itself until it is answered."""
        key: int = request.path_params["key"]
        row = self._store.request(key) if key <= LARGEST_KEY else None
        if row is None or row.action != FREEZE:
            raise HTTPException(404)
        return self._page(request, press_view(row, self._frame.now()))

    def _page(self, request: Request, press: Press | None) -> Response:
        if not self.present:
            raise HTTPException(404)
        tone, message = sight(self._store.facts().get("grabber"), self._frame.now())
        content = self._frame.render(
            "grabber.html", here="grabber", token=self._forms.token, tone=tone, message=message, press=press
        )
        return self._frame.answer(request, content)

    def _take(self, _form: Form) -> str:
        """A press, unless one still waits: pressing twice at once takes one picture."""
        if not self.present:
            raise HTTPException(404)
        now = self._frame.now()
        waiting = [row for row in self._store.asked(FREEZE) if _fresh(row.boot_id, row.monotonic_s, now, ANSWER_S)]
        key = waiting[0].request_key if waiting else self._store.ask(FREEZE, {})
        return f"/grabber/press/{key}"


def sight(fact: FactRow | None, now: Now) -> tuple[Tone, str]:
    """What the service says of the picture, if it said so just now."""
    if fact is None or not _fresh(fact.boot_id, fact.monotonic_s, now, STALE_S):
        return "warn", _SILENT
    return "ready" if fact.value.get("state") in ("ok", "frozen") else "warn", str(fact.value.get("message", ""))


def press_view(row: RequestRow, now: Now) -> Press:
    """An answered press, one that waits, or one that nobody answers."""
    if row.code:
        taken = row.code == TAKEN
        title = "Picture taken" if taken else "No picture taken"
        return Press(row.request_key, "ready" if taken else "warn", title, row.message, False)
    if _fresh(row.boot_id, row.monotonic_s, now, ANSWER_S):
        return Press(row.request_key, "work", "Taking the picture", "", True)
    return Press(row.request_key, "warn", "No picture taken", f"{_SILENT} Try again in a moment.", False)


def _fresh(boot_id: str, monotonic_s: float, now: Now, limit_s: float) -> bool:
    return boot_id == now.boot_id and now.monotonic_s - monotonic_s <= limit_s
