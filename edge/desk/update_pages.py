"""The pages of the model, and the four things a person may decide there.

A decision is a form of the box's own page (`edge.desk.forms`). Every form also names the model that the person saw, so
that nobody decides on another one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge import update_seen
from edge.board import Board
from edge.bundle import parse_manifest
from edge.desk import update_view, views
from edge.desk.forms import Form, Forms
from edge.desk.update_view import DECLINED, INSTALLED, Banner, ModelName
from edge.errors import BundleError, RadboxError, UpdateError
from edge.slots import FACTORY, PERSON, Outcome, Slots, SlotState, roll_back
from edge.store import Store

CHANGED = "update.changed-meanwhile"


class Frame(Protocol):
    """What these pages use of the rest of the desk."""

    board: Board
    store: Store

    def render(self, template: str, **context: Any) -> str:
        """A template as text."""
        ...

    def answer(self, request: Request, content: str) -> Response:
        """A page with an ETag."""
        ...

    def error(self, request: Request, status: int, code: str) -> Response:
        """An error page."""
        ...

    def now(self) -> views.Now:
        """The moment of this answer."""
        ...


class UpdatePages:
    """Reads state.json at every request; writes it only in the actions, through `Slots`."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._board = frame.board
        self._slots = Slots(frame.board.data_dir, frame.board.worker.bundle)
        self._forms = Forms(frame.error, CHANGED)
        self._token = self._forms.token
        self._factory_name = lru_cache(maxsize=1)(self._read_factory_name)

    def routes(self) -> list[Route]:
        """Addresses of the pages and actions."""
        actions = {"use": self._use, "later": self._later, "back": self._back, "seen": self._see}
        return [
            Route("/model", self.model),
            Route("/model/back", self.ask_back, methods=["GET"]),
            *(Route(f"/model/{name}", self._action(act), methods=["POST"]) for name, act in actions.items()),
        ]

    def banner(self) -> Banner | None:
        """The line on the list."""
        working = update_view.at_work(self._frame.store.services(), self._frame.now())
        return update_view.banner(self._slots.read(), self._board.update, working, self._seen())

    # --- pages ---

    def model(self, request: Request) -> Response:
        """Which model reads, on trial or not, how the last update went, and what can be decided."""
        now, rows = self._frame.now(), self._frame.store.services()
        state = self._slots.read()
        names = {slot: self._name(slot) for slot in update_view.named_slots(state)}
        working = update_view.at_work(rows, now)
        view = update_view.model_view(state, self._board.update, names, working, self._seen())
        notices = views.notices([row for row in rows if row.name == "worker"], now)
        content = self._frame.render("model.html", here="about", view=view, notices=notices, token=self._token)
        return self._frame.answer(request, content)

    def ask_back(self, request: Request) -> Response:
        """The question before going back."""
        state = self._slots.read()
        refusal = ""
        try:
            self._slots.check_rollback(state)
        except UpdateError as error:
            refusal = error.message
        names = [self._name(slot).name for slot in (state.active, state.previous)]
        content = self._frame.render(
            "model_back.html", here="about", names=names, active=state.active, refusal=refusal, token=self._token
        )
        return self._frame.answer(request, content)

    # --- actions ---

    def _action(self, act: Callable[[Form], None]) -> Callable[[Request], Any]:
        def decide(form: Form) -> str:
            act(form)
            return "/model"

        return self._forms.action(decide)

    def _use(self, form: Form) -> None:
        """Run the model that waits, on trial."""

        def take(state: SlotState) -> SlotState:
            slot = _waiting(state, form)
            self._slots.open(slot)
            outcome = Outcome(INSTALLED, "The new model is in use, on trial.")
            return self._slots.put_on_trial(state, slot, outcome)

        self._change(take, lambda state: dataclasses.replace(state, proposal=None))

    def _later(self, form: Form) -> None:
        """Do not run the model that waits."""

        def decline(state: SlotState) -> SlotState:
            _waiting(state, form)
            outcome = Outcome(DECLINED, "The new model was not taken. Put its stick in again to be asked again.")
            return dataclasses.replace(state, proposal=None, last=outcome)

        self._change(decline, lambda state: state)

    def _back(self, form: Form) -> None:
        """Swap the model in use and the one before."""

        def back(state: SlotState) -> SlotState:
            if state.active != form.get("slot"):
                raise _changed()
            self._slots.check_rollback(state)
            message = "The box went back to the earlier model because a person asked for it on the page."
            return roll_back(state, Outcome(PERSON, message))

        self._change(back, lambda state: state)

    def _see(self, form: Form) -> None:
        """A person has taken note of a failure; the line on the list goes."""
        state = self._slots.read()
        if update_seen.mark_of(state) != form.get("mark"):
            raise _changed()
        update_seen.note_seen(self._board.data_dir, state)
        self._frame.store.add_event("update.seen", "A person took note on the page that a new model failed here.")

    def _change(self, decide: Callable[[SlotState], SlotState], refuse: Callable[[SlotState], SlotState]) -> None:
        """Decide, and tell. What may not be done any more becomes the outcome, after `refuse`.

        Raises UpdateError (CHANGED), StorageError.
        """
        try:
            after = self._slots.change(decide)
        except (BundleError, UpdateError) as error:
            if error.code == CHANGED:
                raise
            outcome = Outcome(error.code, error.message)
            after = self._slots.change(lambda state: dataclasses.replace(refuse(state), last=outcome))
        if after.last:
            self._frame.store.add_event(after.last.code, after.last.message)

    # --- shared ---

    def _name(self, slot: str) -> ModelName:
        origin = update_view.origin_of(slot)
        if slot == FACTORY:
            return ModelName(self._factory_name(), origin)
        offer = self._slots.offer(slot)
        return ModelName(f"{offer.id} {offer.label}", origin, offer.words) if offer else ModelName(slot[:12], origin)

    def _read_factory_name(self) -> str:
        try:
            manifest = parse_manifest((self._board.worker.bundle / "manifest.json").read_bytes())
        except (OSError, RadboxError):
            return "the model of this box"
        return f"{manifest.id} {manifest.version}"

    def _seen(self) -> str:
        return update_seen.seen_mark(self._board.data_dir)


def _waiting(state: SlotState, form: Form) -> str:
    if state.proposal is None or state.proposal.slot != form.get("slot"):
        raise _changed()
    return state.proposal.slot


def _changed() -> UpdateError:
    return UpdateError("expected the model that the page showed, got another: look at the page again", code=CHANGED)
