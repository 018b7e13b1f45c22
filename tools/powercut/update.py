"""Power cuts while model updates are checked, copied, taken, tried and taken back.

After each cut the box must open the model that it last said to be in use, or the one that the next step was about to
put there; nothing that only ever rises may have fallen, and no cut may count as a fault of the model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import edge.trust.root
from edge.board import Board, load_board
from edge.care.update.receipt import LAST, device_key, serial_of
from edge.errors import BundleError, RadboxError
from edge.slot_state import DAMAGED, SlotState, in_use
from edge.slots import Slots
from edge.store import open_store
from tools.powercut.disk import Disk
from tools.powercut.figures import Tally
from tools.powercut.processes import Stuck
from tools.powercut.receivers import Unbootable
from tools.powercut.sticks import Sticks
from tools.powercut.updating import GOES_BACK_EVERY, Note, Updating
from tools.powercut.workplace import Workplace

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "models" / "bundles" / "chest"
DISK_BYTES = 1 << 29
CUTS_OF_A_DISK = 20
STICKS_AHEAD = 6  # more than a box installs before the longest wait is over
AFTER_S = (0.0, 1.2)  # from the start of the process to the cut
FULL_EVERY, FULL_AFTER_S = 10, (0.0, 12.0)  # one cut of so many meets an update with its real self-test
SAID = ("proposed", "installed", "proven", "back")  # what a person was told


class _Box:
    """One disk through several cuts, and what was last said about it."""

    def __init__(self, place: Workplace, number: int) -> None:
        folder = place.folder / f"update-{number}"
        self.place = place
        self.disk: Disk = place.disk(f"update-{number}", DISK_BYTES)
        sticks = folder / "sticks"
        sticks.mkdir()
        self.sticks = Sticks(sticks, BUNDLE)
        self.board_file = folder / "board.toml"
        receive = f"[receive]\nmin_free_bytes = {16 * 2**20}\n"
        worker = f"[worker]\nbundle = {json.dumps(str(BUNDLE))}\n"
        data_dir = json.dumps(str(self.disk.mount / "box"))
        storage = f"[storage]\nreserve_bytes = {4 * 2**20}\n"
        self.board_file.write_text(f'name = "powercut"\ndata_dir = {data_dir}\n{receive}{worker}{storage}')
        self.board: Board = load_board(self.board_file)
        self.last: Note | None = None  # the newest that counts, or what the last cut left
        self.version = 1  # of the stick that comes next
        self.disk.plug()

    def slots(self) -> Slots:
        """As the box would open them."""
        return Slots(self.board.data_dir, self.board.worker.bundle)

    def end(self) -> None:
        """Throw the disk away."""
        self.place.clear()
        self.place.discard(self.disk)

    def update_and_cut(self, after_s: float, full: bool, tally: Tally) -> list[Note]:
        """Install stick after stick, cut after `after_s`; all that was noted, and `last` moves on to what counts."""
        self.sticks.keep(self.version, self.version + STICKS_AHEAD)
        process = Updating(self.board_file, self.board, self.sticks, self.version, self.version + STICKS_AHEAD, full)
        time.sleep(after_s)
        cut_s = time.monotonic()
        self.place.cut_power()
        process.close()
        self.place.clear()
        notes = process.notes()
        for note in notes:
            if note.at_s < cut_s:
                self._count(note, tally)
        return notes

    def _count(self, note: Note, tally: Tally) -> None:
        if note.kind in SAID:
            tally.acknowledged += 1
            tally.count(note.kind)
        elif note.kind == "refused":
            tally.refused += 1
            tally.tell(f"stick {note.version} was refused, {note.words}")
        elif note.kind == "stray":
            tally.stray += 1
            tally.tell(note.words)
        self.last = note
        self.version = note.version + 1 if note.kind in ("installed", "proven", "back") else note.version

    def recover(self, notes: list[Note], tally: Tally) -> None:
        """Power on and compare. Raises Unbootable."""
        if not self.disk.check():
            raise Unbootable("the file system needs a person to repair it")
        self.disk.plug()
        slots = self.slots()
        try:
            store = open_store(self.board.data_dir)
            store.close()
            slot, _, passed_over = slots.open_best()
        except RadboxError as error:
            raise Unbootable(f"{error.code}: {error.message}") from error
        state = slots.read()
        damage = [f"{name[:12]} does not open: {error.code}" for name, error in passed_over]
        damage += self._in_use_but_damaged(slots, state)
        for words in damage:
            tally.damaged += 1
            tally.tell(words)
        broken = self._broken_promises(state, slot, notes)
        for words in broken:
            tally.lost += 1
            tally.tell(words)
        # What survived, said or not, is what the next cut may not take away.
        self.last = Note(time.monotonic(), "recovered", self.version, "", json.dumps(dataclasses.asdict(state)))

    def _in_use_but_damaged(self, slots: Slots, state: SlotState) -> Iterator[str]:
        for slot in in_use(state) - {state.active, state.previous}:
            try:
                slots.open(slot)
            except BundleError as error:
                yield f"{slot[:12]}, which waits, does not open: {error.code}"

    def _broken_promises(self, now: SlotState, opened: str, notes: list[Note]) -> Iterator[str]:
        if now.last is not None and now.last.code == DAMAGED:
            yield "state.json is damaged"
        if opened != now.active:
            yield "the box does not run the model that state.json names"
        if now.failed or (now.trial and (now.trial.crashes or now.trial.slow)):
            yield "a power cut counts as a fault of the model"
        if self.last is None:
            return
        said = self.last.state
        fallen = [
            name for name in ("root_version", "snapshot_version", "epoch") if getattr(now, name) < getattr(said, name)
        ]
        fallen += [name for name, version in said.versions.items() if now.versions.get(name, 0) < version]
        if fallen:
            yield f"went back: {', '.join(fallen)}"
        if not set(said.revoked) <= set(now.revoked):
            yield "a revocation was forgotten"
        if now.active not in self._lawful(notes):
            yield f"stick {self.last.version} ({self.last.kind}) was the last thing said, and another model runs"
        waits = now.proposal.slot if now.proposal else ""
        if self.last.kind == "proposed" and self.sticks.slot(self.last.version) not in (waits, now.active):
            yield f"the model of stick {self.last.version} waited for a yes, and is gone"
        if self.last.kind == "proven" and now.active == said.active and now.trial is not None:
            yield "a model that had proven itself is on trial again"
        yield from self._receipt_faults()

    def _lawful(self, notes: list[Note]) -> set[str]:
        """Models that may run: the last one said, and whatever a step that had begun by the cut may have put there."""
        assert self.last is not None
        later = [note for note in notes if note.at_s >= self.last.at_s]
        lawful = {self.last.state.active} | {note.state.active for note in later}
        lawful |= {self.sticks.slot(note.version) for note in later if note.kind in ("begin", "proposed")}
        newest = later[-1] if later else self.last
        if newest.kind in ("installed", "proven") and newest.version % GOES_BACK_EVERY == 0:
            lawful.add(newest.state.previous)
        return lawful

    def _receipt_faults(self) -> Iterator[str]:
        assert self.last is not None
        if self.last.kind != "installed" or not self.last.words:
            return
        serial, _, number = self.last.words.removesuffix(".json").rpartition("-")
        if serial_of(device_key(self.board.data_dir)) != serial:
            yield "the box has another serial number than its receipts"
        kept = json.loads((self.board.data_dir / LAST).read_bytes())["receipt"]["number"]
        if kept < int(number):
            yield "the numbers of receipts start again"


@contextlib.contextmanager
def _trusting(sticks: Sticks) -> Iterator[None]:
    """This process and its forks are boxes that were built with the sticks' first root."""
    built_with = edge.trust.root.FACTORY_ROOT
    edge.trust.root.FACTORY_ROOT = sticks.first_root
    try:
        yield
    finally:
        edge.trust.root.FACTORY_ROOT = built_with


def cut_while_updating(place: Workplace, seed: int, cuts: int, progress: Callable[[Tally], None]) -> Tally:
    """Cut the power `cuts` times while updates are installed. Raises Stuck where nothing is ever installed."""
    tally = Tally("radbox update")
    moments = random.Random(f"{seed} update")
    start_s = time.monotonic()
    while tally.cuts < cuts:
        box = _Box(place, tally.cuts + 1)
        with _trusting(box.sticks):
            for _ in range(min(CUTS_OF_A_DISK, cuts - tally.cuts)):
                tally.cuts += 1
                full = tally.cuts % FULL_EVERY == 0
                tally.count("cuts with the real self-test", int(full))
                try:
                    notes = box.update_and_cut(moments.uniform(*(FULL_AFTER_S if full else AFTER_S)), full, tally)
                    box.recover(notes, tally)
                except Unbootable as error:
                    tally.unbootable += 1
                    tally.tell(str(error))
                    break
                tally.seconds = time.monotonic() - start_s
                progress(tally)
            box.end()
    if not tally.counts.get("installed"):
        raise Stuck(f"expected updates to be installed, got none: {tally.examples}")
    return tally
