"""Crash scenario of model updates: installed, on probation, taken, replaced, taken back; with and without kills."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from edge.care.update import install as steps
from edge.care.update.receipt import KEY
from edge.care.update.selftest import SelfTest
from edge.care.update.stage import STAGE
from edge.care.update.words import OUTCOMES
from edge.errors import BundleError
from edge.slots import DAMAGED, FACTORY, SLOTS, Slots, SlotState, good_case
from edge.store import open_store
from edge.trust import root as trust_root
from tests.crash_keeping import scratch
from tests.update_box import ID, sim_board
from tests.update_stick import Organisation, make_organisation, signed_bundle
from tools.crash.box import database_faults
from tools.crash.trace import Kind, Mark, Recording, mark

TESTED = SelfTest(0.1, 1 << 20, 20, "tflite")  # the self-test writes nothing; its own tests run it
CASES = 3
PLACE = "tests.crash_update:update_child"


@cache
def sticks() -> tuple[Path, ...]:
    """Two sticks of one maker; the second comes with a newer root and revokes nothing."""
    folder = scratch() / "update"
    folder.mkdir()
    organisation: Organisation = make_organisation(folder)
    assert organisation.root_file.exists()
    made = []
    for version in (1, 2):
        bundle = signed_bundle(folder / f"bundle-{version}", f"0.{version}.0")
        organisation.stick(folder / f"stick-{version}", bundle, version, version, id=ID)
        made.append(folder / f"stick-{version}")
        if version == 1:
            organisation.rotate({}, [], organisation.root_keys[:2])
    return tuple(made)


def _patched(folder: Path) -> Any:
    """The maker's root, and no model that is run."""
    return patch.multiple(
        steps,
        build=lambda bundle, board: ("tflite",),
        self_test=lambda bundle, board, backends, budget: TESTED,
        compare=lambda board, store, bundle, limit: (0, 0),
    ), patch.object(trust_root, "FACTORY_ROOT", folder / "trusted_root.json")


def update_child(root: Path, folder: str) -> None:
    """Recorded: two updates, the first through its probation, the second taken back by a person."""
    board = sim_board(root)
    slots = Slots(root, board.worker.bundle)
    real = Slots.change

    def change(self: Slots, decide: Any) -> SlotState:
        state = real(self, decide)
        _mark_state(state)
        return state

    tested, rooted = _patched(Path(folder))
    with tested, rooted, patch.object(Slots, "change", change), closing(open_store(root)) as store:
        for number, stick in enumerate(("stick-1", "stick-2")):
            if slots.read().snapshot_version > number + 1:
                continue
            result = steps.install(board, store, Path(folder, stick))
            assert result.outcome.code in ("update.installed", "update.not-newer"), result
            if result.receipt is not None:
                mark("receipt", key=hashlib.sha256((root / KEY).read_bytes()).hexdigest())
            while slots.read().trial and number == 0:
                slots.change(lambda state: good_case(state, CASES))
        if slots.read().active != slots.read().previous:
            assert steps.roll_back_by_person(board, store).outcome.code.startswith("update.roll")


def _mark_state(state: SlotState) -> None:
    mark(
        "state",
        active=state.active,
        root_version=state.root_version,
        snapshot_version=state.snapshot_version,
        epoch=state.epoch,
        versions=dict(state.versions),
        failed=list(state.failed),
    )


def record_update(recording: Recording) -> None:
    """Undisturbed."""
    recording.function(PLACE, str(sticks()[0].parent))


def record_update_killed(recording: Recording) -> None:
    """In processes of which each is killed right after it took a name that only a sync would make durable."""
    folder = str(sticks()[0].parent)
    ends = [(Kind.MKDIR, 1), (Kind.MKDIR, 2), (Kind.RENAME, 1)]  # slots/, the staging folder, the first state.json
    ends += [(Kind.RENAME, 5), (Kind.RENAME, 2), (Kind.RENAME, 1)]  # the slot, the box's key, its receipt
    ends += [(Kind.SYNC, 12), (Kind.RENAME, 7), (Kind.RENAME, 3)]
    for kind, count in ends:
        recording.killed(PLACE, kind, count, folder)
    recording.function(PLACE, folder)


@dataclass
class Model:
    """What the box runs after a crash, and what it remembers."""

    state: SlotState
    key: str
    wrong: list[str] = field(default_factory=list)


def update_recover(root: Path) -> Model:
    """Whatever state.json names is there and verifies; then the second stick is put in once more and is accepted."""
    board = sim_board(root)
    slots = Slots(root, board.worker.bundle)
    tested, rooted = _patched(sticks()[0].parent)
    with tested, rooted, closing(open_store(root)) as store:
        state = slots.read()
        key = hashlib.sha256((root / KEY).read_bytes()).hexdigest() if (root / KEY).exists() else ""
        found = Model(state, key, _state_faults(slots, state) + database_faults(root))
        result = steps.install(board, store, sticks()[1])
        if result.outcome.code not in ("update.installed", "update.not-newer"):
            found.wrong.append(f"the stick put in again: {result.outcome.code} {result.detail}")
        found.wrong += _state_faults(slots, slots.read())
        if result.outcome.code == "update.installed" and slots.read().active == FACTORY:
            found.wrong.append("an installed model is not in use")
        left = [path.name for path in (root / SLOTS).iterdir() if path.name.startswith(STAGE)]
        found.wrong += ["a staging folder was left behind" for _ in left]
    return found


def _state_faults(slots: Slots, state: SlotState) -> list[str]:
    wrong = []
    if state.last and state.last.code == DAMAGED:
        wrong.append("state.json is damaged")
    for name, slot in (("active", state.active), ("previous", state.previous)):
        try:
            if slot != FACTORY:
                slots.open(slot)
        except BundleError as error:
            wrong.append(f"the {name} model does not verify: {error.code}")
    if state.last and state.last.code not in OUTCOMES:
        wrong.append("state.json tells of an outcome that nobody knows")
    return wrong


def update_check(found: Model, marks: Sequence[Mark]) -> list[str]:
    """Nothing that was counted is forgotten, and the box's key stays."""
    wrong = list(found.wrong)
    states = [one.facts for one in marks if one.kind == "state"]
    if states:
        last, now = states[-1], found.state
        for name in ("root_version", "snapshot_version", "epoch"):
            if getattr(now, name) < last[name]:
                wrong.append(f"{name} went back")
        wrong += [f"version of {id} went back" for id, number in last["versions"].items() if now.versions[id] < number]
        if set(last["failed"]) - set(now.failed):
            wrong.append("a model that failed is forgotten")
    keys = {one.facts["key"] for one in marks if one.kind == "receipt"}
    return wrong + ["the key of the box changed after it had signed" for key in keys if key != found.key]
