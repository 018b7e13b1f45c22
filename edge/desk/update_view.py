"""What the box's model is, where it came from, and how its last update went, as a page shows it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edge.board import Update
from edge.desk import update_words, words
from edge.desk.views import Notice, Now
from edge.desk.words import Tone
from edge.slots import FACTORY, PERSON, Outcome, SlotState
from edge.store import ServiceRow
from edge.update_seen import mark_of, unseen_failure

WORKING = "update.working"
INSTALLED, COMMITTED, PROPOSED, DECLINED = "update.installed", "update.committed", "update.proposed", "update.declined"
WORKING_SHOWN_S = 1800.0  # an update that says nothing for so long was cut off
_TONES: dict[str, Tone] = {
    INSTALLED: "work",
    COMMITTED: "ready",
    PROPOSED: "work",
    DECLINED: "draft",
    PERSON: "draft",
    "update.not-newer": "draft",
}


@dataclass(frozen=True)
class ModelName:
    """How a model is called and what its makers say of it; `words` may be ""."""

    name: str
    origin: str
    words: str = ""


@dataclass(frozen=True)
class Trial:
    """Progress of a model on trial; `hundredths` for the bar."""

    good: int
    needed: int
    hundredths: int
    rules: str
    so_far: str

    @property
    def progress(self) -> str:
        """For example "12 of 20 good cases"."""
        return progress(self.good, self.needed)


@dataclass(frozen=True)
class Proposal:
    """A model that waits for a person. `slot` names it in the form."""

    slot: str
    title: str
    change: str
    words: str


@dataclass(frozen=True)
class ModelView:
    """The page. `back`: name of the model before, "" if there is none to go back to.

    unseen: the last outcome is a failure that nobody took note of yet; `mark` names it in the form.
    """

    model: ModelName
    trial: Trial | None
    proposal: Proposal | None
    outcome: Notice | None
    unseen: bool
    mark: str
    working: str
    back: str


@dataclass(frozen=True)
class Banner:
    """One line on the list of studies."""

    tone: Tone
    text: str


def model_view(state: SlotState, limits: Update, names: dict[str, ModelName], working: str, seen: str) -> ModelView:
    """names: of the active, previous and proposed slots. seen: `mark_of` the outcome that a person has seen."""
    return ModelView(
        model=names[state.active],
        trial=_trial(state, limits),
        proposal=_proposal(state, names),
        outcome=_outcome(state.last),
        unseen=unseen_failure(state, seen) is not None,
        mark=mark_of(state),
        working=working,
        back=names[state.previous].name if state.previous != state.active else "",
    )


def named_slots(state: SlotState) -> tuple[str, ...]:
    """The slots that the page calls by name."""
    proposed = (state.proposal.slot,) if state.proposal else ()
    return tuple(dict.fromkeys((state.active, state.previous, *proposed)))


def banner(state: SlotState, limits: Update, working: str, seen: str) -> Banner | None:
    """What everyone should know who looks at the list: what waits for a yes, went wrong, or is going on."""
    if working:
        return Banner("work", f"A model update is at work: {working}")
    if state.proposal:
        return Banner("warn", "A new model waits for your decision")
    if unseen_failure(state, seen) is not None:
        return Banner("warn", "A new model failed on this box; the earlier one reads again")
    if state.trial:
        return Banner("work", f"A new model is on trial: {progress(state.trial.good, limits.probation_cases)}")
    return None


def progress(good: int, needed: int) -> str:
    """For example "12 of 20 good cases"."""
    return f"{good} of {words.count(needed, 'good case', 'good cases')}"


def at_work(rows: Iterable[ServiceRow], now: Now) -> str:
    """What an update that runs now says of itself, "" if none does."""
    for row in rows:
        fresh = row.boot_id == now.boot_id and now.monotonic_s - row.monotonic_s < WORKING_SHOWN_S
        if row.code == WORKING and fresh:
            return row.message
    return ""


def origin_of(slot: str) -> str:
    """Where a model came from."""
    return "Delivered with this box" if slot == FACTORY else "Installed by an update"


def _trial(state: SlotState, limits: Update) -> Trial | None:
    if state.trial is None:
        return None
    needed = limits.probation_cases
    stopped, slow = (words.count(n, "time", "times") for n in (limits.crash_limit, limits.slow_limit))
    return Trial(
        good=state.trial.good,
        needed=needed,
        hundredths=min(100, 100 * state.trial.good // needed),
        rules=f"The box goes back to the earlier model by itself if this one stops the reader {stopped} "
        f"or is too slow {slow}.",
        so_far=f"So far: stopped {words.count(state.trial.crashes, 'time', 'times')}, "
        f"too slow {words.count(state.trial.slow, 'time', 'times')}. A power cut never counts.",
    )


def _proposal(state: SlotState, names: dict[str, ModelName]) -> Proposal | None:
    waits = state.proposal
    if waits is None:
        return None
    name = f"Model {waits.label}" if waits.label else f"Model {names[waits.slot].name}"
    change = f"{name} would change {waits.changed} of {waits.compared} of your recent drafts."
    if not waits.compared:  # a person went back while it was on trial
        change = "It was on trial here before. Its trial would begin again."
    return Proposal(waits.slot, f"{name} is ready", change, names[waits.slot].words)


def _outcome(last: Outcome | None) -> Notice | None:
    if last is None:
        return None
    tone = _TONES.get(last.code, "warn")
    return Notice(tone, update_words.title(last.code), last.message, update_words.todo(last.code), last.code)
