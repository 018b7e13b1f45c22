"""What state.json says and how it may change: pure functions, state in, state out. No disk, no clock, no boot.

A death of the worker is counted by the caller, who knows in which boot it happened: a power cut is never one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from edge.closed import ClosedError, build
from edge.errors import BundleError

FACTORY: Final = "factory"
STATE_SCHEMA: Final = 1
FAILED_KEPT: Final = 64  # slots that failed here, the newest
REVOKED_LIMIT: Final = 200  # the newest; older ones are ruled out by raising the epoch
CRASHED, SLOW, PERSON = "update.rolled-back-crash", "update.rolled-back-slow", "update.rolled-back-person"
DAMAGED: Final = "update.state-damaged"


@dataclass(frozen=True)
class Trial:
    """A model on probation: cases read well, deaths of the worker in one boot, cases over the time budget."""

    slot: str
    good: int
    crashes: int
    slow: int


@dataclass(frozen=True)
class Proposal:
    """A model that is staged and passed its self-test, and waits for a person's yes.

    label: "" where a person went back from a model on probation (`Slots.offer` knows it).
    compared: local cases read by both models; changed: those whose report would differ.
    """

    slot: str
    label: str
    compared: int
    changed: int


@dataclass(frozen=True)
class Outcome:
    """How the last update went: stable code and one plain sentence, for the page and the receipt."""

    code: str
    message: str


@dataclass(frozen=True)
class SlotState:
    """state.json. Slots are FACTORY or 64 hex digits.

    epoch: floor under which no model may run; rises when a model has passed its trial. versions: bundle id -> highest
    version that was ever active. revoked: slots and manifests that must not run. failed: slots that failed their trial
    on this box. root_version, snapshot_version: counters of the newest metadata seen.
    """

    schema: int
    active: str
    previous: str
    trial: Trial | None
    proposal: Proposal | None
    root_version: int
    snapshot_version: int
    epoch: int
    versions: dict[str, int]
    revoked: tuple[str, ...]
    failed: tuple[str, ...]
    last: Outcome | None


FACTORY_STATE: Final = SlotState(STATE_SCHEMA, FACTORY, FACTORY, None, None, 0, 0, 0, {}, (), (), None)
_COUNTERS = ("good", "crashes", "slow", "compared", "changed", "root_version", "snapshot_version", "epoch", "versions")
_BOUNDS: Final = dict.fromkeys(_COUNTERS, (0, 2**53))


def propose(state: SlotState, proposal: Proposal) -> SlotState:
    """A model waits for a person; it takes the place of one that waited before."""
    return dataclasses.replace(state, proposal=proposal)


def activate(state: SlotState, slot: str) -> SlotState:
    """Run `slot` from now on, on probation. What ran before is kept to go back to, unless it was on probation too.

    The proven model that a trial keeps for going back to needs no probation of its own: it takes over again.
    """
    if slot == state.active:
        return dataclasses.replace(state, proposal=None)
    if state.trial and slot == state.previous:
        return dataclasses.replace(state, active=slot, previous=FACTORY, trial=None, proposal=None)
    proven = state.previous if state.trial else state.active
    return dataclasses.replace(state, active=slot, previous=proven, trial=Trial(slot, 0, 0, 0), proposal=None)


def good_case(state: SlotState, needed: int) -> SlotState:
    """A study was read within the budget; after `needed` of them the probation is over."""
    if state.trial is None:
        return state
    trial = dataclasses.replace(state.trial, good=state.trial.good + 1)
    return dataclasses.replace(state, trial=None if trial.good >= needed else trial)


def crashed(state: SlotState, limit: int) -> SlotState:
    """The worker died or hung with the model on probation, in this boot; the `limit`-th time the box goes back."""
    if state.trial is None:
        return state
    trial = dataclasses.replace(state.trial, crashes=state.trial.crashes + 1)
    if trial.crashes < limit:
        return dataclasses.replace(state, trial=trial)
    times = "time" if trial.crashes == 1 else "times"
    message = f"The new model stopped the reader {trial.crashes} {times}; the box went back to the model before."
    return roll_back(state, Outcome(CRASHED, message))


def slow_case(state: SlotState, limit: int) -> SlotState:
    """A study took longer than the budget; the `limit`-th time the box goes back."""
    if state.trial is None:
        return state
    trial = dataclasses.replace(state.trial, slow=state.trial.slow + 1)
    if trial.slow < limit:
        return dataclasses.replace(state, trial=trial)
    message = f"The new model was too slow {trial.slow} times; the box went back to the model before."
    return roll_back(state, Outcome(SLOW, message))


def roll_back(state: SlotState, outcome: Outcome) -> SlotState:
    """Back to the previous model, or to the factory's where that one may not run.

    A person's choice (outcome.code PERSON) can be taken back: a model that had passed its probation becomes the
    previous one, one still on probation waits for a yes and would begin its probation anew. A model that failed its
    probation is noted in `failed` and never offered again.
    """
    by_person = outcome.code == PERSON
    failed = state.failed if by_person else tuple(dict.fromkeys((*state.failed, state.active)))[-FAILED_KEPT:]
    barred = {*failed, *state.revoked}
    target = FACTORY if state.previous in barred else state.previous
    proposal, before = state.proposal, FACTORY
    if by_person and state.active not in barred:
        if state.trial is None:
            before = state.active
        elif proposal is None:
            proposal = Proposal(state.active, "", 0, 0)
    return dataclasses.replace(
        state, active=target, previous=before, trial=None, proposal=proposal, failed=failed, last=outcome
    )


def revoke(state: SlotState, revoked: Sequence[str]) -> SlotState:
    """Never run these slots or manifests again; an active slot among them is left at once."""
    known = tuple(dict.fromkeys((*state.revoked, *revoked)))[-REVOKED_LIMIT:]
    return leave(dataclasses.replace(state, revoked=known), known)


def leave(state: SlotState, barred: Collection[str]) -> SlotState:
    """Point to none of the slots `barred` any more."""
    previous = FACTORY if state.previous in barred else state.previous
    proposal = None if state.proposal and state.proposal.slot in barred else state.proposal
    state = dataclasses.replace(state, previous=previous, proposal=proposal)
    if state.active not in barred:
        return state
    return dataclasses.replace(state, active=previous, previous=FACTORY, trial=None)


def in_use(state: SlotState) -> frozenset[str]:
    """Slots whose folders must stay."""
    named = {state.active, state.previous}
    named |= {part.slot for part in (state.trial, state.proposal) if part}
    return frozenset(named - {FACTORY})


def parse_state(content: bytes) -> SlotState:
    """Bytes of state.json, closed and typed. Raises BundleError (update.state-damaged)."""
    try:
        state = build(SlotState, json.loads(content), "state", _BOUNDS)
    except (ValueError, RecursionError, ClosedError) as error:
        raise damaged() from error
    named = [state.active, state.previous, *(part.slot for part in (state.trial, state.proposal) if part)]
    misplaced = state.trial is not None and state.trial.slot != state.active
    if state.schema != STATE_SCHEMA or misplaced or not all(is_slot(name) for name in named):
        raise damaged()
    return state


def state_bytes(state: SlotState) -> bytes:
    """What `parse_state` reads."""
    return json.dumps(dataclasses.asdict(state), indent=1).encode()


def is_slot(name: str) -> bool:
    """FACTORY or a sha256 in hex; anything else must never become a path."""
    return name == FACTORY or (len(name) == 64 and set(name) <= set("0123456789abcdef"))


def damaged() -> BundleError:
    """The error of a state.json that cannot be read."""
    message = "The file that says which model is in use is damaged; the box runs the model it was delivered with."
    return BundleError(message, code=DAMAGED)
