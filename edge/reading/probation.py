"""The worker's word on the model it runs: what counts for a model on trial, what against it, when to change.

`edge.slots` decides (commit, roll back); here is what it decides on. Deaths count only within one boot, so that a power
cut is never held against a model.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from edge.board import Board
from edge.bundle import Bundle
from edge.errors import BackendError, BundleError, StorageError
from edge.reading.load import Loaded
from edge.reading.pipeline import STAGES
from edge.slots import FACTORY, STATE, Outcome, Slots, SlotState, crashed, good_case, slow_case
from edge.store import Store, boot_id
from edge.trust import Budget

COMMITTED = "update.committed"
LOOK_AGAIN_S = 60.0  # a preferred model that did not open may be whole again
_FOR_EACH_IMAGE = ("prepare", "encode")
_log = logging.getLogger("worker")

Decide = Callable[[SlotState], SlotState]


class Probation:
    """Between the worker and the slots. One per worker; `start` first, then `loading`, `loaded`, and so on."""

    def __init__(self, board: Board, store: Store) -> None:
        self._limits = board.update
        self._max_attempts = board.worker.max_attempts
        self._board_name = board.name
        self._store = store
        self._slots = Slots(board.data_dir, board.worker.bundle)
        self._state_path = board.data_dir / STATE
        self._boot_id = boot_id()
        self._seen: tuple[int, int, int] | None = None
        self._active = self._wanted = self._slot = FACTORY
        self._on_trial = False
        self._look_again_s = float("inf")
        self.budget: Budget | None = None

    @property
    def slot(self) -> str:
        """Where the model at work came from; the name under which studies are claimed."""
        return self._slot

    @property
    def on_trial(self) -> bool:
        """True while the model at work is on trial."""
        return self._on_trial

    @property
    def trial(self) -> bool:
        """True while any model is on trial, at work or not."""
        return self._slots.read().trial is not None

    # --- at the start of a worker, and of a model ---

    def start(self) -> list[int]:
        """Count what earlier workers of this boot died on, give back their studies and return those.

        Raises StorageError, StoreError.
        """
        trial = self._slots.read().trial
        died = self._store.deaths()
        requeued = self._store.requeue_stale(self._max_attempts, trial.slot if trial else None)
        if trial and trial.slot in died:
            self._judge(trial.slot, self._crashed)
        state = self._slots.read()
        for slot in state.failed:
            self._store.pardon(slot)
        self._wanted = state.active
        return requeued

    def loading(self) -> None:
        """Call before the model is opened: a death from here to `loaded` counts against a model on trial."""
        try:
            if self._slots.starting(self._boot_id):
                self._judge(self._slots.read().active, self._crashed)
        except StorageError as error:
            _log.error("%s: a death while loading could not be noted", error.code)
        self._wanted = self._slots.read().active

    def loaded(self, loaded: Loaded) -> bool:
        """A model is open. False: the one on trial was refused by every backend; it was counted, try it again."""
        try:
            self._slots.started()
        except StorageError as error:
            _log.error("%s: the mark of a model that was loading stays", error.code)
        for slot, reason in loaded.slots_passed_over:
            self._tell(reason.code, f"{self._name(slot)} cannot run: {reason.message}")
            if isinstance(reason, BackendError):
                self._judge(slot, self._crashed)
        self._slot = loaded.slot
        self._look()
        damaged = any(isinstance(reason, BundleError) for _, reason in loaded.slots_passed_over)
        self._look_again_s = time.monotonic() + LOOK_AGAIN_S if damaged else float("inf")
        return not self._refused_on_trial(loaded)

    def _refused_on_trial(self, loaded: Loaded) -> bool:
        trial = self._slots.read().trial
        refused = [slot for slot, reason in loaded.slots_passed_over if isinstance(reason, BackendError)]
        return trial is not None and trial.slot in refused

    def outdated(self) -> bool:
        """True if another model should run now: a new one, the one before, or a repaired one. Cheap."""
        if _signature(self._state_path) != self._seen:
            self._look()
        return self._active != self._wanted or self._repaired()

    def _look(self) -> None:
        """Take in what state.json says now."""
        self._seen = _signature(self._state_path)
        state = self._slots.read()
        self._active = state.active
        self._on_trial = state.trial is not None and state.trial.slot == self._slot
        offer = self._slots.offer(self._slot)
        budgets = offer.budgets if offer else {}
        self.budget = budgets.get(self._board_name, budgets.get("*"))

    def _repaired(self) -> bool:
        if time.monotonic() < self._look_again_s:
            return False
        self._look_again_s = time.monotonic() + LOOK_AGAIN_S
        try:
            self._slots.open(self._active)
        except (BundleError, OSError):
            return False
        return True

    # --- what the model at work does ---

    def read(self, timings_s: Mapping[str, float], images: int) -> None:
        """A study became a draft or a refusal. timings_s: seconds of each stage; images: that the model looked at.

        A study that never reached the model says nothing about it. One of several images may take their time.
        """
        if not self._on_trial or "encode" not in timings_s:
            return
        share = {name: max(1, images) if name in _FOR_EACH_IMAGE else 1 for name in STAGES}
        spent_s = sum(timings_s.get(name, 0.0) / share[name] for name in STAGES)
        if self.budget and spent_s > self.budget.p95_s:
            _log.warning("the model on trial took %.1f s, expected at most %.1f s", spent_s, self.budget.p95_s)
            self._judge(self._slot, lambda state: slow_case(state, self._limits.slow_limit))
        else:
            self._judge(self._slot, self._good)

    def failed(self) -> None:
        """The model at work broke on a study without taking the worker with it; that counts as a death."""
        if self._on_trial:
            self._judge(self._slot, self._crashed)

    def _good(self, state: SlotState) -> SlotState:
        after = good_case(state, self._limits.probation_cases)
        if after.trial:
            return after
        cases = self._limits.probation_cases
        message = f"{self._name(state.active)} read {cases} studies here without a fault and is now in use."
        return dataclasses.replace(after, last=Outcome(COMMITTED, message))

    def _crashed(self, state: SlotState) -> SlotState:
        return crashed(state, self._limits.crash_limit)

    def _judge(self, slot: str, decide: Decide) -> None:
        """Change the state if `slot` is the model on trial; say what became of it. A full disk changes nothing."""
        before: list[SlotState] = []

        def decide_on(state: SlotState) -> SlotState:
            before[:] = [state]
            return decide(state) if state.trial and state.trial.slot == slot else state

        try:
            after = self._slots.change(decide_on)
        except StorageError as error:
            _log.error("%s: the trial of the model could not be noted", error.code)
            return
        self._look()
        if before[0].trial and not after.trial and after.last:
            _log.warning("%s: %s", after.last.code, after.last.message)
            self._tell(after.last.code, after.last.message)
            if after.active != slot:
                self._store.pardon(slot)

    def _tell(self, code: str, message: str) -> None:
        """An event for people; the outcome itself is in state.json already."""
        try:
            self._store.add_event(code, message)
        except StorageError as error:
            _log.error("%s: an event could not be kept", error.code)

    def _name(self, slot: str) -> str:
        offer = self._slots.offer(slot)
        return f"Model {offer.id} {offer.label}" if offer else "The model"


def spoken_name(bundle: Bundle) -> str:
    """How people call a model: "chest 0.1.0"."""
    return f"{bundle.manifest.id} {bundle.manifest.version}"


def _signature(path: Path) -> tuple[int, int, int] | None:
    """Changes whenever the file is replaced; None while there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
