"""From a mounted stick to a model in use, step by step. A cut after any step loses nothing: the next try goes on.

    verify roots, index, bundle -> decide -> keep what was learned -> stage -> build -> self-test -> shadow
        -> wait for a person (it would change reports here) or run it, on probation

A refusal changes nothing but `last` in state.json, and the newest root if the stick brought one that verifies. What a
verified update says of counters and revocations is kept before anything is copied: a model called back stops at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge import durable, trust
from edge.board import Board
from edge.bundle import Bundle
from edge.care.update.outcome import Found, Result, label, progress, refused, software, telling, told
from edge.care.update.selftest import budget_of, build, self_test
from edge.care.update.shadow import compare
from edge.care.update.stage import collect, stage
from edge.care.update.stick import Stick, open_stick
from edge.care.update.words import sentence
from edge.errors import BundleError, RadboxError, UpdateError
from edge.slots import (
    PERSON,
    SLOTS,
    Outcome,
    Proposal,
    Slots,
    SlotState,
    in_use,
    leave,
    propose,
    revoke,
    roll_back,
)
from edge.store import Store
from edge.trust import Offer, SnapshotFacts, Trusted

INSTALLED, PROPOSED = "update.installed", "update.proposed"
_IN_USE: Final = Outcome(INSTALLED, sentence(INSTALLED))
# With several bundles on a stick and none to take, the reason told is the first that is not one of these.
_USUAL: Final = ("update.other-board", "update.not-newer")


@dataclass(frozen=True)
class Chosen:
    """The bundle to take, and the stick's index. bundle: its folder's name."""

    bundle: str
    targets: bytes
    offer: Offer
    snapshot: SnapshotFacts


def slots_of(board: Board) -> Slots:
    """The slots of a board; its own bundle is the factory's."""
    return Slots(board.data_dir, board.worker.bundle)


def install(board: Board, store: Store, folder: Path) -> Result:
    """Take the update on the stick mounted at `folder`, or refuse it; either way everyone is told.

    Raises nothing that a stick, a full disk or a damaged model could cause.
    """
    slots = slots_of(board)
    found = Found(label(slots, slots.read().active))
    try:
        with _only_one(board.data_dir):
            outcome = _Installation(board, store, slots, found).run(folder)
            with telling("the removal of old models"):
                collect(board.data_dir, in_use(slots.read()))
    except RadboxError as error:
        return refused(board, store, slots, error, found)
    return told(board, store, slots, outcome, "", found)


def refuse(board: Board, store: Store, error: UpdateError) -> Result:
    """Tell of a stick that was refused before it was opened."""
    slots = slots_of(board)
    return refused(board, store, slots, error, Found(label(slots, slots.read().active)))


def verify(board: Board, folder: Path) -> Offer:
    """What `install` would take from the stick, every byte of it checked. Changes nothing. Raises UpdateError."""
    slots = slots_of(board)
    with open_stick(folder) as stick:
        state = slots.read()
        known, _ = known_with(stick, slots, state)
        chosen = choose(stick, slots, state, known, board.name)
        stick.check_files(chosen.bundle, chosen.offer)
        stick.check_hashes(chosen.bundle, chosen.offer)
    return chosen.offer


def confirm(board: Board, store: Store) -> Result:
    """A person's yes to the model that waits. Refused, and told, if none waits or it may no longer run."""
    slots = slots_of(board)
    found = Found(label(slots, slots.read().active))

    def accept(state: SlotState) -> SlotState:
        if state.proposal is None:
            raise UpdateError("expected a model that waits, got none", code="update.nothing-waits")
        found.slot = state.proposal.slot
        slots.open(state.proposal.slot)
        return slots.put_on_trial(state, state.proposal.slot, _IN_USE)

    return _changed(board, store, slots, accept, found)


def roll_back_by_person(board: Board, store: Store) -> Result:
    """Swap the model in use and the one before. Refused, and told, if that one may not run."""
    slots = slots_of(board)
    found = Found(label(slots, slots.read().active))

    def back(state: SlotState) -> SlotState:
        slots.check_rollback(state)
        return roll_back(state, Outcome(PERSON, sentence(PERSON)))

    return _changed(board, store, slots, back, found)


def known_with(stick: Stick, slots: Slots, state: SlotState) -> tuple[Trusted, tuple[bytes, ...]]:
    """What the box knows with the newer roots of the stick, and these roots. Raises UpdateError."""
    trusted = slots.trusted(state)
    newer = trust.verify_roots(trusted.root, stick.roots())
    return trust.after_roots(trusted, newer), newer


def choose(stick: Stick, slots: Slots, state: SlotState, known: Trusted, board: str) -> Chosen:
    """Verify what the stick says and pick the bundle for this box: the one of the latest epoch and version.

    Raises UpdateError, for the whole stick or, if no bundle may be taken, for the one that comes closest.
    """
    snapshot = trust.verify_snapshot(known.root, stick.snapshot(), known.snapshot_version)
    chosen: list[Chosen] = []
    reasons: list[UpdateError] = []
    for bundle in stick.bundles():
        try:
            targets = stick.targets(bundle)
            offer = trust.verify_targets(known.root, targets)
            _check_failed_before(state, offer)
            trust.decide(_again(slots, state, known, offer), snapshot, offer, board, software())
        except UpdateError as error:
            reasons.append(error)
        else:
            chosen.append(Chosen(bundle, targets, offer, snapshot))
    if not chosen:
        raise min(reasons, key=lambda error: error.code in _USUAL)
    return max(chosen, key=lambda one: (one.offer.epoch, one.offer.version))


