"""The backends of this box in this boot: which may read, which are tried again, what people are told of it.

`edge.reading.escalation` decides; here its state is kept (fact "escalation") and lost backends are tried in a child.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from edge.board import Board
from edge.bundle import Bundle
from edge.errors import BackendError, BundleError, StorageError
from edge.reading import escalation
from edge.reading.backends import Probe
from edge.reading.backends.setup import board_setup
from edge.reading.backends.tensorrt import NOT_BUILT
from edge.reading.backends.tensorrt_background import Building
from edge.reading.escalation import Escalation, Step
from edge.reading.notes import Death
from edge.reading.patience import Patience
from edge.reading.voice import Voice
from edge.slots import Slots
from edge.store import Store, boot_id

FACT = "escalation"
_log = logging.getLogger("worker")


class Accelerators:
    """One per worker; `died` first, if the worker before did."""

    def __init__(
        self,
        board: Board,
        store: Store,
        voice: Voice,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises StorageError."""
        self._board = board
        self._names = board.worker.backends
        self._store = store
        self._voice = voice
        self._patience = patience
        self._clock = clock
        self._good = 0
        self._probe: Probe | None = None
        self._building: Building | None = None
        self._state = self._kept()
        self._unbuilt = next((name for name in self._names if self._state.of(name).code == NOT_BUILT), "")

    def _kept(self) -> Escalation:
        """What earlier workers of this boot left."""
        fact = self._store.facts().get(FACT)
        if fact is None or fact.boot_id != boot_id():
            return Escalation()
        try:
            return escalation.from_fact(fact.value)
        except ValueError as error:
            _log.error("%s; every backend gets a clean slate", error)
            return Escalation()

    def _keep(self, state: Escalation) -> None:
        if state == self._state:
            return
        self._state = state
        try:
            self._store.set_fact(FACT, escalation.as_fact(state, self._names))
        except StorageError as error:
            _log.error("%s: the health of the backends could not be kept", error.code)

    # --- opening a model ---

    def may_open(self) -> tuple[str, ...]:
        """The backends to open a model with, best first; empty while none may be tried."""
        return self._state.may_open(self._names, self._clock())

    def wait_s(self) -> float:
        """Seconds until `may_open` names one."""
        return self._state.wait_s(self._names, self._clock())

    def opened(self, name: str, passed_over: Iterable[tuple[str, BackendError]]) -> None:
        """A model is open on backend `name`; the board prefers those that were passed over."""
        before = self._state
        self._refuse(passed_over)
        self._good = 0
        if name not in self._names:
            return
        self._keep(escalation.opened(self._state, name))
        if before.of(name).lost:
            self._voice.event("backend.found-again", f"{name} works again and reads.")
        if before.at_work and before.at_work != name:
            self._voice.count("backend_changes")
            self._voice.event("backend.changed", f"The box reads with {name} now, no longer with {before.at_work}.")

    def none_opened(self, refusals: Iterable[tuple[str, BackendError]]) -> None:
        """No backend runs any model of this box."""
        self._refuse(refusals)
        if self._unbuilt or self._building is not None:
            slots = Slots(self._board.data_dir, self._board.worker.bundle)
            try:
                self._tend_building(slots.open(slots.read().active))
            except BundleError as error:
                _log.error("%s: no engine is built for a model that cannot be opened", error.code)

    def _refuse(self, refusals: Iterable[tuple[str, BackendError]]) -> None:
        state = self._state
        for name, error in refusals:
            if not state.of(name).lost:
                self._voice.event("backend.set-aside", f"{name} cannot read: {error.message}")
            if error.code == NOT_BUILT and self._building is None:
                self._unbuilt = name
            state = escalation.refused(state, name, error.code, error.message, *self._when())
        self._keep(state)

    # --- at work ---

    def failed(self, name: str, error: BackendError) -> Step:
        """A study broke in backend `name`; what to do now."""
        if name not in self._names:
            return "retry"
        self._good = 0
        state, step = escalation.failed(self._state, name, error.code, error.message, *self._when())
        self._keep(state)
        if step == "next":
            self._voice.event("backend.set-aside", f"{name} failed again and again: {error.message}")
        return step

    def died(self, death: Death) -> None:
        """The worker before died while backend `death.backend` was at work."""
        if death.backend not in self._names:
            return
        self._keep(escalation.died(self._state, death.backend, death.code, death.of_backend, *self._when()))
        if self._state.of(death.backend).lost:
            self._voice.event(
                "backend.set-aside", f"{death.backend} took the reader with it again and is left alone now."
            )

    def read_well(self, name: str) -> None:
        """A study went through backend `name`."""
        self._good += 1
        if self._good >= escalation.GOOD_IN_A_ROW and name in self._state.backends:
            self._keep(escalation.forgiven(self._state, name))

    def fault(self) -> tuple[str, str] | None:
        """Name of the backend that the board prefers to the one at work, and what is wrong with it; None if none is."""
        for name in self._state.preferred(self._names):
            if self._state.of(name).lost:
                return name, self._state.of(name).message
        return None

    def faults(self) -> str:
        """What is wrong with the backends that are lost, in the board's order."""
        lost = [(name, self._state.of(name)) for name in self._names if self._state.of(name).lost]
        return " ".join(health.message if len(lost) == 1 else f"{name}: {health.message}" for name, health in lost)

    # --- lost and found ---

    def try_now(self) -> None:
        """A person wants every lost backend to be tried at once."""
        self._keep(escalation.due_now(self._state, self._clock()))

    def look(self, bundle: Bundle) -> bool:
        """Between studies: try a lost backend that the board prefers. True when one was found again: open it."""
        self._tend_building(bundle)
        if self._probe is None:
            built = self._building.name if self._building else ""
            names = [name for name in self._state.preferred(self._names) if name != built]
            due = self._state.due(names, self._clock())
            if due:
                self._probe = self._start_probe(due[0], bundle)
            return False
        try:
            if not self._probe.passed():
                return False
        except BackendError as error:
            self._refuse([(self._probe.name, error)])
            self._probe = None
            return False
        name, self._probe = self._probe.name, None
        self._keep(escalation.found(self._state, name))
        self._voice.event("backend.found-again", f"{name} works again: the box goes back to it.")
        return True

    def _tend_building(self, bundle: Bundle) -> None:
        """Build what a backend waits for, beside the reading; once it is there that backend is tried at once."""
        if self._building is None:
            if self._unbuilt:
                self._building = Building(self._unbuilt, bundle, board_setup(self._board))
                self._voice.event("engine.build-started", f"The engine for {self._unbuilt} is being built.")
                self._unbuilt = ""
        elif self._building.ended():
            name, (well, message) = self._building.name, self._building.result()
            self._building = None
            self._voice.event("engine.built" if well else "engine.not-built", f"{name}: {message}")
            if well:
                self._keep(escalation.due_now(self._state, self._clock()))

    def _start_probe(self, name: str, bundle: Bundle) -> Probe:
        return Probe(name, bundle, board_setup(self._board), self._patience.probe_timeout_s)

    def _when(self) -> tuple[float, escalation.PauseS]:
        return self._clock(), self._patience.probe_pause_s

    def close(self) -> None:
        """End the children that are still at it."""
        if self._building is not None:
            self._building.stop()
            self._building = None
        if self._probe is not None:
            self._probe.kill()
            self._probe = None
