"""A box whose owner never stops: puts stick after stick in, says yes, lets some models prove themselves, goes back.

Runs in a process of its own, through the product's command line; every answer that a person would see is noted outside
the disk, with state.json as it was then. Self-test and comparison only read: most cuts leave them out to be quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import edge.__main__
import edge.care.update.install as steps
from edge.board import Board
from edge.bundle import Bundle
from edge.care.update.install import INSTALLED, PROPOSED
from edge.care.update.selftest import SelfTest
from edge.slot_state import good_case, in_use, parse_state
from edge.slots import PERSON, SLOTS, Slots, SlotState
from edge.store import Store
from edge.trust import Budget
from tools.powercut.forked import Forked
from tools.powercut.sticks import Sticks

ASKS_EVERY, STAYS_ON_TRIAL_EVERY, GOES_BACK_EVERY = 2, 3, 5  # versions
PROBATION_CASES = 3
SAME_AGAIN = "update.not-newer"


@dataclass(frozen=True)
class Note:
    """Something the box said.

    at_s: monotonic; kind: begin, proposed, installed, proven, back, refused, stray, and recovered for what a cut left;
    words: the receipt's name where a stick was installed, else what went wrong.
    """

    at_s: float
    kind: str
    version: int
    words: str
    state_json: str  # what state.json said then

    @property
    def state(self) -> SlotState:
        """The same, parsed."""
        return parse_state(self.state_json.encode())


class Updating:
    """Installs versions from `first` to `last`, one after the other, until the power goes."""

    def __init__(self, board_file: Path, board: Board, sticks: Sticks, first: int, last: int, full: bool) -> None:
        """full: with the real self-test and comparison."""
        self._notes = board_file.with_name("notes.jsonl")
        self._notes.write_text("")
        owner = _Owner(board_file, board, sticks, self._notes, full)
        self._process = Forked(board_file.with_name("update.log"), owner.run, first, last)

    def notes(self) -> list[Note]:
        """All notes so far."""
        return [Note(**json.loads(line)) for line in self._notes.read_text().split("\n")[:-1]]

    def close(self) -> None:
        """Kill it."""
        self._process.close()


class _Owner:
    def __init__(self, board_file: Path, board: Board, sticks: Sticks, notes: Path, full: bool) -> None:
        self._board_file, self._board, self._sticks, self._notes = board_file, board, sticks, notes
        self._slots = Slots(board.data_dir, board.worker.bundle)
        self._boot_id = str(uuid.uuid4())  # the kernel's own does not change when only the disk loses power
        self._full = full

    def run(self, first: int, last: int) -> None:
        """The process."""
        self._handle = os.open(self._notes, os.O_WRONLY | os.O_APPEND)
        self._read(last)  # the worker starts with the box
        for version in range(first, last + 1):
            if not self._full:
                _only_what_writes(changes=version % ASKS_EVERY == 0)
            self._note("begin", version)
            if not self._install(version):
                break
            if version % STAYS_ON_TRIAL_EVERY:
                self._read(version)
                self._note("proven", version)
            if version % GOES_BACK_EVERY == 0 and self._command("rollback")["code"] == PERSON:
                self._note("back", version)

    def _install(self, version: int) -> bool:
        answer = self._command("install", self._sticks.path(version))
        tidied = answer["code"] == INSTALLED  # a yes that comes later leaves tidying up to the next stick
        if answer["code"] == PROPOSED:
            self._note("proposed", version)
            answer = self._command("confirm")
        if answer["code"] not in (INSTALLED, SAME_AGAIN):
            self._note("refused", version, f"{answer['code']}: {answer['detail']}")
            return False
        self._note("installed", version, answer.get("receipt") or "")
        if tidied:
            self._look_for_litter(version)
        return True

    def _look_for_litter(self, version: int) -> None:
        """What cuts before left behind must be gone once an update went through."""
        lying = {path.name for path in (self._board.data_dir / SLOTS).iterdir() if path.is_dir()}
        if extra := lying - in_use(self._slots.read()):
            self._note("stray", version, f"{len(extra)} folders that no model in use needs")

    def _read(self, version: int) -> None:
        """What the worker does with a new model: load it, read studies with it."""
        if self._slots.starting(self._boot_id):
            self._note("stray", version, "the worker takes a power cut for a death of its own")
        self._slots.open_best()
        self._slots.started()
        for _ in range(PROBATION_CASES):
            self._slots.change(lambda state: good_case(state, PROBATION_CASES))

    def _command(self, action: str, *path: Path) -> dict[str, str]:
        said = io.StringIO()
        options = ["--board", str(self._board_file), "--data-dir", str(self._board.data_dir), "--json"]
        with contextlib.redirect_stdout(said):
            edge.__main__.main(["update", action, *map(str, path), *options])
        answer: dict[str, str] = json.loads(said.getvalue() or '{"code": "none", "detail": "the command said nothing"}')
        return answer

    def _note(self, kind: str, version: int, words: str = "") -> None:
        state = json.dumps(dataclasses.asdict(self._slots.read()))
        note = Note(time.monotonic(), kind, version, words, state)
        os.write(self._handle, json.dumps(dataclasses.asdict(note)).encode() + b"\n")


def _only_what_writes(changes: bool) -> None:
    """Leave the self-test and the comparison out; the latter then says that drafts would change, or would not."""

    def build(bundle: Bundle, board: Board) -> tuple[str, ...]:
        return board.worker.backends

    def self_test(bundle: Bundle, board: Board, backends: tuple[str, ...], budget: Budget | None) -> SelfTest:
        return SelfTest(0.1, 1 << 20, 1, backends[0])

    def compare(board: Board, store: Store, bundle: Bundle, cases: int) -> tuple[int, int]:
        return (10, 3 if changes else 0)

    for name, step in (("build", build), ("self_test", self_test), ("compare", compare)):
        setattr(steps, name, step)