def _again(slots: Slots, state: SlotState, known: Trusted, offer: Offer) -> Trusted:
    """`known`, but a model that the box has and no longer uses, because a person went back, may be taken once more."""
    had = known.versions.get(offer.id) == offer.version and slots.offer_under(offer.slot, state) is not None
    if not had or offer.slot in in_use(state):
        return known
    return dataclasses.replace(known, versions={**known.versions, offer.id: offer.version - 1})


def _check_failed_before(state: SlotState, offer: Offer) -> None:
    if offer.slot in state.failed:
        message = "expected a model that has not failed here, got one that was rolled back"
        raise UpdateError(message, code="update.failed-before")


class _Installation:
    """One run of the steps. Every step may raise RadboxError, and may be done again."""

    def __init__(self, board: Board, store: Store, slots: Slots, found: Found) -> None:
        self._board, self._store, self._slots, self._found = board, store, slots, found

    def run(self, folder: Path) -> Outcome:
        progress(self._store, "Checking the update on the stick.")
        with open_stick(folder) as stick:
            state = self._take_roots(stick)
            chosen = choose(stick, self._slots, state, self._slots.trusted(state), self._board.name)
            offer = chosen.offer
            self._found.slot = offer.slot
            stick.check_files(chosen.bundle, offer)
            stick.check_hashes(chosen.bundle, offer)
            self._keep(chosen)
            progress(self._store, "Copying the new model. Please leave the stick in.")
            data_dir, reserve_bytes = self._board.data_dir, self._board.receive.min_free_bytes
            stage(stick, chosen.bundle, chosen.targets, offer, data_dir, reserve_bytes)
        bundle = self._open(offer)
        self._try(bundle, offer)
        return self._take(bundle, offer)

    def _take_roots(self, stick: Stick) -> SlotState:
        """Newer roots count from now on, whatever becomes of the stick's bundles: a stick may bring nothing else.

        Counters that they started again (`trust.after_roots`) start again here.
        """
        state = self._slots.read()
        known, newer = known_with(stick, self._slots, state)
        if not newer:
            return state
        trusted = self._slots.trusted(state)
        self._slots.keep_roots(newer)
        return self._learn(
            lambda now: dataclasses.replace(
                now,
                root_version=max(now.root_version, trust.root_version(known.root)),
                snapshot_version=known.snapshot_version,
                epoch=now.epoch if known.epoch == trusted.epoch else known.epoch,
                versions=now.versions if known.versions == trusted.versions else dict(known.versions),
            )
        )

    def _keep(self, chosen: Chosen) -> None:
        """The index's counter and what the bundle calls back; the epoch counts once a model has passed its trial."""
        root_version = trust.root_version(self._slots.trusted(self._slots.read()).root)
        version, revokes = chosen.snapshot.version, chosen.offer.revokes
        self._learn(
            lambda now: dataclasses.replace(revoke(now, revokes), snapshot_version=version, root_version=root_version)
        )

    def _learn(self, change: Callable[[SlotState], SlotState]) -> SlotState:
        """One change of state.json; a model in use that may not run any more is left."""
        before = self._slots.read().active
        after = self._slots.change(lambda state: self._allowed(change(state)))
        if after.active != before:
            with telling("an event"):
                self._store.add_event("update.revoked", "The model in use was called back; the box left it at once.")
        return after

    def _allowed(self, state: SlotState) -> SlotState:
        return leave(state, self._slots.barred(state))

    def _open(self, offer: Offer) -> Bundle:
        """The staged bundle, as the worker will open it."""
        try:
            return self._slots.open(offer.slot)
        except BundleError as error:
            code = "update.schema" if error.code == "bundle.schema" else "update.self-test"
            raise UpdateError(error.message, code=code) from error

    def _try(self, bundle: Bundle, offer: Offer) -> None:
        progress(self._store, "Preparing the new model for this box.")
        backends = build(bundle, self._board)
        progress(self._store, "Testing the new model on this box.")
        self._found.self_test = self_test(bundle, self._board, backends, budget_of(offer, self._board.name))
        progress(self._store, "Comparing the new model with the old one on studies of this box.")
        self._found.shadow = compare(self._board, self._store, bundle, self._board.update.shadow_cases)

    def _take(self, bundle: Bundle, offer: Offer) -> Outcome:
        compared, changed = self._found.shadow or (0, 0)
        if self._board.update.confirm and compared > 0 and changed > 0:
            words = f"{sentence(PROPOSED)} It would change {changed} of {compared} reports."
            outcome = Outcome(PROPOSED, words)
            proposal = Proposal(offer.slot, offer.label, compared, changed)
            self._slots.change(lambda state: dataclasses.replace(propose(state, proposal), last=outcome))
            return outcome
        after = self._slots.change(lambda state: self._slots.put_on_trial(state, offer.slot, _IN_USE))
        return after.last or _IN_USE


def _changed(
    board: Board, store: Store, slots: Slots, decide: Callable[[SlotState], SlotState], found: Found
) -> Result:
    try:
        after = slots.change(decide)
    except RadboxError as error:
        return refused(board, store, slots, error, found)
    return told(board, store, slots, after.last or Outcome(PERSON, sentence(PERSON)), "", found)


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """One installation at a time: two sticks must not stage into each other. Raises UpdateError: update.busy."""
    durable.make_directory(data_dir / SLOTS)
    lock = durable.Lock(data_dir / SLOTS)
    try:
        if not lock.acquire(wait_s=0):
            raise UpdateError("expected to be the only update, got another at work", code="update.busy")
        yield
    finally:
        lock.close()
